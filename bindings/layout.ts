// Generated from the BTF of bpf/maps.h by `npm run generate`. Do not edit.
// Structs are `bytes` long, each field at its `offset`, elements of an array `stride` apart.
// Ports are numbers, addresses raw bytes; read() copies. Reserved fields are written as zeros;
// locks, long arrays and arrays of structs are neither read nor written.
import { readBytes, writeBytes, writePadded, writeZeros } from "./codec.ts";

export interface Affinity {
  reference: bigint;
  lastSeenNs: bigint;
}

/** struct affinity */
export const affinity = {
  bytes: 16,
  offset: {
    reference: 0,
    lastSeenNs: 8,
  },
  read(view: DataView, at: number): Affinity {
    return {
      reference: view.getBigUint64(at, true),
      lastSeenNs: view.getBigUint64(at + 8, true),
    };
  },
  write(view: DataView, at: number, value: Affinity): void {
    view.setBigUint64(at, value.reference, true);
    view.setBigUint64(at + 8, value.lastSeenNs, true);
  },
} as const;

export interface AffinityKey {
  client: Uint8Array;
  service: number;
}

/** struct affinity_key */
export const affinityKey = {
  bytes: 24,
  offset: {
    client: 0,
    service: 16,
  },
  read(view: DataView, at: number): AffinityKey {
    return {
      client: readBytes(view, at, 16),
      service: view.getUint32(at + 16, true),
    };
  },
  write(view: DataView, at: number, value: AffinityKey): void {
    writeBytes(view, at, { bytes: value.client, length: 16, field: "affinity_key.client" });
    view.setUint32(at + 16, value.service, true);
    writeZeros(view, at + 20, 4);
  },
} as const;

export interface Answers {
  refilledNs: bigint;
  left: bigint;
}

/** struct answers */
export const answers = {
  bytes: 16,
  offset: {
    refilledNs: 0,
    left: 8,
  },
  read(view: DataView, at: number): Answers {
    return {
      refilledNs: view.getBigUint64(at, true),
      left: view.getBigUint64(at + 8, true),
    };
  },
  write(view: DataView, at: number, value: Answers): void {
    view.setBigUint64(at, value.refilledNs, true);
    view.setBigUint64(at + 8, value.left, true);
  },
} as const;

export interface Backend {
  address: Uint8Array;
  port: number;
  state: number;
  listed: number;
  generation: number;
  service: number;
  local: number;
  hop: number;
  connections: bigint;
  hopUsed: number;
}

/** struct backend */
export const backend = {
  bytes: 64,
  offset: {
    address: 0,
    port: 16,
    state: 18,
    listed: 19,
    generation: 20,
    service: 24,
    local: 28,
    hop: 30,
    connections: 32,
    hopUsed: 40,
  },
  read(view: DataView, at: number): Backend {
    return {
      address: readBytes(view, at, 16),
      port: view.getUint16(at + 16),
      state: view.getUint8(at + 18),
      listed: view.getUint8(at + 19),
      generation: view.getUint32(at + 20, true),
      service: view.getUint32(at + 24, true),
      local: view.getUint8(at + 28),
      hop: view.getUint16(at + 30, true),
      connections: view.getBigUint64(at + 32, true),
      hopUsed: view.getUint16(at + 40, true),
    };
  },
  write(view: DataView, at: number, value: Backend): void {
    writeBytes(view, at, { bytes: value.address, length: 16, field: "backend.address" });
    view.setUint16(at + 16, value.port);
    view.setUint8(at + 18, value.state);
    view.setUint8(at + 19, value.listed);
    view.setUint32(at + 20, value.generation, true);
    view.setUint32(at + 24, value.service, true);
    view.setUint8(at + 28, value.local);
    writeZeros(view, at + 29, 1);
    view.setUint16(at + 30, value.hop, true);
    view.setBigUint64(at + 32, value.connections, true);
    view.setUint16(at + 40, value.hopUsed, true);
    writeZeros(view, at + 42, 22);
  },
} as const;

export interface Client {
  cookie: bigint;
  ipv4: Uint8Array;
  ipv6: Uint8Array;
  insideIpv4: number;
  insideIpv6: number;
}

