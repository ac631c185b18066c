import { useCallback, useEffect, useRef, useState } from "react";

import { Brand } from "@/src/Brand";
import { SignIn } from "@/src/SignIn";
import { Workspace } from "@/src/Workspace";
import { getSession, type Session } from "@/utils/api";

/** Milliseconds between two attempts to load the session. */
const RETRY_INTERVAL = 3_000;

export function App() {
  const { session, problem, refresh } = useSession();
  const userId = session?.userId ?? null;

  useEffect(() => {
    if (userId !== null) return undefined;
    // The user may have signed in in another tab.
    window.addEventListener("focus", refresh);
    return () => window.removeEventListener("focus", refresh);
  }, [userId, refresh]);

  if (session !== null && userId !== null) {
    return <Workspace key={userId} userId={userId} demoSignIn={session.demoSignIn} onSessionChange={refresh} />;
  }
  return (
    <main className="gate">
      <div className="card gate-card">
        <Brand />
        {session === null ? (
          <output className="muted">
            {problem === "" ? "Loading…" : `${problem} Retrying automatically.`}
          </output>
        ) : (
          <SignIn demo={session.demoSignIn} onSignedIn={refresh} />
        )}
      </div>
    </main>
  );
}

/** The session, loaded at the start and on `refresh`. `problem` is a message for the user when loading failed. */
function useSession() {
  const [session, setSession] = useState<Session | null>(null);
  const [problem, setProblem] = useState("");
  const request = useRef<AbortController>(null);

  const load = useCallback(async () => {
    request.current?.abort();
    request.current = new AbortController();
    const { signal } = request.current;
    try {
      const loaded = await getSession(signal);
      if (signal.aborted) return;
      setSession(loaded);
      setProblem("");
    } catch (error) {
      if (!signal.aborted) setProblem(error instanceof Error ? error.message : String(error));
    }
  }, []);
  const refresh = useCallback(() => void load(), [load]);

  useEffect(() => {
    refresh();
    return () => request.current?.abort();
  }, [refresh]);

  useEffect(() => {
    if (problem === "") return undefined;
    const timer = setInterval(refresh, RETRY_INTERVAL);
    return () => clearInterval(timer);
  }, [problem, refresh]);

  return { session, problem, refresh };
}
