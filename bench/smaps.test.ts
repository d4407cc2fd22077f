import test from "ava";
import { parseSmaps } from "./smaps.ts";

test("resident memory is the sum of all mappings, that of BPF maps apart", (t) => {
  const text = `55d0c0000000-55d0c0021000 rw-p 00000000 00:00 0                          [heap]
Size:                132 kB
Rss:                  88 kB
Pss:                  88 kB
7f0000000000-7f0000c00000 rw-s 00000000 00:0e 12                         anon_inode:bpf-map
Size:              12288 kB
Rss:                4096 kB
7f0001000000-7f0001001000 r-xp 00000000 08:01 99                         /usr/bin/node
Rss:                   4 kB
`;
  t.deepEqual(parseSmaps(text), { residentBytes: 4188 * 1024, mapBytes: 4096 * 1024 });
});