/** struct client */
export const client = {
  bytes: 48,
  offset: {
    cookie: 0,
    ipv4: 8,
    ipv6: 24,
    insideIpv4: 40,
    insideIpv6: 41,
  },
  read(view: DataView, at: number): Client {
    return {
      cookie: view.getBigUint64(at, true),
      ipv4: readBytes(view, at + 8, 16),
      ipv6: readBytes(view, at + 24, 16),
      insideIpv4: view.getUint8(at + 40),
      insideIpv6: view.getUint8(at + 41),
    };
  },
  write(view: DataView, at: number, value: Client): void {
    view.setBigUint64(at, value.cookie, true);
    writeBytes(view, at + 8, { bytes: value.ipv4, length: 16, field: "client.ipv4" });
    writeBytes(view, at + 24, { bytes: value.ipv6, length: 16, field: "client.ipv6" });
    view.setUint8(at + 40, value.insideIpv4);
    view.setUint8(at + 41, value.insideIpv6);
    writeZeros(view, at + 42, 6);
  },
} as const;

export interface Device {
  mac: Uint8Array;
  sendsFrames: number;
  isUplink: number;
  isPod: number;
  isInside: number;
  sourceIpv4: number;
  sourceIpv6: number;
  note: number;
  error: number;
}

/** struct device */
export const device = {
  bytes: 16,
  offset: {
    mac: 0,
    sendsFrames: 6,
    isUplink: 7,
    isPod: 8,
    isInside: 9,
    sourceIpv4: 10,
    sourceIpv6: 11,
    note: 12,
    error: 14,
  },
  read(view: DataView, at: number): Device {
    return {
      mac: readBytes(view, at, 6),
      sendsFrames: view.getUint8(at + 6),
      isUplink: view.getUint8(at + 7),
      isPod: view.getUint8(at + 8),
      isInside: view.getUint8(at + 9),
      sourceIpv4: view.getUint8(at + 10),
      sourceIpv6: view.getUint8(at + 11),
      note: view.getUint8(at + 12),
      error: view.getUint16(at + 14, true),
    };
  },
  write(view: DataView, at: number, value: Device): void {
    writePadded(view, at, { bytes: value.mac, length: 6, field: "device.mac" });
    view.setUint8(at + 6, value.sendsFrames);
    view.setUint8(at + 7, value.isUplink);
    view.setUint8(at + 8, value.isPod);
    view.setUint8(at + 9, value.isInside);
    view.setUint8(at + 10, value.sourceIpv4);
    view.setUint8(at + 11, value.sourceIpv6);
    view.setUint8(at + 12, value.note);
    writeZeros(view, at + 13, 1);
    view.setUint16(at + 14, value.error, true);
  },
} as const;

export interface Flow {
  lock: number;
  lastUsed: number;
  hop: number;
  clientPort: number;
  frontendPort: number;
  backendPort: number;
  sourcePort: number;
  client: Uint8Array;
  frontend: Uint8Array;
  backend: Uint8Array;
}

/** struct flow */
export const flow = {
  bytes: 64,
  offset: {
    lock: 0,
    lastUsed: 4,
    hop: 6,
    clientPort: 8,
    frontendPort: 10,
    backendPort: 12,
    sourcePort: 14,
    client: 16,
    frontend: 32,
    backend: 48,
  },
  read(view: DataView, at: number): Flow {
    return {
      lock: view.getUint32(at, true),
      lastUsed: view.getUint16(at + 4, true),
      hop: view.getUint16(at + 6, true),
      clientPort: view.getUint16(at + 8),
      frontendPort: view.getUint16(at + 10),
      backendPort: view.getUint16(at + 12),
      sourcePort: view.getUint16(at + 14),
      client: readBytes(view, at + 16, 16),
      frontend: readBytes(view, at + 32, 16),
      backend: readBytes(view, at + 48, 16),
    };
  },
  write(view: DataView, at: number, value: Flow): void {
    view.setUint32(at, value.lock, true);
    view.setUint16(at + 4, value.lastUsed, true);
    view.setUint16(at + 6, value.hop, true);
    view.setUint16(at + 8, value.clientPort);
    view.setUint16(at + 10, value.frontendPort);
    view.setUint16(at + 12, value.backendPort);
    view.setUint16(at + 14, value.sourcePort);
    writeBytes(view, at + 16, { bytes: value.client, length: 16, field: "flow.client" });
    writeBytes(view, at + 32, { bytes: value.frontend, length: 16, field: "flow.frontend" });
    writeBytes(view, at + 48, { bytes: value.backend, length: 16, field: "flow.backend" });
  },
} as const;

/** struct flow_set */
export const flowSet = {
  bytes: 256,
  offset: {
    way: 0,
  },
  stride: {
    way: 64,
  },
} as const;

export interface Fragment {
  sourcePort: number;
  destinationPort: number;
}

/** struct fragment */
export const fragment = {
  bytes: 4,
  offset: {
    sourcePort: 0,
    destinationPort: 2,
  },
  read(view: DataView, at: number): Fragment {
    return {
      sourcePort: view.getUint16(at),
      destinationPort: view.getUint16(at + 2),
    };
  },
  write(view: DataView, at: number, value: Fragment): void {
    view.setUint16(at, value.sourcePort);
    view.setUint16(at + 2, value.destinationPort);
  },
} as const;

