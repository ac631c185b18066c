import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import {
  ReconnectingWebSocket,
  type ConnectionState,
  type Disconnection,
  type ReconnectingWebSocketOptions,
  type ServerMessage,
  type Snapshot,
} from "@/utils/websocket";
import { FakeWebSocket } from "@/utils/websocket.fake";

type Options = ReconnectingWebSocketOptions<ServerMessage, Snapshot>;

let online = true;
let visible = true;
let random = 0;
let made: ReconnectingWebSocket<ServerMessage, Snapshot>[] = [];

beforeEach(() => {
  vi.useFakeTimers();
  FakeWebSocket.install();
  online = true;
  visible = true;
  random = 0.5;
  made = [];
  vi.spyOn(navigator, "onLine", "get").mockImplementation(() => online);
  vi.spyOn(document, "visibilityState", "get").mockImplementation(() => (visible ? "visible" : "hidden"));
  vi.spyOn(Math, "random").mockImplementation(() => random);
  vi.spyOn(console, "log").mockImplementation(() => undefined);
  vi.spyOn(console, "error").mockImplementation(() => undefined);
});

afterEach(() => {
  for (const socket of made) socket.close();
  vi.useRealTimers();
  vi.restoreAllMocks();
});

/** A socket with everything that it tells written down. */
function connect(options: Partial<Options> = {}) {
  const told = {
    messages: [] as unknown[],
    connects: 0,
    ends: [] as Disconnection[],
    states: [] as ConnectionState[],
  };
  const socket = new ReconnectingWebSocket<ServerMessage, Snapshot>({
    url: "/api/v1/cv-processing/ws/ada",
    onMessage: (data) => told.messages.push(data),
    onConnect: () => (told.connects += 1),
    onDisconnect: (end) => told.ends.push(end),
    onStateChange: (state) => told.states.push(state),
    ...options,
  });
  made.push(socket);
  return { socket, told };
}

function setOnline(value: boolean): void {
  online = value;
  window.dispatchEvent(new Event(value ? "online" : "offline"));
}

function setVisible(value: boolean): void {
  visible = value;
  document.dispatchEvent(new Event("visibilitychange"));
}

const hide = () => window.dispatchEvent(new Event("pagehide"));
const show = () => window.dispatchEvent(new Event("pageshow"));
const progress = (id: string) => ({ id, type: "cv_progress" });
const asked = () => new URL(FakeWebSocket.last.url).searchParams.get("last_event_id");
const ids = (messages: readonly unknown[]) => messages.map((message) => (message as ServerMessage).id);

/** A try is due in exactly so many milliseconds. */
function expectNextTryIn(delay: number): void {
  const before = FakeWebSocket.all.length;
  if (delay > 0) vi.advanceTimersByTime(delay - 1);
  expect(FakeWebSocket.all).toHaveLength(before);
  vi.advanceTimersByTime(delay > 0 ? 1 : 0);
  expect(FakeWebSocket.all).toHaveLength(before + 1);
}

describe("address", () => {
  it.each([
    ["https://site.example/cvs", "/ws/ada", "wss://site.example/ws/ada"],
    ["http://site.example/cvs", "/ws/ada", "ws://site.example/ws/ada"],
    ["http://localhost:8000/", "/ws/ada", "ws://localhost:8000/ws/ada"],
    ["http://site.example/", "wss://other.example/ws", "wss://other.example/ws"],
    ["http://site.example/", "https://other.example/ws", "wss://other.example/ws"],
    ["http://site.example/", "ws://other.example/ws", "ws://other.example/ws"],
    ["https://site.example/", "ws://other.example/ws", "wss://other.example/ws"],
    ["https://site.example/", "/ws/ada?tab=1#top", "wss://site.example/ws/ada?tab=1"],
  ])("on %s, %s is %s", (page, url, expected) => {
    vi.spyOn(document, "baseURI", "get").mockReturnValue(page);
    vi.stubGlobal("location", new URL(page));
    connect({ url });
    expect(FakeWebSocket.last.url).toBe(expected);
  });

  it.each(["ftp://site.example/ws", "https://"])("refuses %s by name and with the remedy", (url) => {
    expect(() => connect({ url })).toThrow(
      `url is "${url}": give a path of this site or an address that begins with wss:`,
    );
    expect(FakeWebSocket.all).toHaveLength(0);
  });

  it.each([
    ["reconnectInterval", 0],
    ["maxReconnectInterval", -1],
    ["heartbeatInterval", Number.NaN],
    ["responseTimeout", Number.POSITIVE_INFINITY],
  ])("refuses %s %d", (name, value) => {
    expect(() => connect({ [name]: value })).toThrow(
      `${name} is ${value}: give a positive number of milliseconds`,
    );
  });

  it("keeps the url's own query beside the last id, which may hold any character", () => {
    connect({ url: "/ws/ada?tab=1", lastEventId: "a&b=c d" });
    const { searchParams } = new URL(FakeWebSocket.last.url);
    expect(searchParams.get("tab")).toBe("1");
    expect(searchParams.get("last_event_id")).toBe("a&b=c d");
  });
});

