"""Origin CA: signed certificates for the zone's origin, which the edge accepts in Full (strict)."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from emulator.certificates import Authority
from emulator.common import ApiError, Call, Route, Store, StoredList, find, identifier, needs, now, page
from emulator.dns import HOSTNAME

REQUEST_TYPES: dict[str, type[rsa.RSAPublicKey] | type[ec.EllipticCurvePublicKey]] = {
    "origin-rsa": rsa.RSAPublicKey,
    "origin-ecc": ec.EllipticCurvePublicKey,
}
VALIDITIES = (7, 30, 90, 365, 730, 1095, 5475)  # days (Cloudflare's API description)
MAX_NAMES = 100
FOREIGN = (
    "This zone is either not part of your account, or you do not have access to it. Please contact support "
    "if using a multi-user organization."
)


class OriginCa(StoredList):
    """The certificates that the Origin CA signed for the zone, revoked ones too, oldest first."""

    key = "certificates"

    def __init__(self, store: Store, authority: Authority) -> None:
        super().__init__(store)
        self._authority = authority

    def routes(self) -> list[Route]:
        """Return the routes, which are not below the zone's path."""
        permission = needs("SSL and Certificates")
        one = {"GET": self._get, "DELETE": self._revoke}
        return [
            Route("/certificates", permission, {"GET": self._list, "POST": self._create}, "ssl"),
            Route("/certificates/(?P<id>[^/]+)", permission, one, "ssl"),
        ]

    def _list(self, call: Call) -> dict[str, Any]:
        if call.query.get("zone_id") != self._store.data["id"]:
            raise ApiError(400, 1002, "Invalid or missing zone id")
        return page(call, [found for found in self.all[::-1] if "revoked_at" not in found], per_page=20)

    def _get(self, call: Call) -> dict[str, Any]:
        return {"result": self._find(call)}

    def _revoke(self, call: Call) -> dict[str, Any]:
        found = self._find(call)
        if "revoked_at" in found:
            raise ApiError(400, 1105, "Certificate is already revoked")
        found["revoked_at"] = now()
        self._store.save()
        return {"result": {"id": found["id"], "revoked_at": found["revoked_at"]}}

    def _find(self, call: Call) -> dict[str, Any]:
        missing = ApiError(404, 1101, "Failed to read certificate from Database")
        return find(self.all, call.path_parameters["id"], missing)

    def _create(self, call: Call) -> dict[str, Any]:
        wanted = call.fields
        kind, names = wanted.get("request_type"), wanted.get("hostnames")
        days = wanted.get("requested_validity", VALIDITIES[-1])
        if kind not in REQUEST_TYPES:
            raise ApiError(400, 1004, f"Invalid request_type: one of {', '.join(REQUEST_TYPES)}")
        if days not in VALIDITIES or isinstance(days, bool):
            raise ApiError(
                400, 1013, f"Invalid requested_validity: one of {', '.join(map(str, VALIDITIES))} days"
            )
        names = self._names(names)
        key = _public_key(wanted.get("csr"), kind)
        certificate = self._authority.issue(names, key, days)
        created = {
            "id": identifier(),
            "certificate": certificate.public_bytes(serialization.Encoding.PEM).decode(),
            "csr": wanted["csr"],
            "hostnames": names,
            "request_type": kind,
            "requested_validity": days,
            "expires_on": f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} +0000 UTC",
        }
        self._store.data["certificates"].append(created)
        self._store.save()
        return {"result": created}

    def _names(self, names: Any) -> list[str]:
        """Return the host names if all belong to the zone. Raises ApiError."""
        if not isinstance(names, list) or not 1 <= len(names) <= MAX_NAMES:
            raise ApiError(400, 1008, f"hostnames: use 1 to {MAX_NAMES} names")
        zone = str(self._store.data["name"])
        for name in names:
            if not isinstance(name, str) or not HOSTNAME.fullmatch(name.removeprefix("*.")):
                raise ApiError(400, 1009, f"{name!r} is not a host name")
            # A wildcard such as *.example.com belongs to the zone too.
            if name != zone and not name.endswith("." + zone):
                raise ApiError(400, 1010, FOREIGN)
        return names


def _public_key(csr: Any, kind: str) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    """Return the public key of a valid, self-signed certificate request. Raises ApiError."""
    try:
        request = x509.load_pem_x509_csr(str(csr).encode())
        key = request.public_key()
        signed = request.is_signature_valid
    except ValueError:
        raise ApiError(400, 1011, "Failed to parse the certificate signing request") from None
    if not signed:
        raise ApiError(400, 1011, "The certificate signing request's own signature is not valid")
    if not isinstance(key, REQUEST_TYPES[kind]) or not isinstance(
        key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    ):
        raise ApiError(400, 1012, f"The key of the certificate signing request does not fit {kind}")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048:
        raise ApiError(400, 1012, f"An RSA key of {key.key_size} bits is too short: 2048 or more")
    return key