export interface FragmentKey {
  source: Uint8Array;
  destination: Uint8Array;
  id: number;
  protocol: number;
}

/** struct fragment_key */
export const fragmentKey = {
  bytes: 40,
  offset: {
    source: 0,
    destination: 16,
    id: 32,
    protocol: 36,
  },
  read(view: DataView, at: number): FragmentKey {
    return {
      source: readBytes(view, at, 16),
      destination: readBytes(view, at + 16, 16),
      id: view.getUint32(at + 32),
      protocol: view.getUint8(at + 36),
    };
  },
  write(view: DataView, at: number, value: FragmentKey): void {
    writeBytes(view, at, { bytes: value.source, length: 16, field: "fragment_key.source" });
    writeBytes(view, at + 16, {
      bytes: value.destination,
      length: 16,
      field: "fragment_key.destination",
    });
    view.setUint32(at + 32, value.id);
    view.setUint8(at + 36, value.protocol);
    writeZeros(view, at + 37, 3);
  },
} as const;

export interface Frontend {
  service: number;
  kind: number;
  check: Uint8Array;
}

/** struct frontend */
export const frontend = {
  bytes: 8,
  offset: {
    service: 0,
    kind: 4,
    check: 5,
  },
  read(view: DataView, at: number): Frontend {
    return {
      service: view.getUint32(at, true),
      kind: view.getUint8(at + 4),
      check: readBytes(view, at + 5, 3),
    };
  },
  write(view: DataView, at: number, value: Frontend): void {
    view.setUint32(at, value.service, true);
    view.setUint8(at + 4, value.kind);
    writePadded(view, at + 5, { bytes: value.check, length: 3, field: "frontend.check" });
  },
} as const;

export interface FrontendBucket {
  overflow: number;
}

/** struct frontend_bucket */
export const frontendBucket = {
  bytes: 64,
  offset: {
    frontend: 0,
    key: 16,
    overflow: 56,
  },
  stride: {
    frontend: 8,
    key: 20,
  },
  read(view: DataView, at: number): FrontendBucket {
    return {
      overflow: view.getUint32(at + 56, true),
    };
  },
  write(view: DataView, at: number, value: FrontendBucket): void {
    view.setUint32(at + 56, value.overflow, true);
    writeZeros(view, at + 60, 4);
  },
} as const;

export interface FrontendKey {
  address: Uint8Array;
  port: number;
  protocol: number;
}

/** struct frontend_key */
export const frontendKey = {
  bytes: 20,
  offset: {
    address: 0,
    port: 16,
    protocol: 18,
  },
  read(view: DataView, at: number): FrontendKey {
    return {
      address: readBytes(view, at, 16),
      port: view.getUint16(at + 16),
      protocol: view.getUint8(at + 18),
    };
  },
  write(view: DataView, at: number, value: FrontendKey): void {
    writeBytes(view, at, { bytes: value.address, length: 16, field: "frontend_key.address" });
    view.setUint16(at + 16, value.port);
    view.setUint8(at + 18, value.protocol);
    writeZeros(view, at + 19, 1);
  },
} as const;

export interface Hop {
  ifindex: number;
  generation: number;
  sendsFrames: number;
  source: number;
  next: Uint8Array;
  header: Uint8Array;
  mtu: number;
  checked: number;
}

/** struct hop */
export const hop = {
  bytes: 64,
  offset: {
    ifindex: 0,
    generation: 4,
    sendsFrames: 6,
    source: 7,
    next: 8,
    header: 24,
    mtu: 38,
    checked: 40,
  },
  read(view: DataView, at: number): Hop {
    return {
      ifindex: view.getUint32(at, true),
      generation: view.getUint16(at + 4, true),
      sendsFrames: view.getUint8(at + 6),
      source: view.getUint8(at + 7),
      next: readBytes(view, at + 8, 16),
      header: readBytes(view, at + 24, 14),
      mtu: view.getUint16(at + 38, true),
      checked: view.getUint32(at + 40, true),
    };
  },
  write(view: DataView, at: number, value: Hop): void {
    view.setUint32(at, value.ifindex, true);
    view.setUint16(at + 4, value.generation, true);
    view.setUint8(at + 6, value.sendsFrames);
    view.setUint8(at + 7, value.source);
    writeBytes(view, at + 8, { bytes: value.next, length: 16, field: "hop.next" });
    writePadded(view, at + 24, { bytes: value.header, length: 14, field: "hop.header" });
    view.setUint16(at + 38, value.mtu, true);
    view.setUint32(at + 40, value.checked, true);
    writeZeros(view, at + 44, 20);
  },
} as const;

