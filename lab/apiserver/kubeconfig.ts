// A kubeconfig for one cluster and one user, for clients of the lab's API server. Knows the file's
// form alone, neither the server nor whether the credentials are good.

/** How the user proves who it is. */
export type Proof = { token: string } | { certificate: string; key: string };

function base64(text: string): string {
  return Buffer.from(text).toString("base64");
}

/** The text of a kubeconfig (JSON, which is YAML too). `authority` is a PEM certificate. */
export function makeKubeconfig(options: {
  url: string;
  authority: string;
  user: string;
  proof: Proof;
}): string {
  const { url, authority, user, proof } = options;
  const cluster = { server: url, "certificate-authority-data": base64(authority) };
  const credentials =
    "token" in proof
      ? { token: proof.token }
      : {
          "client-certificate-data": base64(proof.certificate),
          "client-key-data": base64(proof.key),
        };
  const config = {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "lab", cluster }],
    users: [{ name: user, user: credentials }],
    contexts: [{ name: "lab", context: { cluster: "lab", user } }],
    "current-context": "lab",
  };
  return `${JSON.stringify(config, undefined, 2)}\n`;
}
