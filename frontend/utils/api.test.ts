import { describe, expect, it, vi } from "vitest";

import { ApiError, getBatches, getSession, signIn, signOut } from "@/utils/api";

const { signal } = new AbortController();

function respond(status: number, body: unknown) {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const fetch = vi.fn(async () => new Response(status === 204 ? null : text, { status }));
  vi.stubGlobal("fetch", fetch);
  return fetch;
}

describe("session", () => {
  it("returns who is signed in", async () => {
    respond(200, { user_id: "ada", demo_sign_in: true });
    expect(await getSession(signal)).toEqual({ userId: "ada", demoSignIn: true, signInUrl: null });
  });

  it.each([true, false])("treats 401 as signed out (demo sign-in %s)", async (demo) => {
    respond(401, { detail: "Not signed in.", demo_sign_in: demo });
    expect(await getSession(signal)).toEqual({ userId: null, demoSignIn: demo, signInUrl: null });
  });

  it("returns where to sign in", async () => {
    respond(401, { detail: "Not signed in.", demo_sign_in: false, sign_in_url: "/login" });
    expect((await getSession(signal)).signInUrl).toBe("/login");
  });

  it("signs in and out", async () => {
    const fetch = respond(204, "");
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

describe("batches", () => {
  it("are read page by page, with the first page's event id", async () => {
    const pages = [
      { last_event_id: "7", batches: [{ batch_id: "b3" }], next: "b3" },
      { last_event_id: "8", batches: [{ batch_id: "b2" }], next: "b2" },
      { last_event_id: "9", batches: [{ batch_id: "b1" }] },
    ];
    const fetch = vi.fn(async (_path: string) => new Response(JSON.stringify(pages[fetch.mock.calls.length - 1])));
    vi.stubGlobal("fetch", fetch);
    expect(await getBatches(signal)).toEqual({
      last_event_id: "7",
      batches: [{ batch_id: "b3" }, { batch_id: "b2" }, { batch_id: "b1" }],
    });
    expect(fetch.mock.calls.map(([path]) => path)).toEqual(
      ["", "?before=b3", "?before=b2"].map((query) => `/api/v1/cv-processing/batches${query}`),
    );
  });
});

describe("error", () => {
  it.each([
    [422, { detail: "user_id is empty: send a name." }, "user_id is empty: send a name."],
    [
      413,
      "<html>413 Request Entity Too Large</html>",
      "The files are too large. Upload fewer at a time.",
    ],
    [429, "", "Too many requests. Wait a moment, then try again."],
    [502, "<html>", "The server is temporarily unavailable (502)."],
    [401, {}, "Your session has ended. Sign in again."],
    [418, { detail: [{ loc: ["body"] }] }, "The server refused the request (418)."],
    [200, "<html>", "The server sent an unexpected response. Try again in a moment."],
  ])("message for %d", async (status, body, message) => {
    respond(status, body);
    await expect(getBatches(signal)).rejects.toEqual(new ApiError(status, message));
  });

  it("message for a network failure", async () => {
    vi.stubGlobal("fetch", vi.fn().mockRejectedValue(new TypeError("Failed to fetch")));
    await expect(signOut()).rejects.toEqual(
      new ApiError(0, "The server can't be reached. Check your network connection."),
    );
  });

  it("is passed on unchanged after the caller's abort", async () => {
    const aborted = new DOMException("aborted", "AbortError");
    vi.stubGlobal("fetch", vi.fn().mockRejectedValue(aborted));
    await expect(getBatches(AbortSignal.abort())).rejects.toBe(aborted);
  });
});
