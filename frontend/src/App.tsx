import { useCallback, useEffect, useRef, useState } from "react";

import { Brand } from "@/src/Brand";
import { SignIn } from "@/src/SignIn";
import { Workspace } from "@/src/Workspace";
import { getSession, type Session } from "@/utils/api";

/** Milliseconds between two tries while the server does not say who is signed in. */
const RETRY = 3_000;

/** @param signInFailure why the sign-in that led here failed; empty when it did not */
export function App({ signInFailure }: { readonly signInFailure: string }) {
  const { session, problem, ask } = useSession();
  const userId = session?.userId ?? null;

  useEffect(() => {
    if (userId !== null) return undefined;
    // Somebody who signed in elsewhere and comes back to this tab needs no reload.
    window.addEventListener("focus", ask);
    return () => window.removeEventListener("focus", ask);
  }, [userId, ask]);

  if (session !== null && userId !== null) {
    return <Workspace key={userId} userId={userId} onSessionChange={ask} />;
  }
  return (
    <main className="gate">
      <div className="card gate-card">
        <Brand />
        {session === null ? (
          <output className="muted">
            {problem === "" ? "One moment…" : `${problem} This page asks again by itself.`}
          </output>
        ) : (
          <SignIn demo={session.demoSignIn} url={session.signInUrl} failure={signInFailure} onSignedIn={ask} />
        )}
      </div>
    </main>
  );
}

/** Who is signed in, asked at the start and whenever `ask` is called; `problem` says why there is no answer. */
function useSession() {
  const [session, setSession] = useState<Session | null>(null);
  const [problem, setProblem] = useState("");
  const asking = useRef<AbortController>(null);

  const load = useCallback(async () => {
    asking.current?.abort();
    asking.current = new AbortController();
    const { signal } = asking.current;
    try {
      const answer = await getSession(signal);
      if (signal.aborted) return;
      setSession(answer);
      setProblem("");
    } catch (error) {
      if (!signal.aborted) setProblem(error instanceof Error ? error.message : String(error));
    }
  }, []);
  const ask = useCallback(() => void load(), [load]);

  useEffect(() => {
    ask();
    return () => asking.current?.abort();
  }, [ask]);

  useEffect(() => {
    if (problem === "") return undefined;
    const timer = setInterval(ask, RETRY);
    return () => clearInterval(timer);
  }, [problem, ask]);

  return { session, problem, ask };
}