describe("connecting", () => {
  it("goes from connecting to live and says so once", () => {
    const { socket, told } = connect();
    expect(socket.state).toBe("connecting");
    expect(told.connects).toBe(0);
    FakeWebSocket.last.accept();
    expect(socket.state).toBe("live");
    expect(told).toMatchObject({ connects: 1, states: ["live"], ends: [] });
    expect(console.log).toHaveBeenCalledWith("[WebSocket] Connected");
  });

  it("gives up on a server that does not answer in time, without calling it a disconnection", () => {
    const { socket, told } = connect({ responseTimeout: 4_000 });
    const first = FakeWebSocket.last;
    vi.advanceTimersByTime(3_999);
    expect(first.closed).toBe(false);
    vi.advanceTimersByTime(1);
    expect(first.closed).toBe(true);
    expect(socket.state).toBe("connecting");
    expect(told.ends).toEqual([]);
    expectNextTryIn(250);
  });
});

describe("heartbeat", () => {
  it("pings at once and at the interval, as long as answers come", () => {
    const { socket } = connect();
    const server = FakeWebSocket.last.accept();
    expect(server.sent).toEqual(["ping"]);
    for (let beats = 2; beats < 12; beats += 1) {
      server.say({ type: "pong" });
      vi.advanceTimersByTime(29_999);
      expect(server.sent).toHaveLength(beats - 1);
      vi.advanceTimersByTime(1);
      expect(server.sent).toHaveLength(beats);
    }
    expect(socket.state).toBe("live");
    expect(FakeWebSocket.all).toHaveLength(1);
  });

  it("notices a half-open socket by the missing answer and does not wait for its close event", () => {
    const { socket, told } = connect();
    const dead = FakeWebSocket.last.accept();
    dead.say({ type: "pong" });
    vi.advanceTimersByTime(30_000);
    vi.advanceTimersByTime(9_999);
    expect(socket.state).toBe("live");
    vi.advanceTimersByTime(1);
    expect(socket.state).toBe("reconnecting");
    expect(dead.closed).toBe(true);
    expect(told.ends).toEqual([{ code: 1006, reason: "no answer within 10000 ms", final: false }]);
    vi.advanceTimersByTime(250);
    FakeWebSocket.last.accept();
    dead.say(progress("late"));
    dead.end(1006);
    expect(socket.state).toBe("live");
    expect(told.messages).not.toContainEqual(progress("late"));
    expect(told.ends).toHaveLength(1);
  });

  it.each([{ type: "pong" }, { type: "heartbeat" }, progress("1")])("takes %o for an answer", (message) => {
    const { socket } = connect();
    FakeWebSocket.last.accept().say(message);
    vi.advanceTimersByTime(29_999);
    expect(socket.state).toBe("live");
  });

  it("does not extend the deadline by pinging again while an answer is owed", () => {
    const { socket } = connect({ heartbeatInterval: 3_000, responseTimeout: 10_000 });
    const server = FakeWebSocket.last.accept();
    vi.advanceTimersByTime(9_999);
    expect(server.sent).toEqual(["ping"]);
    vi.advanceTimersByTime(1);
    expect(socket.state).toBe("reconnecting");
  });
});

