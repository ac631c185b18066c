"""Sessions signed by an identity provider (OpenID Connect): its ID tokens or access tokens."""

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import jwt

from app.jwks import ALGORITHMS, KeySet, SigningKey
from app.settings import Settings

LEEWAY = 60  # seconds that the provider's clock may differ from ours
LOG_INTERVAL = 60.0  # seconds between two log lines for the same kind of refusal
CLAIMS = ["exp", "sub", "iss", "aud"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Session:
    """A verified session: its user, its end in Unix seconds, and how many seconds longer it is accepted."""

    subject: str
    expires: float
    leeway: float = 0

    @property
    def ends(self) -> float:
        """Return the Unix time from which the session is refused."""
        return self.expires + self.leeway


class LifetimeError(jwt.InvalidTokenError):
    """The token is valid for longer than APP_SESSION_MAX_SECONDS."""


# Raised for a claim of a token whose signature is valid.
CLAIM_ERRORS = (
    jwt.ExpiredSignatureError,
    jwt.ImmatureSignatureError,
    jwt.InvalidAudienceError,
    jwt.InvalidIssuerError,
    jwt.MissingRequiredClaimError,
    LifetimeError,
)


class Provider:
    """Verifies the provider's tokens."""

    def __init__(self, settings: Settings) -> None:
        assert settings.session_jwks_url and settings.session_issuer, "settings require them together"
        self.key_set = KeySet(settings.session_jwks_url, settings.session_ca_file)
        self._audience = settings.session_audience
        self._issuer = settings.session_issuer
        self._longest = settings.session_max_seconds
        self._logged: dict[str, float] = {}

    async def verify(self, token: str) -> Session:
        """Return the session in `token`. Raises jwt.PyJWTError, and KeySetUnavailable without its key."""
        header = jwt.get_unverified_header(token)
        if header.get("alg") not in ALGORITHMS:
            raise jwt.InvalidAlgorithmError
        keys = await self.key_set.keys()
        claims = self._verified(token, header, keys)
        # A key that is not in the set, or has no id to recognise it by, may be new.
        if claims is None and not _knows(keys, header):
            claims = self._verified(token, header, await self.key_set.newer())
        if claims is None:
            raise jwt.InvalidSignatureError
        return Session(claims["sub"], float(claims["exp"]), LEEWAY)

    def _verified(self, token: str, header: dict[str, Any], keys: list[SigningKey]) -> dict[str, Any] | None:
        """Return the claims of a token that one of `keys` signed, else None. Raises jwt.PyJWTError."""
        for key in _candidates(keys, header):
            with suppress(jwt.InvalidSignatureError):
                try:
                    return self._decode(token, key)
                except CLAIM_ERRORS as error:
                    self._log(error, jwt.decode(token, options={"verify_signature": False}))
                    raise
        return None

    def _decode(self, token: str, key: SigningKey) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token,
            key.jwk,
            algorithms=[key.algorithm],
            audience=self._audience,
            issuer=self._issuer,
            leeway=LEEWAY,
            options={"require": CLAIMS, "enforce_minimum_key_length": True},
        )
        self._limit_lifetime(claims)
        return claims

    def _limit_lifetime(self, claims: dict[str, Any]) -> None:
        now = time.time()
        if float(claims["exp"]) - min(now, float(claims.get("iat", now))) > self._longest + LEEWAY:
            raise LifetimeError

    def _log(self, error: jwt.InvalidTokenError, claims: dict[str, Any]) -> None:
        """Log why a token that the provider signed is refused, once per kind in LOG_INTERVAL seconds."""
        kind, now = type(error).__name__, time.monotonic()
        if now - self._logged.get(kind, -LOG_INTERVAL) < LOG_INTERVAL:
            return
        self._logged[kind] = now
        level = logging.INFO if isinstance(error, jwt.ExpiredSignatureError) else logging.WARNING
        logger.log(level, "A token of the identity provider is refused: %s", self._reason(error, claims))

    def _reason(self, error: jwt.InvalidTokenError, claims: dict[str, Any]) -> str:
        def shown(claim: str) -> str:
            return f"{claims.get(claim)!a}"[:300]

        def distance(claim: str) -> str:
            return f"{abs(float(claims[claim]) - time.time()):.0f} s"

        clocks = f"{LEEWAY} s are allowed. Compare this server's clock with the provider's."
        match error:
            case jwt.MissingRequiredClaimError(claim="aud"):
                return (
                    "it has no audience (aud), so it may be meant for any application. Use the provider's "
                    "ID token, or have it put an audience into its access tokens."
                )
            case jwt.MissingRequiredClaimError():
                return f"{error}. Sessions need {', '.join(CLAIMS)}."
            case jwt.InvalidAudienceError():
                return (
                    f"its audience (aud) is {shown('aud')}, and APP_SESSION_AUDIENCE is "
                    f"{','.join(self._audience)!r}. If such tokens are meant for this site, add that to the "
                    "role's app_stack_session_audience."
                )
            case jwt.InvalidIssuerError():
                return (
                    f"its issuer (iss) is {shown('iss')}, and APP_SESSION_ISSUER is {self._issuer!r}. "
                    "If that is your provider, set the role's app_stack_session_issuer to exactly that."
                )
            case jwt.ImmatureSignatureError():
                ahead = max(
                    (c for c in ("nbf", "iat") if c in claims), key=lambda claim: float(claims[claim])
                )
                return f"its {ahead} is {distance(ahead)} ahead; {clocks}"
            case jwt.ExpiredSignatureError():
                return f"it ended (exp) {distance('exp')} ago; {clocks}"
            case LifetimeError():
                return (
                    f"it ends (exp) in {distance('exp')}, and tokens may live for {self._longest} s. "
                    "Have the provider issue shorter ones, or raise the role's app_stack_session_max_seconds."
                )
        return f"{error}."


def _knows(keys: list[SigningKey], header: dict[str, Any]) -> bool:
    return "kid" in header and any(key.kid == header["kid"] for key in keys)


def _candidates(keys: list[SigningKey], header: dict[str, Any]) -> list[SigningKey]:
    """Return the keys that may have signed a token: that of its key id, or those without an id to compare."""
    fitting = [key for key in keys if key.algorithm == header["alg"]]
    if "kid" not in header:
        return fitting
    return [key for key in fitting if key.kid == header["kid"]] or [key for key in fitting if key.kid is None]
