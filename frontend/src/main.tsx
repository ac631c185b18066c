import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { App } from "@/src/App";
import "@/src/styles/base.css";
import "@/src/styles/page.css";
import "@/src/styles/batches.css";
import { completeSignIn } from "@/utils/signIn";

const root = document.getElementById("root");
if (root === null) throw new Error("index.html has no element #root to render into.");
const signInFailure = await completeSignIn().then(
  () => "",
  (error: unknown) => (error instanceof Error ? error.message : String(error)),
);
createRoot(root).render(
  <StrictMode>
    <App signInFailure={signInFailure} />
  </StrictMode>,
);
