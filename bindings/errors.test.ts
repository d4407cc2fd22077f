// Messages: what they name, what they quote, and what they advise.
import test from "ava";
import { BpfError, errnoName } from "./errors.ts";
import { openLibrary } from "./libbpf.ts";

test("errno numbers become names, negated or not", (t) => {
  t.is(errnoName(28), "ENOSPC");
  t.is(errnoName(-28), "ENOSPC");
  t.is(errnoName(-524), "ENOTSUPP");
  t.is(errnoName(99999), "errno 99999");
});

test("a message names operation, subject, code and cause", (t) => {
  const reason = "the map holds 131072 entries";
  const error = new BpfError({ operation: "update", subject: "svc_frontends", code: -28, reason });
  t.is(error.message, "Cannot update svc_frontends: ENOSPC, the map holds 131072 entries");
  t.is(error.code, "ENOSPC");
  t.is(error.operation, "update");
  t.is(error.subject, "svc_frontends");
});

test("a message quotes a path and explains a common code", (t) => {
  const error = new BpfError({ operation: "pin", subject: "/a/b", code: 1 });
  t.is(error.message, 'Cannot pin "/a/b": EPERM, run as root, or with CAP_BPF and CAP_NET_ADMIN');
});

test("a message about a missing right names the fix and nothing else", (t) => {
  const error = new BpfError({ operation: "open pinned map", subject: "/a/b", code: "EACCES" });
  t.is(error.message, 'Cannot open pinned map "/a/b": EACCES, run as root');
});

test("a code without explanation ends the message", (t) => {
  t.is(
    new BpfError({ operation: "list", subject: "svc_a", code: 32 }).message,
    "Cannot list svc_a: EPIPE",
  );
});

test("a missing library is an error that names its Debian package", (t) => {
  const error = t.throws(() => openLibrary("libabsent.so.9", "libabsent9"), {
    instanceOf: BpfError,
  });
  t.is(
    error.message,
    'Cannot load libabsent.so.9: ENOENT, install the Debian package "libabsent9"',
  );
  t.truthy(error.cause);
});
