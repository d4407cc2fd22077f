// docs/semantics.md against the house: every rule has its row, and what a row names as proof is
// there.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import test from "ava";

const ROOT = path.resolve(import.meta.dirname, "../../..");
/** How many rules each section of the reference has. */
const RULES = [8, 4, 9, 11, 13, 5, 9, 5, 6, 9, 7, 8, 5, 6, 1, 4, 8, 2];

const page = readFileSync(path.join(ROOT, "docs/semantics.md"), "utf8");
const tests = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], {
  cwd: ROOT,
  encoding: "utf8",
})
  .split("\n")
  .filter((file) => file.endsWith(".test.ts") && !file.startsWith("test/tidy/"));
const source = tests.map((file) => readFileSync(path.join(ROOT, file), "utf8")).join("\n");

/** "4.1–4.3" and "12.2, 12.7" as single rules. */
function rulesOf(cell: string): string[] {
  return cell.split(/,\s*/).flatMap((part) => {
    const [from = "", to = from] = part.trim().split("–");
    const [section = "", first = ""] = from.split(".");
    const last = Number(to.split(".")[1] ?? first);
    const count = Math.max(0, last - Number(first) + 1);
    return Array.from({ length: count }, (_, index) => `${section}.${Number(first) + index}`);
  });
}

test("every rule of the reference has its row", (t) => {
  const rows = [...page.matchAll(/^\| ([\d., –]+) \|/gm)].flatMap(([, cell]) => rulesOf(cell!));
  for (const [index, count] of RULES.entries())
    for (let rule = 1; rule <= count; rule++)
      t.true(rows.includes(`${index + 1}.${rule}`), `§${index + 1}.${rule} has no row`);
});

test("the tests that rows name are there", (t) => {
  for (const [, title] of page.matchAll(/"([^"]+?)…?"/g))
    t.true(source.includes(title!), `no test is called "${title}"`);
  for (const [, name] of page.matchAll(/`(scenarios\/\w+)`/g))
    t.true(existsSync(path.join(ROOT, `test/${name}.test.ts`)), name);
});
