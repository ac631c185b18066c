"""The rules of all layers. Importing a layer's module registers its rules."""

from __future__ import annotations

from ..engine import LAYERS, REGISTERED, Rule
from . import api, edge, nginx, origin_certificate, origin_firewall, page, redis, server, worker

__all__ = [
    "RULES",
    "api",
    "edge",
    "nginx",
    "origin_certificate",
    "origin_firewall",
    "page",
    "redis",
    "server",
    "worker",
]

# In the order of LAYERS; within a layer, of its file.
RULES: list[Rule] = sorted(REGISTERED, key=lambda rule: LAYERS.index(rule.layer))
