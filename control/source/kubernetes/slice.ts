// EndpointSlices straight from their bytes: there are more endpoints than all else together, and
// nearly all have nothing odd. One that does is left to schema.ts and the model's reader, which
// say what is wrong; this file only finds that something may be.
import { formatAddress, isUnusableForEndpoint, parseAddress } from "../../model/address.ts";
import { isName } from "../../model/fields.ts";
import type { SliceEndpoint, SliceObject, SlicePort } from "../../model/objects.ts";
import { PROTOCOLS, type Protocol } from "../../model/rows.ts";
import { sameData } from "../../model/same.ts";
import { readMessage, SLICE_META, type Value } from "./schema.ts";
import {
  decodeAscii,
  decodeText,
  enter,
  expectVarint,
  leave,
  type Reader,
  skip,
  type Texts,
} from "./wire.ts";

const LABEL_HEADLESS = "service.kubernetes.io/headless";
const LABEL_SERVICE_NAME = "kubernetes.io/service-name";
const LONGEST_NAME = 253;
const LONGEST_LABEL = 63;
const NO_NAMES: readonly string[] = [];
/** More than zones and nodes that hints name at one time; beyond it sharing starts again. */
const MOST_NAMES = 10_000;
/** The first two octets of 169.254.0.0/16. */
const LINK_LOCAL = (169 << 8) | 254;
const DOT = 0x2e;
const ZERO = 0x30;

/** A slice as it was read, and which version of it. */
export interface ReadSlice {
  object: SliceObject;
  resourceVersion: string;
  triggeredMs: number;
}

/** Decodes slices that have nothing odd. */
export class SliceReader {
  readonly #texts: Texts;
  /** Names of nodes that were checked. */
  readonly #names = new Set<string>();
  /** Lists of one hint, by its name, each once; there are as many as zones and nodes. */
  readonly #hints = new Map<string, readonly string[]>();
  readonly #endpoints: SliceEndpoint[] = [];
  #ports: readonly SlicePort[] = [];
  #isOdd = false;
  #has4 = false;
  #has6 = false;

  constructor(texts: Texts) {
    this.#texts = texts;
  }

  /**
   * Reads the slice that all of the reader's bytes are; undefined if anything in it is odd. Throws
   * what a damaged message makes it throw.
   */
  read(reader: Reader): ReadSlice | undefined {
    const end = reader.len;
    const texts = this.#texts;
    const ports: SlicePort[] = [];
    let metadata: Value = {};
    let type = "";
    this.#endpoints.length = 0;
    this.#isOdd = this.#has4 = this.#has6 = false;
    while (reader.pos < end) {
      const tag = reader.tag();
      const number = tag >>> 3;
      if (number === 2) this.#readEndpoint(reader, enter(reader, tag, end));
      else if (number === 3) this.#readPort(reader, { end: enter(reader, tag, end), ports });
      else if (number === 4) type = texts.read(reader, tag, end);
      else if (number === 1)
        metadata = readMessage(reader, SLICE_META, { end: enter(reader, tag, end), texts });
      else skip(reader, tag, end);
    }
    leave(reader, end);
    const isFamily = type === "IPv4" ? !this.#has6 : type === "IPv6" && !this.#has4;
    if (this.#isOdd || !isFamily) return undefined;
    // Most slices have the ports of the one before, and a copied list has no room to spare.
    if (!sameData(this.#ports, ports)) this.#ports = ports.slice();
    const endpoints = this.#endpoints.slice();
    const port = ports[0]?.port ?? 0;
    for (const endpoint of endpoints) endpoint.port = port;
    return makeSlice(metadata, {
      family: type === "IPv4" ? 4 : 6,
      ports: this.#ports,
      endpoints,
    });
  }

  #readEndpoint(reader: Reader, end: number): void {
    // All fields at once: endpoints then share one hidden class, and take the least memory.
    const endpoint: SliceEndpoint = {
      address: "",
      port: 0,
      nodeName: "",
      ready: true,
      serving: true,
      terminating: false,
      zoneHints: NO_NAMES,
      nodeHints: NO_NAMES,
    };
    let addresses = 0;
    while (reader.pos < end) {
      const tag = reader.tag();
      const number = tag >>> 3;
      if (number === 1) {
        const last = enter(reader, tag, end);
        if (addresses++ === 0) endpoint.address = this.#readAddress(reader, last);
        reader.pos = last;
      } else if (number === 2) readConditions(reader, enter(reader, tag, end), endpoint);
      else if (number === 6) endpoint.nodeName = this.#readName(reader, tag, end);
      else if (number === 8) this.#readHints(reader, enter(reader, tag, end), endpoint);
      else skip(reader, tag, end);
    }
    leave(reader, end);
    if (addresses > 0) this.#endpoints.push(endpoint);
  }

  /** The canonical address that ends at `end`; notes what is none, or cannot be an endpoint's. */
  #readAddress(reader: Reader, end: number): string {
    const start = reader.pos;
    const head = readDottedQuad(reader.buf, start, end);
    if (head >= 0) {
      this.#has4 = true;
      const first = head >> 8;
      const isUsable =
        first !== 0 && first !== 127 && (first & 0xf0) !== 0xe0 && head !== LINK_LOCAL;
      if (!isUsable) this.#isOdd = true;
      return decodeAscii(reader, start, end);
    }
    const parsed = parseAddress(decodeText(reader, start, end));
    if (parsed === undefined || isUnusableForEndpoint(parsed.bytes)) {
      this.#isOdd = true;
      return "";
    }
    if (parsed.family === 4) this.#has4 = true;
    else this.#has6 = true;
    return formatAddress(parsed.bytes);
  }

  /** Reads the name of a node or zone; notes what is none. */
  #readName(reader: Reader, tag: number, limit: number): string {
    const name = this.#texts.read(reader, tag, limit);
    if (this.#names.has(name)) return name;
    if (name !== "" && !isName(name, LONGEST_NAME)) {
      this.#isOdd = true;
      return name;
    }
    if (this.#names.size === MOST_NAMES) this.#names.clear();
    this.#names.add(name);
    return name;
  }

  #readHints(reader: Reader, end: number, endpoint: SliceEndpoint): void {
    endpoint.zoneHints = endpoint.nodeHints = NO_NAMES;
    while (reader.pos < end) {
      const tag = reader.tag();
      const number = tag >>> 3;
      if (number !== 1 && number !== 2) {
        skip(reader, tag, end);
        continue;
      }
      const name = this.#readHint(reader, enter(reader, tag, end));
      if (name === "") continue;
      if (number === 1) endpoint.zoneHints = this.#withHint(endpoint.zoneHints, name);
      else endpoint.nodeHints = this.#withHint(endpoint.nodeHints, name);
    }
    leave(reader, end);
  }

  #readHint(reader: Reader, end: number): string {
    let name = "";
    while (reader.pos < end) {
      const tag = reader.tag();
      if (tag >>> 3 === 1) name = this.#readName(reader, tag, end);
      else skip(reader, tag, end);
    }
    leave(reader, end);
    return name;
  }

