// Whatever the order in which versions arrive, what is delivered is the server's newest state.
import test from "ava";
import fc from "fast-check";
import type { KubernetesObject } from "../../model/objects.ts";
import { objectKey } from "../../model/objects.ts";
import { readObject } from "../../model/read.ts";
import { StandingProblems } from "../problems.ts";
import type { Version } from "./decode.ts";
import { addTo, Delivery, type Listing, versionNumber } from "./replica.ts";

/** A delivery, what it delivered so far, and what it said. */
function makeDelivery(): {
  delivery: Delivery;
  objects: Map<string, KubernetesObject>;
  said: string[];
} {
  const objects = new Map<string, KubernetesObject>();
  const said: string[] = [];
  const problems = new StandingProblems({
    problem: (message) => said.push(message),
    resolved: (message) => said.push(message),
  });
  const delivery = new Delivery(
    {
      apply: (object) => {
        said.push(`apply ${object.name}`);
        objects.set(objectKey(object), object);
      },
      remove: (identity) => {
        said.push(`remove ${identity.name}`);
        objects.delete(objectKey(identity));
      },
    },
    problems,
  );
  return { delivery, objects, said };
}

/** A version of the Service "shop/<name>" with this port. */
function makeVersion(name: string, number: number, port: unknown = 80): Version {
  const metadata = { namespace: "shop", name };
  const spec = { clusterIP: "10.96.0.1", ports: [{ port }] };
  const { object, problems } = readObject({ kind: "Service", metadata, spec });
  const resourceVersion = String(number);
  return { namespace: "shop", name, resourceVersion, object, problems, triggeredMs: 0 };
}

function listingOf(...versions: Version[]): Listing {
  const listing: Listing = new Map();
  for (const version of versions) addTo(listing, version);
  return listing;
}

test("a listing replaces all: what is new comes, what is gone goes, equals are silent", (t) => {
  const { delivery, said } = makeDelivery();
  const replica = delivery.addReplica("Service");
  replica.replace(listingOf(makeVersion("a", 1), makeVersion("b", 2), makeVersion("c", 3)));
  replica.replace(listingOf(makeVersion("b", 2), makeVersion("c", 5), makeVersion("d", 4, 81)));
  t.deepEqual(said, ["apply a", "apply b", "apply c", "remove a", "apply d"]);
  t.true(delivery.takeChanged());
  t.false(delivery.takeChanged());
});

test("within a listing and after it, an older version never takes a newer one's place", (t) => {
  const { delivery, objects } = makeDelivery();
  const replica = delivery.addReplica("Service");
  replica.replace(listingOf(makeVersion("a", 7, 87), makeVersion("a", 5, 85)));
  const port = () => {
    const object = objects.get("Service shop/a");
    return object?.kind === "Service" ? object.ports[0]!.port : undefined;
  };
  t.is(port(), 87);
  replica.apply(makeVersion("a", 6, 86));
  t.is(port(), 87);
  replica.remove(makeVersion("a", 6));
  t.is(port(), 87);
  replica.apply(makeVersion("a", 8, 88));
  t.is(port(), 88);
  replica.remove(makeVersion("a", 9));
  t.is(port(), undefined);
});

test("a state that was set back is taken, even where a version's number is the same", (t) => {
  const { delivery, objects } = makeDelivery();
  const replica = delivery.addReplica("Service");
  replica.replace(listingOf(makeVersion("a", 7, 87)));
  replica.replace(listingOf(makeVersion("a", 7, 99)), { isSetBack: true });
  t.like(objects.get("Service shop/a"), { ports: [{ port: 99 }] });
});

test("what cannot be used leaves the last good version, and is told once and at its end", (t) => {
  const { delivery, objects, said } = makeDelivery();
  const replica = delivery.addReplica("Service");
  replica.apply(makeVersion("a", 1, 81));
  const bad = { ...makeVersion("a", 2, "x"), object: undefined };
  replica.apply(bad);
  replica.apply({ ...bad, resourceVersion: "3" });
  t.like(objects.get("Service shop/a"), { ports: [{ port: 81 }] });
  t.is(said.length, 2);
  replica.apply(makeVersion("a", 4, 84));
  t.regex(said.at(-2)!, /^No longer: Service "shop\/a": spec\.ports\[0\]\.port/);
  t.is(said.at(-1), "apply a");
});

test("versions that are no numbers are taken in the order in which they come", (t) => {
  t.true(Number.isNaN(versionNumber("x1")));
  t.true(Number.isNaN(versionNumber("")));
  const { delivery, objects } = makeDelivery();
  const replica = delivery.addReplica("Service");
  replica.apply({ ...makeVersion("a", 1, 81), resourceVersion: "y" });
  replica.apply({ ...makeVersion("a", 1, 82), resourceVersion: "x" });
  t.like(objects.get("Service shop/a"), { ports: [{ port: 82 }] });
});

/** One object that moves between two selectors; each replica hears of it in its own time. */
test("two replicas of a kind, however late each hears, end in the server's state", (t) => {
  // What the server did in turn: the object is with the first, with the second, or not there.
  const history = fc.array(fc.constantFrom(0, 1, undefined), { minLength: 1, maxLength: 6 });
  const order = fc.array(fc.boolean(), { minLength: 12, maxLength: 12 });
  fc.assert(
    fc.property(history, order, (sides, turns) => {
      const { delivery, objects } = makeDelivery();
      const replicas = [delivery.addReplica("Service"), delivery.addReplica("Service")];
      const events: (() => void)[][] = [[], []];
      let before: number | undefined;
      sides.forEach((side, index) => {
        const version = makeVersion("a", index + 1, 8000 + index);
        for (const each of [0, 1]) {
          const replica = replicas[each]!;
          if (side === each) events[each]!.push(() => replica.apply(version));
          else if (before === each) events[each]!.push(() => replica.remove(version));
        }
        before = side;
      });
      for (const turn of turns) events[turn ? 1 : 0]!.shift()?.();
      for (const event of events.flat()) event();
      const last = sides.at(-1);
      const port = last === undefined ? undefined : 8000 + sides.length - 1;
      const object = objects.get("Service shop/a");
      t.is(object?.kind === "Service" ? object.ports[0]!.port : undefined, port);
    }),
    { numRuns: 500 },
  );
});
