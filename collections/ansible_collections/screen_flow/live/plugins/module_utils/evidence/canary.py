"""The canary: an upload of the probe's own user, whose events its socket receives (docs/contract.md)."""

from __future__ import annotations

import http.client
import json
import secrets
from dataclasses import dataclass
from typing import Any

from .document import redact

BATCHES = "/api/v1/cv-processing/batches"
CV = "Site Check\nsite-check@example.com\n"


@dataclass(frozen=True)
class Sender:
    """How the canary is sent: the api's port on this server, Origin and Cookie headers, seconds to wait."""

    port: int
    origin: str
    cookie: str
    timeout: float


def file_name(nonce: str) -> str:
    """Return the name of the canary's CV, which its events contain."""
    return f"site-check-{nonce}.txt"


def ends_a_cv(message: str) -> bool:
    """Return whether an event reports that a CV was processed, or could not be."""
    return _field(message, "type") == "cv_progress" and _field(message, "status") in ("done", "failed")


def upload(sender: Sender, nonce: str) -> dict[str, Any]:
    """Upload a canary with this nonce.

    Returns the HTTP `status`, None without a response; the `batch_id`, None unless it was accepted; and the
    `error`, why it was not, as a sentence.
    """
    boundary = secrets.token_hex(16)
    body = (
        f"--{boundary}\r\n"
        f'Content-Disposition: form-data; name="files"; filename="{file_name(nonce)}"\r\n'
        f"Content-Type: text/plain\r\n\r\n{CV}\r\n--{boundary}--\r\n"
    )
    status, text = _request(
        sender, "POST", BATCHES, body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    )
    batch_id = str(_field(text, "batch_id") or "") or None if status == 202 else None
    error = ""
    if status is None:
        error = f"the upload got no response: {text}."
    elif status != 202:
        error = f"the upload got HTTP {status}: {redact(str(_field(text, 'detail') or text.strip()))}"
    elif batch_id is None:
        error = "the response to the upload has no batch_id."
    return {"status": status, "batch_id": batch_id, "error": error}


def is_done(sender: Sender, batch_id: str) -> bool | None:
    """Return whether the api reports the canary's batch as done; None when it does not report it."""
    status, text = _request(sender, "GET", f"{BATCHES}/{batch_id}")
    return _field(text, "status") == "done" if status == 200 else None


def _request(
    sender: Sender, method: str, path: str, body: str = "", headers: dict[str, str] | None = None
) -> tuple[int | None, str]:
    """Return a response's status and text, or None and the name of the error."""
    connection = http.client.HTTPConnection("127.0.0.1", sender.port, timeout=sender.timeout)
    sent = {"Origin": sender.origin, **(headers or {})} | ({"Cookie": sender.cookie} if sender.cookie else {})
    try:
        connection.request(method, path, body=body or None, headers=sent)
        response = connection.getresponse()
        return response.status, response.read(100_000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return None, type(error).__name__
    finally:
        connection.close()


def _field(text: str, name: str) -> Any:
    """Return a field of a JSON object, or None."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found.get(name) if isinstance(found, dict) else None
