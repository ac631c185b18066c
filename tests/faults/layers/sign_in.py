from tests.faults.kit import SAVED, Fault, start_stack

KEYS = "http://127.0.0.1:9/keys"
# The api as it would run with an identity provider, whose key set is away: nothing listens there.
OVERRIDE = f"""\
services:
  api:
    environment:
      APP_SESSION_KEYS_FILE: !reset null
      APP_DEMO_SIGN_IN: "false"
      APP_SESSION_JWKS_URL: {KEYS}
      APP_SESSION_ISSUER: https://login.example.com/
      APP_SESSION_AUDIENCE: screen-flow
"""


def provider_away(site):
    site.sh(f"cat >{SAVED}/sign_in.yaml", text=OVERRIDE)
    site.compose(f"-f compose.yaml -f {SAVED}/sign_in.yaml up --detach api")


FAULTS = [Fault("key_set", KEYS, provider_away, start_stack, {"api"})]
