"""Cloudflare's published API description, against which the tests check the emulator and the modules.

The description is not part of the project: see scripts/fetch-cloudflare-description. `problems(journal)`
lists the invalid requests in an emulator's journal; tests of modules and roles call it after a run.
"""

from __future__ import annotations

import copy
import functools
import json
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import jsonschema
import pytest
import referencing
from cloudflare.types.origin_tls_client_auth import ZoneCertificateCreateParams
from referencing.jsonschema import DRAFT202012

from tests.kit.openapi import CACHE, cut, locate

PATH = locate() or CACHE
described = pytest.mark.skipif(
    not PATH.exists(),
    reason="Cloudflare's API description is missing: run scripts/fetch-cloudflare-description",
)
PREFIX = "/client/v4"
NAME = "urn:description"  # the base URI of references within the description
# Operations that the modules use although the description lacks them. The items of a batch are checked
# against the single calls, client certificates against the official SDK's types. GraphQL has its own schema,
# which needs a token: the part of it in emulator/traffic.py rejects a query with an unknown name.
UNDESCRIBED = (
    r"/graphql",
    r"/zones/[^/]+/dns_records/batch",
    r"/user/tokens/[0-9a-f]{32}",
)
CLIENTS = r"/zones/[^/]+/origin_tls_client_auth(/[0-9a-f]{32})?"
BATCH = {"posts": "POST", "puts": "PUT", "patches": "PATCH"}


@functools.cache
def description() -> dict[str, Any]:
    """Return the part that the tests use, with the failure schemas corrected that nothing can satisfy."""
    content = cut(json.loads(PATH.read_text()))
    # One requires a result that is both an array and null, and lists its fields twice; one requires a setting
    # where the token is rejected; the others an object whose only value is null. Cloudflare returns null.
    for operations in content["paths"].values():
        for operation in operations.values():
            failure = operation.get("responses", {}).get("4XX", {}).get("content", {})
            schema = failure.get("application/json", {}).get("schema", {})
            if "result" in schema.get("properties", {}):
                schema["properties"]["result"] = {"type": "object", "enum": [None], "nullable": True}
                schema["required"] = sorted(set(schema.get("required", [])))
    schemas = content["components"]["schemas"]
    failure = schemas["cache_api-response-common-failure"]["properties"]
    failure["result"] = {"nullable": True, **schemas["cache_result"]}
    content["components"]["responses"]["rulesets_Failure"]["content"]["application/json"]["schema"][
        "properties"
    ]["result"] = {"type": "object", "enum": [None], "nullable": True}
    return content


