// Runs a command that writes TAP, with a live report and one line at the end that counts, as for
// AVA: node scripts/report.mjs COMMAND [ARGUMENT...]
import { reportTap } from "./tap.mjs";

await reportTap(process.argv.slice(2));
