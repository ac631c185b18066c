/**
 * A WebSocket that reconnects and loses no event. One file, no dependency: copy it into your own project.
 *
 *     const socket = new ReconnectingWebSocket({
 *       url: `/api/v1/cv-processing/ws/${userId}`,
 *       onMessage: (data) => console.log(data.type),
 *     });
 *     socket.close();
 *
 * What it requires of the server; only the first item is mandatory:
 * - messages are JSON objects with a string `type`; the text `ping` is answered (by `{"type":"pong"}`);
 * - an event carries a string `id`; a connection with `?last_event_id=<id>` first gets the events after that id;
 * - if the history no longer reaches back to that id: `{"type":"resync","snapshot":{"last_event_id":…}}`;
 * - close codes: 4400 malformed id, 4401 no valid session, 4403 another user's session, 4429 too many messages.
 *   After 4401 and 4403 it stays closed. After any other code, including 1012 (restart) and 1013 (slow reader),
 *   it reconnects and resumes;
 * - a close reason that contains `retry in <n> ms` names the time at which the server can take the connection.
 */

/**
 * - `connecting`: the first connection is being made
 * - `live`: open
 * - `reconnecting`: lost, and being made again
 * - `offline`: the browser reports no network; attempts continue, because it can be wrong
 * - `closed`: permanently, by `close()` or because the server refused the session
 */
export type ConnectionState = "connecting" | "live" | "reconnecting" | "offline" | "closed";

export interface ServerMessage {
  readonly type: string;
  /** Opaque. Only events have one. */
  readonly id?: string;
}

/** The whole state after the event `last_event_id`. */
export interface Snapshot {
  readonly last_event_id: string;
}

/** Discard the state. `snapshot` replaces it; when that is null, events were lost: load the state yourself. */
export interface Resync<S extends Snapshot> {
  readonly type: "resync";
  readonly snapshot: S | null;
}

export interface Disconnection {
  /** The close code, or 1006 when the server stopped answering. */
  readonly code: number;
  readonly reason: string;
  /** True after 4401 and 4403: it does not reconnect. */
  readonly final: boolean;
}

export interface ReconnectingWebSocketOptions<M extends ServerMessage, S extends Snapshot> {
  /** A path on the page's own host (ws or wss like the page itself), or an absolute ws:, wss:, http: or https: URL. */
  url: string;
  /** Called for every event once, in order, and for `resync`; not for `pong` and `heartbeat`. */
  onMessage: (data: M | Resync<S>) => void;
  onConnect?: () => void;
  /** An open connection was lost, or the server refused the session. Not called for `close()` or failed attempts. */
  onDisconnect?: (end: Disconnection) => void;
  onStateChange?: (state: ConnectionState) => void;
  /** Milliseconds. The second attempt waits up to this long, each further one up to twice as long. Default 3000. */
  reconnectInterval?: number;
  /** Upper limit of every wait, in milliseconds. Default 30000. */
  maxReconnectInterval?: number;
  /** Milliseconds between two pings; must be below the idle timeouts of proxies. Default 30000. */
  heartbeatInterval?: number;
  /** Milliseconds within which a connection must open and a ping be answered. Default 10000. */
  responseTimeout?: number;
  /** Id of the last event that the page already shows. */
  lastEventId?: string;
  /**
   * Loads the state over HTTP. Called before connecting while no last id is known: at the start and after 4400.
   * The result is passed on as `resync`, and the connection resumes from its `last_event_id`. A rejection is retried.
   */
  loadSnapshot?: (signal: AbortSignal) => Promise<S>;
}

/** Upper limit in milliseconds for the first attempt; the jitter spreads the clients of a restarted server. */
const FIRST_DELAY = 500;
/** Milliseconds after which a connection counts as stable: the delays then start from the beginning. */
const STABLE_AFTER = 5_000;
/** The server knows how long it will be away and how many clients will return. */
const RETRY_HINT = /\bretry in (\d{1,7}) ms\b/;
/** Ids kept to detect duplicates: far more than any overlap of replay and live events. */
const REMEMBERED_IDS = 4_096;

