import { act, StrictMode, useEffect } from "react";
import { createRoot, type Root } from "react-dom/client";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { useCVProgress, type UseCVProgress } from "@/hooks/useCVProgress";
import type { Batch } from "@/utils/progress";
import { FakeWebSocket } from "@/utils/websocket.fake";

const batch: Batch = {
  batch_id: "b1",
  created_at: "2026-11-24T10:00:00Z",
  status: "processing",
  total: 1,
  done: 0,
  failed: 0,
  progress: 0,
  cvs: [],
};

let root: Root;
let current: UseCVProgress | undefined;
let refusals = 0;

beforeEach(() => {
  vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
  vi.useFakeTimers();
  FakeWebSocket.install();
  vi.spyOn(console, "log").mockImplementation(() => undefined);
  refusals = 0;
  root = createRoot(document.createElement("div"));
});

afterEach(async () => {
  await act(async () => root.unmount());
  vi.useRealTimers();
  vi.restoreAllMocks();
});

function respond(status: number, body: unknown) {
  const fetch = vi.fn(async () => new Response(JSON.stringify(body), { status }));
  vi.stubGlobal("fetch", fetch);
  return fetch;
}

const onRefused = () => {
  refusals += 1;
};

function Probe({ userId }: { readonly userId: string }) {
  const progress = useCVProgress(userId, onRefused);
  useEffect(() => {
    current = progress;
  });
  return null;
}

async function mount(userId = "ada"): Promise<void> {
  await act(async () => {
    root.render(
      <StrictMode>
        <Probe userId={userId} />
      </StrictMode>,
    );
    await vi.advanceTimersByTimeAsync(0);
  });
}

it("loads the state, resumes from it and applies the events", async () => {
  respond(200, { last_event_id: "5", batches: [batch] });
  await mount("ada/b");
  expect(current).toMatchObject({ batches: [batch], lastEventId: "5", connection: "connecting" });
  // Strict mode mounts twice; the first connection must not survive.
  expect(FakeWebSocket.all.filter(({ closed }) => !closed)).toHaveLength(1);
  expect(FakeWebSocket.last.url).toBe("wss://site.example/api/v1/cv-processing/ws/ada%2Fb?last_event_id=5");

  await act(async () => {
    FakeWebSocket.last.accept();
    const { cvs: _, ...summary } = batch;
    FakeWebSocket.last.deliver({
      id: "6",
      type: "batch_progress",
      time: "2026-11-24T10:00:01Z",
      ...summary,
      progress: 40,
    });
  });
  expect(current).toMatchObject({
    batches: [{ ...batch, progress: 40 }],
    lastEventId: "6",
    connection: "live",
  });

  await act(async () =>
    FakeWebSocket.last.deliver({ type: "resync", snapshot: { last_event_id: "90", batches: [] } }),
  );
  expect(current).toMatchObject({ batches: [], lastEventId: "90" });

  await act(async () => FakeWebSocket.last.drop(1012));
  expect(current?.connection).toBe("reconnecting");
});

it("shows an uploaded batch before its first event", async () => {
  respond(200, { last_event_id: "5", batches: [] });
  await mount();
  await act(async () => current?.addBatch(batch));
  expect(current).toMatchObject({ batches: [batch], lastEventId: "5" });
});

it.each([4401, 4403])("reports that the server refused the session with %d", async (code) => {
  respond(200, { last_event_id: "5", batches: [] });
  await mount();
  await act(async () => FakeWebSocket.last.accept().drop(code));
  expect(current?.connection).toBe("closed");
  expect(refusals).toBe(1);
});

it("does not connect, and reports it, when the session has ended before the state is loaded", async () => {
  const fetch = respond(401, { detail: "Not signed in." });
  await mount();
  expect(current?.connection).toBe("closed");
  expect(refusals).toBe(1);
  await act(async () => vi.advanceTimersByTimeAsync(600_000));
  // Two: strict mode mounts twice.
  expect(fetch).toHaveBeenCalledTimes(2);
  expect(FakeWebSocket.all).toHaveLength(0);
});

it("retries when the state cannot be loaded", async () => {
  vi.spyOn(console, "error").mockImplementation(() => undefined);
  respond(502, "<html>");
  await mount();
  expect(current?.connection).toBe("connecting");
  respond(200, { last_event_id: "5", batches: [batch] });
  await act(async () => vi.advanceTimersByTimeAsync(1_000));
  expect(current?.batches).toEqual([batch]);
});

it("closes the connection when the component unmounts", async () => {
  respond(200, { last_event_id: "5", batches: [] });
  await mount();
  await act(async () => {
    FakeWebSocket.last.accept();
  });
  await act(async () => root.render(null));
  expect(FakeWebSocket.last.closed).toBe(true);
  expect(vi.getTimerCount()).toBe(0);
});
