"""Settings from the environment, read once at start. Each variable begins with APP_."""

import re
import sys
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.extract import SOCKET

FILES_LIMIT = 100  # files in one upload; each is an open file until the batch is stored
ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?")


class WorkerSettings(BaseSettings):
    """The worker's settings. A field's description completes the sentence "Use …" of an error."""

    model_config = SettingsConfigDict(env_prefix="APP_", frozen=True)

    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        pattern=r"^(redis|rediss|unix)://\S+$",
        description="a URL such as redis://api@redis:6379/0",
    )
    redis_password_file: Path | None = Field(
        default=None, description="a file with the password of the URL's user, readable for this process"
    )
    upload_dir: Path = Field(
        default=Path("/var/lib/screen-flow/uploads"),
        description="a folder that this process may write to",
    )
    extractor_socket: Path = Field(
        default=SOCKET, description="the socket of the extractor, such as that of `python -m app.extract`"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="DEBUG, INFO, WARNING or ERROR"
    )
    phone_region: str = Field(
        default="US",
        pattern=r"^[A-Z]{2}$",
        description="two capital letters, the country whose phone numbers may lack the prefix, as in DE",
    )
    batch_cpu_seconds: int = Field(
        default=300, ge=1, description="seconds of processor time for the CVs of one upload, for example 300"
    )

    @field_validator("redis_password_file")
    @classmethod
    def _has_a_password(cls, value: Path | None) -> Path | None:
        try:
            if value and not value.read_text(encoding="ascii").strip():
                raise ValueError("the file is empty")
        except OSError as error:
            raise ValueError(str(error.strerror)) from error
        return value

    @field_validator("upload_dir")
    @classmethod
    def _is_folder(cls, value: Path) -> Path:
        if not value.is_dir():
            raise ValueError("it is not a folder")
        return value


class Settings(WorkerSettings):
    """The api's settings."""

    upload_max_bytes: int = Field(
        default=52_428_800, ge=1, description="a number of bytes, nginx's limit (52428800)"
    )
    user_unfinished_cvs: int = Field(
        default=500,
        ge=FILES_LIMIT,
        description=f"a number of CVs of one user that may wait, {FILES_LIMIT} or more, for example 500",
    )
    user_kept_cvs: int = Field(
        default=1_000,
        ge=FILES_LIMIT,
        description=f"a number of CVs kept for each user, {FILES_LIMIT} or more, for example 1000",
    )
    user_sockets: int = Field(
        default=50, ge=1, description="a number of WebSockets that one user may have open, for example 50"
    )
    uploads_megabytes: int = Field(
        default=2_048, ge=64, description="MB of uploads that may wait to be processed, 64 or more"
    )
    heartbeat_seconds: float = Field(
        default=30, gt=0, lt=100, description="seconds below the edge's idle time of 100, for example 30"
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        validate_default=True,
        description="the site's own origins, separated by commas, as in https://screen-flow.example.com",
    )
    session_keys_file: Path | None = Field(
        default=None,
        description="a file with one HS256 key of 32 characters or more per line, two lines at most",
    )
    session_jwks_url: str | None = Field(
        default=None, description="the https:// address of your identity provider's key set (jwks_uri)"
    )
    session_issuer: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="the issuer of your identity provider, exactly as its tokens have it in `iss`",
    )
    session_audience: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="the `aud` of the tokens that are meant for this site, usually the client's id; "
        "several with commas between",
    )
    session_ca_file: Path | None = Field(
        default=None,
        description="a PEM file with the authority that signed the identity provider's certificate",
    )
    session_max_seconds: int = Field(
        default=86_400,
        ge=60,
        description="the longest lifetime of a token in seconds, 60 or more, for example 86400",
    )
    sign_in_url: str | None = Field(
        default=None, description="the https:// address where users sign in, or a path of this site"
    )
    probe_key_file: Path | None = Field(
        default=None, description="a file with one HS256 key of 32 characters or more"
    )
    demo_sign_in: bool = Field(default=False, description="true or false")
    frontend_dir: Path = Field(default=Path("/srv/frontend"), description="the folder with the built page")

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _origins(cls, value: object) -> object:
        origins = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
        if not origins or origins == [""]:
            raise ValueError("without it no page can open a WebSocket")
        if isinstance(origins, list):
            for origin in origins:
                if not ORIGIN.fullmatch(origin) or re.search(r"^http:.*:80$|^https:.*:443$", origin):
                    raise ValueError(f"{origin!r} is not what a browser sends as Origin")
        return origins

    @field_validator("session_audience", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("session_ca_file")
    @classmethod
    def _is_file(cls, value: Path | None) -> Path | None:
        if value and not value.is_file():
            raise ValueError("there is no such file")
        return value

    @field_validator("session_jwks_url", "sign_in_url")
    @classmethod
    def _is_secure(cls, value: str | None, info: ValidationInfo) -> str | None:
        path = (
            info.field_name == "sign_in_url" and value is not None and re.fullmatch(r"/(?![/\\])\S*", value)
        )
        if value and not path and not _is_secure_url(value):
            raise ValueError("it is not https, which only a loopback address may lack")
        return value or None

    @model_validator(mode="after")
    def _one_source_of_sessions(self) -> Self:
        if bool(self.session_keys_file) == bool(self.session_jwks_url):
            raise ValueError("Set exactly one of APP_SESSION_KEYS_FILE and APP_SESSION_JWKS_URL.")
        if self.demo_sign_in and not self.session_keys_file:
            raise ValueError("APP_DEMO_SIGN_IN=true signs sessions itself: set APP_SESSION_KEYS_FILE.")
        if self.session_jwks_url:
            for name in ("session_audience", "session_issuer"):
                if not getattr(self, name):
                    raise ValueError(
                        f"APP_SESSION_JWKS_URL is {self.session_jwks_url!r} and APP_{name.upper()} is not "
                        "set, so tokens for other applications would sign users in. Use "
                        f"{type(self).model_fields[name].description}."
                    )
        return self


def _is_secure_url(value: str) -> bool:
    """Return whether `value` is an https URL without credentials, or http on a loopback address."""
    try:
        url = urlsplit(value)
        host, _ = url.hostname, url.port
    except ValueError:
        return False
    if not host or "@" in url.netloc or not re.fullmatch(r"[!-~]+", value):
        return False
    loopback = host in ("localhost", "::1") or re.fullmatch(r"127(\.[0-9]{1,3}){3}", host)
    return url.scheme == "https" or (url.scheme == "http" and bool(loopback))


S = TypeVar("S", bound=WorkerSettings)


def load(kind: type[S]) -> S:
    """Return the settings. Exits with one message for each invalid variable."""
    try:
        return kind()
    except ValidationError as error:
        sys.exit("\n".join(_message(kind, dict(detail)) for detail in error.errors()))


def _message(kind: type[WorkerSettings], detail: dict[str, object]) -> str:
    reason = str(detail["msg"]).removeprefix("Value error, ").rstrip(".")
    location = detail["loc"]
    if not isinstance(location, tuple) or not location:
        return f"{reason}."
    name = str(location[0])
    # A Redis URL can carry a password.
    value = "its value" if name == "redis_url" else repr(str(detail["input"]))
    return f"APP_{name.upper()}: {value} can't be used ({reason}). Use {kind.model_fields[name].description}."
