"""For tests, over TLS: an authority, a key set that can fail, and a real OpenID Connect provider."""

import base64
import contextlib
import hashlib
import http.server
import json
import os
import re
import secrets
import shutil
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from app.sessions import InvalidSession, Sessions
from tests.kit.app import Process, free_port, wait_until

SOURCE = Path(__file__).parent / "identity_provider"
KEY, OTHER_KEY = (rsa.generate_private_key(65537, 2048) for _ in range(2))


@dataclass
class Authority:
    """A certificate authority, and the certificate that it signed for localhost."""

    folder: Path

    def __post_init__(self) -> None:
        self.ca, self.certificate, self.key = (
            self.folder / name for name in ("ca.pem", "cert.pem", "key.pem")
        )
        ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])

        def builder(subject: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
            now = datetime.now(UTC)
            return (
                x509.CertificateBuilder()
                .subject_name(subject)
                .issuer_name(ca_name)
                .public_key(public_key)
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - timedelta(hours=1))
                .not_valid_after(now + timedelta(days=1))
            )

        usage = {
            **dict.fromkeys(
                ("key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
            ),
            **dict.fromkeys(("decipher_only", "content_commitment", "digital_signature"), False),
            **dict.fromkeys(("key_cert_sign", "crl_sign"), True),
        }
        authority = (
            builder(ca_name, ca_key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .sign(ca_key, hashes.SHA256())
        )
        certificate = (
            builder(name, key.public_key())
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
            )
            .sign(ca_key, hashes.SHA256())
        )
        self.ca.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


class KeyServer:
    """A key set on an HTTP server, over TLS with an authority. It records the requests, and can fail."""

    def __init__(self, authority: Authority | None = None) -> None:
        self.keys: list[Any] = []
        self.body: bytes | None = None
        self.status = 200
        self.headers: dict[str, str] = {}
        self.refused_agent = "Python-urllib"
        self.delay = 0.0  # seconds before the response
        self.drip = 0.0  # seconds between two bytes of it
        self.requests: list[dict[str, str]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append({name.lower(): value for name, value in self.headers.items()})
                body = json.dumps({"keys": outer.keys}).encode() if outer.body is None else outer.body
                filtered = self.headers.get("User-Agent", "").startswith(outer.refused_agent)
                time.sleep(outer.delay)
                self.send_response(403 if filtered else outer.status)
                for name, value in {**outer.headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    for start in range(0, len(body), 1 if outer.drip else max(1, len(body))):
                        self.wfile.write(body[start : start + 1] if outer.drip else body)
                        time.sleep(outer.drip)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        scheme = "http"
        if authority:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(authority.certificate, authority.key)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://localhost:{self.server.server_port}/jwks.json"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def public_jwk(key: PrivateKey, **members: Any) -> dict[str, Any]:
    """Return the bare JWK of a key's public half, with further members; one that is None is left out."""
    algorithm: Any = {
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
    }
    for kind, each in algorithm.items():
        if isinstance(key, kind):
            jwk = each.to_jwk(key.public_key(), as_dict=True)
            break
    else:
        jwk = jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    bare = {name: value for name, value in jwk.items() if name in ("kty", "crv", "n", "e", "x", "y")}
    return {**bare, **{name: value for name, value in members.items() if value is not None}}


class IdentityProvider:
    """The npm package oidc-provider, installed from its lock file, as a process behind TLS."""

    def __init__(
        self, authority: Authority, folder: Path, callback: str = "https://screen-flow.test/"
    ) -> None:
        self.callback = callback
        self.port = free_port()
        self.issuer = f"https://localhost:{self.port}"
        self.http = httpx.Client(verify=ssl.create_default_context(cafile=str(authority.ca)))
        program = folder / "identity_provider"
        shutil.copytree(SOURCE, program, ignore=shutil.ignore_patterns("node_modules"))
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=program, check=True, capture_output=True)
        self.settings = {
            "port": self.port,
            "key": str(authority.key),
            "cert": str(authority.certificate),
            "jwks": {"keys": [self._key(algorithm) for algorithm in ("RS256", "ES256", "EdDSA")]},
            "clients": [
                {
                    "client_id": f"screen-flow-{algorithm}",
                    "token_endpoint_auth_method": "none",
                    "application_type": "web",
                    "redirect_uris": [self.callback],
                    "response_types": ["code", "id_token"],
                    "grant_types": ["authorization_code", "implicit"],
                    "id_token_signed_response_alg": algorithm,
                }
                for algorithm in ("RS256", "PS256", "ES256", "EdDSA")
            ],
        }
        self.settings_file = folder / "settings.json"
        self.process = Process(
            "node", str(program / "provider.mjs"), str(self.settings_file),
            log=folder / "provider.log", env={"PATH": os.environ["PATH"]}, cwd=program,
        )  # fmt: skip

    @staticmethod
    def _key(algorithm: str) -> dict[str, Any]:
        key, kind = {
            "RS256": lambda: (rsa.generate_private_key(65537, 2048), jwt.algorithms.RSAAlgorithm),
            "ES256": lambda: (ec.generate_private_key(ec.SECP256R1()), jwt.algorithms.ECAlgorithm),
            "EdDSA": lambda: (ed25519.Ed25519PrivateKey.generate(), jwt.algorithms.OKPAlgorithm),
        }[algorithm]()
        jwk: dict[str, Any] = kind.to_jwk(key, as_dict=True)
        # Without `alg`: its RSA key serves RS256 and PS256.
        jwk.pop("key_ops", None)
        return {**jwk, "kid": secrets.token_hex(4), "use": "sig"}

    def start(self) -> None:
        self.settings_file.write_text(json.dumps(self.settings))
        self.process.start()

        def ready() -> bool:
            assert self.process.child and self.process.child.poll() is None, self.process.log()
            try:
                return self.http.get(f"{self.issuer}/.well-known/openid-configuration").status_code == 200
            except httpx.TransportError:
                return False

        wait_until("the identity provider answers", ready)

    def rotate(self) -> None:
        """Put a new RSA key in the place of the old one."""
        self.settings["jwks"]["keys"][0] = self._key("RS256")
        self.stop()
        self.start()

    def stop(self) -> None:
        # The whole group: the wheel's `node` is a program that starts the real one.
        self.process.end(signal.SIGKILL)

    def discovered(self, name: str) -> str:
        """Return a value of the provider's discovery document."""
        return str(self.http.get(f"{self.issuer}/.well-known/openid-configuration").json()[name])

    def id_token(self, user: str, algorithm: str = "RS256", flow: str = "code") -> str:
        """Sign `user` in as a browser would, and return the ID token."""
        client = f"screen-flow-{algorithm}"
        verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "client_id": client,
            "redirect_uri": self.callback,
            "scope": "openid",
            "response_type": flow,
            "nonce": secrets.token_hex(8),
        }
        if flow == "code":
            challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            query |= {"code_challenge": challenge, "code_challenge_method": "S256"}
        self.http.cookies.clear()
        answer = self.http.get(f"{self.issuer}/auth", params=query)
        for _ in range(10):
            target = answer.headers.get("location")
            if target and target.startswith(self.callback):
                break
            if target:
                answer = self.http.get(urljoin(str(answer.url), target))
                continue
            action = re.search(r'<form[^>]* action="([^"]+)"', answer.text)
            prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
            assert action and prompt, answer.text
            form = {"prompt": prompt[1], "login": user, "password": "any"}
            answer = self.http.post(urljoin(str(answer.url), action[1]), data=form)
        parts = urlsplit(answer.headers["location"])
        if flow == "id_token":
            return parse_qs(parts.fragment)["id_token"][0]
        form = {
            "grant_type": "authorization_code",
            "code": parse_qs(parts.query)["code"][0],
            "redirect_uri": self.callback,
            "client_id": client,
            "code_verifier": verifier,
        }
        tokens = self.http.post(f"{self.issuer}/token", data=form)
        assert tokens.status_code == 200, tokens.text
        return str(tokens.json()["id_token"])

    def close(self) -> None:
        self.process.close()
        self.http.close()


def token(key: Any, *, kid: str | None = None, algorithm: str = "RS256", **claims: Any) -> str:
    """Return a token that `key` signed; a claim that is None is left out."""
    now = int(time.time())
    all_claims = {
        "iss": "https://login.test/",
        "aud": "screen-flow",
        "sub": "ada",
        "iat": now,
        "exp": now + 600,
    }
    kept = {name: value for name, value in (all_claims | claims).items() if value is not None}
    return jwt.encode(kept, key, algorithm=algorithm, headers={"kid": kid} if kid else None)


Open = Callable[..., contextlib.AbstractAsyncContextManager[Sessions]]
"""Opens the sessions of a key server, with further settings; see the fixture `sessions`."""


async def accepts(sessions: Sessions, token: str) -> bool:
    with contextlib.suppress(InvalidSession):
        await sessions.verify(token)
        return True
    return False
