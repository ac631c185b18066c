/**
 * A WebSocket that comes back and misses nothing. One file, no dependency: copy it into your own project.
 *
 *     const socket = new ReconnectingWebSocket({
 *       url: `/api/v1/cv-processing/ws/${userId}`,
 *       onMessage: (data) => console.log(data.type),
 *     });
 *     socket.close();
 *
 * What it asks of the server, each part optional but the first:
 * - messages are JSON objects with a string `type`; the text `ping` is answered (by `{"type":"pong"}`);
 * - an event carries a string `id`; a connection with `?last_event_id=<id>` first gets what came after that id;
 * - a history that no longer reaches so far is answered by `{"type":"resync","snapshot":{"last_event_id":…}}`;
 * - close codes: 4400 the id is malformed, 4401 no valid session, 4403 not yours, 4429 too many messages.
 *   After 4401 and 4403 it stays closed. Any other end, 1012 (restart) and 1013 (slow reader) included, is
 *   followed by a new connection that resumes;
 * - a close reason with `retry in <n> ms` in it says when the server has room for that connection.
 */

/**
 * - `connecting`: the first connection is being made
 * - `live`: open
 * - `reconnecting`: lost, and being made again
 * - `offline`: the browser says that there is no network; tries go on, because it can be wrong
 * - `closed`: for good, by `close()` or because the server refused the session
 */
export type ConnectionState = "connecting" | "live" | "reconnecting" | "offline" | "closed";

export interface ServerMessage {
  readonly type: string;
  /** Opaque. Events have one, `pong` and `heartbeat` have none. */
  readonly id?: string;
}

/** The state of the world after the event `last_event_id`. */
export interface Snapshot {
  readonly last_event_id: string;
}

/** Forget what you know. `snapshot` takes its place; where it is null there was a gap, and you load the state yourself. */
export interface Resync<S extends Snapshot> {
  readonly type: "resync";
  readonly snapshot: S | null;
}

export interface Disconnection {
  /** The close code, or 1006 when the server just fell silent. */
  readonly code: number;
  readonly reason: string;
  /** True after 4401 and 4403: no new connection is made. */
  readonly final: boolean;
}

export interface ReconnectingWebSocketOptions<M extends ServerMessage, S extends Snapshot> {
  /** A path on the page's own host (ws or wss like the page itself) or a whole ws:, wss:, http: or https: address. */
  url: string;
  /** Every event once, in order, and `resync`. `pong` and `heartbeat` stay inside. */
  onMessage: (data: M | Resync<S>) => void;
  onConnect?: () => void;
  /** An open connection was lost, or the server refused. Not called for `close()`, nor for tries that failed. */
  onDisconnect?: (end: Disconnection) => void;
  onStateChange?: (state: ConnectionState) => void;
  /** Milliseconds. The second try waits up to this long, each further try up to twice as long. Default 3000. */
  reconnectInterval?: number;
  /** Milliseconds that no wait exceeds. Default 30000. */
  maxReconnectInterval?: number;
  /** Milliseconds between two pings; must stay below what proxies allow a silent connection. Default 30000. */
  heartbeatInterval?: number;
  /** Milliseconds in which a connection must open and a ping be answered, else it counts as dead. Default 10000. */
  responseTimeout?: number;
  /** The last event that the page already shows. */
  lastEventId?: string;
  /**
   * Loads the state over HTTP. Called before a connection while no last id is known, so at the start and after 4400;
   * the result is handed on as `resync` and the connection resumes from its `last_event_id`. A rejection is retried.
   */
  loadSnapshot?: (signal: AbortSignal) => Promise<S>;
}

