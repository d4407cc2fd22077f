// Sums of /proc/PID/smaps: what a process holds, and how much of that is mapped BPF maps. Pure;
// knows the form of the file and how the kernel names such mappings.

export interface Memory {
  residentBytes: number;
  /** The part of it that is BPF maps, which the kernel holds anyway. */
  mapBytes: number;
}

/** Adds up the Rss lines of smaps, those of BPF maps also apart. */
export function parseSmaps(text: string): Memory {
  const memory = { residentBytes: 0, mapBytes: 0 };
  let isMap = false;
  for (const line of text.split("\n")) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) isMap = line.includes("bpf-map");
    const kilobytes = /^Rss:\s+(\d+) kB$/.exec(line)?.[1];
    if (kilobytes === undefined) continue;
    memory.residentBytes += Number(kilobytes) * 1024;
    if (isMap) memory.mapBytes += Number(kilobytes) * 1024;
  }
  return memory;
}