  #withHint(names: readonly string[], name: string): readonly string[] {
    if (names.length > 0) return [...names, name];
    const known = this.#hints.get(name);
    if (known !== undefined) return known;
    if (this.#hints.size === MOST_NAMES) this.#hints.clear();
    const list = [name];
    this.#hints.set(name, list);
    return list;
  }

  #readPort(reader: Reader, { end, ports }: { end: number; ports: SlicePort[] }): void {
    let name: string | undefined;
    let protocol = "";
    let port = 0;
    while (reader.pos < end) {
      const tag = reader.tag();
      const number = tag >>> 3;
      if (number === 1) name = this.#texts.read(reader, tag, end);
      else if (number === 2) protocol = this.#texts.read(reader, tag, end);
      else if (number === 3) {
        expectVarint(tag);
        port = reader.int32();
      } else skip(reader, tag, end);
    }
    leave(reader, end);
    const isPort = port >= 1 && port <= 65535 && Object.hasOwn(PROTOCOLS, protocol);
    if (!isPort || (name !== "" && !isName(name, LONGEST_LABEL))) this.#isOdd = true;
    else ports.push({ name, protocol: protocol as Protocol, port });
  }
}

function readConditions(reader: Reader, end: number, endpoint: SliceEndpoint): void {
  endpoint.ready = endpoint.serving = true;
  endpoint.terminating = false;
  while (reader.pos < end) {
    const tag = reader.tag();
    const number = tag >>> 3;
    if (number < 1 || number > 3) {
      skip(reader, tag, end);
      continue;
    }
    expectVarint(tag);
    const flag = reader.bool();
    if (number === 1) endpoint.ready = flag;
    else if (number === 2) endpoint.serving = flag;
    else endpoint.terminating = flag;
  }
  leave(reader, end);
}

/** The first two octets, as 16 bits, if the bytes are an IPv4 address in canonical form; or -1. */
function readDottedQuad(bytes: Uint8Array, start: number, end: number): number {
  let head = 0;
  let octet = -1;
  let dots = 0;
  for (let at = start; at < end; at++) {
    const byte = bytes[at]!;
    if (byte === DOT) {
      if (octet < 0) return -1;
      if (dots < 2) head = (head << 8) | octet;
      dots++;
      octet = -1;
      continue;
    }
    const digit = byte - ZERO;
    if (digit < 0 || digit > 9 || octet === 0) return -1;
    octet = octet < 0 ? digit : octet * 10 + digit;
    if (octet > 255) return -1;
  }
  return dots === 3 && octet >= 0 ? head : -1;
}

function makeSlice(
  { namespace, name, resourceVersion = "", labels = {}, triggeredMs = 0 }: Value,
  rest: Pick<SliceObject, "family" | "ports" | "endpoints">,
): ReadSlice | undefined {
  if (!isName(name, LONGEST_NAME) || !isName(namespace, LONGEST_LABEL)) return undefined;
  const ours = labels as Record<string, string>;
  const object: SliceObject = {
    kind: "EndpointSlice",
    namespace,
    name,
    serviceName: ours[LABEL_SERVICE_NAME] ?? "",
    headless: LABEL_HEADLESS in ours,
    // One by one: what is spread lies in a part of its own, which takes more memory.
    family: rest.family,
    ports: rest.ports,
    endpoints: rest.endpoints,
  };
  return {
    object,
    resourceVersion: resourceVersion as string,
    triggeredMs: triggeredMs as number,
  };
}
