// Breaks connected UDP sockets whose endpoint has left (§14.4), by a program that walks the sockets
// of one network namespace. Which sockets those are is the program's business (bpf/iter.bpf.c);
// when and where it runs is the caller's.
import { BpfIterator } from "../../bindings/iterator.ts";
import { BpfObject } from "../../bindings/object.ts";
import type { MapName, OpenMaps } from "./kernel.ts";
import { objectPath } from "./objects.ts";

export class SocketBreaker {
  readonly #iterator: BpfIterator;

  private constructor(iterator: BpfIterator) {
    this.#iterator = iterator;
  }

  /**
   * Loads the program over the maps in force. Throws BpfError if the kernel has no
   * bpf_sock_destroy() (before 6.5), or refuses the program otherwise.
   */
  static open(maps: OpenMaps): SocketBreaker {
    const object = BpfObject.open(objectPath("iter.bpf.o"));
    try {
      for (const map of object.maps()) map.reuse(maps[map.name as MapName]);
      object.load();
      return new SocketBreaker(BpfIterator.attach(object.program("svc_break_udp")));
    } finally {
      object.close();
    }
  }

  /** Breaks what is stale in the present network namespace; returns how many sockets. */
  run(): number {
    return this.#iterator.run();
  }

  close(): void {
    this.#iterator.close();
  }
}
