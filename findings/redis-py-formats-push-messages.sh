#!/usr/bin/env bash
# redis-py 8.1.0 with hiredis 3.5.0: under RESP3 (the default), each message of a Pub/Sub connection is formatted for a
# debug line although the logger is not enabled for DEBUG: the text is formatted before the logger's level is checked.
#
# Effect: each message is formatted once, whatever its size, which costs a client that receives thousands per second.
# `protocol=2` in the client's arguments takes a code path that does not format.
#
# Output seen on 2026-11-27 (Python 3.11):
#   logger enabled for DEBUG: False; texts formatted for 3 messages: 3
#
# Exit status: 0 while this holds, 1 if a release behaves differently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q redis==8.1.0 hiredis==3.5.0
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import logging
import sys

from redis._parsers.hiredis import _AsyncHiredisParser

logging.basicConfig(level=logging.WARNING)
made = 0


class Payload(bytes):
    def __repr__(self):
        global made
        made += 1
        return super().__repr__()


async def receive():
    parser = _AsyncHiredisParser(socket_read_size=65536)
    for _ in range(3):
        await parser.handle_pubsub_push_response([b"message", b"channel", Payload(1_000_000)])


asyncio.run(receive())
enabled = logging.getLogger("push_response").isEnabledFor(logging.DEBUG)
print(f"logger enabled for DEBUG: {enabled}; texts formatted for 3 messages: {made}")
sys.exit(0 if (enabled, made) == (False, 3) else 1)
PYTHON
