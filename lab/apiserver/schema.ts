// Field names, numbers and types of the Kubernetes messages that the API server of the lab speaks.
// Data alone: protobuf.ts encodes by it, and what is not listed here cannot be stored.

/**
 * The fields of each message as "number name type". `!` after the number: a plain value in Go, so
 * that it is on the wire even if it is zero; the others only if they are there. `[]` before a type
 * is a list. Times, quantities, int-or-strings and FieldsV1 have JSON forms of their own.
 */
const MESSAGES: Readonly<Record<string, readonly string[]>> = {
  Service: ["1! metadata ObjectMeta", "2! spec ServiceSpec", "3! status ServiceStatus"],
  ServiceSpec: [
    "1 ports []ServicePort",
    "2 selector map",
    "3! clusterIP string",
    "4! type string",
    "5 externalIPs []string",
    "7! sessionAffinity string",
    "8! loadBalancerIP string",
    "9 loadBalancerSourceRanges []string",
    "10! externalName string",
    "11! externalTrafficPolicy string",
    "12! healthCheckNodePort int",
    "13! publishNotReadyAddresses bool",
    "14 sessionAffinityConfig SessionAffinityConfig",
    "17 ipFamilyPolicy string",
    "18 clusterIPs []string",
    "19 ipFamilies []string",
    "20 allocateLoadBalancerNodePorts bool",
    "21 loadBalancerClass string",
    "22 internalTrafficPolicy string",
    "23 trafficDistribution string",
  ],
  ServicePort: [
    "1! name string",
    "2! protocol string",
    "3! port int",
    "4! targetPort intOrString",
    "5! nodePort int",
    "6 appProtocol string",
  ],
  SessionAffinityConfig: ["1 clientIP ClientIPConfig"],
  ClientIPConfig: ["1 timeoutSeconds int"],
  ServiceStatus: ["1! loadBalancer LoadBalancerStatus", "2 conditions []Condition"],
  LoadBalancerStatus: ["1 ingress []LoadBalancerIngress"],
  LoadBalancerIngress: [
    "1! ip string",
    "2! hostname string",
    "3 ipMode string",
    "4 ports []PortStatus",
  ],
  PortStatus: ["1! port int", "2! protocol string", "3 error string"],

  Node: ["1! metadata ObjectMeta", "2! spec NodeSpec", "3! status NodeStatus"],
  NodeSpec: [
    "1! podCIDR string",
    "2! externalID string",
    "3! providerID string",
    "4! unschedulable bool",
    "5 taints []Taint",
    "7 podCIDRs []string",
  ],
  Taint: ["1! key string", "2! value string", "3! effect string", "4 timeAdded time"],
  NodeStatus: [
    "1 capacity quantities",
    "2 allocatable quantities",
    "3! phase string",
    "4 conditions []NodeCondition",
    "5 addresses []NodeAddress",
    "6! daemonEndpoints NodeDaemonEndpoints",
    "7! nodeInfo NodeSystemInfo",
    "8 images []ContainerImage",
    "9 volumesInUse []string",
    "10 volumesAttached []AttachedVolume",
    "12 runtimeHandlers []NodeRuntimeHandler",
    "13 features NodeFeatures",
    "14 declaredFeatures []string",
  ],
  NodeAddress: ["1! type string", "2! address string"],
  NodeCondition: [
    "1! type string",
    "2! status string",
    "3! lastHeartbeatTime time",
    "4! lastTransitionTime time",
    "5! reason string",
    "6! message string",
  ],
  NodeDaemonEndpoints: ["1! kubeletEndpoint DaemonEndpoint"],
  DaemonEndpoint: ["1! Port int"],
  NodeSystemInfo: [
    "1! machineID string",
    "2! systemUUID string",
    "3! bootID string",
    "4! kernelVersion string",
    "5! osImage string",
    "6! containerRuntimeVersion string",
    "7! kubeletVersion string",
    "8! kubeProxyVersion string",
    "9! operatingSystem string",
    "10! architecture string",
    "11 swap NodeSwapStatus",
  ],
  NodeSwapStatus: ["1 capacity int"],
  ContainerImage: ["1 names []string", "2! sizeBytes int"],
  AttachedVolume: ["1! name string", "2! devicePath string"],
  NodeRuntimeHandler: ["1! name string", "2 features NodeRuntimeHandlerFeatures"],
  NodeRuntimeHandlerFeatures: ["1 recursiveReadOnlyMounts bool", "2 userNamespaces bool"],
  NodeFeatures: ["1 supplementalGroupsPolicy bool"],

  EndpointSlice: [
    "1! metadata ObjectMeta",
    "2 endpoints []Endpoint",
    "3 ports []EndpointPort",
    "4! addressType string",
  ],
  Endpoint: [
    "1 addresses []string",
    "2! conditions EndpointConditions",
    "3 hostname string",
    "4 targetRef ObjectReference",
    "5 deprecatedTopology map",
    "6 nodeName string",
    "7 zone string",
    "8 hints EndpointHints",
  ],
  EndpointConditions: ["1 ready bool", "2 serving bool", "3 terminating bool"],
  EndpointHints: ["1 forZones []NameOnly", "2 forNodes []NameOnly"],
  NameOnly: ["1! name string"],
  EndpointPort: ["1 name string", "2 protocol string", "3 port int", "4 appProtocol string"],
  ObjectReference: [
    "1! kind string",
    "2! namespace string",
    "3! name string",
    "4! uid string",
    "5! apiVersion string",
    "6! resourceVersion string",
    "7! fieldPath string",
  ],

  ServiceCIDR: ["1! metadata ObjectMeta", "2! spec ServiceCIDRSpec", "3! status ServiceCIDRStatus"],
  ServiceCIDRSpec: ["1 cidrs []string"],
  ServiceCIDRStatus: ["1 conditions []Condition"],

  Condition: [
    "1! type string",
    "2! status string",
    "3! observedGeneration int",
    "4! lastTransitionTime time",
    "5! reason string",
    "6! message string",
  ],
  ObjectMeta: [
    "1! name string",
    "2! generateName string",
    "3! namespace string",
    "4! selfLink string",
    "5! uid string",
    "6! resourceVersion string",
    "7! generation int",
    "8! creationTimestamp time",
    "9 deletionTimestamp time",
    "10 deletionGracePeriodSeconds int",
    "11 labels map",
    "12 annotations map",
    "13 ownerReferences []OwnerReference",
    "14 finalizers []string",
    "17 managedFields []ManagedFieldsEntry",
  ],
  OwnerReference: [
    "1! kind string",
    "3! name string",
    "4! uid string",
    "5! apiVersion string",
    "6 controller bool",
    "7 blockOwnerDeletion bool",
  ],
  ManagedFieldsEntry: [
    "1! manager string",
    "2! operation string",
    "3! apiVersion string",
    "4 time time",
    "6! fieldsType string",
    "7 fieldsV1 fieldsV1",
    "8! subresource string",
  ],
  ListMeta: [
    "1! selfLink string",
    "2! resourceVersion string",
    "3! continue string",
    "4 remainingItemCount int",
  ],
  Status: [
    "1! metadata ListMeta",
    "2! status string",
    "3! message string",
    "4! reason string",
    "5 details StatusDetails",
    "6! code int",
  ],
  StatusDetails: [
    "1! name string",
    "2! group string",
    "3! kind string",
    "4 causes []StatusCause",
    "5! retryAfterSeconds int",
    "6! uid string",
  ],
  StatusCause: ["1! reason string", "2! message string", "3! field string"],
};

