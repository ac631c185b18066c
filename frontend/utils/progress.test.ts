import { describe, expect, it } from "vitest";

import {
  initialState,
  progressReducer,
  type Batch,
  type BatchProgress,
  type CV,
  type CVProgress,
  type ProgressAction,
  type ProgressState,
} from "@/utils/progress";

const cv = (cv_id: string, changes: Partial<CV> = {}): CV => ({
  cv_id,
  batch_id: "b1",
  filename: `${cv_id}.pdf`,
  size: 1_000,
  status: "queued",
  progress: 0,
  result: null,
  error: null,
  ...changes,
});
const batch = (batch_id: string, cvs: readonly CV[], changes: Partial<Batch> = {}): Batch => ({
  batch_id,
  created_at: "2026-11-24T10:00:00Z",
  status: "processing",
  total: cvs.length,
  done: 0,
  failed: 0,
  progress: 0,
  ...changes,
  cvs,
});
const cvEvent = (id: string, about: CV): CVProgress => ({
  id,
  type: "cv_progress",
  time: "2026-11-24T10:00:05Z",
  ...about,
});
const batchEvent = (id: string, whole: Batch): BatchProgress => {
  const { cvs: _, ...about } = whole;
  return { id, type: "batch_progress", time: "2026-11-24T10:00:05Z", ...about };
};
const resync = (last_event_id: string, ...batches: Batch[]): ProgressAction => ({
  type: "resync",
  snapshot: { last_event_id, batches },
});
const reduce = (...actions: ProgressAction[]): ProgressState => actions.reduce(progressReducer, initialState);

describe("progressReducer", () => {
  it("replaces the whole state by a snapshot", () => {
    const state = reduce(resync("1", batch("old", [cv("a")])), resync("9", batch("b2", []), batch("b1", [])));
    expect(state).toEqual({ lastEventId: "9", batches: [batch("b2", []), batch("b1", [])] });
  });

  it("keeps older batches that the snapshot leaves out", () => {
    const known = resync("1", batch("b3", []), batch("b2", [cv("a")]), batch("b1", []));
    const page = { last_event_id: "9", batches: [batch("b4", []), batch("b2", [])], next: "b2" };
    const state = reduce(known, { type: "resync", snapshot: page });
    expect(state.batches.map(({ batch_id }) => batch_id)).toEqual(["b4", "b2", "b1"]);
  });

  it("keeps the state when a resync has no snapshot", () => {
    const state = reduce(resync("1", batch("b1", [cv("a")])));
    expect(progressReducer(state, { type: "resync", snapshot: null })).toBe(state);
  });

  it("updates one CV and keeps the identity of the others", () => {
    const before = reduce(resync("1", batch("b2", []), batch("b1", [cv("a"), cv("b")])));
    const moved = cv("b", { status: "extracting", progress: 30 });
    const after = progressReducer(before, cvEvent("2", moved));
    expect(after.lastEventId).toBe("2");
    expect(after.batches[1]?.cvs).toEqual([cv("a"), moved]);
    expect(after.batches[0]).toBe(before.batches[0]);
    expect(after.batches[1]?.cvs[0]).toBe(before.batches[1]?.cvs[0]);
  });

  it("updates a batch and keeps its CVs", () => {
    const progress = batch("b1", [], { total: 2, done: 1, failed: 1, status: "done", progress: 100 });
    const state = reduce(resync("1", batch("b1", [cv("a"), cv("b")])), batchEvent("2", progress));
    expect(state).toEqual({ lastEventId: "2", batches: [{ ...progress, cvs: [cv("a"), cv("b")] }] });
  });

  it("adds a batch uploaded in another tab on top, from its events in either order", () => {
    const start = resync("1", batch("b0", []));
    const whole = batch("b1", [cv("a")], { total: 3 });
    const [first, second] = [batchEvent("2", whole), cvEvent("3", cv("a"))];
    expect(reduce(start, first, second).batches).toEqual([whole, batch("b0", [])]);
    expect(reduce(start, second, first).batches).toEqual([whole, batch("b0", [])]);
  });

  it("shows a CV whose batch had no event yet", () => {
    expect(reduce(cvEvent("1", cv("a"))).batches).toEqual([
      batch("b1", [cv("a")], { created_at: "2026-11-24T10:00:05Z", total: 1 }),
    ]);
  });

  it("does not let the response to an upload undo events that overtook it", () => {
    const response = batch("b1", [cv("a"), cv("b"), cv("c")]);
    const done = cv("b", { status: "done", progress: 100 });
    const state = reduce(
      resync("1"),
      cvEvent("2", done),
      batchEvent("3", batch("b1", [], { total: 3, done: 1, progress: 33 })),
      { type: "uploaded", batch: response },
    );
    expect(state).toEqual({
      lastEventId: "3",
      batches: [batch("b1", [cv("a"), done, cv("c")], { done: 1, progress: 33 })],
    });
  });

  it("takes from the response to an upload what the events of its CVs lack", () => {
    const response = batch("b1", [cv("a"), cv("b")]);
    const state = reduce(resync("1"), cvEvent("2", cv("a")), { type: "uploaded", batch: response });
    expect(state.batches).toEqual([response]);
  });

  it("adds an uploaded batch on top at once, without changing the last event id", () => {
    const state = reduce(resync("1", batch("b0", [])), { type: "uploaded", batch: batch("b1", [cv("a")]) });
    expect(state).toEqual({ lastEventId: "1", batches: [batch("b1", [cv("a")]), batch("b0", [])] });
  });

  it("ignores unknown types", () => {
    const state = reduce(resync("1", batch("b1", [])));
    const unknown = { id: "2", type: "cv_archived" } as unknown as ProgressAction;
    expect(progressReducer(state, unknown)).toBe(state);
  });
});
