// Real files in a temporary folder: edits, renames, swaps, faults and their healing.
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import { type KubernetesObject, type ObjectIdentity, objectKey } from "../model/objects.ts";
import { type ManifestOptions, ManifestSource } from "./manifests.ts";
import type { Sink } from "./source.ts";

/** A machine may stand still for seconds, and its clock goes on. */
const DEADLINE_MILLISECONDS = 60_000;

function service(name: string, port: unknown = 80): string {
  const spec = `spec: {clusterIP: 10.96.0.1, ports: [{port: ${port}}]}`;
  return `---\napiVersion: v1\nkind: Service\nmetadata: {name: ${name}}\n${spec}\n`;
}

/** Keeps what a source delivered, and wakes whoever waits for it. */
class Recorder implements Sink {
  readonly objects = new Map<string, KubernetesObject>();
  readonly problems: string[] = [];
  readonly standing = new Set<string>();
  calls = 0;
  isSynced = false;
  #wake: (() => void)[] = [];

  apply(object: KubernetesObject): void {
    this.objects.set(objectKey(object), object);
    this.#called();
  }

  remove(identity: ObjectIdentity): void {
    if (!this.objects.delete(objectKey(identity))) throw new Error("removed, but never applied");
    this.#called();
  }

  problem(message: string): void {
    this.problems.push(message);
    this.standing.add(message);
    this.#called();
  }

  resolved(message: string): void {
    if (!this.standing.delete(message.replace("No longer: ", ""))) throw new Error(message);
    this.#called();
  }

  synced(): void {
    this.isSynced = true;
  }

  changed(): void {
    this.#called();
  }

  #called(): void {
    this.calls++;
    for (const wake of this.#wake.splice(0)) wake();
  }

  /** "name:port" of every Service, sorted. */
  ports(): string[] {
    const list = [...this.objects.values()].map((object) =>
      object.kind === "Service" ? `${object.name}:${object.ports[0]?.port}` : object.kind,
    );
    return list.sort();
  }