/** The first try after a loss comes soon; the jitter keeps a restarted server's clients from coming all at once. */
const FIRST_DELAY = 500;
/** Milliseconds after which a connection counts as good, so that the next loss is again a first one. */
const STABLE_AFTER = 5_000;
/** The server knows best how long it is away, and how many others come back. */
const RETRY_HINT = /\bretry in (\d{1,7}) ms\b/;
/** Ids kept to recognise duplicates: far more than any overlap of replay and live events. */
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
  /** Covers one way from snapshot to lost connection: aborted, nothing of it is heard any more. */
  #attempt = new AbortController();
  #socket: WebSocket | undefined;
  #openedAt: number | undefined;
  #everOpened = false;
  #failures = 0;
  #barred = false;
  /** In the browser's back/forward cache, where nobody sees the page and no script of it runs. */
  #cached = false;
  #retryTimer: Timer;
  #heartbeatTimer: Timer;
  #deadlineTimer: Timer;

  /**
   * Connects at once.
   *
   * @throws {SyntaxError} when `url` is no address that a WebSocket can be opened to
   * @throws {RangeError} when a number of milliseconds is not a positive finite number
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

  /** Ends the connection for good. No callback runs afterwards. */
  close(): void {
    this.#abandon();
    this.#listeners.abort();
    this.#state = "closed";
  }

  #connect(): void {
    this.#abandon();
    this.#barred = false;
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
    // Aborted by now if the load failed, took too long, or onMessage called close().
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
    // `error` says nothing that the `close` after it does not.
    socket.addEventListener("close", ({ code, reason }) => this.#lost(code, reason), { signal });
    this.#socket = socket;
  }

  #opened(): void {
    // Without an id nothing is replayed: what was sent since the last connection is gone, and the page must know.
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
    // A message refutes an `offline` of the browser's.
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
      this.#barred = code === CLOSE_TOO_MANY;
      this.#retryTimer = setTimeout(() => this.#connect(), delay);
      console.log(
        `[WebSocket] Disconnected: ${code} ${reason}`.trimEnd() + `; next try in ${Math.round(delay)} ms`,
      );
    }
    this.#setState(final ? "closed" : this.#stateWithoutSocket());
    if (openedAt !== undefined || final)
      this.#call(() => this.#options.onDisconnect?.({ code, reason, final }));
    if (final) this.close();
  }

  /**
   * What the server asks for; else full jitter: anything between nothing and a ceiling that doubles. Who flooded the
   * server waits long.
   */
  #delay(code: number, reason = ""): number {
    const longest = this.#maxReconnectInterval;
    const failures = this.#failures;
    this.#failures += 1;
    if (code === CLOSE_TOO_MANY) return ((1 + Math.random()) / 2) * longest;
    const hint = RETRY_HINT.exec(reason)?.[1];
    if (hint !== undefined) {
      // What fails then is a first failure, not one more of those that led here.
      this.#failures = 0;
      return Math.min(Number(hint), longest);
    }
    const ceiling =
      failures === 0
        ? Math.min(FIRST_DELAY, this.#reconnectInterval)
        : this.#reconnectInterval * 2 ** (failures - 1);
    return Math.random() * Math.min(ceiling, longest);
  }

  /** Sends a ping now and from now on at the interval. An answer that is already owed keeps its deadline. */
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

  /** Lets go of everything under way. A dead socket's own close event may come minutes later: it is not waited for. */
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
    else if (!this.#barred) this.#connect();
  }

  #onOffline(): void {
    this.#setState("offline");
    // Only a hint: an open socket may have survived, and its answer says so.
    if (this.#openedAt !== undefined) this.#ping();
  }

  #onVisibilityChange(): void {
    if (document.visibilityState !== "visible") return;
    // A machine that slept may wake with a dead socket, and a hidden page's timers run late.
    if (this.#openedAt !== undefined) this.#ping();
    else if (this.#retryTimer !== undefined && !this.#barred) this.#connect();
  }

  /** The cache would keep the socket open, and its events waiting, for minutes in which nobody looks. */
  #onPageHide(): void {
    this.#cached = true;
    this.#abandon();
    this.#setState(this.#stateWithoutSocket());
  }

  #onPageShow(): void {
    // Also shown when it was loaded.
    if (!this.#cached) return;
    this.#cached = false;
    this.#failures = 0;
    if (this.#barred) this.#retryTimer = setTimeout(() => this.#connect(), this.#delay(CLOSE_TOO_MANY));
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

  /** An error in the page's callback is the page's: it is reported like any other and leaves the connection alone. */
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
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the server keeps to its contract
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
  const problem = `url is ${JSON.stringify(url)}: give a path of this site or an address that begins with wss: or ws:`;
  if (!URL.canParse(url, document.baseURI)) throw new SyntaxError(problem);
  const address = new URL(url, document.baseURI);
  const secure = { "ws:": false, "http:": false, "wss:": true, "https:": true }[address.protocol];
  if (secure === undefined) throw new SyntaxError(problem);
  // Browsers refuse ws: from a page that came over https:.
  address.protocol = secure || location.protocol === "https:" ? "wss:" : "ws:";
  address.hash = "";
  return address;
}

function milliseconds(name: string, value: number): number {
  if (Number.isFinite(value) && value > 0) return value;
  throw new RangeError(`${name} is ${value}: give a positive number of milliseconds`);
}
