"""The emulator's certificate authorities, kept in a folder, and the edge's TLS contexts."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

EDGE_LEAF_DAYS = 90
CA_DAYS = 3650
TLS_VERSIONS = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}
KEY_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "screen-flow emulated Cloudflare"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as unencrypted PKCS #8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_private(path: Path, content: bytes) -> None:
    """Write a file atomically, readable only by its owner. Raises OSError."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    temporary.write_bytes(content)
    temporary.replace(path)


@dataclass(frozen=True)
class Authority:
    """A certificate authority: its own certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The authority's certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def create(cls, common_name: str) -> Authority:
        """Create a self-signed authority, valid for ten years."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(_name(common_name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load_or_create(cls, folder: Path, name: str, common_name: str) -> Authority:
        """Read the authority `name` from `folder`, or create it there (key and certificate, mode 0600).

        Raises ValueError when the file exists but does not hold a certificate and its EC key.
        """
        path = folder / f"{name}.pem"
        if not path.exists():
            authority = cls.create(common_name)
            write_private(path, private_pem(authority.key) + authority.pem)
            return authority
        content = path.read_bytes()
        try:
            key = serialization.load_pem_private_key(content, password=None)
            certificate = x509.load_pem_x509_certificate(content)
        except ValueError as error:
            raise ValueError(
                f"{path} is not a key and certificate ({error}): remove it to create a new authority"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{path} does not hold an EC key: remove it to create a new authority")
        return cls(certificate, key)

    def issue(
        self,
        names: Sequence[str],
        public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        days: float,
        not_before: dt.datetime | None = None,
        purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    ) -> x509.Certificate:
        """Sign a certificate for `names` (DNS names or IP addresses), valid for `days` from `not_before`.

        `not_before` defaults to an hour ago, so that a client whose clock is slow accepts the certificate.
        """
        is_rsa = isinstance(public_key, rsa.RSAPublicKey)
        start = not_before or dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
        return (
            x509.CertificateBuilder()
            .subject_name(_name(names[0]))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + dt.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False, rsa_key=is_rsa), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_san(name) for name in names]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )


def _usage(*, signs_certificates: bool, rsa_key: bool = False) -> x509.KeyUsage:
    usage = dict.fromkeys(KEY_USAGES, False)
    usage |= dict.fromkeys(("key_cert_sign", "crl_sign"), signs_certificates)
    usage |= {"digital_signature": not signs_certificates, "key_encipherment": rsa_key}
    return x509.KeyUsage(**usage)


def _san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class _Connection(ssl.SSLObject):
    """Makes asyncio send the alert of a failed handshake, which it would drop with the connection."""

    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self._failure:
            raise self._failure
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self._failure = error
            # asyncio then flushes the alert; the peer or the handshake timeout closes the connection.
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "alert to send") from error


class EdgeTls:
    """The edge's TLS contexts towards visitors and origins, according to the zone's settings."""

    def __init__(self, folder: Path, zone_name: str) -> None:
        """Load the authorities from `folder` and issue the edge's certificate, for the zone and *.zone."""
        self.edge_ca = Authority.load_or_create(folder, "edge-ca", "Edge CA")
        self.origin_ca = Authority.load_or_create(folder, "origin-ca", "Origin CA")
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = self.edge_ca.issue([zone_name, f"*.{zone_name}"], key.public_key(), EDGE_LEAF_DAYS)
        path = folder / "edge.pem"
        write_private(path, private_pem(key) + leaf.public_bytes(serialization.Encoding.PEM))

        self.visitors = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.visitors.sslobject_class = _Connection
        self.visitors.load_cert_chain(path)
        self.visitors.set_alpn_protocols(["http/1.1"])
        # Needed for TLS 1.0 and 1.1, which min_tls_version can allow.
        self.visitors.set_ciphers("DEFAULT:@SECLEVEL=0")

        # With the setting tls_client_auth, Cloudflare presents one certificate for all customers' zones.
        self.pull_ca = Authority.load_or_create(folder, "origin-pull-ca", "Origin Pull CA")
        key = ec.generate_private_key(ec.SECP256R1())
        client = self.pull_ca.issue(
            ["origin-pull.cloudflare.net"], key.public_key(), EDGE_LEAF_DAYS,
            purpose=ExtendedKeyUsageOID.CLIENT_AUTH,
        )  # fmt: skip
        self.shared_client = private_pem(key) + client.public_bytes(serialization.Encoding.PEM)
        self._folder = folder
        self._towards_origins: dict[tuple[bool, bytes | None], ssl.SSLContext] = {}

    def towards_origin(self, *, strict: bool, client: bytes | None = None) -> ssl.SSLContext:
        """Return the context for origins: `strict` verifies them, `client` is certificate and key as PEM."""
        context = self._towards_origins.get((strict, client))
        if context is None:
            context = self._towards_origins[strict, client] = self._make_context(strict, client)
        return context

    def _make_context(self, strict: bool, client: bytes | None) -> ssl.SSLContext:
        if strict:
            context = ssl.create_default_context()
            context.load_verify_locations(cadata=self.origin_ca.pem.decode())
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
        if client:
            # ssl loads certificates only from files.
            path = self._folder / "client.pem"
            write_private(path, client)
            context.load_cert_chain(path)
            path.unlink()
        return context

    def accept(self, minimum: str, tls_1_3: bool) -> None:
        """Accept new visitors from TLS version `minimum` ('1.0' to '1.3') to 1.2, or 1.3 if `tls_1_3`."""
        with warnings.catch_warnings():
            # Python deprecates TLS 1.0 and 1.1, which Cloudflare lets a zone's owner choose.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.visitors.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
            self.visitors.minimum_version = TLS_VERSIONS[minimum]
            if not tls_1_3 and minimum != "1.3":
                self.visitors.maximum_version = ssl.TLSVersion.TLSv1_2
