"""The origin's certificate: the pair on disk, and the certificate that nginx serves."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
from pathlib import Path
from typing import Any

from .document import Missing
from .gather import Deadline, Once, run
from .nginx import Configuration

BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def certificate(
    configuration: Once[Configuration], server_name: str, https_port: int, deadline: Deadline
) -> dict[str, Any]:
    """Return the certificate on disk, whether the key matches, and which one nginx serves; raises Missing."""
    settings = configuration().settings
    file, key = settings["certificate"], settings["certificate_key"]
    if not file:
        raise Missing("nginx's configuration names no certificate.")
    try:
        text = Path(file).read_text()
    except OSError as error:
        raise Missing(f"the certificate {file} can't be read: {error.strerror}.") from error
    return {
        "file": file,
        **describe(file, key, deadline),
        "fingerprint": fingerprint(ssl.PEM_cert_to_DER_cert(_first(text))),
        "served": _served(server_name, https_port, deadline),
    }


def describe(file: str, key: str, deadline: Deadline) -> dict[str, Any]:
    """Return validity (Unix seconds), names and issuer of a certificate, and whether the key matches.

    Raises Missing.
    """
    options = ["-dates", "-subject", "-issuer", "-ext", "subjectAltName", "-pubkey"]
    shown = run(["openssl", "x509", "-noout", *options, "-in", file], deadline)
    if shown.returncode:
        raise Missing(f"{file} is not a certificate that openssl can read.")
    fields = dict(re.findall(r"^(notBefore|notAfter|subject|issuer)=(.*)$", shown.stdout, re.MULTILINE))
    public = re.search(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", shown.stdout, re.DOTALL)
    # The private key is not read here: openssl prints its public half.
    derived = run(["openssl", "pkey", "-pubout", "-in", key], deadline)
    return {
        # openssl's English months, whatever the locale.
        "not_before": ssl.cert_time_to_seconds(fields["notBefore"]),
        "not_after": ssl.cert_time_to_seconds(fields["notAfter"]),
        "names": re.findall(r"DNS:([^\s,]+)", shown.stdout),
        "issuer": fields["issuer"].strip(),
        "self_signed": fields["issuer"].strip() == fields["subject"].strip(),
        "key_matches": public is not None and derived.returncode == 0 and public[0] == derived.stdout.strip(),
    }


def _first(text: str) -> str:
    """Return the first certificate of a chain, as PEM."""
    return text[text.index(BEGIN) :].partition(END)[0] + END


def fingerprint(der: bytes) -> str:
    """Return the SHA-256 of a certificate, in hexadecimal digits."""
    return hashlib.sha256(der).hexdigest()


def _served(server_name: str, port: int, deadline: Deadline) -> str | None:
    """Return the fingerprint of the certificate that nginx serves, or None when it serves none."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection(("127.0.0.1", port), deadline.left(3)) as plain,
            context.wrap_socket(plain, server_hostname=server_name) as secure,
        ):
            der = secure.getpeercert(binary_form=True)
    except OSError:
        return None  # the probes report the error
    return fingerprint(der) if der else None