def problems(journal: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a message for each request of a journal that the description does not allow.

    Rejected requests (4xx other than a rate limit) are left out: the sender handles the response, and
    a module finds out its permissions by requests that are meant to be rejected.
    """
    return [
        problem
        for entry in journal
        if not 400 <= entry["status"] < 500 or entry["status"] == 429
        for problem in _of_request(entry)
    ]


def _of_request(entry: Mapping[str, Any]) -> list[str]:
    method, path = entry["method"], entry["path"].removeprefix(PREFIX)
    start = f"{method} {path}"
    if any(re.fullmatch(pattern, path) for pattern in UNDESCRIBED):
        return _of_batch(start, entry) if path.endswith("/batch") else []
    if clients := re.fullmatch(CLIENTS, path):
        return _of_clients(start, entry, single=clients[1] is not None)
    template, operations = _operations(path)
    operation = operations.get(method.lower())
    if operation is None:
        return [f"{start}: the description has no such operation"]
    found = [
        f"{start}: the query has {name!r}, which is not in the description"
        for name in sorted(entry["query"].keys() - _query_names(template, method.lower()))
    ]
    body = operation.get("requestBody")
    if body is None:
        return [*found, f"{start}: the operation takes no body"] if entry["body"] else found
    return found + _of_body(start, template, method, entry["body"])


def _of_batch(start: str, entry: Mapping[str, Any]) -> list[str]:
    record = "/zones/{zone_id}/dns_records/{dns_record_id}"
    found = []
    for kind, method in BATCH.items():
        template = record.rpartition("/")[0] if method == "POST" else record
        for place, item in enumerate(entry["body"].get(kind, [])):
            item = {key: value for key, value in item.items() if key != "id"}
            if method == "PATCH":
                # A patch in a batch has only the changed fields; the schema requires type, name and ttl.
                item = {"type": "A", "name": "a.example", "ttl": 1, **item}
            found += _of_body(f"{start} {kind}[{place}]", template, method, item)
    return found


def _of_clients(start: str, entry: Mapping[str, Any], single: bool) -> list[str]:
    if entry["method"] not in ({"GET", "DELETE"} if single else {"GET", "POST"}):
        return [f"{start}: the SDK has no such operation"]
    if entry["query"]:
        return [f"{start}: the query has {', '.join(map(repr, entry['query']))}, which the SDK does not have"]
    if entry["method"] != "POST":
        return [f"{start}: the SDK sends no body"] if entry["body"] else []
    # The zone is in the path, the other parameters are in the body.
    expected = typing.get_type_hints(ZoneCertificateCreateParams).keys() - {"zone_id"}
    complete = isinstance(entry["body"], dict) and entry["body"].keys() == expected
    if complete and all(isinstance(value, str) for value in entry["body"].values()):
        return []
    return [f"{start}: the SDK sends {', '.join(sorted(expected))}, each a string"]


def _of_body(start: str, template: str, method: str, body: Any) -> list[str]:
    errors = _validator(template, method.lower()).iter_errors(body)
    return [f"{start}: {_explained(error)}" for error in errors]


def _explained(error: jsonschema.ValidationError) -> str:
    """Return the error and its place in the body; of alternative schemas, the error of the closest."""
    best = jsonschema.exceptions.best_match([error]) or error
    place = "/".join(map(str, best.absolute_path))
    return f"body{'/' + place if place else ''}: {best.message[:300]}"


def _operations(path: str) -> tuple[str, dict[str, Any]]:
    """Return the matching path template with the fewest variables and its operations, else "" and {}."""
    matching = [
        template
        for template in description()["paths"]
        if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path)
    ]
    if not matching:
        return "", {}
    template = min(matching, key=lambda template: template.count("{"))
    return template, description()["paths"][template]


def _query_names(template: str, method: str) -> set[str]:
    content = description()
    parameters = content["paths"][template][method].get("parameters") or []
    parameters = [
        content["components"]["parameters"][parameter["$ref"].rpartition("/")[2]]
        if "$ref" in parameter
        else parameter
        for parameter in parameters
    ]
    return {parameter["name"] for parameter in parameters if parameter["in"] == "query"}


@functools.cache
def _validator(template: str, method: str) -> jsonschema.Draft202012Validator:
    document = _as_request_schemas()
    resource = referencing.Resource.from_contents(document, default_specification=DRAFT202012)
    registry: Any = referencing.Registry().with_resource(NAME, resource)
    body = document["paths"][template][method]["requestBody"]
    if "$ref" in body:
        body = document["components"]["requestBodies"][body["$ref"].rpartition("/")[2]]
    # Properties that the description does not name are errors, whichever alternative schema matches.
    schema = {"allOf": [body["content"]["application/json"]["schema"]], "unevaluatedProperties": False}
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    return jsonschema.Draft202012Validator(schema, registry=registry, format_checker=checker)


@functools.cache
def _as_request_schemas() -> dict[str, Any]:
    """Return the description with its schemas translated from OpenAPI 3.0 to JSON Schema, for requests.

    OpenAPI 3.0 has `nullable`, ignores siblings of a `$ref` and forbids `readOnly` properties in a request.
    """
    document: dict[str, Any] = _translated(copy.deepcopy(description()))
    rules = document["components"]["schemas"]["rulesets_RequestRules"]
    rules["items"] = {"allOf": [rules["items"]], "unevaluatedProperties": False}
    return document


def _translated(node: Any) -> Any:
    if isinstance(node, list):
        return [_translated(item) for item in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("$ref"), str):
        return {"$ref": NAME + node["$ref"]}
    raw = node.get("properties")
    properties = raw if isinstance(raw, dict) else {}
    hidden = {name for name, value in properties.items() if isinstance(value, dict) and value.get("readOnly")}
    node = {key: _translated(value) for key, value in node.items()}
    if hidden:
        node["properties"] |= dict.fromkeys(hidden, False)
        node["required"] = sorted(set(node.get("required", [])) - hidden)
    if node.get("nullable") and isinstance(node.get("type"), str):
        node["type"] = [node["type"], "null"]
    return node
