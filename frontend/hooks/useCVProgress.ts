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
  /** Shows a batch that was just uploaded, before its first event. */
  readonly addBatch: (batch: Batch) => void;
}

/**
 * One user's batches, live: the state is loaded once over HTTP, then every event after it is applied.
 *
 * @param userId the signed-in user. Use it as the component's `key`, so that a change of user resets the state.
 * @param onRefused called when the server refuses the session (missing, expired, another user's): state `closed`
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
