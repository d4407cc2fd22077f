// Services that change as fast as the dataplane can, with the oracle kept in step: what a lookup
// may find is widened before a flush and narrowed after it. Knows rows, not how they are read.
import { limit } from "../../bindings/layout.ts";
import type { Dataplane } from "../../control/dataplane/dataplane.ts";
import { encodeFrontendKey, frontendHash } from "../../control/dataplane/maps.ts";
import { formatAddress } from "../../control/model/address.ts";
import { type BackendRow, PROTOCOLS, type ServiceRow } from "../../control/model/rows.ts";
import { makeEndpoint, type Oracle } from "./oracle.ts";

/** How many Services of each kind there are. */
export interface Population {
  /** Always there, their endpoints change. */
  steady: number;
  /** Pairs that exchange their frontends. */
  pairs: number;
  /** Created and deleted, with other endpoints each time. */
  comers: number;
  /** Deleted and created anew in one flush, under the same address. */
  phoenixes: number;
}

export const CROWD: Population = { steady: 6, pairs: 3, comers: 20, phoenixes: 0 };

/** Capacities with which the crowd runs out of ids of every kind, and uses them again, at once. */
export const SCARCE = {
  svc_overflow: 128,
  svc_services: 24,
  svc_names: 24,
  svc_backends: 96,
  svc_slots: 256,
  svc_affinity: 64,
};

/**
 * Service ranges beside the frontends, which are in fd00:10:96::/112. The first half of one with
 * the second half of another would have them.
 */
const RANGES = [1, 2, 3, 4, 5, 7, 8, 9].flatMap((digit) => [
  `fd0${digit}:10:96::/48`,
  `fd00:10:9${digit}::/48`,
]);

/** All frontends share so many buckets of svc_frontends, so that places are fought for. */
const BUCKETS = 8;
/** The most endpoints of a Service. */
const ENDPOINTS = 6;
/** Every third Service has ClientIP affinity. */
const AFFINITY_SECONDS = 10_800;

/** One Service as the oracle knows it: its number is what its endpoints' addresses carry. */
interface Owner {
  number: number;
  key: string;
  /** The times since which its endpoints are listed, the oldest first; the last is the newest. */
  listed: number[];
  clock: number;
  /** Targets that it has or, while it is pending, will have. */
  targets: number[];
  isWanted: boolean;
  isPending: boolean;
}

export class Churn {
  readonly #dataplane: Dataplane;
  readonly #oracle: Oracle;
  readonly #places = crowdedPlaces();
  readonly #steady: Owner[] = [];
  readonly #pairs: [Owner, Owner][] = [];
  readonly #comers: Owner[] = [];
  readonly #phoenixes: { targets: number[]; owners: Owner[] }[] = [];
  readonly #random: () => number;
  readonly #port: number | undefined;
  readonly #changed = new Set<Owner>();
  #owners = 0;
  #releasing: Promise<boolean> | undefined;
  /** Address, port, and the oracle's number of the target. */
  readonly frontends: { address: string; port: number; target: number }[] = [];
  /** Flushes that wrote something, grace periods, and rows that found no room. */
  readonly done = { flushes: 0, releases: 0, refusals: 0 };

  constructor(options: {
    dataplane: Dataplane;
    oracle: Oracle;
    population: Population;
    random: () => number;
    /** The port of all endpoints, where they are real servers. */
    port?: number;
  }) {
    const { dataplane, oracle, population, random } = options;
    this.#port = options.port;
    this.#dataplane = dataplane;
    this.#oracle = oracle;
    this.#random = random;
    const { steady, pairs, comers, phoenixes } = population;
    for (let index = 0; index < steady; index++) this.#steady.push(this.#newOwner(true));
    for (let index = 0; index < pairs; index++)
      this.#pairs.push([this.#newOwner(true), this.#newOwner(true)]);
    for (let index = 0; index < comers; index++) this.#comers.push(this.#newOwner(false));
    for (let index = 0; index < phoenixes; index++) {
      const first = this.#newOwner(true);
      const others = Array.from({ length: 3 }, () => this.#newOwner(false, []));
      this.#phoenixes.push({ targets: first.targets, owners: [first, ...others] });
    }
    this.#flush();
    if (this.done.refusals > 0) throw new Error("The maps are too small for the first Services");
  }

  /** Changes many Services at once, and lets grace periods pass beside. */
  step(): void {
    for (const owner of this.#steady) if (this.#random() < 0.5) this.#roll(owner);
    for (const pair of this.#pairs) if (this.#random() < 0.5) this.#exchange(pair);
    for (const owner of this.#comers) if (this.#random() < 0.5) this.#comeOrGo(owner);
    for (const phoenix of this.#phoenixes) if (this.#random() < 0.5) this.#rise(phoenix);
    this.#dataplane.setServiceRanges(RANGES.filter(() => this.#random() < 0.4));
    this.#flush();
    this.#releasing ??= this.#dataplane.release().finally(() => {
      this.#releasing = undefined;
      this.done.releases++;
    });
  }

  /** Waits for the grace period under way. */
  async settle(): Promise<void> {
    await this.#releasing;
  }

  #newOwner(isWanted: boolean, targets?: number[]): Owner {
    const number = ++this.#owners;
    const owner: Owner = {
      number,
      key: `fire/owner-${number}:/TCP/6`,
      listed: [],
      clock: 0,
      targets: targets ?? this.#newTargets(),
      isWanted: false,
      isPending: false,
    };
    if (isWanted) this.#start(owner);
    return owner;
  }

  /** Two frontends, of which one leads to all endpoints and one to the newest half of them. */
  #newTargets(): number[] {
    return (["internal", "inside"] as const).map((listing) => {
      const { bytes, address, port } = this.#places.next().value;
      this.frontends.push({ address, port, target: this.frontends.length });
      return this.#oracle.addTarget(bytes, { port, listing });
    });
  }

  #start(owner: Owner): void {
    owner.isWanted = true;
    this.#roll(owner);
    for (const target of owner.targets) this.#oracle.changeOwner(target, owner.number);
  }

