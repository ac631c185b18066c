"""The faults by layer: how each is injected into a healthy site and reverted, and what must be diagnosed."""

import dataclasses

from tests.faults.layers import (
    api,
    edge,
    nginx,
    origin_certificate,
    origin_firewall,
    page,
    redis,
    server,
    sign_in,
    worker,
)

FAULTS = [
    dataclasses.replace(fault, layer=layer.__name__.rpartition(".")[2])
    for layer in (server, redis, worker, api, sign_in, origin_certificate, nginx, origin_firewall, edge, page)
    for fault in layer.FAULTS
]


def by_rule(rule):
    """Return the first fault that this rule has to find."""
    return next(fault for fault in FAULTS if fault.rule == rule)
