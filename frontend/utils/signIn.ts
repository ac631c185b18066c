/**
 * Signing in with an identity provider. Its page sends the browser back with a token in the fragment
 * (`response_type=id_token`), and the api exchanges that token for the session's cookie.
 */

import { exchangeToken } from "@/utils/api";

/** Key of the `state` of the sign-in that this tab started. A tab that started none can't be signed in by others. */
const STARTED = "sign-in";

/** Returns where to send the browser. An OpenID Connect request gets `state` and `nonce`; any other URL is left alone. */
export function startSignIn(url: string): string {
  const state = crypto.randomUUID();
  const address = new URL(url, location.href);
  const request = address.searchParams.has("response_type");
  sessionStorage.setItem(STARTED, request ? state : "");
  if (request) {
    address.searchParams.set("state", state);
    address.searchParams.set("nonce", state);
  }
  return address.href;
}

/** Takes the provider's response out of the address, if there is one. Rejects with a message for the user. */
export async function completeSignIn(): Promise<void> {
  const response = new URLSearchParams(location.hash.slice(1));
  const token = response.get("id_token") ?? response.get("access_token");
  if (token === null && !response.has("error")) return;
  history.replaceState(null, "", location.pathname + location.search);
  const state = sessionStorage.getItem(STARTED);
  sessionStorage.removeItem(STARTED);
  if (token === null) {
    const reason = response.get("error_description") ?? response.get("error");
    throw new Error(`The sign-in failed: ${reason}`);
  }
  const ours =
    state === "" || (state !== null && state === response.get("state") && state === nonce(response));
  if (!ours) throw new Error("This sign-in was not started in this tab. Sign in again.");
  await exchangeToken(token);
}

/** The token is the api's to verify; here it is only compared. An access token alone has no nonce, and `state` counts. */
function nonce(response: URLSearchParams): unknown {
  const token = response.get("id_token");
  if (token === null) return response.get("state");
  try {
    const claims = token.split(".")[1] ?? "";
    const body: unknown = JSON.parse(atob(claims.replaceAll("-", "+").replaceAll("_", "/")));
    return typeof body === "object" && body !== null && "nonce" in body ? body.nonce : undefined;
  } catch {
    return undefined;
  }
}
