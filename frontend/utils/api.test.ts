import { describe, expect, it, vi } from "vitest";

import { ApiError, getBatches, getSession, signIn, signOut } from "@/utils/api";

const { signal } = new AbortController();

function answer(status: number, body: unknown) {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const fetch = vi.fn(async () => new Response(status === 204 ? null : text, { status }));
  vi.stubGlobal("fetch", fetch);
  return fetch;
}

describe("session", () => {
  it("tells who is signed in", async () => {
    answer(200, { user_id: "ada", demo_sign_in: true });
    expect(await getSession(signal)).toEqual({ userId: "ada", demoSignIn: true, signInUrl: null });
  });

  it.each([true, false])("takes 401 for an answer: nobody, form %s", async (demo) => {
    answer(401, { detail: "Not signed in.", demo_sign_in: demo });
    expect(await getSession(signal)).toEqual({ userId: null, demoSignIn: demo, signInUrl: null });
  });

  it("returns where to sign in", async () => {
    answer(401, { detail: "Not signed in.", demo_sign_in: false, sign_in_url: "/login" });
    expect((await getSession(signal)).signInUrl).toBe("/login");
  });

  it("signs in and out", async () => {
    const fetch = answer(204, "");
    await signIn("ada");
    await signOut();
    expect(fetch.mock.calls).toEqual([
      [
        "/api/v1/session",
        { method: "POST", headers: { "Content-Type": "application/json" }, body: '{"user_id":"ada"}' },
      ],
      ["/api/v1/session", { method: "DELETE" }],
    ]);
  });
});

describe("a failure", () => {
  it.each([
    [422, { detail: "user_id is empty: give a name." }, "user_id is empty: give a name."],
    [
      413,
      "<html>413 Request Entity Too Large</html>",
      "These files are too large together. Send fewer at once.",
    ],
    [429, "", "That was a lot at once. Wait a moment, then try again."],
    [502, "<html>", "The server is not available just now (502)."],
    [401, {}, "You are not signed in any more. Sign in again."],
    [418, { detail: [{ loc: ["body"] }] }, "The server refused the request (418)."],
    [200, "<html>", "The server's answer could not be read. Try again in a moment."],
  ])("of %d is a sentence", async (status, body, sentence) => {
    answer(status, body);
    await expect(getBatches(signal)).rejects.toEqual(new ApiError(status, sentence));
  });

  it("of the network is a sentence", async () => {
    vi.stubGlobal("fetch", vi.fn().mockRejectedValue(new TypeError("Failed to fetch")));
    await expect(signOut()).rejects.toEqual(
      new ApiError(0, "The server cannot be reached. Check your network."),
    );
  });

  it("of the caller's own abort stays what it is", async () => {
    const aborted = new DOMException("aborted", "AbortError");
    vi.stubGlobal("fetch", vi.fn().mockRejectedValue(aborted));
    await expect(getBatches(AbortSignal.abort())).rejects.toBe(aborted);
  });
});
