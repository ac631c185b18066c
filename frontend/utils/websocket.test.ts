import { describe, expect, it, vi } from "vitest";

import { FakeWebSocket } from "@/utils/websocket.fake";
import {
  connect,
  expectNextAttemptIn,
  ids,
  progress,
  setOnline,
  setVisible,
} from "@/utils/websocket.harness";

describe("url", () => {
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

  it.each(["ftp://site.example/ws", "https://"])("refuses %s, naming it and the remedy", (url) => {
    expect(() => connect({ url })).toThrow(
      `url is "${url}": use a path on this site or a URL that begins with wss:`,
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
      `${name} is ${value}: use a positive number of milliseconds`,
    );
  });

  it("keeps the url's own query, and encodes the last id", () => {
    connect({ url: "/ws/ada?tab=1", lastEventId: "a&b=c d" });
    const { searchParams } = new URL(FakeWebSocket.last.url);
    expect(searchParams.get("tab")).toBe("1");
    expect(searchParams.get("last_event_id")).toBe("a&b=c d");
  });
});

describe("connecting", () => {
  it("goes from connecting to live and reports it once", () => {
    const { socket, calls } = connect();
    expect(socket.state).toBe("connecting");
    expect(calls.connects).toBe(0);
    FakeWebSocket.last.accept();
    expect(socket.state).toBe("live");
    expect(calls).toMatchObject({ connects: 1, states: ["live"], ends: [] });
    expect(console.log).toHaveBeenCalledWith("[WebSocket] Connected");
  });

  it("abandons a server that does not answer in time, without reporting a disconnection", () => {
    const { socket, calls } = connect({ responseTimeout: 4_000 });
    const first = FakeWebSocket.last;
    vi.advanceTimersByTime(3_999);
    expect(first.closed).toBe(false);
    vi.advanceTimersByTime(1);
    expect(first.closed).toBe(true);
    expect(socket.state).toBe("connecting");
    expect(calls.ends).toEqual([]);
    expectNextAttemptIn(250);
  });
});

describe("heartbeat", () => {
  it("pings at once, then at the interval as long as answers come", () => {
    const { socket } = connect();
    const server = FakeWebSocket.last.accept();
    expect(server.sent).toEqual(["ping"]);
    for (let beats = 2; beats < 12; beats += 1) {
      server.deliver({ type: "pong" });
      vi.advanceTimersByTime(29_999);
      expect(server.sent).toHaveLength(beats - 1);
      vi.advanceTimersByTime(1);
      expect(server.sent).toHaveLength(beats);
    }
    expect(socket.state).toBe("live");
    expect(FakeWebSocket.all).toHaveLength(1);
  });

  it("detects a half-open socket by the missing answer, without waiting for its close event", () => {
    const { socket, calls } = connect();
    const dead = FakeWebSocket.last.accept();
    dead.deliver({ type: "pong" });
    vi.advanceTimersByTime(30_000);
    vi.advanceTimersByTime(9_999);
    expect(socket.state).toBe("live");
    vi.advanceTimersByTime(1);
    expect(socket.state).toBe("reconnecting");
    expect(dead.closed).toBe(true);
    expect(calls.ends).toEqual([{ code: 1006, reason: "no answer within 10000 ms", final: false }]);
    vi.advanceTimersByTime(250);
    FakeWebSocket.last.accept();
    dead.deliver(progress("late"));
    dead.drop(1006);
    expect(socket.state).toBe("live");
    expect(calls.messages).not.toContainEqual(progress("late"));
    expect(calls.ends).toHaveLength(1);
  });

  it.each([{ type: "pong" }, { type: "heartbeat" }, progress("1")])("accepts %o as an answer", (message) => {
    const { socket } = connect();
    FakeWebSocket.last.accept().deliver(message);
    vi.advanceTimersByTime(29_999);
    expect(socket.state).toBe("live");
  });

  it("does not extend the deadline by pinging again while an answer is pending", () => {
    const { socket } = connect({ heartbeatInterval: 3_000, responseTimeout: 10_000 });
    const server = FakeWebSocket.last.accept();
    vi.advanceTimersByTime(9_999);
    expect(server.sent).toEqual(["ping"]);
    vi.advanceTimersByTime(1);
    expect(socket.state).toBe("reconnecting");
  });
});

