"""Ansible lookup: the networks of Cloudflare's edge, with a copy for when its API can't be reached."""

from __future__ import annotations

DOCUMENTATION = r"""
name: cloudflare_ip_ranges
short_description: List the networks of Cloudflare's edge
description:
  - Returns the networks that Cloudflare's API publishes, IPv4 before IPv6. No token is needed, and none is
    sent.
  - The response is kept in O(cache_file) on the control node. A copy younger than O(max_age) is used
    without a request, so a variable with this lookup may be evaluated many times in a run.
  - Without a usable response the copy is used with a warning, whatever its age, and the next request is
    sent after a minute.
  - A response that would lock Cloudflare out (no IPv4 network) or admit anyone (a network wider than /8,
    or /16 for IPv6, or one that is not public) fails the lookup, and the copy is kept.
  - So does a response without more than a fifth of the copy's networks or of their addresses, IPv4 and IPv6
    each on its own, since these would be locked out. Cloudflare announces such a change.
options:
  cache_file:
    description:
      - File on the control node for the last valid response; its folder must exist.
      - It is written only when the list changes, so it can be under version control; its modification time
        is the time of the last request.
    type: path
    required: true
  api_base_url:
    description: Address of the API, for an emulated Cloudflare.
    type: str
    default: https://api.cloudflare.com/client/v4
  max_age:
    description: Seconds for which a copy is used without a request. V(0) sends a request each time.
    type: int
    default: 3600
  private:
    description:
      - Whether the edge may connect from networks that are not public, as an emulated Cloudflare does. See
        P(screen_flow.live.public_network#test).
    type: bool
    default: false
  accept:
    description: Whether a response that lacks more than a fifth of the copy replaces it.
    type: bool
    default: false
requirements:
  - cloudflare 5.9.0, on the control node; without it, only a copy younger than O(max_age) is used silently
author:
  - screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Show the networks
  ansible.builtin.debug:
    msg: "{{ lookup('screen_flow.live.cloudflare_ip_ranges', cache_file='/var/cache/edge-ranges.json') }}"
"""

RETURN = r"""
_raw:
  description: Networks in CIDR notation, IPv4 before IPv6.
  type: list
  elements: str
  sample: [173.245.48.0/20, 2400:cb00::/32]
"""

import ipaddress
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display

from ..test.public_network import Network, special

# The shortest prefix that can be a single company's. Cloudflare's own are /12 and /29 at the widest.
SHORTEST_PREFIX = {4: 8, 6: 16}
RETRIES = 1
TIMEOUT_SECONDS = 10.0
# After a failure the copy counts as fresh for this long: a run must not wait for a dead API at every use.
PAUSE_SECONDS = 60
# More than this share of the networks or of their addresses is never withdrawn at once.
MAY_BE_MISSING = 0.2


class NoResponseError(Exception):
    """The API returned no list; the text gives the cause and the remedy."""


def validate(result: Any, private: bool = False) -> dict[str, Any]:
    """Return etag, day, ipv4_cidrs and ipv6_cidrs of a response's `result`, networks in order of address.

    The day is the one on which the list was first seen, which only a copy holds. `private` allows networks
    that are not public. Raises ValueError, with the cause, for a list that must not be used.
    """
    if not isinstance(result, dict):
        raise ValueError("it is not an object")
    valid: dict[str, Any] = {"day": result.get("day"), "etag": str(result.get("etag", ""))}
    for version in (4, 6):
        cidrs = result.get(f"ipv{version}_cidrs") or []
        if not isinstance(cidrs, list):
            raise ValueError(f"ipv{version}_cidrs is '{cidrs}', which is not a list")
        networks = []
        for cidr in cidrs:
            network = ipaddress.ip_network(cidr)
            if network.version != version:
                raise ValueError(f"ipv{version}_cidrs contains {cidr}")
            if network.prefixlen < SHORTEST_PREFIX[version]:
                raise ValueError(f"{cidr} is wider than /{SHORTEST_PREFIX[version]}, too wide for Cloudflare")
            if not private and (overlapped := special(network)):
                raise ValueError(f"{cidr} is not public: it overlaps {overlapped}")
            networks.append(network)
        valid[f"ipv{version}_cidrs"] = [str(network) for network in sorted(networks)]
    if not valid["ipv4_cidrs"]:
        raise ValueError("it contains no IPv4 network, which would lock Cloudflare out")
    return valid


def fetch(api_base_url: str) -> Any:
    """Return the `result` of GET /ips; raises NoResponseError."""
    # Imported here: it takes some 0.4 s, and most uses find a fresh copy.
    from ..module_utils.cloudflare.client import SDK_IMPORT_ERROR, Call, CloudflareApi, CloudflareFailure

    if SDK_IMPORT_ERROR:
        raise NoResponseError(
            f"The Python package cloudflare is missing in {sys.executable}, which runs Ansible: run "
            "`scripts/setup python` and use its environment."
        )
    try:
        api = CloudflareApi(None, api_base_url, timeout=TIMEOUT_SECONDS)
        return api.call(Call("get", "/ips", "list the networks of the edge", "", retries=RETRIES))
    except CloudflareFailure as failure:
        raise NoResponseError(str(failure)) from failure


