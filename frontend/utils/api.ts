/** The api over HTTP. Every function rejects with an ApiError whose message is a sentence for people. */

import type { Batch, BatchesSnapshot } from "@/utils/progress";

const SESSION = "/api/v1/session";
const BATCHES = "/api/v1/cv-processing/batches";

export class ApiError extends Error {
  override readonly name = "ApiError";
  /** The HTTP status; 0 when no answer came. */
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export interface Session {
  /** Null when nobody is signed in. */
  readonly userId: string | null;
  /** Whether the server has a sign-in form of its own. */
  readonly demoSignIn: boolean;
  /** Where to sign in; null when signed in, or when the site names no such place. */
  readonly signInUrl: string | null;
}

export async function getSession(signal: AbortSignal): Promise<Session> {
  const answer = await send("GET", SESSION, { signal });
  if (answer.status !== 401) requireSuccess(answer);
  const { user_id, demo_sign_in, sign_in_url } = json<{
    user_id?: string;
    demo_sign_in: boolean;
    sign_in_url?: string | null;
  }>(answer);
  return { userId: user_id ?? null, demoSignIn: demo_sign_in, signInUrl: sign_in_url ?? null };
}

/** Exchanges an identity provider's token for the session's cookie. */
export async function exchangeToken(token: string): Promise<void> {
  requireSuccess(await send("POST", SESSION, { headers: { Authorization: `Bearer ${token}` } }));
}

export async function signIn(userId: string): Promise<void> {
  const headers = { "Content-Type": "application/json" };
  requireSuccess(await send("POST", SESSION, { headers, body: JSON.stringify({ user_id: userId }) }));
}

export async function signOut(): Promise<void> {
  requireSuccess(await send("DELETE", SESSION));
}

export async function getBatches(signal: AbortSignal): Promise<BatchesSnapshot> {
  return json<BatchesSnapshot>(requireSuccess(await send("GET", BATCHES, { signal })));
}

/**
 * Sends CVs as one batch. XMLHttpRequest, because fetch does not tell how much of a body is sent.
 *
 * @param onProgress called with the sent part, 0 to 1
 */
export async function uploadBatch(
  files: readonly File[],
  onProgress: (sent: number) => void,
): Promise<Batch> {
  const body = new FormData();
  for (const file of files) body.append("files", file);
  const answer = await new Promise<Answer>((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", BATCHES);
    request.upload.addEventListener("progress", ({ loaded, total }) =>
      onProgress(total > 0 ? loaded / total : 0),
    );
    request.addEventListener("load", () => resolve({ status: request.status, text: request.responseText }));
    request.addEventListener("error", () =>
      reject(
        new ApiError(
          0,
          "The connection broke during the upload. If the files are large together, send fewer at once.",
        ),
      ),
    );
    request.send(body);
  });
  return json<Batch>(requireSuccess(answer));
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

async function send(method: string, path: string, init: RequestInit = {}): Promise<Answer> {
  try {
    const response = await fetch(path, { ...init, method });
    return { status: response.status, text: await response.text() };
  } catch (error) {
    if (init.signal?.aborted === true) throw error;
    throw new ApiError(0, "The server cannot be reached. Check your network.");
  }
}

// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- the caller names what the contract promises
function json<T>({ status, text }: Answer): T {
  try {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the server keeps to its contract
    return JSON.parse(text) as T;
  } catch {
    throw new ApiError(status, "The server's answer could not be read. Try again in a moment.");
  }
}

/** Fails with the api's own sentence, or one for what stands before the api: nginx and the edge answer in HTML. */
function requireSuccess(answer: Answer): Answer {
  if (answer.status >= 200 && answer.status < 300) return answer;
  throw new ApiError(answer.status, detail(answer.text) ?? sentence(answer.status));
}

function detail(text: string): string | undefined {
  try {
    const body: unknown = JSON.parse(text);
    if (typeof body !== "object" || body === null || !("detail" in body)) return undefined;
    return typeof body.detail === "string" && body.detail !== "" ? body.detail : undefined;
  } catch {
    return undefined;
  }
}

function sentence(status: number): string {
  if (status === 401) return "You are not signed in any more. Sign in again.";
  if (status === 413) return "These files are too large together. Send fewer at once.";
  if (status === 429) return "That was a lot at once. Wait a moment, then try again.";
  if (status >= 500) return `The server is not available just now (${status}).`;
  return `The server refused the request (${status}).`;
}
