// What only holds in a guest: it runs the kernel that was meant, which has the features that the
// table says, and no others. So a test that the table leaves out on a kernel is left out rightly.
import { existsSync, readFileSync } from "node:fs";
import os from "node:os";
import test from "ava";
import { type Features, kernelNamed } from "./kernels.ts";

const kernel = kernelNamed(process.env.kernel ?? "");
const types = readFileSync("/sys/kernel/btf/vmlinux", "latin1");

const isThere: Readonly<Record<keyof Features, () => boolean>> = {
  socketDestroy: () => types.includes("\0bpf_sock_destroy\0"),
};

test("the guest runs the kernel that was fetched", (t) => {
  t.is(os.release(), process.env.wanted ?? "");
});

test("connection tracking is a module that is not loaded yet", (t) => {
  t.false(existsSync("/sys/module/nf_conntrack"));
});

for (const [feature, has] of Object.entries(kernel.features))
  test(`this kernel ${has ? "has" : "lacks"} ${feature}`, (t) => {
    t.is(isThere[feature as keyof Features](), has);
  });
