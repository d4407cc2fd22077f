// Keeps a server listening: tries again while it cannot, tells of it once, and of its end. Knows
// neither what is served nor by whom.
import type { BindAddress } from "../config/kinds.ts";
import type { Clock } from "../pace.ts";
import type { Listen, Listening, ListenOptions } from "./http.ts";

/** How long after a failure to listen it is tried again (§13.1). */
export const RETRY_SECONDS = 5;

export interface StandingOptions extends ListenOptions {
  listen: Listen;
  clock: Clock;
  /** Every place is listened on, or none (§12.2). */
  places: readonly BindAddress[];
  onListening: (places: readonly BindAddress[], how: { wasRefused: boolean }) => void;
  /** Called when it cannot listen at all places, once until the reason is another. */
  onRefused: (place: BindAddress, error: NodeJS.ErrnoException) => void;
}

export class Standing {
  readonly #options: StandingOptions;
  #listening: readonly Listening[] = [];
  #callOff = () => {};
  #isStopped = false;
  #refusal = "";

  constructor(options: StandingOptions) {
    this.#options = options;
  }

  /** False while it tries in vain. */
  get isListening(): boolean {
    return this.#listening.length > 0;
  }

  /** Resolves after the first attempt, however it ended. To be called once. */
  async start(): Promise<void> {
    const { listen, clock, places, onListening, onRefused, ...options } = this.#options;
    const opened: Listening[] = [];
    for (const place of places)
      try {
        opened.push(await listen(place, options));
      } catch (error) {
        for (const each of opened) each.close();
        if (this.#isStopped) return;
        const { message } = error as Error;
        if (message !== this.#refusal) onRefused(place, error as NodeJS.ErrnoException);
        this.#refusal = message;
        // It may have been stopped because of that.
        if (!this.#isStopped)
          this.#callOff = clock.after(RETRY_SECONDS * 1000, () => void this.start());
        return;
      }
    if (this.#isStopped) {
      for (const each of opened) each.close();
      return;
    }
    this.#listening = opened;
    const wasRefused = this.#refusal !== "";
    this.#refusal = "";
    onListening(
      opened.map(({ place }) => place),
      { wasRefused },
    );
  }

  /** Ends at once, connections too. */
  stop(): void {
    this.#isStopped = true;
    this.#callOff();
    for (const each of this.#listening) each.close();
    this.#listening = [];
  }
}

/** Why a place cannot be listened on, to go on after "Cannot …: ". */
export function explainRefusal({ port }: BindAddress, error: NodeJS.ErrnoException): string {
  const reasons: Readonly<Record<string, string>> = {
    EADDRINUSE: `another program has the port ("ss -ltnp sport = :${port}" names it)`,
    EADDRNOTAVAIL: "no device of this machine has the address",
    EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE",
    EAFNOSUPPORT: "this machine has no such address family",
  };
  return reasons[error.code ?? ""] ?? error.message;
}

/** "192.0.2.1:80", or "[2001:db8::1]:80". */
export function formatPlace({ address, port }: BindAddress): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}
