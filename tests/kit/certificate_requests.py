"""Requests for Origin CA certificates, as tests of the emulator send them."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.kit.emulator import NAME

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)


def certificate_request(key: Key, **changes: Any) -> dict[str, Any]:
    """Return a body of POST /certificates: 90 days, the zone and *.zone; `changes` replace fields."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return {
        "csr": csr.public_bytes(serialization.Encoding.PEM).decode(),
        "hostnames": [NAME, f"*.{NAME}"],
        "request_type": "origin-ecc" if isinstance(key, ec.EllipticCurvePrivateKey) else "origin-rsa",
        "requested_validity": 90,
        **changes,
    }
