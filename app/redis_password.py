"""The connection to Redis: a URL with the address and the user, and a file with the password.

The file is read for each new connection, so a rotated password needs no restart.
"""

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError


class PasswordFile(CredentialProvider):
    """Provides the user and the file's current content to the client library."""

    def __init__(self, username: str, path: Path) -> None:
        self._username = username
        self._path = path

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return user and password. Raises AuthenticationError when the file can't be read."""
        try:
            password = self._path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise AuthenticationError(f"{self._path} can't be read ({type(error).__name__})") from error
        return (self._username, password) if self._username else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Return the same, without a thread: the file is short and local."""
        return self.get_credentials()


def from_url(url: str, password_file: Path | None) -> dict[str, Any]:
    """Return the arguments of `from_url` of redis-py's clients and connection pools."""
    if password_file is None:
        return {"url": url}
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return {
        # The library accepts credentials from one source only.
        "url": parts._replace(netloc=host if at else parts.netloc).geturl(),
        "credential_provider": PasswordFile(unquote(user), password_file),
        # Skips CLIENT SETINFO, which the user is not permitted to run.
        "driver_info": None,
    }
