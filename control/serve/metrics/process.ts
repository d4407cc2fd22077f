// The metrics of the process, by the names that Prometheus' clients give them. prom-client's own
// are not used: how they measure the event loop wakes the process a hundred times a second.
import { readdirSync, readFileSync } from "node:fs";
import { type Reading, single } from "./readings.ts";

/** The soft limit of open files, if there is one. */
function maxFiles(): number {
  const limits = readFileSync("/proc/self/limits", "utf8");
  return Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1] ?? Number.POSITIVE_INFINITY);
}

/** What is read of this process, once for all its metrics. */
export interface ProcessState {
  cpu: NodeJS.CpuUsage;
  memory: NodeJS.MemoryUsage;
}

export function readProcess(): ProcessState {
  return { cpu: process.cpuUsage(), memory: process.memoryUsage() };
}

const MICROSECONDS = 1e6;

export const PROCESS_READINGS: readonly Reading<ProcessState>[] = [
  {
    type: "counter",
    name: "process_cpu_seconds_total",
    help: "CPU time of the agent",
    read: ({ cpu }) => single((cpu.user + cpu.system) / MICROSECONDS),
  },
  {
    type: "counter",
    name: "process_cpu_user_seconds_total",
    help: "CPU time of its own code",
    read: ({ cpu }) => single(cpu.user / MICROSECONDS),
  },
  {
    type: "counter",
    name: "process_cpu_system_seconds_total",
    help: "CPU time that the kernel spent for it",
    read: ({ cpu }) => single(cpu.system / MICROSECONDS),
  },
  {
    type: "gauge",
    name: "process_start_time_seconds",
    help: "When it was started, in seconds since the epoch",
    read: () => single(Math.round(performance.timeOrigin) / 1000),
  },
  {
    type: "gauge",
    name: "process_resident_memory_bytes",
    help: "Resident memory, the part of the maps that it has touched included",
    read: ({ memory }) => single(memory.rss),
  },
  {
    type: "gauge",
    name: "process_open_fds",
    help: "Open file descriptors",
    read: () => single(readdirSync("/proc/self/fd").length),
  },
  {
    type: "gauge",
    name: "process_max_fds",
    help: "How many may be open",
    read: () => single(maxFiles()),
  },
  {
    type: "gauge",
    name: "nodejs_heap_size_total_bytes",
    help: "JavaScript's heap",
    read: ({ memory }) => single(memory.heapTotal),
  },
  {
    type: "gauge",
    name: "nodejs_heap_size_used_bytes",
    help: "The part of it that is in use",
    read: ({ memory }) => single(memory.heapUsed),
  },
  {
    type: "gauge",
    name: "nodejs_external_memory_bytes",
    help: "Memory of JavaScript's objects beside the heap",
    read: ({ memory }) => single(memory.external),
  },
];
