// The certificates, read by another implementation of X.509: Node's own.
import { X509Certificate } from "node:crypto";
import test from "ava";
import { Authority } from "./certificates.ts";

test("a server's certificate is signed by its authority and good for its hosts alone", (t) => {
  const authority = new Authority();
  const hosts = ["localhost", "10.0.0.1", "::1", "2001:db8::5:0:6"];
  const certificate = new X509Certificate(authority.server(hosts).certificate);
  const issuer = new X509Certificate(authority.certificate);
  t.true(certificate.verify(issuer.publicKey));
  t.true(certificate.checkIssued(issuer));
  t.false(certificate.verify(new X509Certificate(new Authority().certificate).publicKey));
  for (const address of hosts.slice(1)) t.truthy(certificate.checkIP(address), address);
  t.truthy(certificate.checkHost("localhost"));
  t.falsy(certificate.checkIP("10.0.0.2"));
  t.falsy(certificate.checkHost("example.com"));
  t.true(issuer.ca);
  t.false(certificate.ca);
});

test("a client's certificate names its user and groups", (t) => {
  const { certificate, key } = new Authority().client("system:node:a", ["system:nodes", "b"]);
  const read = new X509Certificate(certificate);
  t.is(read.subject, "O=system:nodes\nO=b\nCN=system:node:a");
  t.regex(key, /^-----BEGIN PRIVATE KEY-----/);
});

test("a certificate is good now and through the life of any run", (t) => {
  const { validFrom, validTo } = new X509Certificate(new Authority().certificate);
  t.true(Date.parse(validFrom) < Date.now());
  t.true(Date.parse(validTo) > Date.now() + 24 * 3_600_000);
});
