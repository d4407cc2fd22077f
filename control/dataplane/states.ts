// The names of backend states, from the model's words to the kernel's numbers.
import { backendState } from "../../bindings/layout.ts";
import type { BackendState } from "../model/rows.ts";

export const backendStates: Readonly<Record<BackendState, number>> = {
  ready: backendState.BACKEND_READY,
  terminating: backendState.BACKEND_TERMINATING,
};
