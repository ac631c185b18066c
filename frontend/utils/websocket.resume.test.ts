import { describe, expect, it, vi } from "vitest";

import type { Snapshot } from "@/utils/websocket";
import { FakeWebSocket } from "@/utils/websocket.fake";
import {
  browser,
  connect,
  progress,
  requestedId,
  type Options,
} from "@/utils/websocket.harness";

describe("resuming", () => {
  it("requests the events after the last id seen", () => {
    connect();
    expect(requestedId()).toBeNull();
    FakeWebSocket.last.accept().deliver(progress("7-1"));
    FakeWebSocket.last.deliver({ type: "notice" });
    FakeWebSocket.last.drop(1012);
    vi.runOnlyPendingTimers();
    expect(requestedId()).toBe("7-1");
    FakeWebSocket.last.drop(1006);
    vi.runOnlyPendingTimers();
    expect(requestedId()).toBe("7-1");
  });

  it("passes a resync on, continues from its snapshot and forgets earlier ids", () => {
    const { socket, calls } = connect({ lastEventId: "1" });
    const resync = { type: "resync", snapshot: { last_event_id: "9", batches: [] } };
    const server = FakeWebSocket.last.accept();
    server.deliver(progress("2"));
    server.deliver(resync);
    expect(socket.lastEventId).toBe("9");
    // A Redis that lost its data may issue the same ids again.
    server.deliver(progress("2"));
    expect(calls.messages).toEqual([progress("2"), resync, progress("2")]);
  });

  it("forgets the id when a resync has no snapshot", () => {
    const { socket, calls } = connect({ lastEventId: "1" });
    FakeWebSocket.last.accept().deliver({ type: "resync", snapshot: null });
    expect(socket.lastEventId).toBeUndefined();
    expect(calls.messages).toEqual([{ type: "resync", snapshot: null }]);
  });

  it("reports a gap when it reconnects without an id", () => {
    const { calls } = connect();
    FakeWebSocket.last.accept();
    expect(calls.messages).toEqual([]);
    FakeWebSocket.last.drop(1006);
    vi.runOnlyPendingTimers();
    expect(calls.messages).toEqual([]);
    FakeWebSocket.last.accept();
    expect(calls.messages).toEqual([{ type: "resync", snapshot: null }]);
  });

  it("drops an id that the server rejects as malformed, and reports the gap", () => {
    const { calls } = connect({ lastEventId: "nonsense" });
    FakeWebSocket.last.accept().drop(4400, "malformed last_event_id");
    expect(calls.ends).toEqual([{ code: 4400, reason: "malformed last_event_id", final: false }]);
    vi.runOnlyPendingTimers();
    expect(requestedId()).toBeNull();
    FakeWebSocket.last.accept();
    expect(calls.messages).toEqual([{ type: "resync", snapshot: null }]);
  });
});

describe("snapshot", () => {
  it("is loaded first and passed on, and the connection resumes from it", async () => {
    const snapshot = { last_event_id: "5" };
    const { calls } = connect({ loadSnapshot: async () => snapshot });
    expect(FakeWebSocket.all).toHaveLength(0);
    await vi.advanceTimersByTimeAsync(0);
    expect(calls.messages).toEqual([{ type: "resync", snapshot }]);
    expect(FakeWebSocket.last.url).toBe("wss://site.example/api/v1/cv-processing/ws/ada?last_event_id=5");
    FakeWebSocket.last.accept();
    expect(calls.messages).toHaveLength(1);
  });

  it("is not loaded while there is an id to resume from", async () => {
    const loadSnapshot = vi.fn<NonNullable<Options["loadSnapshot"]>>();
    connect({ loadSnapshot, lastEventId: "5" });
    FakeWebSocket.last.accept().drop(1006);
    await vi.runOnlyPendingTimersAsync();
    expect(FakeWebSocket.all).toHaveLength(2);
    expect(loadSnapshot).not.toHaveBeenCalled();
  });

  it("is loaded again after 4400", async () => {
    const loadSnapshot = vi.fn(async () => ({ last_event_id: "6" }));
    const { calls } = connect({ loadSnapshot, lastEventId: "nonsense" });
    FakeWebSocket.last.accept().drop(4400);
    await vi.runOnlyPendingTimersAsync();
    expect(calls.messages).toEqual([{ type: "resync", snapshot: { last_event_id: "6" } }]);
    expect(FakeWebSocket.last.url).toContain("last_event_id=6");
  });

  it("is retried with the same delays when loading fails", async () => {
    browser.random = 1;
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

  it("is aborted at the deadline, and a late result is ignored", async () => {
    const signals: AbortSignal[] = [];
    const answers: ((snapshot: Snapshot) => void)[] = [];
    const { calls } = connect({
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
    expect(calls.messages).toEqual([]);
    expect(FakeWebSocket.all).toHaveLength(0);
    answers[1]?.({ last_event_id: "new" });
    await vi.advanceTimersByTimeAsync(0);
    expect(calls.messages).toEqual([{ type: "resync", snapshot: { last_event_id: "new" } }]);
  });

  it("is ignored when it arrives after close()", async () => {
    const { socket, calls } = connect({ loadSnapshot: async () => ({ last_event_id: "5" }) });
    socket.close();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(calls).toEqual({ messages: [], connects: 0, ends: [], states: [] });
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
