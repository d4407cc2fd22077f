// The API server against what a real one answered: the same objects, the same requests, the same
// bytes. The recordings are in the folder BPFSVC_FIXTURES, by default beside the checkout.
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import test, { type ExecutionContext } from "ava";
import { type Answer, ask, decodeMessage, openEnvelope, readFrames } from "./client.ts";
import type { ApiObject } from "./objects.ts";
import { type ApiServer, type ApiServerOptions, startApiServer } from "./server.ts";

interface Recording {
  file: string;
  request: string;
  accept: string;
  status: number;
  contentType: string;
}

interface RecordedEvent {
  type: string;
  object: ApiObject;
}

/** Versions that the real server had when the lists were recorded. */
const RESOURCE_VERSION = 240;
const COMPACTED = 237;
const HEADLESS = "service.kubernetes.io/headless";

const root = path.resolve(import.meta.dirname, "../../..");
const fixtures = path.resolve(root, process.env.BPFSVC_FIXTURES ?? "../shared/fixtures");
const folder = path.join(fixtures, "apiserver-1.36");
const read = (file: string) => readFileSync(path.join(folder, file));

/** The objects of a recorded list, with the kind and version that items lack. */
function objectsIn(file: string): ApiObject[] {
  const { kind, apiVersion, items } = JSON.parse(read(file).toString());
  return items.map((item: ApiObject) => {
    return { kind: kind.replace(/List$/, ""), apiVersion, ...item };
  });
}

const LISTS = [
  "services-list-all.json",
  "endpointslices-list.json",
  "node.json",
  "servicecidrs-list.json",
];

async function startAsRecorded(
  t: ExecutionContext,
  options: ApiServerOptions = {},
): Promise<ApiServer> {
  const server = await startApiServer({
    objects: LISTS.flatMap(objectsIn),
    resourceVersion: RESOURCE_VERSION,
    compacted: COMPACTED,
    ...options,
  });
  t.teardown(() => server.close());
  return server;
}

/** Asks as the recording did. */
async function replay(server: ApiServer, { request, accept, file }: Recording): Promise<Answer> {
  return ask(server, request.replace("GET ", ""), {
    accept,
    ...(file.startsWith("error-401") && { token: "no valid token" }),
    ...(file.startsWith("gzip") && { headers: { "accept-encoding": "gzip" } }),
  });
}

function checkHead(t: ExecutionContext, answer: Answer, recording: Recording): void {
  t.is(answer.status, recording.status);
  t.is(answer.type, recording.contentType);
  t.is(answer.header("content-encoding"), undefined);
}

function checkBytes(t: ExecutionContext, bytes: Buffer, expected: Buffer): void {
  if (!bytes.equals(expected)) t.is(bytes.toString("latin1"), expected.toString("latin1"));
  t.true(bytes.equals(expected));
}

/** The events of a recorded watch, each with its object. */
function eventsIn(file: string): RecordedEvent[] {
  if (file.endsWith(".json")) {
    const lines = read(file).toString().trimEnd().split("\n");
    return lines.map((line) => JSON.parse(line));
  }
  return readFrames(read(file)).map(({ type, object }) => {
    const { apiVersion, kind, raw } = openEnvelope(object);
    return { type, object: { kind, apiVersion, ...decodeMessage(kind, raw) } as ApiObject };
  });
}

/** The slice that leaves the selector, as it was before: the event of that shows it so. */
function stateBefore(events: readonly RecordedEvent[], resourceVersion: string): ApiObject {
  const { object } = events.find(({ object: { metadata } }) => metadata.name === "dns-a")!;
  return { ...object, metadata: { ...object.metadata, resourceVersion } };
}

/** Makes the change that a recorded event tells of. */
function makeChange(
  server: ApiServer,
  { type, object }: { type: string; object: ApiObject },
): void {
  const { kind, metadata } = object;
  const { name, namespace = "", labels } = metadata;
  if (type === "BOOKMARK") server.bookmark();
  else if (type !== "DELETED") server.apply(object);
  else if (name === "dns-a")
    server.apply({ ...object, metadata: { ...metadata, labels: { ...labels, [HEADLESS]: "" } } });
  else server.delete({ kind: kind!, namespace, name });
}

if (existsSync(folder)) {
  const recordings: Recording[] = JSON.parse(read("index.json").toString());
  const isWatch = ({ request }: Recording) => request.includes("watch=1");

  for (const recording of recordings.filter((each) => !isWatch(each))) {
    test(`${recording.file} is answered byte for byte`, async (t) => {
      const server = await startAsRecorded(t);
      const answer = await replay(server, recording);
      checkHead(t, answer, recording);
      checkBytes(t, await answer.whole(), read(recording.file));
    });
  }

  for (const recording of recordings.filter(({ file }) => file.startsWith("services-watch-410"))) {
    test(`${recording.file} is answered byte for byte, and ends`, async (t) => {
      const server = await startAsRecorded(t);
      const answer = await replay(server, recording);
      checkHead(t, answer, recording);
      checkBytes(t, await answer.whole(), read(recording.file));
    });
  }

  for (const recording of recordings.filter(({ file }) => file.startsWith("services-watchlist"))) {
    test(`${recording.file} is answered byte for byte`, async (t) => {
      const { metadata } = eventsIn(recording.file).at(-1)!.object;
      const server = await startAsRecorded(t, {
        resourceVersion: Number(metadata.resourceVersion),
      });
      const answer = await replay(server, recording);
      checkHead(t, answer, recording);
      const expected = read(recording.file);
      checkBytes(t, await answer.atLeast(expected.length), expected);
      answer.close();
    });
  }

  for (const recording of recordings.filter(({ file }) =>
    file.startsWith("endpointslices-watch"),
  )) {
    test(`${recording.file} is answered byte for byte while the changes happen`, async (t) => {
      const [, since] = /resourceVersion=(\d+)/.exec(recording.request)!;
      const events = eventsIn(recording.file);
      const server = await startAsRecorded(t, {
        resourceVersion: Number(since),
        objects: [...LISTS.flatMap(objectsIn), stateBefore(events, since!)],
      });
      const answer = await replay(server, recording);
      checkHead(t, answer, recording);
      for (const event of events) makeChange(server, event);
      const expected = read(recording.file);
      checkBytes(t, await answer.atLeast(expected.length), expected);
      answer.close();
    });
  }
} else {
  test("the recordings of a real API server are there", (t) => {
    t.log(`LEFT OUT: "${folder}" does not exist; set BPFSVC_FIXTURES to the folder of fixtures`);
    t.falsy(process.env.CI, "on CI nothing may be left out");
  });
}