export interface Meta {
  layout: bigint;
  programs: bigint;
  sequence: bigint;
  node: Uint8Array;
}

/** struct meta */
export const meta = {
  bytes: 280,
  offset: {
    layout: 0,
    programs: 8,
    sequence: 16,
    node: 24,
  },
  read(view: DataView, at: number): Meta {
    return {
      layout: view.getBigUint64(at, true),
      programs: view.getBigUint64(at + 8, true),
      sequence: view.getBigUint64(at + 16, true),
      node: readBytes(view, at + 24, 256),
    };
  },
  write(view: DataView, at: number, value: Meta): void {
    view.setBigUint64(at, value.layout, true);
    view.setBigUint64(at + 8, value.programs, true);
    view.setBigUint64(at + 16, value.sequence, true);
    writePadded(view, at + 24, { bytes: value.node, length: 256, field: "meta.node" });
  },
} as const;

export interface Node {
  hashKey: readonly [number, number, number, number, number, number, number, number, number, number];
  natFirst: number;
  natCount: number;
  hostFirst: number;
  hostLast: number;
  nodePortFirst: number;
  nodePortLast: number;
  detectsIpv4: number;
  detectsIpv6: number;
  detectsDevices: number;
  heldUntil: bigint;
}

/** struct node */
export const node = {
  bytes: 1152,
  offset: {
    source: 0,
    pods: 1024,
    hashKey: 1088,
    natFirst: 1128,
    natCount: 1130,
    hostFirst: 1132,
    hostLast: 1134,
    nodePortFirst: 1136,
    nodePortLast: 1138,
    detectsIpv4: 1140,
    detectsIpv6: 1141,
    detectsDevices: 1142,
    heldUntil: 1144,
  },
  stride: {
    source: 16,
    pods: 32,
    hashKey: 4,
  },
  read(view: DataView, at: number): Node {
    return {
      hashKey: [
        view.getUint32(at + 1088, true),
        view.getUint32(at + 1092, true),
        view.getUint32(at + 1096, true),
        view.getUint32(at + 1100, true),
        view.getUint32(at + 1104, true),
        view.getUint32(at + 1108, true),
        view.getUint32(at + 1112, true),
        view.getUint32(at + 1116, true),
        view.getUint32(at + 1120, true),
        view.getUint32(at + 1124, true),
      ],
      natFirst: view.getUint16(at + 1128, true),
      natCount: view.getUint16(at + 1130, true),
      hostFirst: view.getUint16(at + 1132, true),
      hostLast: view.getUint16(at + 1134, true),
      nodePortFirst: view.getUint16(at + 1136, true),
      nodePortLast: view.getUint16(at + 1138, true),
      detectsIpv4: view.getUint8(at + 1140),
      detectsIpv6: view.getUint8(at + 1141),
      detectsDevices: view.getUint8(at + 1142),
      heldUntil: view.getBigUint64(at + 1144, true),
    };
  },
  write(view: DataView, at: number, value: Node): void {
    view.setUint32(at + 1088, value.hashKey[0], true);
    view.setUint32(at + 1092, value.hashKey[1], true);
    view.setUint32(at + 1096, value.hashKey[2], true);
    view.setUint32(at + 1100, value.hashKey[3], true);
    view.setUint32(at + 1104, value.hashKey[4], true);
    view.setUint32(at + 1108, value.hashKey[5], true);
    view.setUint32(at + 1112, value.hashKey[6], true);
    view.setUint32(at + 1116, value.hashKey[7], true);
    view.setUint32(at + 1120, value.hashKey[8], true);
    view.setUint32(at + 1124, value.hashKey[9], true);
    view.setUint16(at + 1128, value.natFirst, true);
    view.setUint16(at + 1130, value.natCount, true);
    view.setUint16(at + 1132, value.hostFirst, true);
    view.setUint16(at + 1134, value.hostLast, true);
    view.setUint16(at + 1136, value.nodePortFirst, true);
    view.setUint16(at + 1138, value.nodePortLast, true);
    view.setUint8(at + 1140, value.detectsIpv4);
    view.setUint8(at + 1141, value.detectsIpv6);
    view.setUint8(at + 1142, value.detectsDevices);
    writeZeros(view, at + 1143, 1);
    view.setBigUint64(at + 1144, value.heldUntil, true);
  },
} as const;

export interface Record {
  frontendAddress: Uint8Array;
  backendAddress: Uint8Array;
  frontendPort: number;
  backendPort: number;
  used: number;
  reference: bigint;
}