describe("messages", () => {
  it("hands events on in order, keeps pong and heartbeat inside, logs all", () => {
    const { told } = connect();
    const server = FakeWebSocket.last.accept();
    const messages = [
      progress("1"),
      { type: "pong" },
      progress("2"),
      { type: "heartbeat" },
      { type: "notice" },
    ];
    for (const message of messages) {
      server.say(message);
      expect(console.log).toHaveBeenLastCalledWith("[WebSocket] Message received:", message);
    }
    expect(told.messages).toEqual([progress("1"), progress("2"), { type: "notice" }]);
  });

  it.each(["{", "null", "7", '"ping"', "[]", '{"id":"1"}', '{"type":7}', new ArrayBuffer(2)])(
    "reports %o and goes on",
    (data) => {
      const { socket, told } = connect();
      FakeWebSocket.last.accept().say(data);
      expect(console.error).toHaveBeenCalledWith("[WebSocket] Ignored, not a JSON object with a type:", data);
      expect(told.messages).toEqual([]);
      expect(socket.state).toBe("live");
    },
  );

  it("drops duplicates, also those of an earlier connection", () => {
    const { told } = connect();
    const server = FakeWebSocket.last.accept();
    for (const id of ["1", "2", "1", "2"]) server.say(progress(id));
    server.end(1006);
    vi.runOnlyPendingTimers();
    FakeWebSocket.last.accept();
    for (const id of ["2", "1", "3"]) FakeWebSocket.last.say(progress(id));
    expect(ids(told.messages)).toEqual(["1", "2", "3"]);
  });

  it("does not go back to an older id because of a duplicate", () => {
    const { socket } = connect();
    const server = FakeWebSocket.last.accept();
    for (const id of ["1", "2", "1"]) server.say(progress(id));
    expect(socket.lastEventId).toBe("2");
  });

  it("remembers a bounded number of ids", () => {
    const { told } = connect();
    const server = FakeWebSocket.last.accept();
    for (let id = 0; id <= 4_096; id += 1) server.say(progress(String(id)));
    server.say(progress("1"));
    expect(told.messages).toHaveLength(4_097);
    server.say(progress("0"));
    expect(told.messages).toHaveLength(4_098);
  });

  it("reports an error of the page's callback and stays connected", () => {
    const reported = vi.fn();
    vi.stubGlobal("reportError", reported);
    const error = new Error("the page's");
    const { socket } = connect({
      onMessage: () => {
        throw error;
      },
    });
    FakeWebSocket.last.accept().say(progress("1"));
    expect(reported).toHaveBeenCalledExactlyOnceWith(error);
    expect(socket.state).toBe("live");
    expect(socket.lastEventId).toBe("1");
  });
});

describe("resuming", () => {
  it("asks for what came after the last id seen", () => {
    connect();
    expect(asked()).toBeNull();
    FakeWebSocket.last.accept().say(progress("7-1"));
    FakeWebSocket.last.say({ type: "notice" });
    FakeWebSocket.last.end(1012);
    vi.runOnlyPendingTimers();
    expect(asked()).toBe("7-1");
    FakeWebSocket.last.end(1006);
    vi.runOnlyPendingTimers();
    expect(asked()).toBe("7-1");
  });

  it("hands a resync on, goes on from its snapshot and forgets the ids before it", () => {
    const { socket, told } = connect({ lastEventId: "1" });
    const resync = { type: "resync", snapshot: { last_event_id: "9", batches: [] } };
    const server = FakeWebSocket.last.accept();
    server.say(progress("2"));
    server.say(resync);
    expect(socket.lastEventId).toBe("9");
    // A Redis that lost everything may count anew.
    server.say(progress("2"));
    expect(told.messages).toEqual([progress("2"), resync, progress("2")]);
  });

  it("forgets the id when a resync brings no snapshot", () => {
    const { socket, told } = connect({ lastEventId: "1" });
    FakeWebSocket.last.accept().say({ type: "resync", snapshot: null });
    expect(socket.lastEventId).toBeUndefined();
    expect(told.messages).toEqual([{ type: "resync", snapshot: null }]);
  });

  it("tells of the gap when it comes back without an id", () => {
    const { told } = connect();
    FakeWebSocket.last.accept();
    expect(told.messages).toEqual([]);
    FakeWebSocket.last.end(1006);
    vi.runOnlyPendingTimers();
    expect(told.messages).toEqual([]);
    FakeWebSocket.last.accept();
    expect(told.messages).toEqual([{ type: "resync", snapshot: null }]);
  });

  it("drops an id that the server calls malformed, and tells of the gap", () => {
    const { told } = connect({ lastEventId: "nonsense" });
    FakeWebSocket.last.accept().end(4400, "malformed last_event_id");
    expect(told.ends).toEqual([{ code: 4400, reason: "malformed last_event_id", final: false }]);
    vi.runOnlyPendingTimers();
    expect(asked()).toBeNull();
    FakeWebSocket.last.accept();
    expect(told.messages).toEqual([{ type: "resync", snapshot: null }]);
  });
});

