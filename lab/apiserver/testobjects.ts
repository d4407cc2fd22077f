// Small objects and a server for the tests of the API server, so that each test names only what it
// is about. Knows nothing of what is tested.
import type { ExecutionContext } from "ava";
import type { ApiObject } from "./objects.ts";
import { type ApiServer, type ApiServerOptions, startApiServer } from "./server.ts";

/** A Service of a namespace ("shop" if not given). */
export function makeService(
  name: string,
  options: { namespace?: string; labels?: Record<string, string>; spec?: object } = {},
): ApiObject {
  const { namespace = "shop", labels, spec } = options;
  const metadata = { name, namespace, ...(labels && { labels }) };
  return { apiVersion: "v1", kind: "Service", metadata, spec: { clusterIP: "10.96.0.1", ...spec } };
}

/** The identity of such a Service. */
export function serviceNamed(name: string, namespace = "shop") {
  return { kind: "Service", namespace, name };
}

/** A server that is closed after the test. */
export async function serve(
  t: ExecutionContext,
  options: ApiServerOptions = {},
): Promise<ApiServer> {
  const server = await startApiServer(options);
  t.teardown(() => server.close());
  return server;
}