describe("messages", () => {
  it("passes events on in order, hides pong and heartbeat, logs all of them", () => {
    const { calls } = connect();
    const server = FakeWebSocket.last.accept();
    const messages = [
      progress("1"),
      { type: "pong" },
      progress("2"),
      { type: "heartbeat" },
      { type: "notice" },
    ];
    for (const message of messages) {
      server.deliver(message);
      expect(console.log).toHaveBeenLastCalledWith("[WebSocket] Message received:", message);
    }
    expect(calls.messages).toEqual([progress("1"), progress("2"), { type: "notice" }]);
  });

  it.each(["{", "null", "7", '"ping"', "[]", '{"id":"1"}', '{"type":7}', new ArrayBuffer(2)])(
    "logs %o as an error and stays connected",
    (data) => {
      const { socket, calls } = connect();
      FakeWebSocket.last.accept().deliver(data);
      expect(console.error).toHaveBeenCalledWith("[WebSocket] Ignored, not a JSON object with a type:", data);
      expect(calls.messages).toEqual([]);
      expect(socket.state).toBe("live");
    },
  );

  it("drops duplicates, including those of an earlier connection", () => {
    const { calls } = connect();
    const server = FakeWebSocket.last.accept();
    for (const id of ["1", "2", "1", "2"]) server.deliver(progress(id));
    server.drop(1006);
    vi.runOnlyPendingTimers();
    FakeWebSocket.last.accept();
    for (const id of ["2", "1", "3"]) FakeWebSocket.last.deliver(progress(id));
    expect(ids(calls.messages)).toEqual(["1", "2", "3"]);
  });

  it("does not go back to an older id because of a duplicate", () => {
    const { socket } = connect();
    const server = FakeWebSocket.last.accept();
    for (const id of ["1", "2", "1"]) server.deliver(progress(id));
    expect(socket.lastEventId).toBe("2");
  });

  it("remembers a bounded number of ids", () => {
    const { calls } = connect();
    const server = FakeWebSocket.last.accept();
    for (let id = 0; id <= 4_096; id += 1) server.deliver(progress(String(id)));
    server.deliver(progress("1"));
    expect(calls.messages).toHaveLength(4_097);
    server.deliver(progress("0"));
    expect(calls.messages).toHaveLength(4_098);
  });

  it("reports an error thrown by a callback and stays connected", () => {
    const reported = vi.fn();
    vi.stubGlobal("reportError", reported);
    const error = new Error("thrown by a callback");
    const { socket } = connect({
      onMessage: () => {
        throw error;
      },
    });
    FakeWebSocket.last.accept().deliver(progress("1"));
    expect(reported).toHaveBeenCalledExactlyOnceWith(error);
    expect(socket.state).toBe("live");
    expect(socket.lastEventId).toBe("1");
  });
});

describe("close()", () => {
  const stages: [string, () => void][] = [
    ["connecting", () => undefined],
    ["live", () => void FakeWebSocket.last.accept()],
    ["reconnecting", () => FakeWebSocket.last.accept().drop(1006)],
    ["offline", () => setOnline(false)],
  ];

  it.each(stages)("is final while %s", (_, reach) => {
    const { socket, calls } = connect();
    reach();
    const before = structuredClone(calls);
    const opened = FakeWebSocket.all.length;
    socket.close();
    expect(socket.state).toBe("closed");
    expect(vi.getTimerCount()).toBe(0);
    expect(FakeWebSocket.last.closed).toBe(true);
    FakeWebSocket.last.accept();
    FakeWebSocket.last.deliver(progress("1"));
    FakeWebSocket.last.drop(1006);
    setOnline(false);
    setOnline(true);
    setVisible(true);
    vi.advanceTimersByTime(3_600_000);
    socket.close();
    expect(calls).toEqual(before);
    expect(FakeWebSocket.all).toHaveLength(opened);
    expect(socket.state).toBe("closed");
  });

  it.each(["onConnect", "onMessage", "onDisconnect", "onStateChange"] as const)("works from %s", (name) => {
    const { socket } = connect({ [name]: () => socket.close() });
    FakeWebSocket.last.accept();
    FakeWebSocket.last.deliver(progress("1"));
    FakeWebSocket.last.drop(1006);
    expect(socket.state).toBe("closed");
    expect(vi.getTimerCount()).toBe(0);
  });

  it("in one callback prevents the next one", () => {
    const onConnect = vi.fn();
    const { socket } = connect({ onConnect, onStateChange: () => socket.close() });
    FakeWebSocket.last.accept();
    expect(onConnect).not.toHaveBeenCalled();
  });

  it("works while a snapshot is loading", async () => {
    const { socket, calls } = connect({
      lastEventId: "nonsense",
      loadSnapshot: () => {
        socket.close();
        return new Promise(() => undefined);
      },
    });
    FakeWebSocket.last.accept().drop(4400);
    calls.states.length = 0;
    await vi.runAllTimersAsync();
    expect(socket.state).toBe("closed");
    expect(calls.states).toEqual([]);
  });
});