describe("snapshot", () => {
  it("is loaded first, handed on, and the connection goes on from it", async () => {
    const snapshot = { last_event_id: "5" };
    const { told } = connect({ loadSnapshot: async () => snapshot });
    expect(FakeWebSocket.all).toHaveLength(0);
    await vi.advanceTimersByTimeAsync(0);
    expect(told.messages).toEqual([{ type: "resync", snapshot }]);
    expect(FakeWebSocket.last.url).toBe("wss://site.example/api/v1/cv-processing/ws/ada?last_event_id=5");
    FakeWebSocket.last.accept();
    expect(told.messages).toHaveLength(1);
  });

  it("is not loaded while there is an id to go on from", async () => {
    const loadSnapshot = vi.fn<NonNullable<Options["loadSnapshot"]>>();
    connect({ loadSnapshot, lastEventId: "5" });
    FakeWebSocket.last.accept().end(1006);
    await vi.runOnlyPendingTimersAsync();
    expect(FakeWebSocket.all).toHaveLength(2);
    expect(loadSnapshot).not.toHaveBeenCalled();
  });

  it("is loaded again after 4400", async () => {
    const loadSnapshot = vi.fn(async () => ({ last_event_id: "6" }));
    const { told } = connect({ loadSnapshot, lastEventId: "nonsense" });
    FakeWebSocket.last.accept().end(4400);
    await vi.runOnlyPendingTimersAsync();
    expect(told.messages).toEqual([{ type: "resync", snapshot: { last_event_id: "6" } }]);
    expect(FakeWebSocket.last.url).toContain("last_event_id=6");
  });

  it("is tried again, with the same patience, when it fails", async () => {
    random = 1;
    const loadSnapshot = vi.fn(async (): Promise<Snapshot> => {
      throw new Error("502");
    });
    const { socket } = connect({ loadSnapshot });
    await vi.advanceTimersByTimeAsync(499);
    expect(loadSnapshot).toHaveBeenCalledTimes(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(loadSnapshot).toHaveBeenCalledTimes(2);
    await vi.advanceTimersByTimeAsync(2_999);
    expect(loadSnapshot).toHaveBeenCalledTimes(2);
    await vi.advanceTimersByTimeAsync(1);
    expect(loadSnapshot).toHaveBeenCalledTimes(3);
    expect(socket.state).toBe("connecting");
    expect(FakeWebSocket.all).toHaveLength(0);
  });

  it("is aborted at the deadline, and what it still brings is not used", async () => {
    const signals: AbortSignal[] = [];
    const answers: ((snapshot: Snapshot) => void)[] = [];
    const { told } = connect({
      loadSnapshot: (signal) =>
        new Promise((resolve) => {
          signals.push(signal);
          answers.push(resolve);
        }),
    });
    await vi.advanceTimersByTimeAsync(10_000);
    expect(signals[0]?.aborted).toBe(true);
    await vi.advanceTimersByTimeAsync(250);
    expect(answers).toHaveLength(2);
    answers[0]?.({ last_event_id: "old" });
    await vi.advanceTimersByTimeAsync(0);
    expect(told.messages).toEqual([]);
    expect(FakeWebSocket.all).toHaveLength(0);
    answers[1]?.({ last_event_id: "new" });
    await vi.advanceTimersByTimeAsync(0);
    expect(told.messages).toEqual([{ type: "resync", snapshot: { last_event_id: "new" } }]);
  });

  it("that comes after close() changes nothing", async () => {
    const { socket, told } = connect({ loadSnapshot: async () => ({ last_event_id: "5" }) });
    socket.close();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(told).toEqual({ messages: [], connects: 0, ends: [], states: [] });
    expect(FakeWebSocket.all).toHaveLength(0);
  });

  it("may close the socket from its callback", async () => {
    const { socket } = connect({
      loadSnapshot: async () => ({ last_event_id: "5" }),
      onMessage: () => socket.close(),
    });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(FakeWebSocket.all).toHaveLength(0);
  });
});

describe("coming back", () => {
  const ceilings = [500, 3_000, 6_000, 12_000, 24_000, 30_000, 30_000, 30_000];

  it.each([0, 0.25, 0.5, 1])("waits %d of a ceiling that doubles up to the bound", (drawn) => {
    random = drawn;
    connect();
    for (const ceiling of ceilings) {
      FakeWebSocket.last.end(1006);
      expectNextTryIn(ceiling * drawn);
    }
  });

  it("takes the caller's interval and bound", () => {
    random = 1;
    connect({ reconnectInterval: 200, maxReconnectInterval: 500 });
    for (const ceiling of [200, 200, 400, 500, 500]) {
      FakeWebSocket.last.end(1006);
      expectNextTryIn(ceiling);
    }
  });

  it.each([1006, 4429])("never waits longer than the bound, be it below the interval (%d)", (code) => {
    random = 1;
    connect({ reconnectInterval: 3_000, maxReconnectInterval: 400 });
    for (let tries = 0; tries < 3; tries += 1) {
      FakeWebSocket.last.end(code);
      expectNextTryIn(400);
    }
  });

  it("starts over with the small delay only after a connection that held", () => {
    random = 1;
    connect();
    FakeWebSocket.last.accept().end(1006);
    expectNextTryIn(500);
    FakeWebSocket.last.accept();
    vi.advanceTimersByTime(4_999);
    FakeWebSocket.last.end(1006);
    expectNextTryIn(3_000);
    FakeWebSocket.last.accept();
    vi.advanceTimersByTime(5_000);
    FakeWebSocket.last.end(1006);
    expectNextTryIn(500);
  });

  it.each([1000, 1001, 1005, 1006, 1009, 1011, 1012, 1013, 1015])("resumes after %d", (code) => {
    const { socket, told } = connect();
    FakeWebSocket.last.accept().say(progress("3"));
    FakeWebSocket.last.end(code, "why");
    expect(socket.state).toBe("reconnecting");
    expect(told.ends).toEqual([{ code, reason: "why", final: false }]);
    expectNextTryIn(250);
    expect(FakeWebSocket.last.url).toContain("last_event_id=3");
    FakeWebSocket.last.accept();
    expect(told).toMatchObject({ connects: 2, states: ["live", "reconnecting", "live"] });
  });

  it.each([
    [0, 15_000],
    [0.5, 22_500],
    [1, 30_000],
  ])("waits long after 4429, whatever wakes it (draw %d)", (drawn, delay) => {
    random = drawn;
    connect();
    FakeWebSocket.last.accept().end(4429);
    setVisible(true);
    setOnline(true);
    expect(FakeWebSocket.all).toHaveLength(1);
    expectNextTryIn(delay);
  });

  it.each([1012, 1013, 4400])("comes when the server says, after %d", (code) => {
    random = 1;
    const { told } = connect();
    FakeWebSocket.last.accept().end(code, "the server restarts; retry in 1234 ms");
    expect(told.ends[0]?.reason).toBe("the server restarts; retry in 1234 ms");
    expectNextTryIn(1_234);
    // If that was too soon, it goes on as after a first loss.
    FakeWebSocket.last.end(1006);
    expectNextTryIn(500);
    FakeWebSocket.last.end(1006);
    expectNextTryIn(3_000);
    FakeWebSocket.last.end(1013, "retry in 0 ms");
    expectNextTryIn(0);
  });

  it.each([
    ["retry in 99999 ms", 30_000],
    ["retry in -1 ms", 250],
    ["retry in 1e3 ms", 250],
    ["retry in 12345678 ms", 250],
    ["do not retry in 10 msec", 250],
  ])("bounds and checks %s", (reason, delay) => {
    connect();
    FakeWebSocket.last.accept().end(1012, reason);
    expectNextTryIn(delay);
  });

  it.each([4401, 4403])("stays closed after %d and tells", (code) => {
    const { socket, told } = connect();
    FakeWebSocket.last.accept().end(code, "no");
    expect(socket.state).toBe("closed");
    expect(told).toMatchObject({ states: ["live", "closed"], ends: [{ code, reason: "no", final: true }] });
    setOnline(true);
    setVisible(true);
    vi.advanceTimersByTime(3_600_000);
    expect(FakeWebSocket.all).toHaveLength(1);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("tells of a refusal that comes before the connection opened", () => {
    const { told } = connect();
    FakeWebSocket.last.end(4401);
    expect(told.ends).toEqual([{ code: 4401, reason: "", final: true }]);
  });
});

describe("waking", () => {
  it("tries at once when the network is back", () => {
    const { socket, told } = connect();
    FakeWebSocket.last.accept();
    online = false;
    FakeWebSocket.last.end(1006);
    expect(socket.state).toBe("offline");
    setOnline(true);
    expect(FakeWebSocket.all).toHaveLength(2);
    expect(told.states).toEqual(["live", "offline", "reconnecting"]);
    // The wait that it cut short must not bring a second connection.
    FakeWebSocket.last.accept().say({ type: "pong" });
    vi.advanceTimersByTime(29_000);
    expect(FakeWebSocket.all).toHaveLength(2);
  });

  it("starts over with small delays when the network is back", () => {
    random = 1;
    connect();
    for (const delay of [500, 3_000, 6_000]) {
      FakeWebSocket.last.end(1006);
      expectNextTryIn(delay);
    }
    setOnline(true);
    FakeWebSocket.last.end(1006);
    expectNextTryIn(500);
  });

  it("gives up a try that began without network", () => {
    connect();
    const [stuck] = FakeWebSocket.all;
    setOnline(true);
    expect(stuck?.closed).toBe(true);
    expect(FakeWebSocket.all).toHaveLength(2);
  });

  it("doubts an open socket when the browser says offline, and believes its answer", () => {
    const { socket, told } = connect();
    const server = FakeWebSocket.last.accept();
    server.say({ type: "pong" });
    setOnline(false);
    expect(socket.state).toBe("offline");
    expect(server.sent).toEqual(["ping", "ping"]);
    server.say({ type: "pong" });
    expect(socket.state).toBe("live");
    expect(told.ends).toEqual([]);
  });

  it("lets go of an open socket that is silent after offline", () => {
    const { socket } = connect();
    FakeWebSocket.last.accept().say({ type: "pong" });
    setOnline(false);
    vi.advanceTimersByTime(10_000);
    expect(FakeWebSocket.all[0]?.closed).toBe(true);
    expect(socket.state).toBe("offline");
  });

  it("keeps trying while the browser says offline: it can be wrong", () => {
    online = false;
    const { socket } = connect();
    expect(socket.state).toBe("offline");
    FakeWebSocket.last.end(1006);
    expectNextTryIn(250);
    FakeWebSocket.last.accept();
    expect(socket.state).toBe("live");
  });

  it("is offline while it waits, too", () => {
    const { socket } = connect();
    FakeWebSocket.last.end(1006);
    expect(socket.state).toBe("connecting");
    setOnline(false);
    expect(socket.state).toBe("offline");
  });

  it.each(["visible", "online"])("asks an open socket for a sign of life on %s", (event) => {
    connect();
    const server = FakeWebSocket.last.accept();
    server.say({ type: "pong" });
    if (event === "visible") setVisible(true);
    else setOnline(true);
    expect(server.sent).toEqual(["ping", "ping"]);
    expect(server.closed).toBe(false);
    vi.advanceTimersByTime(10_000);
    expect(server.closed).toBe(true);
  });

  it("tries at once when the page is looked at again", () => {
    connect();
    FakeWebSocket.last.end(1006);
    setVisible(false);
    expect(FakeWebSocket.all).toHaveLength(1);
    setVisible(true);
    expect(FakeWebSocket.all).toHaveLength(2);
    // Looking again does not disturb the try under way.
    setVisible(true);
    expect(FakeWebSocket.all).toHaveLength(2);
  });
});

describe("back/forward cache", () => {
  it("lets go of the socket, hears and tries nothing, and is back at once, whole", () => {
    const { socket, told } = connect();
    const left = FakeWebSocket.last.accept();
    left.say(progress("1"));
    hide();
    expect(left.closed).toBe(true);
    expect(socket.state).toBe("reconnecting");
    left.say(progress("2"));
    left.end(1005);
    setOnline(true);
    setVisible(true);
    vi.advanceTimersByTime(600_000);
    expect(FakeWebSocket.all).toHaveLength(1);
    expect(vi.getTimerCount()).toBe(0);
    show();
    expect(FakeWebSocket.all).toHaveLength(2);
    expect(asked()).toBe("1");
    FakeWebSocket.last.accept().say(progress("2"));
    expect(ids(told.messages)).toEqual(["1", "2"]);
    expect(told.ends).toEqual([]);
    expect(socket.state).toBe("live");
    // Shown again without having been hidden changes nothing.
    show();
    expect(FakeWebSocket.all).toHaveLength(2);
  });

  it("changes nothing when the page is shown for the first time", () => {
    connect();
    show();
    expect(FakeWebSocket.all).toHaveLength(1);
  });

  it("cuts a wait short", () => {
    random = 1;
    connect();
    for (const delay of [500, 3_000]) {
      FakeWebSocket.last.end(1006);
      expectNextTryIn(delay);
    }
    FakeWebSocket.last.end(1006);
    hide();
    show();
    expect(FakeWebSocket.all).toHaveLength(4);
    FakeWebSocket.last.end(1006);
    expectNextTryIn(500);
  });

  it("tells of the gap when there is no id to go on from", () => {
    const { told } = connect();
    FakeWebSocket.last.accept();
    hide();
    show();
    FakeWebSocket.last.accept();
    expect(told.messages).toEqual([{ type: "resync", snapshot: null }]);
  });

  it("loads a snapshot again whose loading it broke off", async () => {
    const signals: AbortSignal[] = [];
    const loadSnapshot = (signal: AbortSignal) => {
      signals.push(signal);
      return new Promise<Snapshot>((resolve) => {
        if (signals.length === 2) resolve({ last_event_id: "5" });
      });
    };
    connect({ loadSnapshot });
    hide();
    expect(signals[0]?.aborted).toBe(true);
    show();
    await vi.advanceTimersByTimeAsync(0);
    expect(asked()).toBe("5");
  });

  it("does not let a flooder in sooner", () => {
    connect();
    FakeWebSocket.last.accept().end(4429);
    hide();
    show();
    expect(FakeWebSocket.all).toHaveLength(1);
    expectNextTryIn(22_500);
  });

  it("has forgotten a flood once it was let in again", () => {
    connect();
    FakeWebSocket.last.accept().end(4429);
    expectNextTryIn(22_500);
    FakeWebSocket.last.accept();
    hide();
    show();
    expect(FakeWebSocket.all).toHaveLength(3);
  });

  it("is nothing to a socket that is closed", () => {
    const { socket } = connect();
    socket.close();
    hide();
    show();
    expect(socket.state).toBe("closed");
    expect(FakeWebSocket.all).toHaveLength(1);
  });
});

describe("close()", () => {
  const stages: [string, () => void][] = [
    ["connecting", () => undefined],
    ["live", () => void FakeWebSocket.last.accept()],
    ["reconnecting", () => FakeWebSocket.last.accept().end(1006)],
    ["offline", () => setOnline(false)],
  ];

  it.each(stages)("is final while %s", (_, reach) => {
    const { socket, told } = connect();
    reach();
    const before = structuredClone(told);
    const opened = FakeWebSocket.all.length;
    socket.close();
    expect(socket.state).toBe("closed");
    expect(vi.getTimerCount()).toBe(0);
    expect(FakeWebSocket.last.closed).toBe(true);
    FakeWebSocket.last.accept();
    FakeWebSocket.last.say(progress("1"));
    FakeWebSocket.last.end(1006);
    setOnline(false);
    setOnline(true);
    setVisible(true);
    vi.advanceTimersByTime(3_600_000);
    socket.close();
    expect(told).toEqual(before);
    expect(FakeWebSocket.all).toHaveLength(opened);
    expect(socket.state).toBe("closed");
  });

  it.each(["onConnect", "onMessage", "onDisconnect", "onStateChange"] as const)("works from %s", (name) => {
    const { socket } = connect({ [name]: () => socket.close() });
    FakeWebSocket.last.accept();
    FakeWebSocket.last.say(progress("1"));
    FakeWebSocket.last.end(1006);
    expect(socket.state).toBe("closed");
    expect(vi.getTimerCount()).toBe(0);
  });

  it("from one callback keeps the next from running", () => {
    const onConnect = vi.fn();
    const { socket } = connect({ onConnect, onStateChange: () => socket.close() });
    FakeWebSocket.last.accept();
    expect(onConnect).not.toHaveBeenCalled();
  });

  it("works from the loading of a snapshot", async () => {
    const { socket, told } = connect({
      lastEventId: "nonsense",
      loadSnapshot: () => {
        socket.close();
        return new Promise(() => undefined);
      },
    });
    FakeWebSocket.last.accept().end(4400);
    told.states.length = 0;
    await vi.runAllTimersAsync();
    expect(socket.state).toBe("closed");
    expect(told.states).toEqual([]);
  });
});
