// Which labels and fields selectors match, and what is refused.
import test from "ava";
import { RESOURCES } from "./resources.ts";
import { parseFieldSelector, parseLabelSelector } from "./selectors.ts";

const [services, , slices] = RESOURCES;
const labels = { app: "web", tier: "" };

const LABELS: readonly (readonly [string, boolean])[] = [
  ["", true],
  ["app", true],
  ["!app", false],
  ["nothing", false],
  ["constructor", false],
  ["!nothing", true],
  ["! nothing", true],
  ["app=web", true],
  ["app==web", true],
  ["app = web", true],
  ["app=db", false],
  ["app!=web", false],
  ["nothing!=web", true],
  ["tier=", true],
  ["app in (db, web)", true],
  ["app in (db)", false],
  ["nothing in (db)", false],
  ["app notin (db)", true],
  ["nothing notin (db)", true],
  ["app notin (db,web)", false],
  ["app,tier", true],
  ["app in (web,db),!nothing", true],
  ["app in (web,db),nothing", false],
  ["!service.kubernetes.io/service-proxy-name", true],
];

for (const [selector, expected] of LABELS) {
  test(`labels ${JSON.stringify(labels)} and the selector "${selector}": ${expected}`, (t) => {
    t.is(parseLabelSelector(selector)(labels), expected);
  });
}

test("a label selector that cannot be read is the API's 400", (t) => {
  for (const text of ["=a", "a in b", "a b", "a=b=c", "!a=b", "a in (b"]) {
    const error = t.throws(() => parseLabelSelector(text), undefined, text);
    t.like(error, { status: { code: 400, reason: "BadRequest" } });
  }
});

const fields = { "metadata.name": "web", "metadata.namespace": "shop", "spec.clusterIP": "None" };
const FIELDS: readonly (readonly [string, boolean])[] = [
  ["", true],
  ["metadata.name=web", true],
  ["metadata.name==web", true],
  ["metadata.name!=web", false],
  ["metadata.name=web,metadata.namespace=shop", true],
  ["metadata.name=web,metadata.namespace=other", false],
  ["spec.clusterIP!=None", false],
  ["spec.clusterIP=None", true],
];

for (const [selector, expected] of FIELDS) {
  test(`a headless Service and the field selector "${selector}": ${expected}`, (t) => {
    t.is(parseFieldSelector(selector, services!)(fields), expected);
  });
}

test("a field that a resource cannot be selected by is the API's 400", (t) => {
  t.throws(() => parseFieldSelector("spec.ports=1", services!), {
    message: "field label not supported: spec.ports",
  });
  t.throws(() => parseFieldSelector("spec.clusterIP!=None", slices!), {
    message:
      '"spec.clusterIP" is not a known field selector: only "metadata.name", "metadata.namespace"',
  });
  t.throws(() => parseFieldSelector("metadata.name", services!), { message: /invalid selector/ });
});