  /** Lists up to three new endpoints and drops as many old ones or all. */
  #roll(owner: Owner): void {
    if (owner.isPending) return;
    const added = 1 + Math.floor(this.#random() * 3);
    for (let count = 0; count < added; count++) owner.listed.push(++owner.clock);
    const kept = added + Math.floor(this.#random() * (ENDPOINTS - added + 1));
    owner.listed = owner.listed.slice(-kept);
    this.#oracle.allow(owner.number, owner.clock);
    this.#want(owner);
  }

  #exchange([one, other]: [Owner, Owner]): void {
    if (one.isPending || other.isPending) return;
    [one.targets, other.targets] = [other.targets, one.targets];
    for (const owner of [one, other]) {
      for (const target of owner.targets) this.#oracle.changeOwner(target, owner.number);
      this.#want(owner);
    }
  }

  #comeOrGo(owner: Owner): void {
    if (!owner.isWanted) this.#start(owner);
    else this.#stop(owner);
  }

  /** The next owner takes over what the present one leaves. */
  #rise({ targets, owners }: { targets: number[]; owners: Owner[] }): void {
    const index = owners.findIndex(({ isWanted }) => isWanted);
    const [last, next] = [owners[index]!, owners[(index + 1) % owners.length]!];
    if (last.isPending) return;
    last.isWanted = false;
    last.targets = [];
    this.#dataplane.remove([last.key]);
    this.#changed.add(last);
    next.targets = targets;
    this.#start(next);
  }

  #stop(owner: Owner): void {
    owner.isWanted = false;
    owner.isPending = false;
    this.#dataplane.remove([owner.key]);
    for (const target of owner.targets) this.#oracle.changeOwner(target, 0);
    this.#changed.add(owner);
  }

  #want(owner: Owner): void {
    owner.isPending = true;
    this.#changed.add(owner);
    this.#dataplane.replace([this.#rowOf(owner)]);
  }

  #flush(): void {
    const failed = new Set(this.#dataplane.flush().map(({ key }) => key));
    this.done.flushes++;
    this.done.refusals += failed.size;
    for (const owner of this.#changed) {
      if (failed.has(owner.key)) continue;
      this.#changed.delete(owner);
      owner.isPending = false;
      for (const target of owner.targets) this.#oracle.settleOwner(target);
      const { internal, inside } = listings(owner);
      if (owner.isWanted)
        this.#oracle.forbid(owner.number, { internal: internal[0]!, inside: inside[0]! });
    }
  }

  #rowOf(owner: Owner): ServiceRow {
    const { internal, inside } = listings(owner);
    const backends = internal.map((since): BackendRow => {
      const endpoint = makeEndpoint({ owner: owner.number, since });
      return this.#port === undefined ? endpoint : { ...endpoint, port: this.#port };
    });
    const every = backends.map((_, index) => index);
    const members = spread(owner, every);
    const newest = spread(owner, every.slice(-inside.length));
    return {
      key: owner.key,
      namespace: "fire",
      name: `owner-${owner.number}`,
      port: "",
      protocol: "TCP",
      family: 6,
      type: "ClusterIP",
      externalPolicy: "Cluster",
      affinitySeconds: owner.number % 3 === 0 ? AFFINITY_SECONDS : 0,
      sources: undefined,
      frontends: owner.targets.map((target) => {
        const { address, port } = this.frontends[target]!;
        return { kind: target % 2 === 0 ? "clusterIP" : "externalIP", address, port };
      }),
      backends,
      internal: { kind: "uniform", members, whenEmpty: "refuse" },
      inside: { kind: "uniform", members: newest, whenEmpty: "refuse" },
      outside: { kind: "uniform", members: [], whenEmpty: "refuse" },
    };
  }
}

/** Addresses and ports in fd00:10:96::/112 whose frontends lie in the first few buckets. */
function* crowdedPlaces(): Generator<{ bytes: Uint8Array; address: string; port: number }, never> {
  const prefix = [0xfd, 0, 0, 0x10, 0, 0x96];
  const key = encodeFrontendKey({
    address: Uint8Array.from([...prefix, ...new Array<number>(10).fill(0)]),
    port: 0,
    protocol: PROTOCOLS.TCP,
  });
  const view = new DataView(key.buffer);
  for (let port = 1; ; port++)
    for (let host = 1; host < 65536; host++) {
      view.setUint16(14, host);
      view.setUint16(16, port);
      if (frontendHash(key) % limit.FRONTEND_BUCKETS >= BUCKETS) continue;
      const bytes = key.slice(0, 16);
      yield { bytes, address: formatAddress(bytes), port };
    }
}

/** Members of a table: of every second owner so often that they do not fit in its row. */
function spread({ number }: Owner, members: readonly number[]): number[] {
  const times = number % 2 === 0 ? Math.ceil((limit.TABLE_ROW_SLOTS + 1) / members.length) : 1;
  return Array.from({ length: times }, () => members).flat();
}

/** All endpoints, and the newest half of them. */
function listings({ listed }: Owner): { internal: number[]; inside: number[] } {
  return { internal: listed, inside: listed.slice(Math.floor(listed.length / 2)) };
}
