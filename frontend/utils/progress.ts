/** The api's batches and CVs, and how events change them. Pure functions. */

import type { Resync, ServerMessage, Snapshot } from "@/utils/websocket";

export type CVStatus = "queued" | "extracting" | "analysing" | "done" | "failed";

export interface CVResult {
  readonly name: string | null;
  readonly email: string | null;
  readonly phone: string | null;
  readonly skills: readonly string[];
}

export interface CV {
  readonly cv_id: string;
  readonly batch_id: string;
  readonly filename: string;
  /** Bytes. */
  readonly size: number;
  readonly status: CVStatus;
  /** Percent. */
  readonly progress: number;
  readonly result: CVResult | null;
  /** A message for the user when the status is `failed`. */
  readonly error: string | null;
}

interface BatchSummary {
  readonly batch_id: string;
  /** ISO 8601, UTC. */
  readonly created_at: string;
  readonly status: "processing" | "done";
  readonly total: number;
  readonly done: number;
  readonly failed: number;
  /** Percent. */
  readonly progress: number;
}

export interface Batch extends BatchSummary {
  readonly cvs: readonly CV[];
}

export interface BatchesSnapshot extends Snapshot {
  /** Newest first. */
  readonly batches: readonly Batch[];
  /** Present when older batches are left: the value of `before` that continues. */
  readonly next?: string;
}

interface Event extends ServerMessage {
  readonly id: string;
  /** ISO 8601, UTC. */
  readonly time: string;
}

export type CVProgress = Event & CV & { readonly type: "cv_progress" };
export type BatchProgress = Event & BatchSummary & { readonly type: "batch_progress" };

export type ProgressEvent = CVProgress | BatchProgress;

export interface ProgressState {
  /** Newest first. */
  readonly batches: readonly Batch[];
  /** Id of the newest event included in `batches`; empty before the first snapshot. */
  readonly lastEventId: string;
}

export const initialState: ProgressState = { batches: [], lastEventId: "" };

/** `uploaded` carries the response to an upload, which can arrive after the first events of the same batch. */
export type ProgressAction =
  ProgressEvent | Resync<BatchesSnapshot> | { readonly type: "uploaded"; readonly batch: Batch };

export function progressReducer(state: ProgressState, action: ProgressAction): ProgressState {
  switch (action.type) {
    case "resync":
      if (action.snapshot === null) return state;
      return { batches: withOlder(action.snapshot, state.batches), lastEventId: action.snapshot.last_event_id };
    case "uploaded":
      return {
        ...state,
        batches: withBatch(state.batches, action.batch.batch_id, (known) => merge(action.batch, known)),
      };
    case "cv_progress": {
      const { id, type: _, time, ...cv } = action;
      const batches = withBatch(state.batches, cv.batch_id, (known) => {
        const batch = known ?? placeholder(cv.batch_id, time);
        return { ...batch, total: Math.max(batch.total, 1), cvs: withCV(batch.cvs, cv) };
      });
      return { batches, lastEventId: id };
    }
    case "batch_progress": {
      const { id, type: _, time: __, ...summary } = action;
      const batches = withBatch(state.batches, summary.batch_id, (known) => ({
        cvs: known?.cvs ?? [],
        ...summary,
      }));
      return { batches, lastEventId: id };
    }
    default:
      // A newer server may send types that this page does not know.
      return state;
  }
}

/** A placeholder for a batch of which only a CV is known so far. */
function placeholder(batchId: string, time: string): Batch {
  return {
    batch_id: batchId,
    created_at: time,
    status: "processing",
    total: 0,
    done: 0,
    failed: 0,
    progress: 0,
    cvs: [],
  };
}

/** The snapshot's batches, and those known before that are older than a snapshot which names more. */
function withOlder({ batches, next }: BatchesSnapshot, known: readonly Batch[]): readonly Batch[] {
  const last = known.findIndex(({ batch_id }) => batch_id === next);
  return last === -1 ? batches : [...batches, ...known.slice(last + 1)];
}

/** Events are at least as new as the response: keep their values, and add the CVs that had no event yet. */
function merge(response: Batch, known: Batch | undefined): Batch {
  if (known === undefined) return response;
  const current = new Map(known.cvs.map((cv) => [cv.cv_id, cv]));
  return {
    ...known,
    created_at: response.created_at,
    total: response.total,
    cvs: response.cvs.map((cv) => current.get(cv.cv_id) ?? cv),
  };
}

function withBatch(
  batches: readonly Batch[],
  batchId: string,
  change: (known: Batch | undefined) => Batch,
): readonly Batch[] {
  const index = batches.findIndex((batch) => batch.batch_id === batchId);
  return index === -1 ? [change(undefined), ...batches] : batches.with(index, change(batches[index]));
}

function withCV(cvs: readonly CV[], cv: CV): readonly CV[] {
  const index = cvs.findIndex(({ cv_id }) => cv_id === cv.cv_id);
  return index === -1 ? [...cvs, cv] : cvs.with(index, cv);
}