/** struct record */
export const record = {
  bytes: 48,
  offset: {
    frontendAddress: 0,
    backendAddress: 16,
    frontendPort: 32,
    backendPort: 34,
    used: 36,
    reference: 40,
  },
  read(view: DataView, at: number): Record {
    return {
      frontendAddress: readBytes(view, at, 16),
      backendAddress: readBytes(view, at + 16, 16),
      frontendPort: view.getUint16(at + 32),
      backendPort: view.getUint16(at + 34),
      used: view.getUint32(at + 36, true),
      reference: view.getBigUint64(at + 40, true),
    };
  },
  write(view: DataView, at: number, value: Record): void {
    writeBytes(view, at, {
      bytes: value.frontendAddress,
      length: 16,
      field: "record.frontend_address",
    });
    writeBytes(view, at + 16, {
      bytes: value.backendAddress,
      length: 16,
      field: "record.backend_address",
    });
    view.setUint16(at + 32, value.frontendPort);
    view.setUint16(at + 34, value.backendPort);
    view.setUint32(at + 36, value.used, true);
    view.setBigUint64(at + 40, value.reference, true);
  },
} as const;

export interface Service {
  table: readonly [bigint, bigint, bigint];
  affinitySeconds: number;
  guard: number;
  externalLocal: number;
  refused: bigint;
  dropped: bigint;
  departed: bigint;
}

/** struct service */
export const service = {
  bytes: 128,
  offset: {
    table: 0,
    affinitySeconds: 24,
    guard: 28,
    externalLocal: 29,
    slot: 32,
    refused: 96,
    dropped: 104,
    departed: 112,
  },
  stride: {
    table: 8,
    slot: 4,
  },
  read(view: DataView, at: number): Service {
    return {
      table: [
        view.getBigUint64(at, true),
        view.getBigUint64(at + 8, true),
        view.getBigUint64(at + 16, true),
      ],
      affinitySeconds: view.getUint32(at + 24, true),
      guard: view.getUint8(at + 28),
      externalLocal: view.getUint8(at + 29),
      refused: view.getBigUint64(at + 96, true),
      dropped: view.getBigUint64(at + 104, true),
      departed: view.getBigUint64(at + 112, true),
    };
  },
  write(view: DataView, at: number, value: Service): void {
    view.setBigUint64(at, value.table[0], true);
    view.setBigUint64(at + 8, value.table[1], true);
    view.setBigUint64(at + 16, value.table[2], true);
    view.setUint32(at + 24, value.affinitySeconds, true);
    view.setUint8(at + 28, value.guard);
    view.setUint8(at + 29, value.externalLocal);
    writeZeros(view, at + 30, 2);
    view.setBigUint64(at + 96, value.refused, true);
    view.setBigUint64(at + 104, value.dropped, true);
    view.setBigUint64(at + 112, value.departed, true);
    writeZeros(view, at + 120, 8);
  },
} as const;

export interface ServiceName {
  namespace: Uint8Array;
  name: Uint8Array;
  port: Uint8Array;
  protocol: number;
  family: number;
  type: number;
}

/** struct service_name */
export const serviceName = {
  bytes: 200,
  offset: {
    namespace: 0,
    name: 64,
    port: 128,
    protocol: 192,
    family: 193,
    type: 194,
  },
  read(view: DataView, at: number): ServiceName {
    return {
      namespace: readBytes(view, at, 64),
      name: readBytes(view, at + 64, 64),
      port: readBytes(view, at + 128, 64),
      protocol: view.getUint8(at + 192),
      family: view.getUint8(at + 193),
      type: view.getUint8(at + 194),
    };
  },
  write(view: DataView, at: number, value: ServiceName): void {
    writePadded(view, at, { bytes: value.namespace, length: 64, field: "service_name.namespace" });
    writePadded(view, at + 64, { bytes: value.name, length: 64, field: "service_name.name" });
    writePadded(view, at + 128, { bytes: value.port, length: 64, field: "service_name.port" });
    view.setUint8(at + 192, value.protocol);
    view.setUint8(at + 193, value.family);
    view.setUint8(at + 194, value.type);
    writeZeros(view, at + 195, 5);
  },
} as const;

export interface ServiceRange {
  address: Uint8Array;
  mask: Uint8Array;
}

/** struct service_range */
export const serviceRange = {
  bytes: 32,
  offset: {
    address: 0,
    mask: 16,
  },
  read(view: DataView, at: number): ServiceRange {
    return {
      address: readBytes(view, at, 16),
      mask: readBytes(view, at + 16, 16),
    };
  },
  write(view: DataView, at: number, value: ServiceRange): void {
    writeBytes(view, at, { bytes: value.address, length: 16, field: "service_range.address" });
    writeBytes(view, at + 16, { bytes: value.mask, length: 16, field: "service_range.mask" });
  },
} as const;

