// An OpenID Connect provider over TLS. Its argument is a JSON file: port, key, cert, jwks, clients.
import { readFileSync } from "node:fs";
import { createServer } from "node:https";

import { Provider } from "oidc-provider";

const { port, key, cert, jwks, clients } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const provider = new Provider(`https://localhost:${port}`, {
  jwks,
  clients,
  cookies: { keys: ["only for tests"] },
  responseTypes: ["code", "id_token"],
  // Any name signs in, with any password: the provider's own forms for development.
  features: { devInteractions: { enabled: true } },
  enabledJWA: { idTokenSigningAlgValues: ["RS256", "PS256", "ES256", "EdDSA"] },
});
createServer({ key: readFileSync(key), cert: readFileSync(cert) }, provider.callback()).listen(port, "127.0.0.1", () =>
  console.log("ready"),
);
