"""The faults by layer: how each is made on a healthy site, how it is healed, and what diagnosis must find."""

import dataclasses
import re

from tests.faults.layers import (
    api,
    edge,
    nginx,
    origin_certificate,
    origin_firewall,
    page,
    redis,
    server,
    worker,
)

FAULTS = [
    dataclasses.replace(fault, layer=layer.__name__.rpartition(".")[2])
    for layer in (server, redis, worker, api, origin_certificate, nginx, origin_firewall, edge, page)
    for fault in layer.FAULTS
]


def by_name(name):
    """Return a fault by its name."""
    return next(fault for fault in FAULTS if fault.name == name)


def identifier(fault):
    """Return a fault's name for pytest."""
    return re.sub(r"\W+", "-", fault.name)
