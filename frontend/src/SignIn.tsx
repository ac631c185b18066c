import { useId, useState, type SubmitEvent } from "react";

import { signIn } from "@/utils/api";

export function SignIn({ demo, onSignedIn }: { readonly demo: boolean; readonly onSignedIn: () => void }) {
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  const field = useId();

  if (!demo) {
    return (
      <>
        <h1>You are not signed in</h1>
        <p className="muted">
          Sign in as usual, then return to this tab. It updates automatically.
        </p>
        <button type="button" className="button" onClick={onSignedIn}>
          Check again
        </button>
      </>
    );
  }

  const submit = async (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault();
    const name = new FormData(event.currentTarget).get("user_id");
    setBusy(true);
    setProblem("");
    try {
      await signIn(typeof name === "string" ? name.trim() : "");
      onSignedIn();
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error));
    } finally {
      setBusy(false);
    }
  };

  return (
    <form className="sign-in" data-testid="sign-in" onSubmit={(event) => void submit(event)}>
      <h1>Welcome</h1>
      <p className="muted">This is a demo: use any name, no password needed.</p>
      <label htmlFor={field}>Your name</label>
      <input
        id={field}
        name="user_id"
        autoComplete="username"
        autoCapitalize="none"
        spellCheck={false}
        placeholder="ada"
        required
        aria-describedby={`${field}-problem`}
        aria-invalid={problem !== ""}
      />
      <p id={`${field}-problem`} className="problem" role="alert">
        {problem}
      </p>
      <button type="submit" className="button" disabled={busy}>
        Sign in
      </button>
    </form>
  );
}
