// What could not be programmed, for whom, and what would help. Knows maps by name, not what is in
// them.

/** A row, address or range that is not, or not wholly, in the kernel. It stays pending. */
export interface RowError {
  /** A service row's key, an address, or a range. */
  key: string;
  message: string;
}

/** What makes room in a map. */
const FIXES = {
  svc_frontends: larger("max-frontends"),
  svc_services: larger("max-services"),
  svc_backends: larger("max-backends"),
  svc_slots: larger("max-slots"),
  svc_sources: "give Services fewer and wider loadBalancerSourceRanges",
  svc_ranges: "cover the cluster IPs with fewer and wider ServiceCIDRs",
  svc_clients: "run fewer pods on this node",
} as const;

function larger(flag: string): string {
  return `start "bpfsvc run" again with a larger --${flag}`;
}

/** A map without room: which, how large it is, and what to do. */
export class CapacityError extends Error {
  constructor(map: keyof typeof FIXES, capacity: number) {
    super(`${map} is full, it holds ${capacity} entries: ${FIXES[map]}`);
    this.name = "CapacityError";
  }
}
