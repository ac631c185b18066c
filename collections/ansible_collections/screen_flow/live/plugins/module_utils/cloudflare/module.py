"""What the Cloudflare modules share: the common arguments, and the client and the zone that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

from .client import API_BASE_URL, SDK_IMPORT_ERROR, CloudflareApi, Zone, invalid_input

# Documented by the fragment cloudflare. The code below requires token and zone, not this specification: a
# linter that reads a single task does not see what module_defaults adds.
COMMON_ARGUMENTS: dict[str, dict[str, Any]] = {
    "api_token": {
        "type": "str",
        "no_log": True,
        "fallback": (env_fallback, ["CLOUDFLARE_API_TOKEN"]),
    },
    "api_base_url": {"type": "str", "default": API_BASE_URL},
    "zone": {"type": "str"},
    "zone_id": {"type": "str"},
    "wait_seconds": {"type": "int", "default": 900},
    "progress_file": {"type": "path"},
}


def create_module(arguments: dict[str, dict[str, Any]], **rules: Any) -> AnsibleModule:
    """Return the module for its own and the common arguments; fail it where the SDK is missing.

    `rules` are further keywords of AnsibleModule, such as required_if.
    """
    module = AnsibleModule(
        argument_spec=COMMON_ARGUMENTS | arguments,
        supports_check_mode=True,
        **rules,
    )
    require_sdk(module)
    return module


def require_sdk(module: AnsibleModule) -> None:
    """Fail the module, with the remedy, where the SDK is missing on the machine that runs it."""
    require_library(module, "cloudflare", SDK_IMPORT_ERROR)


def require_library(module: AnsibleModule, name: str, import_error: str | None) -> None:
    """Fail the module, with the remedy, for a Python package whose import failed."""
    if import_error:
        module.fail_json(msg=missing_required_lib(name), exception=import_error)


def open_api(module: AnsibleModule) -> CloudflareApi:
    """Return the client for the common arguments; raises CloudflareFailure."""
    progress_file = module.params["progress_file"]

    def notify(message: str) -> None:
        module.warn(message)
        if progress_file:
            with Path(progress_file).open("a") as lines:
                lines.write(message + "\n")

    inputs = module.params
    return CloudflareApi(inputs["api_token"] or "", inputs["api_base_url"], inputs["wait_seconds"], notify)


def find_zone(module: AnsibleModule, api: CloudflareApi) -> Zone:
    """Return the zone that the common arguments name; raises CloudflareFailure."""
    name, zone_id = module.params["zone"] or "", module.params["zone_id"] or ""
    if not name and not zone_id:
        raise invalid_input("zone and zone_id are both missing: set one of them.")
    return api.open_zone(name, zone_id)


def open_zone(module: AnsibleModule) -> tuple[CloudflareApi, Zone]:
    """Return client and zone for the common arguments; raises CloudflareFailure."""
    api = open_api(module)
    return api, find_zone(module, api)
