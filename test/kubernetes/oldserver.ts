// An API server of an older kind beside the lab's: lists in JSON and nothing else, and what its
// watches say is a test's business. Knows the Services of one proxy; all else is empty.
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { ExecutionContext } from "ava";
import { Authority } from "../../lab/apiserver/certificates.ts";
import { makeKubeconfig } from "../../lab/apiserver/kubeconfig.ts";
import type { ApiObject } from "../../lab/apiserver/objects.ts";

export interface OldServer {
  url: string;
  kubeconfig: string;
  /** What was accepted, request by request. */
  accepts: string[];
  /** Watches of Services that were answered. */
  watches: number;
}

export interface OldServerOptions {
  services: () => readonly ApiObject[];
  /** Goes on with a watch of Services, whose head is sent; they stay open if not given. */
  onWatch?: (response: ServerResponse) => unknown;
  isPlain?: boolean;
}

/** Starts a server that ends with the test. */
export async function startOldServer(
  t: ExecutionContext,
  { services, onWatch = () => {}, isPlain = false }: OldServerOptions,
): Promise<OldServer> {
  const authority = new Authority();
  const { key, certificate } = authority.server(["127.0.0.1"]);
  const told: OldServer = { url: "", kubeconfig: "", accepts: [], watches: 0 };
  let version = 7;
  const handle = (request: IncomingMessage, response: ServerResponse) => {
    const { searchParams, pathname } = new URL(request.url!, "https://127.0.0.1");
    const accept = request.headers.accept ?? "";
    told.accepts.push(accept);
    const answer = (code: number, value: object) => {
      response.writeHead(code, { "content-type": "application/json" });
      response.end(JSON.stringify(value));
    };
    if (accept.includes("protobuf")) return answer(406, { kind: "Status", code: 406 });
    if (searchParams.has("sendInitialEvents")) return answer(422, { kind: "Status", code: 422 });
    const isOurs = searchParams.get("labelSelector")?.startsWith("!service.k") === true;
    const isServices = isOurs && pathname.endsWith("/services");
    if (searchParams.has("watch")) {
      response.writeHead(200, { "content-type": "application/json" });
      response.flushHeaders();
      if (!isServices) return;
      told.watches++;
      return onWatch(response);
    }
    const items = isServices ? services() : null;
    const metadata = { resourceVersion: String(version++) };
    return answer(200, { kind: kindOfList(pathname), metadata, items });
  };
  const server = isPlain
    ? createServer(handle)
    : createTlsServer({ key, cert: certificate }, handle);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  told.url = `${isPlain ? "http" : "https"}://127.0.0.1:${port}`;
  const proof = { token: "any" };
  const { url } = told;
  told.kubeconfig = makeKubeconfig({ url, authority: authority.certificate, user: "any", proof });
  return told;
}

function kindOfList(pathname: string): string {
  if (pathname.endsWith("/services")) return "ServiceList";
  if (pathname.endsWith("/endpointslices")) return "EndpointSliceList";
  return pathname.endsWith("/nodes") ? "NodeList" : "ServiceCIDRList";
}
