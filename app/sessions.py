"""Sessions: tokens (JWT) signed with our own keys or by an identity provider (app/provider.py).

`python -m app.sessions issue --subject site-check-me --ttl 120` prints a probe's token.
"""

import argparse
import logging
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path

import jwt

from app.provider import Provider, Session
from app.settings import Settings

COOKIE = "__Host-screen-flow"
PROBE_PREFIX = "site-check"
KEY_LENGTH = 32  # characters; HS256 needs a key at least as long as its digest
# Printable ASCII: a subject becomes part of Redis keys, log lines and the socket's path. In a path browsers
# resolve dot segments, and nginx does so behind an encoded slash, too.
SUBJECT = re.compile(r"(?!(?:.*/)?\.\.?(?:/|$))[!-~]{1,255}")

logger = logging.getLogger(__name__)


class InvalidSession(Exception):
    """The session is missing, expired or not signed by an accepted key; the text is for the client."""


class BadKeyFile(Exception):
    """A key file can't be used. The message names the file and the remedy, never the content."""


class KeyFile:
    """HS256 keys in a file, one per line, reloaded when the file changes. Raises BadKeyFile."""

    def __init__(self, path: Path, max_keys: int) -> None:
        self._path = path
        self._max_keys = max_keys
        self._stamp: tuple[int, ...] = ()
        self._keys: list[str] = []
        self._load()

    def _load(self) -> None:
        try:
            stat = self._path.stat()
            stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if stamp == self._stamp:
                return
            keys = self._path.read_text(encoding="ascii").split()
        except (OSError, UnicodeDecodeError) as error:
            raise BadKeyFile(f"The key file {self._path} can't be read ({type(error).__name__}).") from error
        self._stamp = stamp
        if not 1 <= len(keys) <= self._max_keys or min(map(len, keys)) < KEY_LENGTH:
            raise BadKeyFile(
                f"The key file {self._path} must have 1 to {self._max_keys} lines of {KEY_LENGTH} or more "
                "characters each; `openssl rand -hex 32` generates one."
            )
        self._keys = keys

    def keys(self) -> list[str]:
        """Return the keys, the signing key first. An unusable new file leaves the old keys in use."""
        try:
            self._load()
        except BadKeyFile as error:
            logger.error("%s The previous keys stay in use.", error)
        return self._keys


class Sessions:
    """Verifies sessions with the configured keys, and signs those of the demo.

    With a JWKS, `run` must be running. Raises BadKeyFile at construction when a key file can't be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._keys = KeyFile(settings.session_keys_file, 2) if settings.session_keys_file else None
        self._probe = KeyFile(settings.probe_key_file, 1) if settings.probe_key_file else None
        self._provider = Provider(settings) if settings.session_jwks_url else None

    @property
    def provider_status(self) -> str | None:
        """Return the state of the provider's key set (see KeySet.status); None without a provider."""
        return self._provider.key_set.status if self._provider else None

    async def run(self) -> None:
        """Keep the identity provider's keys current, if there is one, until cancelled."""
        if self._provider:
            await self._provider.key_set.run()

    async def verify(self, token: str | None) -> Session:
        """Return the session in `token`.

        Raises InvalidSession when it is not valid, KeySetUnavailable when it can't be verified now.
        """
        if not token:
            raise InvalidSession("Not signed in.")
        try:
            session = self._signed_here(token)
            if session is None:
                if self._provider is None:
                    raise jwt.InvalidSignatureError
                session = await self._provider.verify(token)
        except jwt.ExpiredSignatureError:
            raise InvalidSession("The session has expired; sign in again.") from None
        except jwt.PyJWTError as error:
            raise InvalidSession(
                f"The session is not valid ({type(error).__name__}); sign in again."
            ) from None
        if not SUBJECT.fullmatch(session.subject):
            raise InvalidSession(
                f"The session's subject {session.subject[:300]!a} can't be used: it must be 1 to 255 "
                "printable ASCII characters without spaces, with no '.' or '..' alone between slashes."
            )
        return session

    def _signed_here(self, token: str) -> Session | None:
        """Return the session in a token that one of our own keys signed, else None. Raises jwt.PyJWTError."""
        for key in self._keys.keys() if self._keys else []:
            with suppress(jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                return self._decode(token, key)
        if self._probe:
            with suppress(jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                session = self._decode(token, self._probe.keys()[0])
                if session.subject.startswith(PROBE_PREFIX):
                    return session
        return None

    @staticmethod
    def _decode(token: str, key: str) -> Session:
        claims = jwt.decode(token, key, algorithms=["HS256"], options={"require": ["exp", "sub"]})
        return Session(claims["sub"], float(claims["exp"]))

    def issue(self, subject: str, ttl: float) -> str:
        """Return a token for `subject` that expires in `ttl` seconds, signed with the first session key."""
        assert self._keys is not None, "settings require a key file for the demo sign-in"
        return issue(self._keys.keys()[0], subject, ttl)


def issue(key: str, subject: str, ttl: float) -> str:
    """Return a token for `subject` that expires in `ttl` seconds, signed with `key`."""
    now = time.time()
    return jwt.encode({"sub": subject, "iat": int(now), "exp": int(now + ttl)}, key, algorithm="HS256")


def main() -> None:
    """Print a token signed with the probe key, for testing the site by hand."""
    parser = argparse.ArgumentParser(prog="python -m app.sessions", description=main.__doc__)
    command = parser.add_subparsers(required=True).add_parser("issue", help="print a token")
    command.add_argument("--subject", required=True, help=f"user id, which must begin with {PROBE_PREFIX}")
    command.add_argument("--ttl", type=int, default=120, help="seconds until it expires (%(default)s)")
    command.add_argument("--key-file", type=Path, help="file with the key (default: APP_PROBE_KEY_FILE)")
    arguments = parser.parse_args()
    key_file = arguments.key_file or (
        Path(os.environ["APP_PROBE_KEY_FILE"]) if "APP_PROBE_KEY_FILE" in os.environ else None
    )
    if key_file is None:
        parser.error("no key: set APP_PROBE_KEY_FILE or use --key-file")
    if not arguments.subject.startswith(PROBE_PREFIX) or not SUBJECT.fullmatch(arguments.subject):
        parser.error(f"--subject {arguments.subject!r} must begin with {PROBE_PREFIX} and contain no space")
    if not 1 <= arguments.ttl <= 3600:
        parser.error(f"--ttl {arguments.ttl} must be 1 to 3600 seconds")
    try:
        print(issue(KeyFile(key_file, 1).keys()[0], arguments.subject, arguments.ttl))
    except BadKeyFile as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
