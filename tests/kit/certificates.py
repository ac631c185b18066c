"""What trustme does not issue: self-signed certificates, signing requests, and the origin's order for one."""

import datetime as dt
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Pair(NamedTuple):
    """A private key and its certificate, both in PEM."""

    key: str
    certificate: str

    def __str__(self) -> str:
        return self.key + self.certificate


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def private_pem(key: Key) -> str:
    """Return the key as unencrypted PKCS #8."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


def self_signed(name: str, days: float = 365, key: Key | None = None) -> Pair:
    """Return a certificate for a host name that no authority issued, valid since ten days ago."""
    key = key or ec_key()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=10))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(private_pem(key), certificate.public_bytes(serialization.Encoding.PEM).decode())


def signing_request(name: str, key: Key | None = None) -> str:
    """Return a certificate signing request in PEM, by a new EC key unless one is given."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    signed = request.sign(key or ec_key(), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def origin_ca_order(name: str, key: Key, **fields: Any) -> dict[str, Any]:
    """Return the body of POST /certificates for a host name and its subdomains; `fields` override it."""
    return {
        "csr": signing_request(name, key),
        "hostnames": [name, f"*.{name}"],
        "request_type": "origin-ecc" if isinstance(key, ec.EllipticCurvePrivateKey) else "origin-rsa",
        "requested_validity": 90,
        **fields,
    }
