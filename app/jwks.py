"""The signing keys of an OpenID Connect provider (JSON Web Key Set, RFC 7517), fetched in the background."""

import asyncio
import http.client
import json
import logging
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

REFRESH = 300.0  # seconds between two fetches while the provider answers
COOL_DOWN = 5.0  # seconds between two fetches that requests cause, and before the first retry
LONGEST_RETRY = 60.0  # seconds between two retries while the provider fails
KEEP = 12 * 3600.0  # seconds that the last good key set is trusted while no newer one can be fetched
FETCH_WAIT = 12.0  # seconds that a request waits for a fetch: the cool-down and the fetch itself
TIMEOUT = 5.0  # seconds that the provider may stay silent
MAX_BYTES = 1 << 20  # of a key set
HEADERS = {"User-Agent": "screen-flow", "Accept": "application/json"}

# RFC 7518 and RFC 8037: the keys, by type and curve, that an algorithm takes. No symmetric ones: anyone who
# can read the set could sign.
RSA: set[tuple[str, str | None]] = {("RSA", None)}
ALGORITHMS: dict[str, set[tuple[str, str | None]]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), RSA),
    "ES256": {("EC", "P-256")},
    "ES384": {("EC", "P-384")},
    "ES512": {("EC", "P-521")},
    "EdDSA": {("OKP", "Ed25519"), ("OKP", "Ed448")},
}

logger = logging.getLogger(__name__)


class KeySetError(Exception):
    """No usable key set was fetched; the text is the reason, for a sentence that names the address."""


class KeySetUnavailable(Exception):
    """A token can't be verified now: there is no key set, or none that is new enough."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key for one algorithm. A key that names none is in the set once for each that it fits."""

    kid: str | None
    algorithm: str
    jwk: jwt.PyJWK


def parse(document: Any) -> list[SigningKey]:
    """Return the signing keys of a key set. Raises KeySetError when there is none.

    Keys for encryption, of unknown types or malformed are skipped, as RFC 7517, section 5, requires.
    """
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise KeySetError('the response is not a key set: a JSON object with a list "keys"')
    usable = [key for jwk in keys if isinstance(jwk, dict) for key in _usable(jwk)]
    if not usable:
        raise KeySetError(f"none of its {len(keys)} keys can verify signatures of {', '.join(ALGORITHMS)}")
    return usable


def _usable(jwk: dict[str, Any]) -> Iterator[SigningKey]:
    operations = jwk.get("key_ops")
    if jwk.get("use") not in (None, "sig") or (isinstance(operations, list) and "verify" not in operations):
        return
    kid = jwk.get("kid")
    kind = ("RSA", None) if jwk.get("kty") == "RSA" else (str(jwk.get("kty")), str(jwk.get("crv")))
    for algorithm, kinds in ALGORITHMS.items():
        if kind in kinds and jwk.get("alg") in (None, algorithm):
            with suppress(jwt.PyJWTError, ValueError, TypeError):
                yield SigningKey(kid if isinstance(kid, str) else None, algorithm, jwt.PyJWK(jwk, algorithm))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any) -> None:
        """Treat a redirect as an error: it could lead to http, or to another host."""


def fetch(url: str, ca_file: Path | None) -> list[SigningKey]:
    """Return the keys at `url`, within about three times TIMEOUT seconds. Raises KeySetError."""
    end = time.monotonic() + 2 * TIMEOUT
    body = b""
    try:
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if url.startswith("https:"):
            context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
            handlers.append(urllib.request.HTTPSHandler(context=context))
        opener = urllib.request.build_opener(*handlers)
        request = urllib.request.Request(url, headers=HEADERS)  # noqa: S310 (settings allow http and https)
        with opener.open(request, timeout=TIMEOUT) as response:
            while chunk := response.read1(65_536):
                body += chunk
                if len(body) > MAX_BYTES:
                    raise KeySetError(f"the response is larger than {MAX_BYTES} bytes")
                if time.monotonic() > end:
                    raise KeySetError(f"the response takes longer than {2 * TIMEOUT:g} s")
        return parse(json.loads(body))
    except urllib.error.HTTPError as error:
        error.close()
        target = error.headers.get("Location")
        if 300 <= error.code < 400 and target:
            raise KeySetError(
                f"it redirects (HTTP {error.code}) to {target[:200]!r}, and redirects are not followed: "
                "set APP_SESSION_JWKS_URL to the final address"
            ) from None
        raise KeySetError(f"the response is HTTP {error.code}") from None
    except urllib.error.URLError as error:
        raise KeySetError(str(error.reason)) from None
    except (OSError, http.client.HTTPException) as error:
        raise KeySetError(str(error) or type(error).__name__) from None
    except (ValueError, RecursionError):
        raise KeySetError("the response is not JSON") from None