/** How a value is encoded; everything that is a message has the word "message". */
export type FieldType =
  | "string"
  | "int"
  | "bool"
  | "time"
  | "map"
  | "quantities"
  | "intOrString"
  | "fieldsV1"
  | "message";

/** One field of a message. */
export interface Field {
  name: string;
  number: number;
  type: FieldType;
  /** The fields of a message; undefined for all other types. */
  message: Message | undefined;
  isList: boolean;
  /** On the wire even if it is absent from the JSON form. */
  isAlways: boolean;
}

/** A message: its fields by descending number, and their names. */
export interface Message {
  name: string;
  fields: readonly Field[];
  names: ReadonlySet<string>;
}

const SCALARS: ReadonlySet<string> = new Set<FieldType>([
  "string",
  "int",
  "bool",
  "time",
  "map",
  "quantities",
  "intOrString",
  "fieldsV1",
]);
const compiled = new Map<string, Message>();

function compileField(line: string): Field {
  const [number, name, type] = line.split(" ") as [string, string, string];
  const isList = type.startsWith("[]");
  const element = isList ? type.slice(2) : type;
  const isScalar = SCALARS.has(element);
  return {
    name,
    number: Number.parseInt(number, 10),
    type: isScalar ? (element as FieldType) : "message",
    message: isScalar ? undefined : messageOf(element),
    isList,
    isAlways: number.endsWith("!"),
  };
}

/** The message of this name; throws for one that is not listed. */
export function messageOf(name: string): Message {
  const known = compiled.get(name);
  if (known) return known;
  const lines = MESSAGES[name];
  if (!lines) throw new Error(`The schema lists no message '${name}'; add it with its fields`);
  const fields = lines.map(compileField).sort((a, b) => b.number - a.number);
  const message = { name, fields, names: new Set(fields.map((field) => field.name)) };
  compiled.set(name, message);
  return message;
}
