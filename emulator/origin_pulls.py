"""Authenticated Origin Pulls at zone level: client certificates that the edge presents to the origin."""

from __future__ import annotations

import datetime as dt
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from emulator.common import ApiError, Call, Route, Store, find, identifier, needs, page, timestamp

# From the upload until the edge has the certificate, whose status is pending_deployment until then.
DEPLOY = dt.timedelta(seconds=1)


class OriginPulls:
    """The zone's own client certificates, and the switch that makes the edge present the newest."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def clear(self) -> None:
        """Remove the certificates and switch off, as in a new zone."""
        self._store.data["origin_pulls"] = {"enabled": False, "certificates": []}

    @property
    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = self._store.data["origin_pulls"]
        return state

    def client(self) -> bytes | None:
        """Return the key and certificate that the edge presents as PEM; None while it presents none."""
        if not self._state["enabled"]:
            return None
        active = [found for found in self._state["certificates"] if _public(found)["status"] == "active"]
        return (active[-1]["private_key"] + "\n" + active[-1]["certificate"]).encode() if active else None

    def describe(self) -> dict[str, Any]:
        """Return the switch and the certificates without their keys."""
        return {
            "enabled": self._state["enabled"],
            "certificates": [_public(found) for found in self._state["certificates"]],
        }

    def routes(self, zone: str) -> list[Route]:
        """Return the routes below the zone's path."""
        permission = needs("SSL and Certificates")
        base = zone + "/origin_tls_client_auth"
        switch = {"GET": self._get_switch, "PUT": self._put_switch}
        return [
            Route(base, permission, {"GET": self._list, "POST": self._upload}, "ssl"),
            Route(base + "/settings", permission, switch, "ssl"),
            Route(base + "/(?P<id>[^/]+)", permission, {"GET": self._get, "DELETE": self._delete}, "ssl"),
        ]

    def _get_switch(self, call: Call) -> dict[str, Any]:
        return {"result": {"enabled": self._state["enabled"]}}

    def _put_switch(self, call: Call) -> dict[str, Any]:
        enabled = call.fields.get("enabled")
        if not isinstance(enabled, bool):
            raise ApiError(400, 1400, "enabled must be true or false")
        self._state["enabled"] = enabled
        self._store.save()
        return self._get_switch(call)

    def _list(self, call: Call) -> dict[str, Any]:
        return page(call, self.describe()["certificates"][::-1], per_page=50)

    def _get(self, call: Call) -> dict[str, Any]:
        return {"result": _public(self._find(call))}

    def _delete(self, call: Call) -> dict[str, Any]:
        found = self._find(call)
        self._state["certificates"].remove(found)
        self._store.save()
        return {"result": {**_public(found), "status": "pending_deletion"}}

    def _find(self, call: Call) -> dict[str, Any]:
        missing = ApiError(404, 1406, "Origin TLS client authentication certificate not found")
        return find(self._state["certificates"], call.path_parameters["id"], missing)

    def _upload(self, call: Call) -> dict[str, Any]:
        wanted = call.fields
        certificate = _pair(wanted.get("certificate"), wanted.get("private_key"))
        if any(found["certificate"] == wanted["certificate"] for found in self._state["certificates"]):
            raise ApiError(409, 1414, "The certificate already exists")
        issuer = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
        algorithm = certificate.signature_hash_algorithm
        created = {
            "id": identifier(),
            "certificate": wanted["certificate"],
            "private_key": wanted["private_key"],
            "issuer": str(issuer[0].value) if issuer else certificate.issuer.rfc4514_string(),
            "signature": algorithm.name.upper() if algorithm else "",
            "expires_on": timestamp(certificate.not_valid_after_utc),
            "uploaded_on": timestamp(dt.datetime.now(dt.UTC)),
        }
        self._state["certificates"].append(created)
        self._store.save()
        return {"result": _public(created)}


def _public(certificate: dict[str, Any]) -> dict[str, Any]:
    """Return a certificate as the API does: with its status, without its key."""
    uploaded = dt.datetime.fromisoformat(certificate["uploaded_on"])
    deployed = dt.datetime.now(dt.UTC) >= uploaded + DEPLOY
    public = {key: value for key, value in certificate.items() if key != "private_key"}
    return {**public, "status": "active" if deployed else "pending_deployment"}


def _pair(certificate: Any, key: Any) -> x509.Certificate:
    """Return the certificate if it is valid and `key` is its private key. Raises ApiError."""
    try:
        loaded = x509.load_pem_x509_certificate(str(certificate).encode())
        private = serialization.load_pem_private_key(str(key).encode(), password=None)
    except (ValueError, TypeError):
        raise ApiError(400, 1401, "The certificate or the private key cannot be read as PEM") from None
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if loaded.public_key().public_bytes(*form) != private.public_key().public_bytes(*form):
        raise ApiError(400, 2200, "The certificate and private key pair you uploaded is invalid.")
    if loaded.not_valid_after_utc <= dt.datetime.now(dt.UTC):
        raise ApiError(400, 1402, "The certificate has expired")
    return loaded