class KeySet:
    """The current keys. Only `run` fetches them, so requests with a known key never wait for the provider.

    The last good set stays in use for KEEP seconds while the provider fails.
    """

    def __init__(self, url: str, ca_file: Path | None) -> None:
        self._url = url
        self._ca_file = ca_file
        self._keys: list[SigningKey] = []
        self._fetched = 0.0  # monotonic
        self._error: KeySetError | None = None
        self._wanted = asyncio.Event()
        self._attempt = asyncio.Event()  # set when the attempt under way, or the next one, has ended
        self._attempted = False

    @property
    def status(self) -> str:
        """Return `ok`, `stale` (the last good set is in use) or `unavailable`."""
        if not self._current():
            return "unavailable"
        return "stale" if self._error else "ok"

    def _current(self) -> list[SigningKey]:
        return self._keys if time.monotonic() - self._fetched < KEEP else []

    async def keys(self) -> list[SigningKey]:
        """Return the keys; wait only for the first attempt. Raises KeySetUnavailable."""
        if not self._attempted:
            await self._next_attempt()
        if not self._current():
            self._wanted.set()
            raise KeySetUnavailable
        return self._current()

    async def newer(self) -> list[SigningKey]:
        """Return keys fetched after this call, for a token of an unknown key. Raises KeySetUnavailable.

        However many wait, the provider is queried at most once in COOL_DOWN seconds.
        """
        await self._next_attempt()
        if self._error or not self._current():
            raise KeySetUnavailable
        return self._keys

    async def _next_attempt(self) -> None:
        self._wanted.set()
        try:
            async with asyncio.timeout(FETCH_WAIT):
                await self._attempt.wait()
        except TimeoutError:
            raise KeySetUnavailable from None

    async def run(self) -> None:
        """Keep the keys current until cancelled."""
        failures = 0
        while True:
            failures = 0 if await self._refresh() else failures + 1
            pause = min(LONGEST_RETRY, COOL_DOWN * 2 ** min(failures - 1, 8)) if failures else REFRESH
            await asyncio.sleep(COOL_DOWN)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause - COOL_DOWN):
                    await self._wanted.wait()

    async def _refresh(self) -> bool:
        self._wanted.clear()
        began = time.monotonic()
        try:
            keys = await asyncio.to_thread(fetch, self._url, self._ca_file)
        except KeySetError as error:
            self._error = error
            self._log_failure(error)
        except Exception as error:
            # A bug here must not end the loop: without it the keys would age in silence.
            logger.exception("The key set %s can't be fetched.", self._url)
            self._error = KeySetError(type(error).__name__)
        else:
            if self._error or not self._keys:
                logger.info("The sign-in's key set %s is fetched.", self._url)
            self._keys, self._fetched, self._error = keys, began, None
        self._attempted = True
        self._attempt.set()
        self._attempt = asyncio.Event()
        return self._error is None

    def _log_failure(self, error: KeySetError) -> None:
        age = time.monotonic() - self._fetched
        if self._current():
            logger.error(
                "The sign-in's key set %s can't be fetched: %s. The one fetched %d min ago stays in use for "
                "%d min more.",
                *(self._url, error, age / 60, (KEEP - age) / 60),
            )
        else:
            logger.error(
                "The sign-in's key set %s can't be fetched: %s. Without it no session can be verified: "
                "requests get 503, sockets 1013.",
                *(self._url, error),
            )
