// The names of backend states, from the model's words to the kernel's numbers. Why an endpoint is
// in a state is the model's business.
import { backendState } from "../../bindings/layout.ts";
import type { BackendState } from "../model/rows.ts";

export const backendStates: Readonly<Record<BackendState, number>> = {
  ready: backendState.BACKEND_READY,
  terminating: backendState.BACKEND_TERMINATING,
};
