"""Where Cloudflare's published API description is found, and the part of it that the tests use.

Standard library only: scripts/fetch-cloudflare-description uses it without the tests' packages.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache/cloudflare-openapi.json"
BESIDE = ROOT.parent / "shared/cloudflare/openapi-subset.json"
VARIABLE = "CLOUDFLARE_OPENAPI"
METHODS = ("get", "post", "put", "patch", "delete")
COMPONENTS = "#/components/"
RULESETS = "/{accounts_or_zones}/{account_or_zone_id}/rulesets"
PATHS = (
    "/certificates",
    "/certificates/{certificate_id}",
    "/ips",
    "/user/tokens/verify",
    "/zones",
    "/zones/{zone_id}",
    "/zones/{zone_id}/argo/smart_routing",
    "/zones/{zone_id}/dns_records",
    "/zones/{zone_id}/dns_records/{dns_record_id}",
    "/zones/{zone_id}/origin_tls_client_auth/settings",
    "/zones/{zone_id}/settings/ssl_automatic_mode",
    "/zones/{zone_id}/settings/{setting_id}",
    RULESETS,
    RULESETS + "/phases/{ruleset_phase}/entrypoint",
    RULESETS + "/{ruleset_id}",
    RULESETS + "/{ruleset_id}/rules",
    RULESETS + "/{ruleset_id}/rules/{rule_id}",
)


def locate() -> Path | None:
    """Return the description's file: CLOUDFLARE_OPENAPI, else the cache, else the one beside the checkout.

    None when there is none. Raises FileNotFoundError when CLOUDFLARE_OPENAPI names a missing file.
    """
    if named := os.environ.get(VARIABLE):
        if not Path(named).is_file():
            raise FileNotFoundError(
                f"{VARIABLE}: {named!r} is not a file: name Cloudflare's openapi.json or unset it"
            )
        return Path(named)
    return next((path for path in (CACHE, BESIDE) if path.is_file()), None)


def cut(document: Any) -> dict[str, Any]:
    """Return a description with only PATHS and the components that they refer to, directly or not.

    Raises ValueError when `document` is not an OpenAPI 3 description or lacks one of the paths.
    """
    if not isinstance(document, dict) or not str(document.get("openapi", "")).startswith("3."):
        raise ValueError("it is not an OpenAPI 3 description")
    if missing := [path for path in PATHS if path not in document.get("paths", {})]:
        raise ValueError(f"it lacks the path {missing[0]}")
    paths = {
        path: {key: value for key, value in document["paths"][path].items() if key in METHODS}
        for path in PATHS
    }
    components = document.get("components", {})
    kept: dict[str, dict[str, Any]] = {"securitySchemes": components.get("securitySchemes", {})}
    pending = list(_references(paths))
    while pending:
        group, name, *_ = pending.pop().removeprefix(COMPONENTS).split("/")
        if name not in kept.setdefault(group, {}):
            try:
                kept[group][name] = components[group][name]
            except KeyError:
                raise ValueError(f"it lacks the component {group}/{name}") from None
            pending += _references(kept[group][name])
    return {**document, "paths": paths, "components": kept}


def _references(node: Any) -> Iterator[str]:
    """Yield the references to components in a part of the description: `$ref` and discriminator mappings."""
    if isinstance(node, str):
        if node.startswith(COMPONENTS):
            yield node
    elif isinstance(node, dict | list):
        for item in node.values() if isinstance(node, dict) else node:
            yield from _references(item)
