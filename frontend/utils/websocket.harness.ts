/** What the tests of websocket.ts share: a fake browser around a socket, and what the socket reported. */

import { afterEach, beforeEach, expect, vi } from "vitest";

import {
  ReconnectingWebSocket,
  type ConnectionState,
  type Disconnection,
  type ReconnectingWebSocketOptions,
  type ServerMessage,
  type Snapshot,
} from "@/utils/websocket";
import { FakeWebSocket } from "@/utils/websocket.fake";

export type Options = ReconnectingWebSocketOptions<ServerMessage, Snapshot>;

/** What the browser answers. Assigning fires no event: see `setOnline` and `setVisible`. */
export const browser = { online: true, visible: true, random: 0.5 };
const made: ReconnectingWebSocket<ServerMessage, Snapshot>[] = [];

beforeEach(() => {
  vi.useFakeTimers();
  FakeWebSocket.install();
  Object.assign(browser, { online: true, visible: true, random: 0.5 });
  vi.spyOn(navigator, "onLine", "get").mockImplementation(() => browser.online);
  vi.spyOn(document, "visibilityState", "get").mockImplementation(() =>
    browser.visible ? "visible" : "hidden",
  );
  vi.spyOn(Math, "random").mockImplementation(() => browser.random);
  vi.spyOn(console, "log").mockImplementation(() => undefined);
  vi.spyOn(console, "error").mockImplementation(() => undefined);
});

afterEach(() => {
  for (const socket of made.splice(0)) socket.close();
  vi.useRealTimers();
  vi.restoreAllMocks();
});

/** A socket, and a record of the callbacks it made. */
export function connect(options: Partial<Options> = {}) {
  const calls = {
    messages: [] as unknown[],
    connects: 0,
    ends: [] as Disconnection[],
    states: [] as ConnectionState[],
  };
  const socket = new ReconnectingWebSocket<ServerMessage, Snapshot>({
    url: "/api/v1/cv-processing/ws/ada",
    onMessage: (data) => calls.messages.push(data),
    onConnect: () => (calls.connects += 1),
    onDisconnect: (end) => calls.ends.push(end),
    onStateChange: (state) => calls.states.push(state),
    ...options,
  });
  made.push(socket);
  return { socket, calls };
}

export function setOnline(value: boolean): void {
  browser.online = value;
  window.dispatchEvent(new Event(value ? "online" : "offline"));
}

export function setVisible(value: boolean): void {
  browser.visible = value;
  document.dispatchEvent(new Event("visibilitychange"));
}

export const hide = () => window.dispatchEvent(new Event("pagehide"));
export const show = () => window.dispatchEvent(new Event("pageshow"));
export const progress = (id: string) => ({ id, type: "cv_progress" });
export const requestedId = () => new URL(FakeWebSocket.last.url).searchParams.get("last_event_id");
// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the tests send nothing else
export const ids = (messages: readonly unknown[]) => messages.map((message) => (message as ServerMessage).id);

/** Expects the next connection after exactly this many milliseconds. */
export function expectNextAttemptIn(delay: number): void {
  const before = FakeWebSocket.all.length;
  if (delay > 0) vi.advanceTimersByTime(delay - 1);
  expect(FakeWebSocket.all).toHaveLength(before);
  vi.advanceTimersByTime(delay > 0 ? 1 : 0);
  expect(FakeWebSocket.all).toHaveLength(before + 1);
}
