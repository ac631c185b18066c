"""Cloudflare's published API description, as this project holds both sides to it.

It is not part of the project: it is looked for beside the checkout, in shared/cloudflare, or where
CLOUDFLARE_OPENAPI names it. `problems(journal)` tells what of an emulator's journal is no valid request;
tests of modules and roles call it with the journal that their run left.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
from cloudflare.types.origin_tls_client_auth import ZoneCertificateCreateParams
from referencing.jsonschema import DRAFT202012

ROOT = Path(__file__).parents[2]
PATH = Path(os.environ.get("CLOUDFLARE_OPENAPI") or ROOT.parent / "shared/cloudflare/openapi-subset.json")
described = pytest.mark.skipif(
    not PATH.exists(),
    reason=f"Cloudflare's API description is not at {PATH}; name it with CLOUDFLARE_OPENAPI",
)
PREFIX = "/client/v4"
NAME = "urn:description"  # by which its parts refer to one another
# What the modules use although the description leaves it out. A batch's items are held to the single calls,
# client certificates to the official SDK's types. GraphQL has a schema of its own, shown only to who has a
# token: the part of it in emulator/traffic.py refuses a query with a name that it does not know.
UNDESCRIBED = (
    r"/graphql",
    r"/zones/[^/]+/dns_records/batch",
    r"/user/tokens/[0-9a-f]{32}",
)
CLIENTS = r"/zones/[^/]+/origin_tls_client_auth(/[0-9a-f]{32})?"
BATCH = {"posts": "POST", "puts": "PUT", "patches": "PATCH"}


@functools.cache
def description() -> dict[str, Any]:
    """Return the description, with those failure schemas mended that no failure can meet."""
    content: dict[str, Any] = json.loads(PATH.read_text())
    # One wants a result that is an array and null, and names its fields twice; one wants a setting where the
    # token is refused; the others want an object whose one value is null. Cloudflare says null.
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
    """Return a sentence for each request of a journal that the description does not allow.

    Left out is what was refused, with 4xx other than a rate limit: who sent it was told so by the answer, and
    a module asks for its permissions by requests that are meant to be refused.
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
        return _of_clients(start, entry, one=clients[1] is not None)
    template, operations = _operations(path)
    operation = operations.get(method.lower())
    if operation is None:
        return [f"{start}: the description has no such operation"]
    found = [
        f"{start}: the query has {name!r}, which the description does not know"
        for name in sorted(entry["query"].keys() - _query_names(template, method.lower()))
    ]
    body = operation.get("requestBody")
    if body is None:
        return [*found, f"{start}: the description wants no body"] if entry["body"] else found
    return found + _of_body(start, template, method, entry["body"])


def _of_batch(start: str, entry: Mapping[str, Any]) -> list[str]:
    one = "/zones/{zone_id}/dns_records/{dns_record_id}"
    found = []
    for kind, method in BATCH.items():
        template = one.rpartition("/")[0] if method == "POST" else one
        for place, item in enumerate(entry["body"].get(kind, [])):
            item = {key: value for key, value in item.items() if key != "id"}
            if method == "PATCH":
                # A batch's patch names what it changes alone: the schema's type, name and ttl may be missing.
                item = {"type": "A", "name": "a.example", "ttl": 1, **item}
            found += _of_body(f"{start} {kind}[{place}]", template, method, item)
    return found


def _of_clients(start: str, entry: Mapping[str, Any], one: bool) -> list[str]:
    if entry["method"] not in ({"GET", "DELETE"} if one else {"GET", "POST"}):
        return [f"{start}: the SDK has no such operation"]
    if entry["query"]:
        return [f"{start}: the query has {', '.join(map(repr, entry['query']))}, which the SDK does not know"]
    if entry["method"] != "POST":
        return [f"{start}: the SDK sends no body"] if entry["body"] else []
    # The zone is in the path; the rest is the body.
    wanted = typing.get_type_hints(ZoneCertificateCreateParams).keys() - {"zone_id"}
    fits = isinstance(entry["body"], dict) and entry["body"].keys() == wanted
    if fits and all(isinstance(value, str) for value in entry["body"].values()):
        return []
    return [f"{start}: the SDK sends {', '.join(sorted(wanted))}, each a text"]


def _of_body(start: str, template: str, method: str, body: Any) -> list[str]:
    errors = _validator(template, method.lower()).iter_errors(body)
    return [f"{start}: {_explained(error)}" for error in errors]


def _explained(error: jsonschema.ValidationError) -> str:
    """Return what is wrong and where; in a choice of schemas the nearest one says it."""
    best = jsonschema.exceptions.best_match([error]) or error
    place = "/".join(map(str, best.absolute_path))
    return f"body{'/' + place if place else ''}: {best.message[:300]}"


def _operations(path: str) -> tuple[str, dict[str, Any]]:
    """Return the template that a path fits, the one with the fewest variables, and its operations."""
    fitting = [
        template
        for template in description()["paths"]
        if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path)
    ]
    if not fitting:
        return "", {}
    template = min(fitting, key=lambda template: template.count("{"))
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
    # Nothing beyond what the description names, whichever of several schemas it is that fits.
    schema = {"allOf": [body["content"]["application/json"]["schema"]], "unevaluatedProperties": False}
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    return jsonschema.Draft202012Validator(schema, registry=registry, format_checker=checker)


@functools.cache
def _as_request_schemas() -> dict[str, Any]:
    """Return the description with its schemas as JSON Schema reads them, for requests.

    OpenAPI 3.0 says `nullable`, ignores what stands beside a `$ref`, and wants no `readOnly` in a request.
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