def check_missing(before: Sequence[str], after: Sequence[str]) -> None:
    """Raise ValueError, naming the networks, where more than MAY_BE_MISSING of `before` is not in `after`.

    IPv4 and IPv6 are judged separately. A network within a wider one is not missing.
    """
    for version in (4, 6):
        old, new = (
            [network for network in map(ipaddress.ip_network, cidrs) if network.version == version]
            for cidrs in (before, after)
        )
        missing = [network for network in old if not any(network.subnet_of(wider) for wider in new)]  # type: ignore[arg-type]
        total = addresses(old)
        gone = total - sum(addresses(part) for part in (common(network, new) for network in old))
        if len(missing) > MAY_BE_MISSING * len(old) or gone > MAY_BE_MISSING * total:
            names = ", ".join(map(str, missing))
            raise ValueError(f"{len(missing)} of {len(old)} IPv{version} networks ({names})")


def addresses(networks: Sequence[Network]) -> int:
    """Return the number of addresses in networks that do not overlap."""
    return sum(network.num_addresses for network in networks)


def common(network: Network, others: Sequence[Network]) -> list[Network]:
    """Return the parts of `network` that `others` contain."""
    inside = [other if other.subnet_of(network) else network for other in others if other.overlaps(network)]  # type: ignore[arg-type]
    return list(ipaddress.collapse_addresses(inside))  # type: ignore[type-var]


def read(path: Path, private: bool) -> tuple[dict[str, Any] | None, float]:
    """Return the copy and its age in seconds; None without a usable one."""
    try:
        return validate(json.loads(path.read_text()), private), time.time() - path.stat().st_mtime
    except (OSError, ValueError):
        # Missing, truncated or edited into nonsense: a request replaces it.
        return None, 0


def write(path: Path, ranges: dict[str, Any]) -> None:
    """Replace the copy atomically, since other processes of the run read it. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(json.dumps(ranges, indent=2) + "\n")
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def as_list(ranges: dict[str, Any]) -> list[str]:
    """Return the networks as one list, IPv4 before IPv6."""
    return [*ranges["ipv4_cidrs"], *ranges["ipv6_cidrs"]]


def edge_networks(
    api_base_url: str,
    path: Path,
    max_age: float,
    warn: Callable[[str], None] = lambda message: None,
    private: bool = False,
    accept: bool = False,
) -> list[str]:
    """Return the networks, from the copy at `path` while it is younger than `max_age` seconds.

    Calls `warn` with a sentence when an old copy is used. `private` allows networks that are not public,
    `accept` a response that lacks a large part of the copy. Raises ValueError with a sentence when there is
    neither a response nor a copy or when the response must not be used, and OSError when the copy can't be
    written.
    """
    copy, age = read(path, private)
    if copy and 0 <= age < max_age:
        return as_list(copy)
    try:
        result = fetch(api_base_url)
    except NoResponseError as error:
        if copy is None:
            raise ValueError(
                f"Cloudflare's networks are unknown, because {path} holds no valid copy of them. {error}"
            ) from error
        warn(f"Cloudflare's networks are taken from {path}, unchanged since {copy['day']}. {error}")
        retry = time.time() - max_age + PAUSE_SECONDS
        if max_age > PAUSE_SECONDS:
            os.utime(path, (retry, retry))
        return as_list(copy)
    try:
        ranges = validate(result, private)
    except ValueError as error:
        raise ValueError(
            f"The list from {api_base_url}/ips must not be used: {error}. Correct api_base_url, or find out "
            f"what changes responses on the way; {path} was left as it is."
        ) from error
    if copy and not accept:
        try:
            check_missing(as_list(copy), as_list(ranges))
        except ValueError as error:
            raise ValueError(
                f"The list from {api_base_url}/ips is missing more than a fifth of the one in {path}, "
                f"which is kept: {error}. Compare it with https://www.cloudflare.com/ips/; if Cloudflare "
                "withdrew these networks, accept the list once with -e site_edge_ranges_accept=true (option "
                "accept of this lookup)."
            ) from None
    if copy is None or ranges["etag"] != copy["etag"] or as_list(ranges) != as_list(copy):
        write(path, ranges | {"day": time.strftime("%F")})
    else:
        os.utime(path)
    return as_list(ranges)


class LookupModule(LookupBase):  # type: ignore[misc]
    """Ansible's entry point."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        """Return the networks; raises AnsibleLookupError with a sentence."""
        self.set_options(var_options=variables, direct=kwargs)
        path = Path(self.get_option("cache_file"))
        url, max_age = self.get_option("api_base_url"), self.get_option("max_age")
        switches = {name: self.get_option(name) for name in ("private", "accept")}
        try:
            return [edge_networks(url, path, max_age, Display().warning, **switches)]
        except ValueError as error:
            raise AnsibleLookupError(str(error)) from None
        except OSError as error:
            raise AnsibleLookupError(
                f"cache_file is '{path}', which can't be written ({error.strerror}): use a file in a folder "
                "that exists."
            ) from error
