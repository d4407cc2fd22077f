// A process that connects to Services at a steady pace and says which connections failed, when and
// how. Started by loader.ts in a pod; ends when its parent does. Its sockets block: what counts is
// the exact errno of connect(), and the peer that the kernel has.
import * as sockets from "../../lab/sockets.ts";
import { judge, OracleReader, readEndpoint } from "./oracle.ts";

const TICK_MILLISECONDS = 5;
const FAILURES_TOLD = 20;
const TIMEOUT_SECONDS = 5;
/** What the lab answers where an address was not translated. */
const UNTRANSLATED = "EACCES";

/** One frontend to connect to, and who may answer: given endpoints, or what an oracle says. */
export interface Question {
  address: string;
  port: number;
  /** As "address|port". */
  endpoints?: string[];
  /** The oracle's number of the frontend. */
  target?: number;
}

export interface LoadOrders {
  questions: Question[];
  perSecond: number;
  /** Where the oracle's maps are pinned. */
  oracle?: string;
}

export interface LoadReport {
  connects: number;
  seconds: number;
  /** Connections that rightly were not translated. */
  absent: number;
  failed: number;
  /** The first of them. */
  failures: { atSeconds: number; frontend: string; error: string }[];
}

/** The peer of a new connection, or the errno. The socket is closed again. */
function connect({ address, port }: Question): sockets.Address | string {
  const family = address.includes(":") ? 6 : 4;
  const fd = sockets.open({ protocol: "TCP", family, timeoutSeconds: TIMEOUT_SECONDS });
  try {
    sockets.connect(fd, { address, port });
    return sockets.peerAddress(fd);
  } catch (error) {
    return (error as sockets.SocketError).code;
  } finally {
    sockets.close(fd);
  }
}

/** What went wrong, if anything did, and whether there was no such frontend, rightly. */
type Result = { error?: string; isAbsent?: boolean };

function tryGiven(question: Question): Result {
  const peer = connect(question);
  if (typeof peer === "string") return { error: peer };
  const name = `${peer.address}|${peer.port}`;
  return question.endpoints?.includes(name) ? {} : { error: `reached ${name}` };
}

function tryOracle(question: Question, oracle: OracleReader): Result {
  const target = question.target ?? 0;
  const before = oracle.expectation(target);
  const peer = connect(question);
  const after = oracle.expectation(target);
  if (typeof peer === "string" && peer !== UNTRANSLATED) return { error: peer };
  const found = typeof peer === "string" ? undefined : readEndpoint(peer.address);
  if (typeof peer !== "string" && found === undefined) return { error: `reached ${peer.address}` };
  const error = judge(found, { before, after });
  return { ...(error === undefined ? {} : { error }), isAbsent: found === undefined };
}

function run({ questions, perSecond, oracle: folder }: LoadOrders): () => LoadReport {
  const oracle = folder === undefined ? undefined : new OracleReader(folder);
  const report: LoadReport = { connects: 0, seconds: 0, absent: 0, failed: 0, failures: [] };
  const start = performance.now();
  const elapsed = () => (performance.now() - start) / 1000;
  const timer = setInterval(() => {
    const due = elapsed() * perSecond - report.connects;
    for (let count = 0; count < due; count++) {
      const question = questions[Math.floor(Math.random() * questions.length)]!;
      const { error, isAbsent } = oracle ? tryOracle(question, oracle) : tryGiven(question);
      report.connects++;
      if (isAbsent) report.absent++;
      if (error === undefined) continue;
      const frontend = `${question.address}|${question.port}`;
      if (report.failed++ < FAILURES_TOLD)
        report.failures.push({ atSeconds: elapsed(), frontend, error });
    }
  }, TICK_MILLISECONDS);
  return () => {
    clearInterval(timer);
    return { ...report, seconds: elapsed() };
  };
}

process.once("disconnect", () => process.exit());
process.once("message", (orders: LoadOrders) => {
  const stop = run(orders);
  process.once("message", () => process.send?.(stop()));
});
