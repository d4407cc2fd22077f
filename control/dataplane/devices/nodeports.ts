// svc_frontends with an eye on this node's own ports: svc_node says between which of them all lie,
// before a frontend there can be found. Otherwise the store below, as it is.
import { frontendKey, frontendKind } from "../../../bindings/layout.ts";
import { formatAddress } from "../../model/address.ts";
import type { HashStore } from "../maps.ts";
import type { NodeMap } from "./node.ts";

const KEY_BYTES = frontendKey.bytes;
const VALUE_BYTES = 8;
const KIND_AT = 4;

export class NodePortStore implements HashStore {
  readonly #store: HashStore;
  readonly #node: NodeMap;
  #own: ReadonlySet<string> = new Set();

  constructor(store: HashStore, node: NodeMap) {
    this.#store = store;
    this.#node = node;
  }

  get maxEntries(): number {
    return this.#store.maxEntries;
  }

  /** Takes this node's own addresses: frontends at them count, whatever their kind. */
  setOwnAddresses(addresses: Iterable<string>): void {
    const own = new Set(addresses);
    const isNew = [...own].some((address) => !this.#own.has(address));
    this.#own = own;
    if (!isNew) return;
    for (const { keys, values, count } of this.#store.entries())
      for (let index = 0; index < count; index++) this.#note(keys, values, index);
  }

  setBatch(keys: Uint8Array, values: Uint8Array): void {
    for (let index = 0; index * KEY_BYTES < keys.length; index++) this.#note(keys, values, index);
    this.#store.setBatch(keys, values);
  }

  deleteBatch(keys: Uint8Array): void {
    this.#store.deleteBatch(keys);
  }

  giveUp(): (() => void) | undefined {
    return this.#store.giveUp?.();
  }

  entries(): ReturnType<HashStore["entries"]> {
    return this.#store.entries();
  }

  #note(keys: Uint8Array, values: Uint8Array, index: number): void {
    const at = index * KEY_BYTES;
    const kind = values[index * VALUE_BYTES + KIND_AT]!;
    const port =
      (keys[at + frontendKey.offset.port]! << 8) | keys[at + frontendKey.offset.port + 1]!;
    if (kind >= frontendKind.FRONTEND_REFUSE || kind === frontendKind.FRONTEND_CLUSTER_IP) return;
    const isOwn = () =>
      this.#own.has(formatAddress(keys.subarray(at, at + frontendKey.offset.port)));
    if (kind === frontendKind.FRONTEND_NODE_PORT || isOwn()) this.#node.addNodePort(port);
  }
}
