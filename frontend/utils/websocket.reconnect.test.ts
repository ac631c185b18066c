import { describe, expect, it, vi } from "vitest";

import type { Snapshot } from "@/utils/websocket";
import { FakeWebSocket } from "@/utils/websocket.fake";
import {
  browser,
  connect,
  expectNextAttemptIn,
  hide,
  ids,
  progress,
  requestedId,
  setOnline,
  setVisible,
  show,
} from "@/utils/websocket.harness";

describe("reconnecting", () => {
  const ceilings = [500, 3_000, 6_000, 12_000, 24_000, 30_000, 30_000, 30_000];

  it.each([0, 0.25, 0.5, 1])("waits a fraction of %d of a ceiling that doubles up to the limit", (drawn) => {
    browser.random = drawn;
    connect();
    for (const ceiling of ceilings) {
      FakeWebSocket.last.drop(1006);
      expectNextAttemptIn(ceiling * drawn);
    }
  });

  it("uses the caller's interval and limit", () => {
    browser.random = 1;
    connect({ reconnectInterval: 200, maxReconnectInterval: 500 });
    for (const ceiling of [200, 200, 400, 500, 500]) {
      FakeWebSocket.last.drop(1006);
      expectNextAttemptIn(ceiling);
    }
  });

  it.each([1006, 4429])("never exceeds the limit, even when it is below the interval (%d)", (code) => {
    browser.random = 1;
    connect({ reconnectInterval: 3_000, maxReconnectInterval: 400 });
    for (let tries = 0; tries < 3; tries += 1) {
      FakeWebSocket.last.drop(code);
      expectNextAttemptIn(400);
    }
  });

  it("resets the delay only after a stable connection", () => {
    browser.random = 1;
    connect();
    FakeWebSocket.last.accept().drop(1006);
    expectNextAttemptIn(500);
    FakeWebSocket.last.accept();
    vi.advanceTimersByTime(4_999);
    FakeWebSocket.last.drop(1006);
    expectNextAttemptIn(3_000);
    FakeWebSocket.last.accept();
    vi.advanceTimersByTime(5_000);
    FakeWebSocket.last.drop(1006);
    expectNextAttemptIn(500);
  });

  it.each([1000, 1001, 1005, 1006, 1009, 1011, 1012, 1013, 1015])("resumes after %d", (code) => {
    const { socket, calls } = connect();
    FakeWebSocket.last.accept().deliver(progress("3"));
    FakeWebSocket.last.drop(code, "why");
    expect(socket.state).toBe("reconnecting");
    expect(calls.ends).toEqual([{ code, reason: "why", final: false }]);
    expectNextAttemptIn(250);
    expect(FakeWebSocket.last.url).toContain("last_event_id=3");
    FakeWebSocket.last.accept();
    expect(calls).toMatchObject({ connects: 2, states: ["live", "reconnecting", "live"] });
  });

  it.each([
    [0, 15_000],
    [0.5, 22_500],
    [1, 30_000],
  ])("waits long after 4429, regardless of wake-up events (random %d)", (drawn, delay) => {
    browser.random = drawn;
    connect();
    FakeWebSocket.last.accept().drop(4429);
    setVisible(true);
    setOnline(true);
    expect(FakeWebSocket.all).toHaveLength(1);
    expectNextAttemptIn(delay);
  });

  it.each([1012, 1013, 4400])("follows the server's retry hint after %d", (code) => {
    browser.random = 1;
    const { calls } = connect();
    FakeWebSocket.last.accept().drop(code, "the server restarts; retry in 1234 ms");
    expect(calls.ends[0]?.reason).toBe("the server restarts; retry in 1234 ms");
    expectNextAttemptIn(1_234);
    // If that fails, the delays start from the beginning.
    FakeWebSocket.last.drop(1006);
    expectNextAttemptIn(500);
    FakeWebSocket.last.drop(1006);
    expectNextAttemptIn(3_000);
    FakeWebSocket.last.drop(1013, "retry in 0 ms");
    expectNextAttemptIn(0);
  });

  it.each([
    ["retry in 99999 ms", 30_000],
    ["retry in -1 ms", 250],
    ["retry in 1e3 ms", 250],
    ["retry in 12345678 ms", 250],
    ["do not retry in 10 msec", 250],
  ])("validates and limits the hint in %s", (reason, delay) => {
    connect();
    FakeWebSocket.last.accept().drop(1012, reason);
    expectNextAttemptIn(delay);
  });

  it.each([4401, 4403])("stays closed after %d and reports it", (code) => {
    const { socket, calls } = connect();
    FakeWebSocket.last.accept().drop(code, "no");
    expect(socket.state).toBe("closed");
    expect(calls).toMatchObject({ states: ["live", "closed"], ends: [{ code, reason: "no", final: true }] });
    setOnline(true);
    setVisible(true);
    vi.advanceTimersByTime(3_600_000);
    expect(FakeWebSocket.all).toHaveLength(1);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("reports a refusal that precedes the opening", () => {
    const { calls } = connect();
    FakeWebSocket.last.drop(4401);
    expect(calls.ends).toEqual([{ code: 4401, reason: "", final: true }]);
  });
});

describe("wake-up events", () => {
  it("reconnects at once when the network is back", () => {
    const { socket, calls } = connect();
    FakeWebSocket.last.accept();
    browser.online = false;
    FakeWebSocket.last.drop(1006);
    expect(socket.state).toBe("offline");
    setOnline(true);
    expect(FakeWebSocket.all).toHaveLength(2);
    expect(calls.states).toEqual(["live", "offline", "reconnecting"]);
    // The cancelled timer must not open a second connection.
    FakeWebSocket.last.accept().deliver({ type: "pong" });
    vi.advanceTimersByTime(29_000);
    expect(FakeWebSocket.all).toHaveLength(2);
  });

  it("resets the delays when the network is back", () => {
    browser.random = 1;
    connect();
    for (const delay of [500, 3_000, 6_000]) {
      FakeWebSocket.last.drop(1006);
      expectNextAttemptIn(delay);
    }
    setOnline(true);
    FakeWebSocket.last.drop(1006);
    expectNextAttemptIn(500);
  });

  it("abandons an attempt that began without a network", () => {
    connect();
    const [stuck] = FakeWebSocket.all;
    setOnline(true);
    expect(stuck?.closed).toBe(true);
    expect(FakeWebSocket.all).toHaveLength(2);
  });

  it("checks an open socket when the browser reports offline, and trusts its answer", () => {
    const { socket, calls } = connect();
    const server = FakeWebSocket.last.accept();
    server.deliver({ type: "pong" });
    setOnline(false);
    expect(socket.state).toBe("offline");
    expect(server.sent).toEqual(["ping", "ping"]);
    server.deliver({ type: "pong" });
    expect(socket.state).toBe("live");
    expect(calls.ends).toEqual([]);
  });

  it("drops an open socket that does not answer after offline", () => {
    const { socket } = connect();
    FakeWebSocket.last.accept().deliver({ type: "pong" });
    setOnline(false);
    vi.advanceTimersByTime(10_000);
    expect(FakeWebSocket.all[0]?.closed).toBe(true);
    expect(socket.state).toBe("offline");
  });

  it("keeps trying while the browser reports offline, as it can be wrong", () => {
    browser.online = false;
    const { socket } = connect();
    expect(socket.state).toBe("offline");
    FakeWebSocket.last.drop(1006);
    expectNextAttemptIn(250);
    FakeWebSocket.last.accept();
    expect(socket.state).toBe("live");
  });

  it("is also offline while waiting for the next attempt", () => {
    const { socket } = connect();
    FakeWebSocket.last.drop(1006);
    expect(socket.state).toBe("connecting");
    setOnline(false);
    expect(socket.state).toBe("offline");
  });

  it.each(["visible", "online"])("pings an open socket on %s", (event) => {
    connect();
    const server = FakeWebSocket.last.accept();
    server.deliver({ type: "pong" });
    if (event === "visible") setVisible(true);
    else setOnline(true);
    expect(server.sent).toEqual(["ping", "ping"]);
    expect(server.closed).toBe(false);
    vi.advanceTimersByTime(10_000);
    expect(server.closed).toBe(true);
  });

  it("reconnects at once when the page becomes visible", () => {
    connect();
    FakeWebSocket.last.drop(1006);
    setVisible(false);
    expect(FakeWebSocket.all).toHaveLength(1);
    setVisible(true);
    expect(FakeWebSocket.all).toHaveLength(2);
    // A second event does not disturb the attempt in progress.
    setVisible(true);
    expect(FakeWebSocket.all).toHaveLength(2);
  });
});

describe("back/forward cache", () => {
  it("closes the socket, does nothing while hidden, and resumes at once when shown", () => {
    const { socket, calls } = connect();
    const left = FakeWebSocket.last.accept();
    left.deliver(progress("1"));
    hide();
    expect(left.closed).toBe(true);
    expect(socket.state).toBe("reconnecting");
    left.deliver(progress("2"));
    left.drop(1005);
    setOnline(true);
    setVisible(true);
    vi.advanceTimersByTime(600_000);
    expect(FakeWebSocket.all).toHaveLength(1);
    expect(vi.getTimerCount()).toBe(0);
    show();
    expect(FakeWebSocket.all).toHaveLength(2);
    expect(requestedId()).toBe("1");
    FakeWebSocket.last.accept().deliver(progress("2"));
    expect(ids(calls.messages)).toEqual(["1", "2"]);
    expect(calls.ends).toEqual([]);
    expect(socket.state).toBe("live");
    // A second pageshow without a pagehide changes nothing.
    show();
    expect(FakeWebSocket.all).toHaveLength(2);
  });

  it("does nothing when the page is shown for the first time", () => {
    connect();
    show();
    expect(FakeWebSocket.all).toHaveLength(1);
  });

  it("cancels the delay before the next attempt", () => {
    browser.random = 1;
    connect();
    for (const delay of [500, 3_000]) {
      FakeWebSocket.last.drop(1006);
      expectNextAttemptIn(delay);
    }
    FakeWebSocket.last.drop(1006);
    hide();
    show();
    expect(FakeWebSocket.all).toHaveLength(4);
    FakeWebSocket.last.drop(1006);
    expectNextAttemptIn(500);
  });

  it("reports the gap when there is no id to resume from", () => {
    const { calls } = connect();
    FakeWebSocket.last.accept();
    hide();
    show();
    FakeWebSocket.last.accept();
    expect(calls.messages).toEqual([{ type: "resync", snapshot: null }]);
  });

  it("loads the snapshot again after aborting its loading", async () => {
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
    expect(requestedId()).toBe("5");
  });

  it("does not shorten the wait after 4429", () => {
    connect();
    FakeWebSocket.last.accept().drop(4429);
    hide();
    show();
    expect(FakeWebSocket.all).toHaveLength(1);
    expectNextAttemptIn(22_500);
  });

  it("forgets a 4429 once connected again", () => {
    connect();
    FakeWebSocket.last.accept().drop(4429);
    expectNextAttemptIn(22_500);
    FakeWebSocket.last.accept();
    hide();
    show();
    expect(FakeWebSocket.all).toHaveLength(3);
  });

  it("does not affect a closed socket", () => {
    const { socket } = connect();
    socket.close();
    hide();
    show();
    expect(socket.state).toBe("closed");
    expect(FakeWebSocket.all).toHaveLength(1);
  });
});
