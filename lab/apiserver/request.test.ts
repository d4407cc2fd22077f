// Paths, options and Accept headers, without a server.
import test from "ava";
import { negotiate, parseOptions, parseTarget } from "./request.ts";
import { RESOURCES } from "./resources.ts";
import type { Encoding } from "./wire.ts";

const [services] = RESOURCES;

const TARGETS: readonly (readonly [string, string | undefined])[] = [
  ["/api/v1/services", "list services  "],
  ["/api/v1/services?watch=1", "watch services  "],
  ["/api/v1/services?watch=true", "watch services  "],
  ["/api/v1/services?watch=0", "list services  "],
  ["/api/v1/namespaces/shop/services", "list services shop "],
  ["/api/v1/namespaces/shop/services/web", "get services shop web"],
  ["/api/v1/nodes/node-a", "get nodes  node-a"],
  ["/apis/discovery.k8s.io/v1/endpointslices?watch=1", "watch endpointslices  "],
  ["/apis/networking.k8s.io/v1/servicecidrs", "list servicecidrs  "],
  ["/api/v1/services/web", undefined],
  ["/api/v1/namespaces/shop/nodes", undefined],
  ["/api/v1/pods", undefined],
  ["/api/v1/nodes/node-a/status", undefined],
  ["/apis/discovery.k8s.io/v9/endpointslices", undefined],
];

for (const [path, expected] of TARGETS) {
  test(`the path "${path}" leads to ${expected ?? "nothing"}`, (t) => {
    const target = parseTarget(new URL(path, "https://server"));
    const { verb, resource, namespace, name } = target ?? {};
    t.is(target && `${verb} ${resource!.plural} ${namespace} ${name}`, expected);
  });
}

const PROTOBUF = "application/vnd.kubernetes.protobuf";
const ACCEPTS: readonly (readonly [string | undefined, Encoding | undefined])[] = [
  [undefined, "json"],
  ["*/*", "json"],
  ["application/*", "json"],
  ["application/json", "json"],
  [PROTOBUF, "protobuf"],
  [`${PROTOBUF};stream=watch`, "protobuf"],
  [`${PROTOBUF},application/json`, "protobuf"],
  [`application/json,${PROTOBUF}`, "json"],
  [`application/json;q=0.5,${PROTOBUF};q=0.9`, "protobuf"],
  [`application/json;q=0.5, ${PROTOBUF};q=0`, "json"],
  [`application/json;as=Table;v=v1;g=meta.k8s.io,${PROTOBUF}`, "protobuf"],
  [`${PROTOBUF};stream=other,application/json`, "json"],
  ["text/html,application/xhtml+xml,*/*;q=0.8", "json"],
  ["application/yaml", undefined],
  [`${PROTOBUF};q=0`, undefined],
];

for (const [accept, expected] of ACCEPTS) {
  test(`"Accept: ${accept}" is answered in ${expected ?? "nothing"}`, (t) => {
    t.is(negotiate(accept, ["json", "protobuf"]), expected);
  });
}

test("a server without protobuf answers in what else is accepted", (t) => {
  t.is(negotiate(`${PROTOBUF},application/json`, ["json"]), "json");
  t.is(negotiate(PROTOBUF, ["json"]), undefined);
});

/** Query, whether the server streams lists, and what of the error's message matters. */
const REFUSED: readonly (readonly ["list" | "watch", string, boolean, number, RegExp])[] = [
  ["list", "resourceVersionMatch=Exact", true, 422, /forbidden unless resourceVersion is provided/],
  ["list", "resourceVersionMatch=Exact&resourceVersion=0", true, 422, /"exact" is forbidden/],
  ["list", "resourceVersionMatch=Exact&resourceVersion=1&continue=x", true, 422, /continue/],
  ["list", "resourceVersionMatch=Odd&resourceVersion=1", true, 422, /Unsupported value: "Odd"/],
  ["list", "sendInitialEvents=true", true, 422, /forbidden for list/],
  ["watch", "sendInitialEvents=true", true, 422, /requires setting resourceVersionMatch/],
  ["watch", "resourceVersionMatch=NotOlderThan", true, 422, /unless sendInitialEvents is provided/],
  [
    "watch",
    "sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
    false,
    422,
    /^ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: .* feature gate/,
  ],
  ["list", "limit=many", true, 400, /parsing "many": invalid syntax/],
  ["list", "resourceVersion=-1", true, 400, /parsing "-1": invalid syntax/],
];

for (const [verb, query, watchList, code, message] of REFUSED) {
  test(`a ${verb} with "${query}" is refused with ${code}`, (t) => {
    const options = { resource: services!, verb, watchList };
    const error = t.throws(() => parseOptions(new URLSearchParams(query), options), { message });
    t.like(error, { status: { code } });
  });
}
