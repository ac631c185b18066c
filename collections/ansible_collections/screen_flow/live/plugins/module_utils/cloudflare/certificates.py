"""Certificates as the Cloudflare modules read and compare them."""

from __future__ import annotations

import datetime as dt
import traceback
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from .client import invalid_input
from .module import require_library

IMPORT_ERROR: str | None = None
try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
except ImportError:
    IMPORT_ERROR = traceback.format_exc()

PERMISSION = "SSL and Certificates Write"


@dataclass(frozen=True)
class StoredCertificate:
    """A certificate at Cloudflare, and Cloudflare's id of it."""

    id: str
    certificate: x509.Certificate

    @property
    def expires(self) -> dt.datetime:
        """End of its validity, in UTC."""
        return self.certificate.not_valid_after_utc


def require_cryptography(module: AnsibleModule) -> None:
    """Fail the module, with the remedy, where cryptography is missing on the machine that runs it."""
    require_library(module, "cryptography", IMPORT_ERROR)


def read_certificate(pem: str, option: str) -> x509.Certificate:
    """Return the certificate given as a module's option; raises CloudflareFailure naming the option."""
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        raise invalid_input(f"{option} is not a certificate in PEM format: use a PEM certificate.") from None


def read_request(pem: str, option: str) -> x509.CertificateSigningRequest:
    """Return the signing request given as a module's option; raises CloudflareFailure naming the option.

    The text is not in the message: it may be a private key, given by mistake.
    """
    if "PRIVATE KEY" in pem:
        raise invalid_input(
            f"{option} holds a private key: use the signing request; the key stays where it was created."
        )
    try:
        request = x509.load_pem_x509_csr(pem.encode())
    except ValueError:
        raise invalid_input(
            f"{option} is not a signing request in PEM format: use the one that openssl_csr_pipe returns."
        ) from None
    if not isinstance(request.public_key(), ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise invalid_input(f"{option} has a key that is neither EC nor RSA: create one of these.")
    return request


def to_pem(request: x509.CertificateSigningRequest) -> str:
    """Return the signing request in PEM format, without any other text that the user's input holds."""
    return request.public_bytes(Encoding.PEM).decode()


def request_type(request: x509.CertificateSigningRequest) -> str:
    """Return the Origin CA's name for the type of certificate that fits the request's key."""
    return "origin-rsa" if isinstance(request.public_key(), rsa.RSAPublicKey) else "origin-ecc"


def parse_certificate(pem: Any) -> x509.Certificate | None:
    """Return a certificate from one of Cloudflare's responses; None for anything else."""
    try:
        return x509.load_pem_x509_certificate(str(pem).encode())
    except ValueError:
        return None


def public_key(holder: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    """Return the public key as DER, for comparisons."""
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def dns_names(certificate: x509.Certificate) -> set[str]:
    """Return the certificate's subject alternative names; none where it has no such extension."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return set()
    return set(extension.value.get_values_for_type(x509.DNSName))


def is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Return whether the authority signed the certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