export interface ServiceRanges {
  active: number;
}

/** struct service_ranges */
export const serviceRanges = {
  bytes: 520,
  offset: {
    active: 0,
    range: 8,
  },
  stride: {
    range: 32,
  },
  read(view: DataView, at: number): ServiceRanges {
    return {
      active: view.getUint32(at, true),
    };
  },
  write(view: DataView, at: number, value: ServiceRanges): void {
    view.setUint32(at, value.active, true);
    writeZeros(view, at + 4, 4);
  },
} as const;

export interface SlotPair {
  slot: readonly [number, number];
}

/** struct slot_pair */
export const slotPair = {
  bytes: 8,
  offset: {
    slot: 0,
  },
  stride: {
    slot: 4,
  },
  read(view: DataView, at: number): SlotPair {
    return {
      slot: [
        view.getUint32(at, true),
        view.getUint32(at + 4, true),
      ],
    };
  },
  write(view: DataView, at: number, value: SlotPair): void {
    view.setUint32(at, value.slot[0], true);
    view.setUint32(at + 4, value.slot[1], true);
  },
} as const;

export interface SocketRecords {
  count: number;
  clock: number;
}

/** struct socket_records */
export const socketRecords = {
  bytes: 112,
  offset: {
    count: 4,
    clock: 8,
    record: 16,
  },
  stride: {
    record: 48,
  },
  read(view: DataView, at: number): SocketRecords {
    return {
      count: view.getUint32(at + 4, true),
      clock: view.getUint32(at + 8, true),
    };
  },
  write(view: DataView, at: number, value: SocketRecords): void {
    view.setUint32(at + 4, value.count, true);
    view.setUint32(at + 8, value.clock, true);
    writeZeros(view, at + 12, 4);
  },
} as const;

export interface SocketRecordsMore {
  count: number;
  next: number;
}

/** struct socket_records_more */
export const socketRecordsMore = {
  bytes: 6160,
  offset: {
    count: 4,
    next: 8,
    record: 16,
  },
  stride: {
    record: 48,
  },
  read(view: DataView, at: number): SocketRecordsMore {
    return {
      count: view.getUint32(at + 4, true),
      next: view.getUint32(at + 8, true),
    };
  },
  write(view: DataView, at: number, value: SocketRecordsMore): void {
    view.setUint32(at + 4, value.count, true);
    view.setUint32(at + 8, value.next, true);
    writeZeros(view, at + 12, 4);
  },
} as const;

export interface SocketSet {
  cookie: readonly [bigint, bigint, bigint, bigint];
}

/** struct socket_set */
export const socketSet = {
  bytes: 256,
  offset: {
    cookie: 0,
    record: 32,
  },
  stride: {
    cookie: 8,
    record: 48,
  },
  read(view: DataView, at: number): SocketSet {
    return {
      cookie: [
        view.getBigUint64(at, true),
        view.getBigUint64(at + 8, true),
        view.getBigUint64(at + 16, true),
        view.getBigUint64(at + 24, true),
      ],
    };
  },
  write(view: DataView, at: number, value: SocketSet): void {
    view.setBigUint64(at, value.cookie[0], true);
    view.setBigUint64(at + 8, value.cookie[1], true);
    view.setBigUint64(at + 16, value.cookie[2], true);
    view.setBigUint64(at + 24, value.cookie[3], true);
    writeZeros(view, at + 224, 32);
  },
} as const;

export interface SourceKey {
  prefixLength: number;
  service: number;
  address: Uint8Array;
}

/** struct source_key */
export const sourceKey = {
  bytes: 24,
  offset: {
    prefixLength: 0,
    service: 4,
    address: 8,
  },
  read(view: DataView, at: number): SourceKey {
    return {
      prefixLength: view.getUint32(at, true),
      service: view.getUint32(at + 4, true),
      address: readBytes(view, at + 8, 16),
    };
  },
  write(view: DataView, at: number, value: SourceKey): void {
    view.setUint32(at, value.prefixLength, true);
    view.setUint32(at + 4, value.service, true);
    writeBytes(view, at + 8, { bytes: value.address, length: 16, field: "source_key.address" });
  },
} as const;

/** enum backend_state */
export const backendState = {
  BACKEND_FREE: 0,
  BACKEND_READY: 1,
  BACKEND_TERMINATING: 2,
} as const;

