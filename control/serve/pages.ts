// What is served where metrics are (§18.1): /metrics and a few pages that kube-proxy has too. Knows
// no server.
import { type Reply, textReply } from "./http.ts";

const METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8";
const HINT = "Not found: here are /metrics, /healthz, /proxyMode and /configz\n";

export interface Pages {
  scrape: () => Promise<string>;
  /** The configuration in force, as JSON. */
  configz: () => string;
}

/** Answers for a path. */
export async function answerPage(path: string, { scrape, configz }: Pages): Promise<Reply> {
  if (path === "/metrics")
    return { status: 200, headers: { "Content-Type": METRICS_TYPE }, body: await scrape() };
  if (path === "/configz")
    return { status: 200, headers: { "Content-Type": "application/json" }, body: configz() };
  if (path === "/healthz") return textReply(200, "ok");
  if (path === "/proxyMode") return textReply(200, "bpfsvc");
  return textReply(404, HINT);
}