  async until(condition: () => boolean): Promise<void> {
    const deadline = AbortSignal.timeout(DEADLINE_MILLISECONDS);
    while (!condition()) {
      const woken = new Promise<void>((resolve) => this.#wake.push(resolve));
      const late = delay(DEADLINE_MILLISECONDS, undefined, { signal: deadline, ref: false });
      await Promise.race([woken, late]).catch(() => {
        const state = { ports: this.ports(), problems: [...this.standing] };
        throw new Error(`${condition} did not come true: ${JSON.stringify(state)}`);
      });
    }
  }

  /** Waits until the Services are just these. */
  async untilPorts(...expected: string[]): Promise<void> {
    await this.until(() => this.ports().join() === expected.join());
  }

  /** Waits until a problem stands that matches. */
  async untilProblem(pattern: RegExp): Promise<void> {
    await this.until(() => [...this.standing].some((message) => pattern.test(message)));
  }
}

interface Bed {
  folder: string;
  recorder: Recorder;
  /** Replaces a file the way that leaves no half-written one: aside, then renamed. */
  write(name: string, text: string): void;
  start(location?: string, options?: ManifestOptions): Promise<ManifestSource>;
}

function makeBed(t: ExecutionContext, files: Record<string, string> = {}): Bed {
  const folder = mkdtempSync(path.join(tmpdir(), "bpfsvc-manifests-"));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const recorder = new Recorder();
  const write = (name: string, text: string) => {
    writeFileSync(path.join(folder, ".aside"), text);
    renameSync(path.join(folder, ".aside"), path.join(folder, name));
  };
  for (const [name, text] of Object.entries(files)) write(name, text);
  const start = async (location = folder, options: ManifestOptions = {}) => {
    const source = new ManifestSource(location, { quietMilliseconds: 10, ...options });
    t.teardown(() => source.close());
    await source.start(recorder);
    return source;
  };
  return { folder, recorder, write, start };
}

test("a folder's YAML and JSON files are read, others and hidden ones are not", async (t) => {
  const bed = makeBed(t, {
    "a.yaml": service("a") + service("b", 81),
    "c.yml": service("c"),
    "d.json": JSON.stringify({
      kind: "Service",
      metadata: { name: "d" },
      spec: { clusterIP: "10.96.0.4", ports: [{ port: 84 }] },
    }),
    ".hidden.yaml": service("hidden"),
    "notes.txt": service("notes"),
  });
  mkdirSync(path.join(bed.folder, "deeper"));
  writeFileSync(path.join(bed.folder, "deeper", "e.yaml"), service("e"));
  await bed.start();
  t.true(bed.recorder.isSynced);
  t.deepEqual(bed.recorder.ports(), ["a:80", "b:81", "c:80", "d:84"]);
  t.deepEqual(bed.recorder.problems, []);
});

test("an edit in place, a rename over it, a new file and a deleted one take effect", async (t) => {
  const { folder, recorder, write, start } = makeBed(t, { "a.yaml": service("a") });
  await start();
  writeFileSync(path.join(folder, "a.yaml"), service("a", 81));
  await recorder.untilPorts("a:81");
  appendFileSync(path.join(folder, "a.yaml"), service("b"));
  await recorder.untilPorts("a:81", "b:80");
  write("a.yaml", service("a", 82));
  await recorder.untilPorts("a:82");
  write("z.yaml", service("z"));
  await recorder.untilPorts("a:82", "z:80");
  unlinkSync(path.join(folder, "a.yaml"));
  await recorder.untilPorts("z:80");
  t.deepEqual(recorder.problems, []);
});

test("a file that is written again with the same objects delivers nothing", async (t) => {
  const { recorder, write, start } = makeBed(t, { "a.yaml": service("a"), "b.yaml": service("b") });
  await start();
  const before = recorder.calls;
  write("a.yaml", `# a comment\n${service("a")}`);
  write("b.yaml", service("b", 81));
  await recorder.untilPorts("a:80", "b:81");
  await recorder.until(() => recorder.calls >= before + 2);
  t.is(recorder.calls, before + 2, "one apply and one end of batch");
});

test("a folder filled by swapping a symbolic link, as ConfigMaps are, is followed", async (t) => {
  const { folder, recorder, start } = makeBed(t);
  for (const [version, text] of [service("a"), service("a", 81)].entries()) {
    mkdirSync(path.join(folder, `..v${version}`));
    writeFileSync(path.join(folder, `..v${version}`, "a.yaml"), text);
  }
  symlinkSync("..v0", path.join(folder, "..data"));
  symlinkSync("..data/a.yaml", path.join(folder, "a.yaml"));
  await start();
  t.deepEqual(recorder.ports(), ["a:80"]);
  symlinkSync("..v1", path.join(folder, "..data_tmp"));
  renameSync(path.join(folder, "..data_tmp"), path.join(folder, "..data"));
  await recorder.untilPorts("a:81");
  t.deepEqual(recorder.problems, []);
});

test("a single file is followed through edits, renames and its own deletion", async (t) => {
  const { folder, recorder, write, start } = makeBed(t, { services: service("a") });
  const file = path.join(folder, "services");
  write("other.yaml", service("other"));
  await start(file);
  t.deepEqual(recorder.ports(), ["a:80"]);
  write("services", service("a", 81));
  await recorder.untilPorts("a:81");
  unlinkSync(file);
  await recorder.untilProblem(/services: The file does not exist any more/);
  t.deepEqual(recorder.ports(), []);
  write("services", service("a", 82));
  await recorder.untilPorts("a:82");
  await recorder.until(() => recorder.standing.size === 0);
});

test("a broken file keeps its last good objects, and heals", async (t) => {
  const { folder, recorder, write, start } = makeBed(t, {
    "a.yaml": service("a") + service("b"),
    "c.yaml": service("c"),
  });
  await start();
  write("a.yaml", `${service("a", 81)}---\nkind: Service\nmetadata: {name: b\n`);
  write("c.yaml", service("c", 83));
  await recorder.untilPorts("a:81", "b:80", "c:83");
  const file = path.join(folder, "a.yaml");
  await recorder.untilProblem(new RegExp(`^${file}:\\d+:\\d+: Service "default/b" cannot be read`));
  t.is(recorder.problems.length, 1, "a fault is reported once");
  write("a.yaml", service("a", 81) + service("b", 82));
  await recorder.untilPorts("a:81", "b:82", "c:83");
  await recorder.until(() => recorder.standing.size === 0);
});

test("an unusable object keeps its last good version, the rest is updated", async (t) => {
  const { recorder, write, start } = makeBed(t, { "a.yaml": service("a") + service("b") });
  await start();
  write("a.yaml", service("a", 81).replace("10.96.0.1", "10.96.0") + service("b", 82));
  await recorder.untilPorts("a:80", "b:82");
  await recorder.untilProblem(/"default\/a": spec.clusterIP is "10.96.0", not an address/);
  write("a.yaml", service("b", 82));
  await recorder.untilPorts("b:82");
  await recorder.until(() => recorder.standing.size === 0);
  t.is(recorder.problems.length, 1);
});

test("a fault that only moves to another line is not reported again", async (t) => {
  const { recorder, write, start } = makeBed(t, { "a.yaml": service("a", '"x"') });
  await start();
  write("a.yaml", `# a line more\n${service("a", '"x"')}${service("b")}`);
  await recorder.until(() => recorder.objects.has("Service default/b"));
  t.is(recorder.problems.length, 1);
  write("a.yaml", service("a", '"y"'));
  await recorder.until(() => recorder.problems.length === 2);
  t.is(recorder.standing.size, 1);
});

test("of one object in two files the first path counts, and the other takes over", async (t) => {
  const { folder, recorder, write, start } = makeBed(t, {
    "b.yaml": service("a", 82),
    "a.yaml": service("a", 81),
  });
  await start();
  t.deepEqual(recorder.ports(), ["a:81"]);
  t.is(recorder.problems.length, 1);
  t.true(recorder.problems[0]!.includes(path.join(folder, "a.yaml")));
  t.true(recorder.problems[0]!.includes(path.join(folder, "b.yaml")));
  unlinkSync(path.join(folder, "a.yaml"));
  await recorder.untilPorts("a:82");
  await recorder.until(() => recorder.standing.size === 0);
  write("0.yaml", service("a", 80));
  await recorder.untilPorts("a:80");
  t.is(recorder.standing.size, 1);
});

test("folders, dangling links and devices in place of files are faults with the fix", async (t) => {
  const { folder, recorder, start } = makeBed(t, {
    "a.yaml": service("a"),
    "b.yaml": service("b"),
  });
  mkdirSync(path.join(folder, "x.yaml"));
  symlinkSync("/dev/null", path.join(folder, "null.yaml"));
  await start();
  t.true([...recorder.standing].some((text) => /x\.yaml: .*is a folder.*move it away/.test(text)));
  t.true([...recorder.standing].some((text) => /null\.yaml: .*no regular file/.test(text)));
  unlinkSync(path.join(folder, "a.yaml"));
  mkdirSync(path.join(folder, "a.yaml"));
  await recorder.untilProblem(/a\.yaml: .*is a folder/);
  symlinkSync("nowhere", path.join(folder, ".link"));
  renameSync(path.join(folder, ".link"), path.join(folder, "b.yaml"));
  await recorder.untilProblem(/b\.yaml: .*does not exist; put it back/);
  t.true(recorder.objects.has("Service default/b"));
  rmSync(path.join(folder, "a.yaml"), { recursive: true });
  writeFileSync(path.join(folder, "a.yaml"), service("a", 81));
  writeFileSync(path.join(folder, "nowhere"), service("b", 82));
  await recorder.untilPorts("a:81", "b:82");
});

test("a folder that goes away keeps its objects, and is followed when it is back", async (t) => {
  const { folder, recorder, start } = makeBed(t);
  const inner = path.join(folder, "manifests");
  mkdirSync(inner);
  writeFileSync(path.join(inner, "a.yaml"), service("a"));
  await start(inner, { pollMilliseconds: 20 });
  renameSync(inner, path.join(folder, "elsewhere"));
  await recorder.untilProblem(/Cannot list the folder: it does not exist/);
  t.deepEqual(recorder.ports(), ["a:80"]);
  mkdirSync(inner);
  writeFileSync(path.join(inner, "b.yaml"), service("b"));
  await recorder.untilPorts("b:80");
  t.is(recorder.standing.size, 0);
  writeFileSync(path.join(inner, "b.yaml"), service("b", 81));
  await recorder.untilPorts("b:81");
});

test("a file beyond the limit is refused and its last good objects stay", async (t) => {
  const { folder, recorder, start } = makeBed(t, { "a.yaml": service("a") });
  await start(folder, { maxBytes: 4096 });
  truncateSync(path.join(folder, "a.yaml"), 4097);
  await recorder.untilProblem(/a\.yaml: .*4097 bytes are more than 4096; split it/);
  t.deepEqual(recorder.ports(), ["a:80"]);
});

test("a path that does not exist or is no file is an error that names the fix", async (t) => {
  const { folder, start } = makeBed(t);
  const missing = path.join(folder, "missing");
  const error = await t.throwsAsync(start(missing));
  t.is(
    error!.message,
    `Cannot read manifests from "${missing}": it does not exist; create it, or give the path of ` +
      "a file or folder",
  );
  const device = await t.throwsAsync(start("/dev/null"));
  t.regex(device!.message, /"\/dev\/null": it is neither a file nor a folder/);
});

test("after closing, no change is delivered", async (t) => {
  const { recorder, write, start } = makeBed(t, { "a.yaml": service("a") });
  const source = await start();
  write("a.yaml", service("a", 81));
  await source.close();
  const before = recorder.calls;
  write("a.yaml", service("a", 82));
  const witness = makeBed(t, { "w.yaml": service("w") });
  await witness.start();
  witness.write("w.yaml", service("w", 81));
  await witness.recorder.untilPorts("w:81");
  t.is(recorder.calls, before);
});

test("whatever a file holds, the objects of another one are served", async (t) => {
  const { recorder, write, start } = makeBed(t, { "good.yaml": service("good", 1) });
  const folder = await start();
  let round = 1;
  const text = fc.oneof(
    fc.jsonValue().map((value) => JSON.stringify(value)),
    fc.string({ unit: "binary" }),
    fc.constantFrom("kind: Service\nmetadata: 5", "\0", "--- {", "%YAML 9.9\n---\na", "&a [*a]"),
  );
  await fc.assert(
    fc.asyncProperty(text, fc.constantFrom("bad.yaml", "bad.json"), async (content, name) => {
      write(name, content);
      write("good.yaml", service("good", ++round));
      await recorder.until(() => recorder.ports().includes(`good:${round}`));
    }),
    { numRuns: 40 },
  );
  await folder.close();
  t.true(round > 1);
});
