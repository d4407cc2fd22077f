// The house rules that a machine can hold: imports between rooms, lengths, file heads, and words
// that belong to one machine only.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import test from "ava";

const ROOT = path.resolve(import.meta.dirname, "../../..");
const LONGEST_LINE = 100;
const LONGEST_FUNCTION = 70;

const tracked = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], {
  cwd: ROOT,
  encoding: "utf8",
})
  .split("\n")
  .filter((file) => file !== "");

function read(file: string): string {
  return readFileSync(path.join(ROOT, file), "utf8");
}

const typescript = tracked.filter((file) => file.endsWith(".ts"));
const kernelCode = tracked.filter((file) => /^bpf\/.*\.[ch]$/.test(file));

/** Files of the project that a file imports, as paths from the root. */
function importsOf(file: string): string[] {
  const matches = read(file).matchAll(/(?:from|import\()\s*"(\.[^"]+)"/g);
  return [...matches].map(([, target]) => path.join(path.dirname(file), target!));
}

/** What a room may import from, beside itself. Tests may also use what they test with. */
const ALLOWED: readonly { room: string; from: readonly string[] }[] = [
  { room: "bindings/", from: [] },
  { room: "control/model/", from: [] },
  { room: "control/dataplane/", from: ["control/model/", "bindings/"] },
  { room: "control/source/", from: ["control/model/"] },
  {
    room: "control/serve/",
    from: [
      "control/model/",
      "control/source/source.ts",
      ...["config/kinds", "exit", "fakeclock", "log", "pace"].map((name) => `control/${name}.ts`),
    ],
  },
  { room: "control/", from: ["control/"] },
  { room: "lab/", from: ["bindings/"] },
  { room: "bench/", from: ["lab/", "control/", "bindings/"] },
  { room: "test/", from: ["lab/", "control/", "bindings/"] },
];

test("rooms import only what the plan of the house lets them", (t) => {
  for (const file of typescript) {
    const rule = ALLOWED.find(({ room }) => file.startsWith(room));
    if (!rule) continue;
    for (const target of importsOf(file)) {
      const isAllowed = [rule.room, ...rule.from].some((room) => target.startsWith(room));
      t.true(isAllowed, `${file} imports ${target}: "${rule.room}" may not`);
    }
  }
});

test("source and dataplane meet only in the agent and the commands", (t) => {
  for (const file of typescript.filter((name) => name.startsWith("control/"))) {
    const targets = importsOf(file);
    const meets = ["control/source/", "control/dataplane/"].every((room) =>
      targets.some((target) => target.startsWith(room)),
    );
    const isMeetingPlace = file === "control/agent.ts" || file.startsWith("control/command/");
    t.true(!meets || isMeetingPlace, `${file} imports both`);
  }
});

test("what is answered over HTTP is put together by the commands alone", (t) => {
  for (const file of typescript.filter((name) => /^control\/(?!serve|command)/.test(name))) {
    const served = importsOf(file).filter((target) => target.startsWith("control/serve/"));
    // The flag of run that chooses series is read where flags are.
    const isFlag = file === "control/main.ts" && served.every((name) => name.endsWith("series.ts"));
    t.true(served.length === 0 || isFlag, `${file} imports ${served.join(", ")}`);
  }
});

test("koffi is used in bindings and in the lab's socket calls only", (t) => {
  for (const file of typescript)
    if (/^import .* from "koffi"/m.test(read(file)))
      t.true(file.startsWith("bindings/") || file === "lab/sockets.ts", file);
});

/** The headers of the programs from the ground up: each may include those before it. */
const HEADERS = [
  ...["maps.h", "address.h", "packet.h", "balance.h", "socket.h", "flow.h", "forward.h"],
  ...["rewrite.h", "passage.h", "skb.h", "answer.h", "unusual.h", "conntrack.h"],
];

test("headers include only what lies below them", (t) => {
  for (const file of kernelCode.filter((name) => name.endsWith(".h"))) {
    const place = HEADERS.indexOf(path.basename(file));
    t.true(place >= 0, `${file} has no place among the headers`);
    for (const [, target] of read(file).matchAll(/#include "([^"]+)"/g))
      t.true(HEADERS.slice(0, place).includes(target!), `${file} includes ${target}`);
  }
});

/** Columns of a line with tab stops every eight columns. */
function columnsOf(line: string): number {
  let columns = 0;
  for (const character of line) columns += character === "\t" ? 8 - (columns % 8) : 1;
  return columns;
}

test("lines have at most 100 columns", (t) => {
  const isGenerated = (file: string) => file === "bindings/layout.ts";
  const tooLong: string[] = [];
  for (const file of [...typescript, ...kernelCode].filter((name) => !isGenerated(name)))
    read(file)
      .split("\n")
      .forEach((line, index) => {
        if (columnsOf(line) > LONGEST_LINE) tooLong.push(`${file}:${index + 1}`);
      });
  t.deepEqual(tooLong, []);
});

test("functions in C have at most 70 lines", (t) => {
  for (const file of kernelCode) {
    const lines = read(file).split("\n");
    let start = -1;
    lines.forEach((line, index) => {
      if (line === "{") start = index;
      if (line === "}" && start >= 0) {
        t.true(index - start < LONGEST_FUNCTION, `${file}:${start + 1}`);
        start = -1;
      }
    });
  }
});

test("every file opens by saying what it is for", (t) => {
  for (const file of typescript.filter((name) => !name.endsWith(".test.ts")))
    t.regex(read(file), /^\/\/ .+\n\/\/ /, `${file} has no head of two lines or more`);
  for (const file of kernelCode)
    t.regex(read(file), /^\/\* SPDX-License-Identifier: .* \*\/\n\/\*\n \* /, file);
});

test("struct fields that programs and agent share have no implicit padding", (t) => {
  const maps = read("bpf/maps.h");
  t.false(/__attribute__\(\(packed\)\) \w+;/.test(maps), "packed structs hide misaligned fields");
  t.regex(read("bindings/layout.ts"), /^\/\/ Generated/);
});

test("no file names a package registry or this machine's folders", (t) => {
  const forbidden = [/registry\.npm/, /\/work\/(main|shared)/, /deb\.debian\.org/];
  for (const file of tracked.filter((name) => name !== "test/tidy/tidy.test.ts"))
    for (const pattern of forbidden) t.notRegex(read(file), pattern, file);
});