const CLOSE_ABNORMAL = 1006;
const CLOSE_BAD_EVENT_ID = 4400;
const CLOSE_NO_SESSION = 4401;
const CLOSE_FORBIDDEN = 4403;
const CLOSE_TOO_MANY = 4429;

export class ReconnectingWebSocket<
  M extends ServerMessage = ServerMessage & Readonly<Record<string, unknown>>,
  S extends Snapshot = Snapshot & Readonly<Record<string, unknown>>,
> {
  readonly #options: ReconnectingWebSocketOptions<M, S>;
  readonly #url: URL;
  readonly #reconnectInterval: number;
  readonly #maxReconnectInterval: number;
  readonly #heartbeatInterval: number;
  readonly #responseTimeout: number;

  readonly #listeners = new AbortController();
  readonly #seen = new Set<string>();
  #state: ConnectionState = "connecting";
  #lastEventId: string | undefined;
  /** Covers one attempt, from the snapshot to the lost connection. Once aborted, none of its events has an effect. */
  #attempt = new AbortController();
  #socket: WebSocket | undefined;
  #openedAt: number | undefined;
  #everOpened = false;
  #failures = 0;
  /** The server closed with 4429: nothing shortens the wait. */
  #throttled = false;
  /** The page is in the browser's back/forward cache, where its scripts do not run. */
  #cached = false;
  #retryTimer: Timer;
  #heartbeatTimer: Timer;
  #deadlineTimer: Timer;

  /**
   * Connects at once.
   *
   * @throws {SyntaxError} if no WebSocket can be opened to `url`
   * @throws {RangeError} if a number of milliseconds is not positive and finite
   */
  constructor(options: ReconnectingWebSocketOptions<M, S>) {
    this.#options = options;
    this.#url = socketUrl(options.url);
    this.#reconnectInterval = milliseconds("reconnectInterval", options.reconnectInterval ?? 3_000);
    this.#maxReconnectInterval = milliseconds("maxReconnectInterval", options.maxReconnectInterval ?? 30_000);
    this.#heartbeatInterval = milliseconds("heartbeatInterval", options.heartbeatInterval ?? 30_000);
    this.#responseTimeout = milliseconds("responseTimeout", options.responseTimeout ?? 10_000);
    this.#lastEventId = options.lastEventId;

    const { signal } = this.#listeners;
    window.addEventListener("online", () => this.#onOnline(), { signal });
    window.addEventListener("offline", () => this.#onOffline(), { signal });
    document.addEventListener("visibilitychange", () => this.#onVisibilityChange(), { signal });
    window.addEventListener("pagehide", () => this.#onPageHide(), { signal });
    window.addEventListener("pageshow", () => this.#onPageShow(), { signal });
    this.#connect();
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** The id that the next connection resumes from. */
  get lastEventId(): string | undefined {
    return this.#lastEventId;
  }

  /** Closes the connection permanently. No callback runs afterwards. */
  close(): void {
    this.#abandon();
    this.#listeners.abort();
    this.#state = "closed";
  }

  #connect(): void {
    this.#abandon();
    this.#throttled = false;
    this.#attempt = new AbortController();
    this.#expectAnswer();
    const { loadSnapshot } = this.#options;
    if (this.#lastEventId === undefined && loadSnapshot !== undefined) void this.#load(loadSnapshot);
    else this.#open();
    this.#setState(this.#stateWithoutSocket());
  }

  async #load(loadSnapshot: (signal: AbortSignal) => Promise<S>): Promise<void> {
    const { signal } = this.#attempt;
    try {
      const snapshot = await loadSnapshot(signal);
      if (!signal.aborted) this.#resync(snapshot);
    } catch (error) {
      if (signal.aborted) return;
      console.error("[WebSocket] Snapshot not loaded:", error);
      this.#lost(CLOSE_ABNORMAL, "snapshot not loaded");
    }
    // Aborted if the load failed, took too long, or onMessage called close().
    if (signal.aborted) return;
    this.#expectAnswer();
    this.#open();
  }

  #open(): void {
    const address = new URL(this.#url);
    if (this.#lastEventId !== undefined) address.searchParams.set("last_event_id", this.#lastEventId);
    const socket = new WebSocket(address);
    const { signal } = this.#attempt;
    socket.addEventListener("open", () => this.#opened(), { signal });
    socket.addEventListener("message", (event: MessageEvent<unknown>) => this.#received(event.data), {
      signal,
    });
    // `error` has no information that the `close` after it lacks.
    socket.addEventListener("close", ({ code, reason }) => this.#lost(code, reason), { signal });
    this.#socket = socket;
  }

  #opened(): void {
    // Without an id nothing is replayed: events since the last connection are lost, so report a gap.
    const gap = this.#everOpened && this.#lastEventId === undefined;
    this.#openedAt = performance.now();
    this.#everOpened = true;
    this.#answered();
    this.#ping();
    console.log("[WebSocket] Connected");
    this.#setState("live");
    this.#call(() => this.#options.onConnect?.());
    if (gap) this.#deliver({ type: "resync", snapshot: null });
  }

  #received(data: unknown): void {
    this.#answered();
    // A message proves that the browser is not offline.
    this.#setState("live");
    const message = this.#parse(data);
    if (message === undefined) {
      console.error("[WebSocket] Ignored, not a JSON object with a type:", data);
    } else if (message.type === "pong" || message.type === "heartbeat") {
      console.log("[WebSocket] Message received:", message);
    } else if (isResync(message)) {
      console.log("[WebSocket] Message received:", message);
      this.#resync(message.snapshot);
    } else if (message.id !== undefined && this.#seen.has(message.id)) {
      console.log("[WebSocket] Duplicate dropped:", message.id);
    } else {
      console.log("[WebSocket] Message received:", message);
      if (message.id !== undefined) this.#remember(message.id);
      this.#deliver(message);
    }
  }

  #resync(snapshot: S | null): void {
    this.#seen.clear();
    this.#lastEventId = snapshot?.last_event_id;
    this.#deliver({ type: "resync", snapshot });
  }

  #remember(id: string): void {
    this.#lastEventId = id;
    this.#seen.add(id);
    if (this.#seen.size <= REMEMBERED_IDS) return;
    for (const oldest of this.#seen) {
      this.#seen.delete(oldest);
      break;
    }
  }

  #deliver(message: M | Resync<S>): void {
    this.#call(() => this.#options.onMessage(message));
  }

  #lost(code: number, reason: string): void {
    const openedAt = this.#openedAt;
    this.#abandon();
    if (openedAt !== undefined && performance.now() - openedAt >= STABLE_AFTER) this.#failures = 0;
    if (code === CLOSE_BAD_EVENT_ID) this.#lastEventId = undefined;

    const final = code === CLOSE_NO_SESSION || code === CLOSE_FORBIDDEN;
    if (final) {
      console.log("[WebSocket] Refused:", code, reason);
    } else {
      const delay = this.#delay(code, reason);
      this.#throttled = code === CLOSE_TOO_MANY;
      this.#retryTimer = setTimeout(() => this.#connect(), delay);
      console.log(
        `[WebSocket] Disconnected: ${code} ${reason}`.trimEnd() + `; next attempt in ${Math.round(delay)} ms`,
      );
    }
    this.#setState(final ? "closed" : this.#stateWithoutSocket());
    if (openedAt !== undefined || final)
      this.#call(() => this.#options.onDisconnect?.({ code, reason, final }));
    if (final) this.close();
  }

  /**
   * Milliseconds before the next attempt: long after 4429, else the server's hint, else full jitter (between zero and a
   * ceiling that doubles with each failure).
   */
  #delay(code: number, reason = ""): number {
    const longest = this.#maxReconnectInterval;
    const failures = this.#failures;
    this.#failures += 1;
    if (code === CLOSE_TOO_MANY) return ((1 + Math.random()) / 2) * longest;
    const hint = RETRY_HINT.exec(reason)?.[1];
    if (hint !== undefined) {
      // A failure after the hint is a first failure.
      this.#failures = 0;
      return Math.min(Number(hint), longest);
    }
    const ceiling =
      failures === 0
        ? Math.min(FIRST_DELAY, this.#reconnectInterval)
        : this.#reconnectInterval * 2 ** (failures - 1);
    return Math.random() * Math.min(ceiling, longest);
  }

  /** Sends a ping now and then at the interval. A pending answer keeps its deadline. */
  #ping(): void {
    clearTimeout(this.#heartbeatTimer);
    this.#heartbeatTimer = setTimeout(() => this.#ping(), this.#heartbeatInterval);
    if (this.#deadlineTimer !== undefined) return;
    this.#socket?.send("ping");
    this.#expectAnswer();
  }

  #expectAnswer(): void {
    this.#answered();
    this.#deadlineTimer = setTimeout(
      () => this.#lost(CLOSE_ABNORMAL, `no answer within ${this.#responseTimeout} ms`),
      this.#responseTimeout,
    );
  }

  #answered(): void {
    clearTimeout(this.#deadlineTimer);
    this.#deadlineTimer = undefined;
  }

  /** Drops the current attempt without waiting for the socket's close event, which may come minutes later. */
  #abandon(): void {
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#heartbeatTimer);
    this.#retryTimer = undefined;
    this.#answered();
    this.#openedAt = undefined;
    this.#attempt.abort();
    this.#socket?.close();
    this.#socket = undefined;
  }

  #onOnline(): void {
    this.#failures = 0;
    if (this.#cached) return;
    if (this.#openedAt !== undefined) this.#ping();
    else if (!this.#throttled) this.#connect();
  }

  #onOffline(): void {
    this.#setState("offline");
    // Only a hint: an open socket may have survived, which a ping shows.
    if (this.#openedAt !== undefined) this.#ping();
  }

  #onVisibilityChange(): void {
    if (document.visibilityState !== "visible") return;
    // A machine may wake from sleep with a dead socket, and timers of hidden pages run late.
    if (this.#openedAt !== undefined) this.#ping();
    else if (this.#retryTimer !== undefined && !this.#throttled) this.#connect();
  }

  /** A cached page could keep the socket open, and its events queued, for minutes. */
  #onPageHide(): void {
    this.#cached = true;
    this.#abandon();
    this.#setState(this.#stateWithoutSocket());
  }

  #onPageShow(): void {
    // Also fired on the first load.
    if (!this.#cached) return;
    this.#cached = false;
    this.#failures = 0;
    if (this.#throttled) this.#retryTimer = setTimeout(() => this.#connect(), this.#delay(CLOSE_TOO_MANY));
    else this.#connect();
  }

  #stateWithoutSocket(): ConnectionState {
    if (!navigator.onLine) return "offline";
    return this.#everOpened ? "reconnecting" : "connecting";
  }

  #setState(state: ConnectionState): void {
    if (state === this.#state || this.#listeners.signal.aborted) return;
    this.#state = state;
    this.#call(() => this.#options.onStateChange?.(state));
  }

  /** Runs a callback. An error in it is reported as uncaught and does not affect the connection. */
  #call(callback: () => void): void {
    if (this.#listeners.signal.aborted) return;
    try {
      callback();
    } catch (error) {
      reportError(error);
    }
  }

  #parse(data: unknown): M | Resync<S> | undefined {
    if (typeof data !== "string") return undefined;
    try {
      const value: unknown = JSON.parse(data);
      const valid =
        typeof value === "object" && value !== null && "type" in value && typeof value.type === "string";
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- guaranteed by the contract
      return valid ? (value as M | Resync<S>) : undefined;
    } catch {
      return undefined;
    }
  }
}

type Timer = ReturnType<typeof setTimeout> | undefined;

function isResync<S extends Snapshot>(message: ServerMessage | Resync<S>): message is Resync<S> {
  return message.type === "resync";
}

function socketUrl(url: string): URL {
  const problem = `url is ${JSON.stringify(url)}: use a path on this site or a URL that begins with wss: or ws:`;
  if (!URL.canParse(url, document.baseURI)) throw new SyntaxError(problem);
  const address = new URL(url, document.baseURI);
  const secure = { "ws:": false, "http:": false, "wss:": true, "https:": true }[address.protocol];
  if (secure === undefined) throw new SyntaxError(problem);
  // Browsers refuse ws: from a page loaded over https:.
  address.protocol = secure || location.protocol === "https:" ? "wss:" : "ws:";
  address.hash = "";
  return address;
}

function milliseconds(name: string, value: number): number {
  if (Number.isFinite(value) && value > 0) return value;
  throw new RangeError(`${name} is ${value}: use a positive number of milliseconds`);
}