/** enum device_note */
export const deviceNote = {
  NOTE_NONE: 0,
  NOTE_ASKED: 1,
  NOTE_VETH: 2,
  NOTE_NO_ETHERNET: 3,
  NOTE_FOREIGN: 4,
  NOTE_REFUSED: 5,
  NOTE_NOT_LOADED: 6,
  NOTE_NO_TC: 7,
} as const;

/** enum empty_action */
export const emptyAction = {
  EMPTY_REFUSE: 0,
  EMPTY_DROP: 1,
} as const;

/** enum flow_kind */
export const flowKind = {
  FLOW_FREE: 0,
  FLOW_FORWARD: 1,
  FLOW_REVERSE: 2,
} as const;

/** enum flow_path */
export const flowPath = {
  FLOW_STACK: 0,
  FLOW_REDIRECT: 1,
  FLOW_NODE: 2,
  FLOW_TUNNEL: 3,
} as const;

/** enum flow_protocol */
export const flowProtocol = {
  FLOW_TCP: 0,
  FLOW_UDP: 1,
  FLOW_SCTP: 2,
  FLOW_NO_PROTOCOL: 3,
} as const;

/** enum flow_state */
export const flowState = {
  FLOW_REPLIED: 1,
  FLOW_CLOSED: 2,
  FLOW_PEER_CLOSED: 4,
  FLOW_RESET: 8,
  FLOW_ANSWERED: 16,
} as const;

/** enum frontend_kind */
export const frontendKind = {
  FRONTEND_NONE: 0,
  FRONTEND_CLUSTER_IP: 1,
  FRONTEND_EXTERNAL_IP: 2,
  FRONTEND_LOAD_BALANCER: 3,
  FRONTEND_NODE_PORT: 4,
  FRONTEND_REFUSE: 5,
  FRONTEND_LEAVE: 6,
  FRONTEND_UNOWNED: 7,
  FRONTEND_VIP: 8,
  FRONTEND_HOST: 9,
} as const;

/** enum guard */
export const guard = {
  GUARD_OPEN: 0,
  GUARD_SOURCES: 1,
  GUARD_NODE: 2,
} as const;

/** enum limit */
export const limit = {
  TABLE_LENGTH_SHIFT: 32,
  TABLE_LENGTH_BITS: 24,
  TABLE_ACTION_SHIFT: 56,
  TABLE_ROW_BIT: 31,
  TABLE_ROW_SLOTS: 16,
  SLOT_BACKEND_BITS: 22,
  SLOT_GENERATION_BITS: 10,
  FRONTEND_BUCKETS: 65536,
  FRONTEND_PLACES: 2,
  FILTER_WORDS: 32768,
  FILTER_POSITIONS: 16,
  FILTER_FRONTEND: 1,
  FILTER_WILDCARD: 2,
  FILTER_ENDPOINT: 4,
  FILTER_NODE: 8,
  SERVICE_RANGES: 16,
  SOURCE_PREFIX: 32,
  SOURCE_ADDRESS_BITS: 128,
  SOCKET_SETS: 4096,
  SOCKET_PLACES: 4,
  SOCKET_RECORDS: 2,
  SOCKET_RECORDS_MORE: 128,
  NAME_BYTES: 64,
  FLOW_KIND_SHIFT: 1,
  FLOW_PROTOCOL_SHIFT: 3,
  FLOW_PATH_SHIFT: 5,
  FLOW_SOURCE_SHIFT: 7,
  FLOW_SEQUENCE_SHIFT: 13,
  FLOW_STATE_SHIFT: 24,
  FLOW_WAYS: 4,
  FLOW_CLOCK_SHIFT: 30,
  FLOW_IDLE_TCP: 54000,
  FLOW_IDLE_HALF_CLOSED: 3600,
  FLOW_IDLE_UDP: 180,
  FLOW_IDLE_UNREPLIED: 60,
  FLOW_IDLE_CLOSED: 10,
  FLOW_CLOCK_AHEAD: 256,
  FLOW_GROUP: 16,
  HOP_BITS: 10,
  NODE_SOURCES: 64,
} as const;

/** enum reason */
export const reason = {
  REASON_REFUSED: 0,
  REASON_DROPPED: 1,
  REASON_RETRIED: 2,
  REASON_INCONSISTENT: 3,
  REASON_NO_SOCKET_STORE: 4,
  REASON_RECORD_REPLACED: 5,
  REASON_UNDEFINED_PORT: 6,
  REASON_UNOWNED_ADDRESS: 7,
  REASON_SOURCE_RANGE: 8,
  REASON_SOURCE_UNKNOWN: 9,
  REASON_NO_ROUTE: 10,
  REASON_PORTS_EXHAUSTED: 11,
  REASON_FLOW_LOST: 12,
  REASON_FLOW_EVICTED: 13,
  REASON_NO_CONNECTION: 14,
  REASON_FRAGMENT_LOST: 15,
  REASON_TOO_BIG: 16,
  REASON_TTL_EXCEEDED: 17,
  REASON_ANSWER_LIMIT: 18,
  REASON_TUNNEL_REFUSED: 19,
  REASON_FLOW_HELD: 20,
  REASON_COUNT: 21,
} as const;

