import { vi } from "vitest";

/** A WebSocket whose server is the test. `FakeWebSocket.all` holds every instance. */
export class FakeWebSocket extends EventTarget {
  static all: FakeWebSocket[] = [];

  static get last(): FakeWebSocket {
    const socket = FakeWebSocket.all.at(-1);
    if (socket === undefined) throw new Error("no socket was opened");
    return socket;
  }

  static install(): void {
    FakeWebSocket.all = [];
    vi.stubGlobal("WebSocket", FakeWebSocket);
  }

  readonly url: string;
  readonly sent: string[] = [];
  closed = false;

  constructor(url: URL | string) {
    super();
    this.url = String(url);
    FakeWebSocket.all.push(this);
  }

  send(text: string): void {
    if (this.closed) throw new Error("sent on a closed socket");
    this.sent.push(text);
  }

  close(): void {
    this.closed = true;
  }

  /** The server accepts the connection. */
  accept(): this {
    this.dispatchEvent(new Event("open"));
    return this;
  }

  /** The server sends a message: an object as JSON, anything else unchanged. */
  deliver(data: unknown): void {
    const text = typeof data === "object" && !(data instanceof ArrayBuffer) ? JSON.stringify(data) : data;
    this.dispatchEvent(new MessageEvent("message", { data: text }));
  }

  /** The server closes the connection, or the network drops it. */
  drop(code: number, reason = ""): void {
    this.closed = true;
    this.dispatchEvent(Object.assign(new Event("close"), { code, reason }));
  }
}
