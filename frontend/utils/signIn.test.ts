import { beforeEach, describe, expect, it, vi } from "vitest";

import { completeSignIn, startSignIn } from "@/utils/signIn";

const AUTHORIZE = "https://login.example/authorize?client_id=screen-flow&response_type=id_token";

function token(claims: object): string {
  const body = btoa(JSON.stringify(claims)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return `e30.${body}.c2ln`;
}

function fetched() {
  const fetch = vi.fn(async () => new Response(null, { status: 204 }));
  vi.stubGlobal("fetch", fetch);
  return fetch;
}

beforeEach(() => {
  sessionStorage.clear();
  history.replaceState(null, "", "/cvs?tab=1");
});

describe("startSignIn", () => {
  it("adds a new state and nonce to an OpenID Connect request", () => {
    const [first, second] = [startSignIn(AUTHORIZE), startSignIn(AUTHORIZE)].map((url) => new URL(url));
    expect(first?.searchParams.get("client_id")).toBe("screen-flow");
    expect(first?.searchParams.get("state")).toMatch(/^[0-9a-f-]{36}$/);
    expect(first?.searchParams.get("nonce")).toBe(first?.searchParams.get("state"));
    expect(second?.searchParams.get("state")).not.toBe(first?.searchParams.get("state"));
  });

  it.each([
    ["https://login.example/?provider=github", "https://login.example/?provider=github"],
    ["/login", "https://site.example/login"],
  ])("leaves %s alone", (url, address) => {
    expect(startSignIn(url)).toBe(address);
  });
});

describe("completeSignIn", () => {
  it("does nothing without a response in the fragment", async () => {
    const fetch = fetched();
    location.hash = "#section";
    await completeSignIn();
    expect(fetch).not.toHaveBeenCalled();
    expect(location.hash).toBe("#section");
  });

  it("exchanges the token once and removes it from the address", async () => {
    const fetch = fetched();
    const state = new URL(startSignIn(AUTHORIZE)).searchParams.get("state");
    const idToken = token({ nonce: state, name: "?>?>~~" });
    location.hash = `#id_token=${idToken}&state=${state}`;
    await completeSignIn();
    expect(fetch.mock.calls).toEqual([
      ["/api/v1/session", { method: "POST", headers: { Authorization: `Bearer ${idToken}` } }],
    ]);
    expect(location.href).toBe("https://site.example/cvs?tab=1");
    location.hash = `#id_token=${idToken}&state=${state}`;
    await expect(completeSignIn()).rejects.toThrow("not started in this tab");
    expect(fetch).toHaveBeenCalledTimes(1);
  });

  it("exchanges an access token where the sign-in is not OpenID Connect", async () => {
    const fetch = fetched();
    startSignIn("https://login.example/?provider=github");
    location.hash = "#access_token=a.b.c&token_type=bearer";
    await completeSignIn();
    expect(fetch).toHaveBeenCalledTimes(1);
  });

  it.each([
    ["in another tab", () => "", "#access_token=a.b.c"],
    ["without a state", () => startSignIn(AUTHORIZE), "#access_token=a.b.c"],
    ["with another state", () => startSignIn(AUTHORIZE), `#id_token=${token({ nonce: "x" })}&state=x`],
    ["with another nonce", () => startSignIn(AUTHORIZE), `#id_token=${token({ nonce: "x" })}&state=STATE`],
    ["with a malformed token", () => startSignIn(AUTHORIZE), "#id_token=x&state=STATE"],
  ])("refuses a token of a sign-in that was started %s", async (_name, start, hash) => {
    const fetch = fetched();
    const address = start();
    const state = address === "" ? "" : new URL(address).searchParams.get("state");
    location.hash = hash.replace("STATE", state ?? "");
    await expect(completeSignIn()).rejects.toThrow("not started in this tab. Sign in again.");
    expect(fetch).not.toHaveBeenCalled();
    expect(location.hash).toBe("");
  });

  it("reports the provider's error", async () => {
    location.hash = "#error=access_denied&error_description=Ask+your+administrator.";
    await expect(completeSignIn()).rejects.toThrow("The sign-in failed: Ask your administrator.");
    expect(location.hash).toBe("");
  });

  it("reports the api's refusal", async () => {
    const body = JSON.stringify({ detail: "The session is not valid." });
    vi.stubGlobal("fetch", vi.fn(async () => new Response(body, { status: 401 })));
    startSignIn("/login");
    location.hash = "#access_token=a.b.c";
    await expect(completeSignIn()).rejects.toThrow("The session is not valid.");
  });
});
