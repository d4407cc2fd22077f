// Endpoint selection against the conformance cases of the folder BPFSVC_VECTORS, and the cases
// that have none.
// biome-ignore lint/style/noRestrictedImports: the conformance cases are files.
import { existsSync, readFileSync } from "node:fs";
// biome-ignore lint/style/noRestrictedImports: the conformance cases are files.
import path from "node:path";
import test from "ava";
import { findEndpoints } from "./endpoint.ts";
import { readObject } from "./read.ts";
import { hasExternalFrontend, isExternalLocal, isInternalLocal, servicePorts } from "./service.ts";
import { categorizeEndpoints } from "./topology.ts";

interface Case {
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
  endpoints: {
    ip: string;
    port: number;
    nodeName?: string;
    conditions?: object;
    hints?: { forZones?: string[]; forNodes?: string[] };
  }[];
  expect: {
    cluster: string[] | null;
    local: string[] | null;
    reachable: string[];
    hasAnyEndpoints: boolean;
  };
}

const metadata = { namespace: "shop", name: "web" };

function makeService({ service, endpoints }: Case): unknown {
  const v6 = endpoints[0]?.ip.includes(":") ?? false;
  return {
    kind: "Service",
    metadata,
    spec: {
      ...service,
      clusterIP: v6 ? "fd00:10:96::1" : "10.96.0.1",
      ports: [{ port: 80, nodePort: service.nodePort }],
    },
    status: { loadBalancer: { ingress: service.loadBalancerIPs.map((ip) => ({ ip })) } },
  };
}

function makeSlice(endpoint: Case["endpoints"][number], index: number): unknown {
  const wrap = (names?: string[]) => names?.map((name) => ({ name }));
  const { forZones, forNodes } = endpoint.hints ?? {};
  const labels = { "kubernetes.io/service-name": "web" };
  return {
    kind: "EndpointSlice",
    metadata: { ...metadata, name: `web-${index}`, labels },
    addressType: endpoint.ip.includes(":") ? "IPv6" : "IPv4",
    ports: [{ name: "", port: endpoint.port }],
    endpoints: [
      {
        addresses: [endpoint.ip],
        nodeName: endpoint.nodeName,
        conditions: endpoint.conditions,
        hints: { forZones: wrap(forZones), forNodes: wrap(forNodes) },
      },
    ],
  };
}

function read<K extends string>(value: unknown, kind: K) {
  const { object, problems } = readObject(value);
  if (object?.kind !== kind || problems.length > 0) throw new Error(JSON.stringify(problems));
  return object as Extract<typeof object, { kind: K }>;
}

function show(endpoints: readonly { address: string; port: number }[] | undefined) {
  return endpoints?.map(({ address, port }) =>
    address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`,
  );
}

/** True for the one gate that is off nowhere since 1.35 (§5.9), so that we never read it. */
function needsOldGate({ featureGates }: Case): boolean {
  return featureGates?.PreferSameTrafficDistribution === false;
}

const root = path.resolve(import.meta.dirname, "../../..");
const folder = path.resolve(root, process.env.BPFSVC_VECTORS ?? "../shared/vectors");
const file = path.join(folder, "endpoint-selection.json");

if (existsSync(file)) {
  const cases: Case[] = JSON.parse(readFileSync(file, "utf8")).cases;
  for (const given of cases) {
    test(`${given.id}: ${given.title}`, (t) => {
      if (needsOldGate(given)) {
        t.log("left out: the feature gate is locked on since Kubernetes 1.35 (§5.9)");
        t.pass();
        return;
      }
      const service = read(makeService(given), "Service");
      const slices = given.endpoints.map((each, index) =>
        read(makeSlice(each, index), "EndpointSlice"),
      );
      const [servicePort] = servicePorts(service);
      const query = { name: "", protocol: "TCP", family: servicePort!.family } as const;
      const zone = given.node.labels?.["topology.kubernetes.io/zone"] ?? "";
      const lists = categorizeEndpoints(findEndpoints(slices, query), {
        node: { name: given.node.name, zone },
        policy: {
          internalLocal: isInternalLocal(service),
          externalLocal: isExternalLocal(service),
          hasExternalFrontend: hasExternalFrontend(servicePort!),
        },
      });
      const sorted = (list: readonly string[] | null | undefined) => list && [...list].sort();
      t.deepEqual(sorted(show(lists.cluster)) ?? null, sorted(given.expect.cluster));
      t.deepEqual(sorted(show(lists.local)) ?? null, sorted(given.expect.local));
      t.deepEqual(sorted(show(lists.reachable)), sorted(given.expect.reachable));
      t.is(lists.hasEndpoints, given.expect.hasAnyEndpoints);
    });
  }
} else {
  test("the conformance cases for endpoint selection are there", (t) => {
    t.log(`LEFT OUT: "${file}" does not exist; set BPFSVC_VECTORS to the folder of the cases`);
    t.falsy(process.env.CI, "on CI nothing may be left out");
  });
}

test("an endpoint without a node is not local, even to a node without a name", (t) => {
  const endpoint = {
    address: "10.244.1.1",
    port: 80,
    nodeName: "",
    ready: true,
    serving: true,
    terminating: false,
    zoneHints: [],
    nodeHints: [],
  };
  const lists = categorizeEndpoints([endpoint], {
    node: { name: "", zone: "" },
    policy: { internalLocal: true, externalLocal: false, hasExternalFrontend: false },
  });
  t.deepEqual(lists.local, []);
  t.is(lists.cluster, undefined);
  t.true(lists.hasEndpoints);
});
