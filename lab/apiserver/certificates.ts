// X.509 certificates for one run: an authority, and servers and clients that it vouches for. Writes
// the few DER structures itself, since node:crypto signs bytes but makes no certificates.
import { createHash, generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import net from "node:net";

const LIFETIME_MS = 365 * 24 * 3_600_000;
/** Clocks of machines that share a lab may differ. */
const BACKDATE_MS = 3_600_000;

/** A key and its certificate, both in PEM. */
export interface Credentials {
  key: string;
  certificate: string;
}

/** ASN.1 tags. */
const INTEGER = 0x02;
const BIT_STRING = 0x03;
const OCTET_STRING = 0x04;
const UTF8_STRING = 0x0c;
const UTC_TIME = 0x17;
const SEQUENCE = 0x30;
const SET = 0x31;
const TRUE = Buffer.from([0x01, 0x01, 0xff]);

/** Object identifiers in DER. */
const ECDSA_SHA256 = Buffer.from("06082a8648ce3d040302", "hex");
const COMMON_NAME = Buffer.from("0603550403", "hex");
const ORGANIZATION = Buffer.from("060355040a", "hex");
const SUBJECT_KEY_ID = Buffer.from("0603551d0e", "hex");
const KEY_USAGE = Buffer.from("0603551d0f", "hex");
const ALTERNATIVE_NAMES = Buffer.from("0603551d11", "hex");
const BASIC_CONSTRAINTS = Buffer.from("0603551d13", "hex");
const AUTHORITY_KEY_ID = Buffer.from("0603551d23", "hex");
const EXTENDED_KEY_USAGE = Buffer.from("0603551d25", "hex");
const SERVER_AUTHENTICATION = Buffer.from("06082b06010505070301", "hex");
const CLIENT_AUTHENTICATION = Buffer.from("06082b06010505070302", "hex");

function der(tag: number, ...contents: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(contents);
  const length =
    content.length < 128
      ? [content.length]
      : content.length < 256
        ? [0x81, content.length]
        : [0x82, content.length >> 8, content.length & 255];
  return Buffer.concat([Buffer.from([tag, ...length]), content]);
}

const context = (number: number, ...contents: readonly Uint8Array[]) =>
  der(0xa0 | number, ...contents);

function nameOf({ commonName, organizations = [] }: Subject): Buffer {
  const part = (type: Buffer, text: string) =>
    der(SET, der(SEQUENCE, type, der(UTF8_STRING, Buffer.from(text))));
  return der(
    SEQUENCE,
    ...organizations.map((organization) => part(ORGANIZATION, organization)),
    part(COMMON_NAME, commonName),
  );
}

/** "260131120000Z"; enough until 2049. */
function timeOf(milliseconds: number): Buffer {
  const digits = new Date(milliseconds).toISOString().replace(/[-:T]|\.\d+/g, "");
  return der(UTC_TIME, Buffer.from(digits.slice(2)));
}

function extension(type: Buffer, value: Buffer, isCritical = false): Buffer {
  return der(SEQUENCE, type, ...(isCritical ? [TRUE] : []), der(OCTET_STRING, value));
}

/** The 16 bytes of an IPv6 address, or the 4 of an IPv4 one. */
function addressBytes(address: string): Buffer {
  if (net.isIPv4(address)) return Buffer.from(address.split(".").map(Number));
  const [head = "", tail] = address.split("::");
  const groups = (text: string) => (text === "" ? [] : text.split(":"));
  const last = tail === undefined ? [] : groups(tail);
  const first = groups(head);
  const middle = Array<string>(8 - first.length - last.length).fill("0");
  const bytes = Buffer.alloc(16);
  [...first, ...middle, ...last].forEach((group, index) => {
    bytes.writeUInt16BE(Number.parseInt(group, 16), index * 2);
  });
  return bytes;
}

function alternativeNames(hosts: readonly string[]): Buffer {
  const names = hosts.map((host) =>
    net.isIP(host) ? der(0x87, addressBytes(host)) : der(0x82, Buffer.from(host)),
  );
  return extension(ALTERNATIVE_NAMES, der(SEQUENCE, ...names));
}

/** Whom a certificate names; Kubernetes reads user and groups from it. */
interface Subject {
  commonName: string;
  organizations?: readonly string[];
}

interface Signer {
  subject: Subject;
  key: KeyObject;
  keyId: Buffer;
}

function keyIdOf(publicKey: KeyObject): Buffer {
  const bytes = publicKey.export({ type: "spki", format: "der" });
  return createHash("sha1").update(bytes).digest();
}

function certificateOf(
  publicKey: KeyObject,
  options: { subject: Subject; issuer: Signer; extensions: readonly Buffer[] },
): string {
  const { subject, issuer, extensions } = options;
  const now = Date.now();
  const serial = randomBytes(16);
  serial[0] = (serial[0]! & 0x7f) | 0x40;
  const body = der(
    SEQUENCE,
    context(0, der(INTEGER, Buffer.from([2]))),
    der(INTEGER, serial),
    der(SEQUENCE, ECDSA_SHA256),
    nameOf(issuer.subject),
    der(SEQUENCE, timeOf(now - BACKDATE_MS), timeOf(now + LIFETIME_MS)),
    nameOf(subject),
    publicKey.export({ type: "spki", format: "der" }),
    context(
      3,
      der(
        SEQUENCE,
        ...extensions,
        extension(SUBJECT_KEY_ID, der(OCTET_STRING, keyIdOf(publicKey))),
        extension(AUTHORITY_KEY_ID, der(SEQUENCE, der(0x80, issuer.keyId))),
      ),
    ),
  );
  const signature = sign("sha256", body, issuer.key);
  const unusedBits = Buffer.from([0]);
  const whole = der(
    SEQUENCE,
    body,
    der(SEQUENCE, ECDSA_SHA256),
    der(BIT_STRING, unusedBits, signature),
  );
  const lines = whole.toString("base64").match(/.{1,64}/g)!;
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
}

function makeKeys(): { publicKey: KeyObject; privateKey: KeyObject } {
  return generateKeyPairSync("ec", { namedCurve: "P-256" });
}

/** Whoever signs certificates: new keys and a new name each time. */
export class Authority {
  /** PEM, for clients to trust. */
  readonly certificate: string;
  readonly #signer: Signer;

  constructor() {
    const { publicKey, privateKey } = makeKeys();
    const subject = { commonName: `lab-ca-${randomBytes(4).toString("hex")}` };
    this.#signer = { subject, key: privateKey, keyId: keyIdOf(publicKey) };
    const signing = Buffer.from([0x03, 0x02, 0x02, 0x84]);
    this.certificate = certificateOf(publicKey, {
      subject,
      issuer: this.#signer,
      extensions: [
        extension(BASIC_CONSTRAINTS, der(SEQUENCE, TRUE), true),
        extension(KEY_USAGE, signing, true),
      ],
    });
  }

  /** Credentials of a server with these addresses and names. */
  server(hosts: readonly string[]): Credentials {
    const subject = { commonName: "kube-apiserver" };
    const usage = extension(EXTENDED_KEY_USAGE, der(SEQUENCE, SERVER_AUTHENTICATION));
    return this.#issue(subject, [usage, alternativeNames(hosts)]);
  }

  /** Credentials of a client: its user is the common name, its groups are the organizations. */
  client(user: string, groups: readonly string[] = []): Credentials {
    const subject = { commonName: user, organizations: groups };
    const usage = extension(EXTENDED_KEY_USAGE, der(SEQUENCE, CLIENT_AUTHENTICATION));
    return this.#issue(subject, [usage]);
  }

  #issue(subject: Subject, extensions: readonly Buffer[]): Credentials {
    const { publicKey, privateKey } = makeKeys();
    const certificate = certificateOf(publicKey, { subject, issuer: this.#signer, extensions });
    return { key: privateKey.export({ type: "pkcs8", format: "pem" }) as string, certificate };
  }
}
