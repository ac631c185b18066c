import { useCallback, useEffect, useState } from "react";

import { useCVProgress } from "@/hooks/useCVProgress";
import { BatchCard } from "@/src/BatchCard";
import { Brand } from "@/src/Brand";
import { Uploader } from "@/src/Uploader";
import { signOut } from "@/utils/api";
import type { Batch } from "@/utils/progress";
import type { ConnectionState } from "@/utils/websocket";

const CONNECTION_LABEL: Record<ConnectionState, string> = {
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Reconnecting",
  offline: "Offline",
  closed: "Stopped",
};

/** Shown only when a state lasts: most losses are over before a notice could be read. */
const CONNECTION_NOTICE: Record<ConnectionState, string> = {
  connecting: "Connecting. Your CVs will appear in a moment.",
  live: "",
  reconnecting: "The connection was lost. Processing continues, and this page will catch up automatically.",
  offline:
    "You seem to be offline. Processing continues, and this page will catch up when you are back online.",
  closed: "The server refused live updates for this session.",
};
/** Milliseconds. */
const NOTICE_AFTER = 2_000;

interface WorkspaceProps {
  readonly userId: string;
  readonly demoSignIn: boolean;
  /** Called when the session has ended or may have. */
  readonly onSessionChange: () => void;
}

export function Workspace(props: WorkspaceProps) {
  const [connections, setConnections] = useState(0);
  const reconnect = useCallback(() => setConnections((count) => count + 1), []);
  return <Connected key={connections} {...props} onReconnect={reconnect} />;
}

function Connected({
  userId,
  demoSignIn,
  onSessionChange,
  onReconnect,
}: WorkspaceProps & { readonly onReconnect: () => void }) {
  const { batches, connection, lastEventId, addBatch } = useCVProgress(userId, onSessionChange);
  const notice = CONNECTION_NOTICE[useSettled(connection, NOTICE_AFTER)];
  useTitle(batches);

  const [problem, setProblem] = useState("");
  const onSignOut = async () => {
    try {
      await signOut();
      onSessionChange();
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error));
    }
  };

  return (
    <>
      <header className="bar">
        <Brand />
        <span className="connection" data-testid="connection" data-state={connection}>
          {CONNECTION_LABEL[connection]}
        </span>
        <span className="who">{userId}</span>
        {demoSignIn && (
          <button type="button" className="button quiet" onClick={() => void onSignOut()}>
            Sign out
          </button>
        )}
      </header>
      <main className="page" data-testid="workspace" data-last-event-id={lastEventId}>
        <h1 className="visually-hidden">CVs of {userId}</h1>
        <div className="notice">
          <output>{notice}</output>
          {connection === "closed" && (
            <button type="button" className="button quiet" onClick={onReconnect}>
              Try again
            </button>
          )}
        </div>
        <p className="problem" role="alert">
          {problem}
        </p>
        <Uploader onUploaded={addBatch} onSignedOut={onSessionChange} />
        {batches.length === 0 && lastEventId !== "" && (
          <p className="empty muted">
            No CVs yet. The ones you upload appear here and are updated as they are processed.
          </p>
        )}
        {batches.map((batch) => (
          <BatchCard key={batch.batch_id} batch={batch} />
        ))}
      </main>
    </>
  );
}

/** The state once it has not changed for this many milliseconds; `live` at once. */
function useSettled(connection: ConnectionState, milliseconds: number): ConnectionState {
  const [settled, setSettled] = useState<ConnectionState>("live");
  useEffect(() => {
    const timer = setTimeout(() => setSettled(connection), connection === "live" ? 0 : milliseconds);
    return () => clearTimeout(timer);
  }, [connection, milliseconds]);
  return settled;
}

/** Shows the progress in the tab's title. */
function useTitle(batches: readonly Batch[]): void {
  const running = batches.filter(({ status }) => status === "processing");
  const percent = running.reduce((sum, { progress }) => sum + progress, 0) / Math.max(running.length, 1);
  const title = running.length === 0 ? "screen-flow" : `${Math.floor(percent)}% · screen-flow`;
  useEffect(() => {
    document.title = title;
    return () => {
      document.title = "screen-flow";
    };
  }, [title]);
}
