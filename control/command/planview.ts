// A plan as text for people, to be pasted into a bug report: each service port as a block with its
// frontends and endpoints, then what is not served. Knows how things look, not why they are so.
import type {
  EndpointPlan,
  ListPlan,
  Membership,
  ServicePlan,
  Unserved,
} from "../model/explain.ts";
import { objectName } from "../model/objects.ts";
import type { ListName } from "../model/topology.ts";
import { formatEndpoint, formatSeconds, formatTable } from "../print.ts";
import { KIND_NOTES, serviceTitle } from "./view.ts";

/** All that a plan says; this is also its JSON form, documented in docs/operating.md. */
export interface Plan {
  node: {
    name: string;
    /** Whether a Node object names its addresses; else they are this machine's own. */
    isKnown: boolean;
    /** Empty if unknown. */
    zone: string;
    primaryAddresses: readonly string[];
    nodePortAddresses: readonly string[];
    /** Whether pods are told from others, and by what or why not. */
    pods: { told: boolean; by: string };
  };
  serviceRanges: readonly string[];
  services: readonly ServicePlan[];
  unserved: readonly Unserved[];
  unusedSlices: readonly Unserved[];
  problems: readonly string[];
}

function listOr(list: readonly string[], otherwise: string): string {
  return list.length === 0 ? otherwise : list.join(", ");
}

function indent(text: string): string {
  return text.replace(/^(?=.)/gm, "  ");
}

function headOf({ node, serviceRanges }: Plan): string {
  const zone = node.zone === "" ? "in no zone" : `in ${node.zone}`;
  const known = node.isKnown ? "" : " (no Node object names any)";
  const ranges = listOr(serviceRanges, "");
  return [
    `Node ${node.name}, ${zone}, ${listOr(node.primaryAddresses, "no address known")}${known}`,
    `Node ports: ${listOr(node.nodePortAddresses, "served nowhere")}`,
    `Pods: ${node.pods.told ? node.pods.by : `not told from outside: ${node.pods.by}`}`,
    ranges === "" ? "No ServiceCIDR" : `ServiceCIDR: ${ranges}, unowned addresses are dropped`,
    "",
  ].join("\n");
}

function titleOf(service: ServicePlan): string {
  const { type, family, internalTrafficPolicy, externalTrafficPolicy, affinitySeconds } = service;
  const marks = [`${type}, IPv${family}`];
  if (internalTrafficPolicy === "Local") marks.push("internal policy Local");
  if (externalTrafficPolicy === "Local") marks.push("external policy Local");
  if (affinitySeconds > 0) marks.push(`ClientIP affinity ${formatSeconds(affinitySeconds)}`);
  return `${serviceTitle(service)}  ${marks.join(", ")}\n`;
}

const LISTS = [
  { name: "cluster", title: "Cluster" },
  { name: "local", title: "Local" },
] as const;
const OUTCOMES = { refuse: "refused", drop: "dropped" } as const;

/** What a list gives: "2 endpoints, hinted for zone-a", "refused: no endpoint is ready". */
function describeList({ outcome, endpoints, why }: ListPlan): string {
  if (outcome !== "endpoints") return `${OUTCOMES[outcome]}: ${why}`;
  const count = `${endpoints} endpoint${endpoints === 1 ? "" : "s"}`;
  return why === "" ? count : `${count}, ${why}`;
}

/** The lists that traffic gets: only where there are two does a frontend have to say which. */
function listsOf({ lists }: ServicePlan): { name: ListName; title: string; gives: string }[] {
  return LISTS.flatMap(({ name, title }) => {
    const list = lists[name];
    return list === null ? [] : [{ name, title, gives: describeList(list) }];
  });
}

function legendOf(service: ServicePlan): string {
  const lists = listsOf(service);
  if (lists.length < 2) return "";
  return lists.map(({ title, gives }) => `${title.padEnd(7)}  ${gives}\n`).join("");
}

/** What a frontend leads to: a list's name, or what the only list gives. */
function listCell(service: ServicePlan, name: ListName): string {
  const lists = listsOf(service);
  const list = lists.find((each) => each.name === name);
  return (lists.length < 2 ? list?.gives : list?.title) ?? "";
}

