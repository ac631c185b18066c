"""Key sets and tokens of five large providers, as their documentation or source of November 2026 has them."""

import base64
import time
import uuid
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.app.provider import KEY, OTHER_KEY, KeyServer, Open, accepts, public_jwk, token

P256 = ec.generate_private_key(ec.SECP256R1())
X5C = [base64.b64encode(b"a certificate").decode()]

# The fields are the providers', the numbers are invented. Above each, where they were read on 2026-11-28.
TENANT = "9122040d-6c67-4c5b-b112-36a304b66dad"
SHAPES: dict[str, tuple[list[dict[str, Any]], dict[str, Any], tuple[Any, str]]] = {
    # https://www.keycloak.org/securing-apps/oidc-layers (endpoints; iss is HOST/realms/REALM),
    # https://github.com/keycloak/keycloak/blob/main/core/src/main/java/org/keycloak/jose/jwk/JWKBuilder.java.
    # A realm also has a key for encryption. An access token; `screen-flow` is there by a mapper.
    "keycloak": (
        [
            public_jwk(
                OTHER_KEY, kid="enc", alg="RSA-OAEP", use="enc", x5c=X5C, x5t="t", **{"x5t#S256": "t"}
            ),
            public_jwk(KEY, kid="FJ86GcF3", alg="RS256", use="sig", x5c=X5C, x5t="t", **{"x5t#S256": "t"}),
        ],
        {
            "iss": "https://login.example.com/realms/staff",
            "aud": ["screen-flow", "account"],
            "sub": str(uuid.uuid4()),
            "typ": "Bearer",
            "azp": "screen-flow",
            "jti": str(uuid.uuid4()),
            "realm_access": {"roles": ["offline_access"]},
        },
        (KEY, "FJ86GcF3"),
    ),
    # https://auth0.com/docs/secure/tokens/json-web-tokens/json-web-key-set-properties,
    # https://auth0.com/docs/secure/tokens/id-tokens/id-token-structure. A tenant can leave `alg` out.
    "auth0": (
        [
            public_jwk(KEY, use="sig", kid="NjVBRjY5", x5t="NjVBRjY5", x5c=X5C, alg="RS256"),
            public_jwk(OTHER_KEY, use="sig", kid="next", x5t="next", x5c=X5C, alg="RS256"),
        ],
        {
            "iss": "https://tenant.eu.auth0.com/",
            "aud": "T5Xa0kI9EXAMPLE",
            "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
            "nonce": "n",
            "sid": "s",
        },
        (KEY, "NjVBRjY5"),
    ),
    # https://learn.microsoft.com/en-us/entra/identity-platform/access-tokens#validate-the-signing-key-issuer,
    # https://learn.microsoft.com/en-us/entra/identity-platform/id-token-claims-reference
    # No `alg`, and an issuer in each key: a tenant's, or with a placeholder for all of them.
    # `cloud_instance_name` is served, not documented (Microsoft.IdentityModel.Validators reads it).
    "entra": (
        [
            public_jwk(
                key,
                use="sig",
                kid=kid,
                x5t=kid,
                x5c=X5C,
                cloud_instance_name="microsoftonline.com",
                issuer=f"https://login.microsoftonline.com/{tenant}/v2.0",
            )
            for key, kid, tenant in (
                # The tenant of personal accounts.
                (OTHER_KEY, "MfKfnPfL", "9188040d-6c67-4c5b-b112-36a304b66dad"),
                (KEY, "nOo3ZDrO", "{tenantid}"),
            )
        ],
        {
            "iss": f"https://login.microsoftonline.com/{TENANT}/v2.0",
            "aud": "6e74172b-be56-4843-9ff4-e66a39bb12e3",
            "sub": "AbCdEf_ghIJKLmnopQRSTuvwx-yz",
            "nbf": int(time.time()),
            "oid": str(uuid.uuid4()),
            "tid": TENANT,
            "ver": "2.0",
        },
        (KEY, "nOo3ZDrO"),
    ),
    # https://supabase.com/docs/guides/auth/jwt-fields (claims), https://supabase.com/docs/guides/auth/signing-keys;
    # the key as projects serve it, https://github.com/supabase/auth/blob/master/internal/api/jwks.go
    "supabase": (
        [
            public_jwk(
                P256,
                crv="P-256",
                alg="ES256",
                ext=True,
                key_ops=["verify"],
                kid="b81269f1-21d8-4f2e-b719-c2240a840d90",
                use="sig",
            )
        ],
        {
            "iss": "https://abcdefghijklmnopqrst.supabase.co/auth/v1",
            "aud": "authenticated",
            "sub": str(uuid.uuid4()),
            "role": "authenticated",
            "aal": "aal1",
            "session_id": str(uuid.uuid4()),
            "is_anonymous": False,
            "email": "ada@example.com",
            "phone": "",
        },
        (P256, "b81269f1-21d8-4f2e-b719-c2240a840d90"),
    ),
    # https://docs.aws.amazon.com/cognito/latest/developerguide/, pages
    # amazon-cognito-user-pools-using-tokens-verifying-a-jwt.html (ID and access tokens have a key each)
    # and amazon-cognito-user-pools-using-the-id-token.html.
    "cognito": (
        [
            public_jwk(KEY, alg="RS256", kid="1234example=", use="sig"),
            public_jwk(OTHER_KEY, alg="RS256", kid="5678example=", use="sig"),
        ],
        {
            "iss": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_EXAMPLE",
            "aud": "xxxxxxxxxxxxexample",
            "sub": str(uuid.uuid4()),
            "token_use": "id",
            "cognito:username": "ada",
            "event_id": str(uuid.uuid4()),
            "origin_jti": str(uuid.uuid4()),
            "jti": str(uuid.uuid4()),
            "auth_time": int(time.time()),
        },
        (KEY, "1234example="),
    ),
}


@pytest.mark.parametrize("name", SHAPES)
async def test_key_sets_of_large_providers(
    name: str, server: KeyServer, sessions: Open, caplog: pytest.LogCaptureFixture
) -> None:
    server.keys, claims, (key, kid) = SHAPES[name]
    algorithm = "ES256" if key is P256 else "RS256"
    audience = claims["aud"] if isinstance(claims["aud"], str) else claims["aud"][0]

    def made(**more: Any) -> str:
        return token(key, kid=kid, algorithm=algorithm, **{**claims, **more})

    async with sessions(session_issuer=claims["iss"], session_audience=(audience,)) as verifier:
        assert (await verifier.verify(made())).subject == claims["sub"]
        assert not await accepts(verifier, made(aud="another-application"))
        assert not await accepts(verifier, made(iss="https://another.example/"))
        assert not await accepts(verifier, made(aud=None))
        assert not await accepts(verifier, made(iss=None))
    for words in (
        f"its audience (aud) is 'another-application', and APP_SESSION_AUDIENCE is '{audience}'",
        "add that to the role's app_stack_session_audience",
        f"its issuer (iss) is 'https://another.example/', and APP_SESSION_ISSUER is '{claims['iss']}'",
        "it has no audience (aud)",
    ):
        assert words in caplog.text