/** enum service_type */
export const serviceType = {
  TYPE_CLUSTER_IP: 0,
  TYPE_NODE_PORT: 1,
  TYPE_LOAD_BALANCER: 2,
} as const;

/** enum table */
export const table = {
  TABLE_INTERNAL: 0,
  TABLE_INSIDE: 1,
  TABLE_OUTSIDE: 2,
  TABLE_COUNT: 3,
  TABLE_NONE: 7,
} as const;

export const maps = {
  svc_affinity: {
    type: 9,
    keyBytes: 24,
    valueBytes: 16,
    maxEntries: 65536,
    flags: 0,
  },
  svc_answering: {
    type: 2,
    keyBytes: 4,
    valueBytes: 8,
    maxEntries: 1024,
    flags: 1024,
  },
  svc_answers: {
    type: 6,
    keyBytes: 4,
    valueBytes: 16,
    maxEntries: 1,
    flags: 0,
  },
  svc_backends: {
    type: 2,
    keyBytes: 4,
    valueBytes: 64,
    maxEntries: 262144,
    flags: 1024,
  },
  svc_clients: {
    type: 1,
    keyBytes: 8,
    valueBytes: 48,
    maxEntries: 16384,
    flags: 1,
  },
  svc_devices: {
    type: 1,
    keyBytes: 4,
    valueBytes: 16,
    maxEntries: 4096,
    flags: 1,
  },
  svc_filter: {
    type: 2,
    keyBytes: 4,
    valueBytes: 8,
    maxEntries: 32768,
    flags: 1024,
  },
  svc_flows: {
    type: 2,
    keyBytes: 4,
    valueBytes: 256,
    maxEntries: 65536,
    flags: 1024,
  },
  svc_fragments: {
    type: 9,
    keyBytes: 40,
    valueBytes: 4,
    maxEntries: 8192,
    flags: 0,
  },
  svc_frontends: {
    type: 2,
    keyBytes: 4,
    valueBytes: 64,
    maxEntries: 65536,
    flags: 1024,
  },
  svc_hops: {
    type: 2,
    keyBytes: 4,
    valueBytes: 64,
    maxEntries: 1024,
    flags: 1024,
  },
  svc_meta: {
    type: 2,
    keyBytes: 4,
    valueBytes: 280,
    maxEntries: 1,
    flags: 1024,
  },
  svc_names: {
    type: 1,
    keyBytes: 4,
    valueBytes: 200,
    maxEntries: 65536,
    flags: 1,
  },
  svc_node: {
    type: 2,
    keyBytes: 4,
    valueBytes: 1152,
    maxEntries: 1,
    flags: 1024,
  },
  svc_overflow: {
    type: 1,
    keyBytes: 20,
    valueBytes: 8,
    maxEntries: 131072,
    flags: 1,
  },
  svc_ranges: {
    type: 2,
    keyBytes: 4,
    valueBytes: 520,
    maxEntries: 1,
    flags: 1024,
  },
  svc_reasons: {
    type: 6,
    keyBytes: 4,
    valueBytes: 8,
    maxEntries: 21,
    flags: 0,
  },
  svc_services: {
    type: 2,
    keyBytes: 4,
    valueBytes: 128,
    maxEntries: 65536,
    flags: 1024,
  },
  svc_slots: {
    type: 2,
    keyBytes: 4,
    valueBytes: 8,
    maxEntries: 2097152,
    flags: 1024,
  },
  svc_socket_more: {
    type: 24,
    keyBytes: 4,
    valueBytes: 6160,
    maxEntries: 0,
    flags: 1,
  },
  svc_socket_one: {
    type: 2,
    keyBytes: 4,
    valueBytes: 256,
    maxEntries: 4096,
    flags: 0,
  },
  svc_sockets: {
    type: 24,
    keyBytes: 4,
    valueBytes: 112,
    maxEntries: 0,
    flags: 1,
  },
  svc_sources: {
    type: 11,
    keyBytes: 24,
    valueBytes: 4,
    maxEntries: 65536,
    flags: 1,
  },
} as const;

/** Hash of all structs, enums and maps, sizes of maps left out. */
export const layoutHash = 0xf13621dcaa2342b9n;
