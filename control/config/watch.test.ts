// A configuration file under the agent's feet: every way to replace it, and what is no change.
import { mkdir, mkdtemp, readFile, rename, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import test, { type ExecutionContext } from "ava";
import type { UserError } from "../exit.ts";
import { type ConfigFile, openConfigFile } from "./file.ts";
import { type WatchOptions, watchConfigFile } from "./watch.ts";

/** Watches a file; `error` is what the watch ends with, `count` how often it did. */
function watchFile(file: ConfigFile, options: Omit<WatchOptions, "onChange"> = {}) {
  const ends = { count: 0, error: undefined as unknown as Promise<UserError>, stop: () => {} };
  ends.error = new Promise((resolve) => {
    ends.stop = watchConfigFile(file, {
      lookMs: 20,
      ...options,
      onChange: (error) => {
        ends.count++;
        resolve(error);
      },
    });
  });
  return ends;
}

type Ends = ReturnType<typeof watchFile>;

/** A folder with a watched file. */
async function watched(
  t: ExecutionContext,
  play: (stage: { file: string; folder: string; ends: Ends }) => Promise<void>,
): Promise<void> {
  t.timeout(20_000);
  const folder = await mkdtemp(path.join(tmpdir(), "bpfsvc-config-"));
  const file = path.join(folder, "kp.yaml");
  await writeFile(file, "one");
  const ends = watchFile(openConfigFile(file));
  try {
    await play({ file, folder, ends });
  } finally {
    ends.stop();
    await rm(folder, { recursive: true });
  }
}

async function ended(t: ExecutionContext, ends: Ends): Promise<void> {
  const { message, exitCode } = await ends.error;
  t.regex(message, /^The configuration ".*kp.yaml" has changed: the agent ends, .*; start it/);
  t.is(exitCode, 1);
  t.is(ends.count, 1);
}

test("a file that is written anew ends the agent", async (t) => {
  await watched(t, async ({ file, ends }) => {
    await writeFile(file, "two");
    await ended(t, ends);
  });
});

test("a file that another is moved over ends the agent", async (t) => {
  await watched(t, async ({ file, folder, ends }) => {
    await writeFile(path.join(folder, "new"), "two");
    await rename(path.join(folder, "new"), file);
    await ended(t, ends);
  });
});

test("a ConfigMap that is mounted anew ends the agent", async (t) => {
  await watched(t, async ({ folder }) => {
    for (const [version, text] of Object.entries({ v1: "one", v2: "two" })) {
      await mkdir(path.join(folder, version));
      await writeFile(path.join(folder, version, "kp.yaml"), text);
    }
    await symlink("v1", path.join(folder, "..data"));
    const mounted = path.join(folder, "mounted-kp.yaml");
    await symlink("..data/kp.yaml", mounted);
    const ends = watchFile(openConfigFile(mounted));
    await symlink("v2", path.join(folder, "..new"));
    await rename(path.join(folder, "..new"), path.join(folder, "..data"));
    await ended(t, ends);
  });
});

test("what changed between reading and watching is seen", async (t) => {
  await watched(t, async ({ file }) => {
    await ended(t, watchFile({ path: file, text: "what it was before" }, { lookMs: 3_600_000 }));
  });
});

test("a touch, a removal and the same text again are no change", async (t) => {
  await watched(t, async ({ file }) => {
    let looked = () => {};
    const read = async (name: string) => {
      setImmediate(looked);
      return readFile(name, "utf8");
    };
    const ends = watchFile(openConfigFile(file), { read });
    const replacements: (() => Promise<void>)[] = [
      () => utimes(file, 1, 1),
      () => rm(file),
      () => writeFile(file, "one"),
    ];
    for (const replace of replacements) {
      const look = new Promise<void>((resolve) => {
        looked = resolve;
      });
      await replace();
      await look;
      t.is(ends.count, 0);
    }
    await writeFile(file, "two");
    await ended(t, ends);
  });
});
