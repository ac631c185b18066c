import { useCallback, useEffect, useReducer, useState } from "react";

import { ApiError, getBatches } from "@/utils/api";
import {
  initialState,
  progressReducer,
  type Batch,
  type BatchesSnapshot,
  type ProgressEvent,
  type ProgressState,
} from "@/utils/progress";
import { ReconnectingWebSocket, type ConnectionState } from "@/utils/websocket";

export interface UseCVProgress extends ProgressState {
  readonly connection: ConnectionState;
  /** Puts the batch that an upload was answered with on the page, before its first event. */
  readonly addBatch: (batch: Batch) => void;
}

/**
 * One person's batches, live: the state over HTTP once, then every event after it.
 *
 * @param userId whose events; must be the signed-in user. Give the component a `key` of it, so that a change starts anew.
 * @param onRefused called when the server refuses the session (missing, expired, another user's); the connection is `closed`
 */
export function useCVProgress(userId: string, onRefused: () => void): UseCVProgress {
  const [state, dispatch] = useReducer(progressReducer, initialState);
  const [connection, setConnection] = useState<ConnectionState>("connecting");

  useEffect(() => {
    const socket = new ReconnectingWebSocket<ProgressEvent, BatchesSnapshot>({
      url: `/api/v1/cv-processing/ws/${encodeURIComponent(userId)}`,
      loadSnapshot: async (signal) => {
        try {
          return await getBatches(signal);
        } catch (error) {
          if (!signal.aborted && error instanceof ApiError && error.status === 401) {
            socket.close();
            setConnection("closed");
            onRefused();
          }
          throw error;
        }
      },
      onMessage: dispatch,
      onStateChange: setConnection,
      onDisconnect: ({ final }) => {
        if (final) onRefused();
      },
    });
    return () => socket.close();
  }, [userId, onRefused]);

  const addBatch = useCallback((batch: Batch) => dispatch({ type: "uploaded", batch }), []);
  return { ...state, connection, addBatch };
}
