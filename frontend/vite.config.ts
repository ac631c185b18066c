import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [react()],
  resolve: { tsconfigPaths: true },
  build: {
    // A data: URL would need an exception in a strict Content-Security-Policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    // `npm run dev` beside an api started by hand; the page itself only knows paths of its own host.
    proxy: { "/api": { target: "http://127.0.0.1:8000", ws: true } },
  },
  test: {
    environment: "happy-dom",
    environmentOptions: { happyDOM: { url: "https://site.example/cvs" } },
    mockReset: true,
    unstubGlobals: true,
  },
});
