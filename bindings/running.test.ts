// What the kernel tells of programs and BTF by their ids.
import { readFileSync } from "node:fs";
import test from "ava";
import { readBtf } from "./btf.ts";
import { collectLayouts } from "./collect.ts";
import { BpfError } from "./errors.ts";
import { BpfLink } from "./link.ts";
import { BpfObject } from "./object.ts";
import { RunningProgram, readKernelBtf } from "./running.ts";
import { childCgroup, hasRoot, testdata } from "./testing.ts";

test("a map's BTF in the kernel describes all maps as the object's does", (t) => {
  if (!hasRoot(t)) return;
  const object = BpfObject.open(testdata("connect"));
  t.teardown(() => object.close());
  object.load();
  const map = object.map("svc_hits").toMap();
  t.teardown(() => map.close());
  const layouts = collectLayouts(readKernelBtf(map.info.btfId));
  t.deepEqual(layouts, collectLayouts(readBtf(readFileSync(testdata("connect")))));
  t.throws(() => readKernelBtf(0xffffffff), { instanceOf: BpfError, message: /ENOENT/ });
});

test("a program that a link holds can be attached a second time", (t) => {
  if (!hasRoot(t)) return;
  const object = BpfObject.open(testdata("connect"));
  object.load();
  const [first, other] = [childCgroup(t), childCgroup(t)];
  const link = BpfLink.attachCgroup(object.program("redirect"), first);
  const map = object.map("svc_hits").toMap();
  object.close();
  const { programId, attachType } = link.info;
  const program = RunningProgram.openById(programId);
  t.is(program.name, "redirect");
  t.true(program.mapIds.includes(map.info.id));
  const { fd, name } = program;
  const second = BpfLink.attachCgroup({ fd, name, expectedAttachType: attachType }, other);
  t.is(second.info.programId, programId);
  t.not(second.info.id, link.info.id);
  for (const each of [program, second, link, map]) each.close();
  t.throws(() => RunningProgram.openById(0xffffffff), { instanceOf: BpfError });
});
