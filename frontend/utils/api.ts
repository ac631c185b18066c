/** The HTTP api. Every function rejects with an ApiError whose message can be shown to the user. */

import type { Batch, BatchesSnapshot } from "@/utils/progress";

const SESSION = "/api/v1/session";
const BATCHES = "/api/v1/cv-processing/batches";

export class ApiError extends Error {
  override readonly name = "ApiError";
  /** The HTTP status; 0 when there was no response. */
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export interface Session {
  /** Null when not signed in. */
  readonly userId: string | null;
  /** Whether the demo sign-in is enabled. */
  readonly demoSignIn: boolean;
  /** Where to sign in; null when signed in, or when the site names no such place. */
  readonly signInUrl: string | null;
}

export async function getSession(signal: AbortSignal): Promise<Session> {
  const reply = await send("GET", SESSION, { signal });
  if (reply.status !== 401) requireSuccess(reply);
  const { user_id, demo_sign_in, sign_in_url } = json<{
    user_id?: string;
    demo_sign_in: boolean;
    sign_in_url?: string | null;
  }>(reply);
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

/** Returns all batches, or those before one, page by page, with the first page's event id: the rest is replayed. */
export async function getBatches(signal: AbortSignal, before?: string): Promise<BatchesSnapshot> {
  const query = before === undefined ? "" : `?before=${encodeURIComponent(before)}`;
  const reply = requireSuccess(await send("GET", BATCHES + query, { signal }));
  const { next, ...page } = json<BatchesSnapshot>(reply);
  if (next === undefined) return page;
  const older = await getBatches(signal, next);
  return { ...page, batches: [...page.batches, ...older.batches] };
}

/**
 * Uploads CVs as one batch. Uses XMLHttpRequest, because fetch does not report upload progress.
 *
 * @param onProgress called with the fraction that was sent, 0 to 1
 */
export async function uploadBatch(
  files: readonly File[],
  onProgress: (sent: number) => void,
): Promise<Batch> {
  const body = new FormData();
  for (const file of files) body.append("files", file);
  const reply = await new Promise<Reply>((resolve, reject) => {
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
          "The connection was lost during the upload. If the files are large, upload fewer at a time.",
        ),
      ),
    );
    request.send(body);
  });
  return json<Batch>(requireSuccess(reply));
}

interface Reply {
  readonly status: number;
  readonly text: string;
}

async function send(method: string, path: string, init: RequestInit = {}): Promise<Reply> {
  try {
    const response = await fetch(path, { ...init, method });
    return { status: response.status, text: await response.text() };
  } catch (error) {
    if (init.signal?.aborted === true) throw error;
    throw new ApiError(0, "The server can't be reached. Check your network connection.");
  }
}

// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- the caller names the contract's type
function json<T>({ status, text }: Reply): T {
  try {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- guaranteed by the contract
    return JSON.parse(text) as T;
  } catch {
    throw new ApiError(status, "The server sent an unexpected response. Try again in a moment.");
  }
}

/** Throws with the api's message, or with one of ours when the response came from nginx or the edge, as HTML. */
function requireSuccess(reply: Reply): Reply {
  if (reply.status >= 200 && reply.status < 300) return reply;
  throw new ApiError(reply.status, detail(reply.text) ?? defaultMessage(reply.status));
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

function defaultMessage(status: number): string {
  if (status === 401) return "Your session has ended. Sign in again.";
  if (status === 413) return "The files are too large. Upload fewer at a time.";
  if (status === 429) return "Too many requests. Wait a moment, then try again.";
  if (status >= 500) return `The server is temporarily unavailable (${status}).`;
  return `The server refused the request (${status}).`;
}
