// endpoint-selection of the vectors against the model: which endpoints a service port may use. One
// slice for each endpoint, and all endpoints of one port in one slice, end alike.
import test, { type ExecutionContext } from "ava";
import { findEndpoints } from "../../control/model/endpoint.ts";
import type { SliceObject } from "../../control/model/objects.ts";
import { readObject } from "../../control/model/read.ts";
import { endpointPolicy, servicePorts } from "../../control/model/service.ts";
import { categorizeEndpoints } from "../../control/model/topology.ts";
import { whyNoGate } from "./exceptions.ts";
import { readVectors } from "./vectors.ts";

interface GivenEndpoint {
  ip: string;
  port: number;
  nodeName?: string;
  conditions?: object;
  hints?: { forZones?: string[]; forNodes?: string[] };
}

interface SelectionCase {
  id: string;
  title: string;
  node: { name: string; labels?: Record<string, string> };
  service: {
    type: string;
    internalTrafficPolicy?: string;
    externalTrafficPolicy?: string;
    nodePort: number;
    loadBalancerIPs: string[];
    externalIPs: string[];
  };
  featureGates?: Record<string, boolean>;
  endpoints: GivenEndpoint[];
  expect: {
    cluster: string[] | null;
    local: string[] | null;
    reachable: string[];
    hasAnyEndpoints: boolean;
  };
}

const metadata = { namespace: "shop", name: "web" };

function makeService({ service, endpoints }: SelectionCase): unknown {
  const isIPv6 = endpoints[0]?.ip.includes(":") ?? false;
  return {
    kind: "Service",
    metadata,
    spec: {
      ...service,
      clusterIP: isIPv6 ? "fd00:10:96::1" : "10.96.0.1",
      ports: [{ port: 80, nodePort: service.nodePort }],
    },
    status: { loadBalancer: { ingress: service.loadBalancerIPs.map((ip) => ({ ip })) } },
  };
}

function makeSlice(endpoints: readonly GivenEndpoint[], index: number): unknown {
  const wrap = (names?: string[]) => names?.map((name) => ({ name }));
  const labels = { "kubernetes.io/service-name": "web" };
  return {
    kind: "EndpointSlice",
    metadata: { ...metadata, name: `web-${index}`, labels },
    addressType: endpoints[0]!.ip.includes(":") ? "IPv6" : "IPv4",
    ports: [{ name: "", port: endpoints[0]!.port }],
    endpoints: endpoints.map(({ ip, nodeName, conditions, hints = {} }) => ({
      addresses: [ip],
      nodeName,
      conditions,
      hints: { forZones: wrap(hints.forZones), forNodes: wrap(hints.forNodes) },
    })),
  };
}

function read<K extends string>(value: unknown, kind: K) {
  const { object, problems } = readObject(value);
  if (object?.kind !== kind || problems.length > 0) throw new Error(JSON.stringify(problems));
  return object as Extract<typeof object, { kind: K }>;
}

/** The endpoints of each port number together: what can be one slice. */
function byPort(endpoints: readonly GivenEndpoint[]): GivenEndpoint[][] {
  const groups = new Map<string, GivenEndpoint[]>();
  for (const endpoint of endpoints) {
    const key = `${endpoint.port} ${endpoint.ip.includes(":")}`;
    groups.set(key, [...(groups.get(key) ?? []), endpoint]);
  }
  return [...groups.values()];
}

function show(endpoints: readonly { address: string; port: number }[] | undefined) {
  const texts = endpoints?.map(({ address, port }) =>
    address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`,
  );
  return texts?.sort() ?? null;
}

function check(t: ExecutionContext, given: SelectionCase, slices: SliceObject[]): void {
  const service = read(makeService(given), "Service");
  const [servicePort] = servicePorts(service);
  const query = { name: "", protocol: "TCP", family: servicePort!.family } as const;
  const zone = given.node.labels?.["topology.kubernetes.io/zone"] ?? "";
  const lists = categorizeEndpoints(findEndpoints(slices, query), {
    node: { name: given.node.name, zone },
    policy: endpointPolicy(servicePort!),
  });
  const { cluster, local, reachable, hasAnyEndpoints } = given.expect;
  t.deepEqual(show(lists.cluster), cluster && [...cluster].sort());
  t.deepEqual(show(lists.local), local && [...local].sort());
  t.deepEqual(show(lists.reachable), [...reachable].sort());
  t.is(lists.hasEndpoints, hasAnyEndpoints);
}

for (const given of readVectors<SelectionCase>("endpoint-selection.json")) {
  const reason = whyNoGate(given.featureGates ?? {});
  test(`${given.id}: ${given.title}`, (t) => {
    if (reason !== undefined) {
      t.log(`meant to differ: ${reason}`);
      t.pass();
      return;
    }
    const one = given.endpoints.map((endpoint) => [endpoint]);
    for (const groups of [one, byPort(given.endpoints)]) {
      check(
        t,
        given,
        groups.map((group, index) => read(makeSlice(group, index), "EndpointSlice")),
      );
    }
  });
}
