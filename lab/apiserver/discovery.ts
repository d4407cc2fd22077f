// What a Kubernetes API server says about itself: health, version, groups and resources, enough for
// kubectl. Knows resources.ts and no object.
import { apiVersionOf, RESOURCES, type Resource } from "./resources.ts";

const VERSION = { major: "1", minor: "36", gitVersion: "v1.36.2", platform: "linux/amd64" };

function resourceList(groupVersion: string, resources: readonly Resource[]): object {
  return {
    kind: "APIResourceList",
    apiVersion: "v1",
    groupVersion,
    resources: resources.map(({ plural, kind, isNamespaced, shortNames }) => ({
      name: plural,
      singularName: kind.toLowerCase(),
      namespaced: isNamespaced,
      kind,
      verbs: ["get", "list", "watch"],
      ...(shortNames.length > 0 && { shortNames }),
    })),
  };
}

function groupList(): object {
  const groups = RESOURCES.filter(({ group }) => group !== "").map((resource) => {
    const version = { groupVersion: apiVersionOf(resource), version: resource.version };
    return { name: resource.group, versions: [version], preferredVersion: version };
  });
  return { kind: "APIGroupList", apiVersion: "v1", groups };
}

/** The JSON document or the text at such a path; undefined if there is none. */
export function discoveryDocument(path: string): object | string | undefined {
  if (["/healthz", "/livez", "/readyz"].includes(path)) return "ok";
  if (path === "/version") return VERSION;
  if (path === "/api") return { kind: "APIVersions", versions: ["v1"] };
  if (path === "/apis") return groupList();
  const [, version] = /^\/(?:api|apis)\/(.+)$/.exec(path) ?? [];
  const resources = RESOURCES.filter((resource) => apiVersionOf(resource) === version);
  return resources.length > 0 ? resourceList(version!, resources) : undefined;
}