/** Whether everybody gets the same list at every frontend. */
function isForEverybody({ frontends }: ServicePlan): boolean {
  return frontends.every(({ inside, outside }) => inside === outside);
}

function frontendsOf(service: ServicePlan): string[][] {
  const isSame = isForEverybody(service);
  const rows = service.frontends.map((frontend) => [
    formatEndpoint(frontend) + KIND_NOTES[frontend.kind],
    listCell(service, frontend.inside),
    ...(isSame ? [] : [listCell(service, frontend.outside)]),
  ]);
  return [["FRONTEND", ...(isSame ? ["GETS"] : ["FROM INSIDE", "FROM OUTSIDE"])], ...rows];
}

function sourcesOf({ sources }: ServicePlan): string {
  if (sources === null) return "";
  const node = sources.nodeAllowed ? "" : ", not this node";
  return `Load balancers accept ${sources.ranges.join(", ")}${node}\n`;
}

function lostOf({ frontends }: ServicePlan): string {
  return frontends.length > 0 ? "" : "Not served: other Services have all its addresses\n";
}

function memberCell(membership: Membership | null): string {
  if (membership === null) return "";
  return membership.in ? "yes" : `no, ${membership.why}`;
}

function conditionsOf({ ready, serving, terminating }: EndpointPlan): string {
  const named = { ready, serving, terminating };
  const held = Object.entries(named).filter(([, value]) => value);
  return held.map(([name]) => name).join(",") || "none";
}

function endpointsOf(service: ServicePlan, wide: boolean): string[][] {
  if (service.endpoints.length === 0) return [];
  const lists = listsOf(service);
  const titles = lists.map(({ title }) => title.toUpperCase());
  const header = ["ENDPOINT", "NODE", ...(lists.length === 1 ? ["USED"] : titles)];
  if (wide) header.push("CONDITIONS", "ZONE HINTS", "NODE HINTS");
  const rows = service.endpoints.map((endpoint) => {
    const row = [formatEndpoint(endpoint), endpoint.node || "-"];
    for (const { name } of lists) row.push(memberCell(endpoint[name]));
    const hints = [endpoint.zoneHints, endpoint.nodeHints].map((list) => listOr(list, "-"));
    if (wide) row.push(conditionsOf(endpoint), ...hints);
    return row;
  });
  return [header, ...rows];
}

function blockOf(service: ServicePlan, wide: boolean): string {
  const frontends = service.frontends.length > 0 ? frontendsOf(service) : [];
  const endpoints = endpointsOf(service, wide);
  const columns = Math.max(0, ...[...frontends, ...endpoints].map((row) => row.length));
  const [header = [], ...rows] = [...frontends, ...endpoints];
  // One grid for both: every row, headers too, has all its columns.
  const table = formatTable([...header, ...Array(columns - header.length).fill("")], rows);
  const body = sourcesOf(service) + legendOf(service) + lostOf(service) + table;
  return titleOf(service) + indent(body);
}

function unservedOf(title: string, unserved: readonly Unserved[]): string {
  if (unserved.length === 0) return "";
  const width = Math.max(...unserved.map((each) => objectName(each).length));
  const lines = unserved.map((each) => `  ${objectName(each).padEnd(width)}  ${each.why}\n`);
  return `${title}\n${lines.join("")}`;
}

function problemsOf(problems: readonly string[]): string {
  if (problems.length === 0) return "";
  return `Problems\n${problems.map((message) => `  ${message}\n`).join("")}`;
}

/** A plan as text; `wide` adds conditions and hints of every endpoint. */
export function formatPlan(plan: Plan, { wide }: { wide: boolean }): string {
  const blocks = [
    headOf(plan),
    ...(plan.services.length === 0 ? ["No Services.\n"] : []),
    ...plan.services.map((service) => blockOf(service, wide)),
    unservedOf("Not served", plan.unserved),
    unservedOf("Slices that do not count", plan.unusedSlices),
    problemsOf(plan.problems),
  ];
  return blocks.filter((block) => block !== "").join("\n");
}
