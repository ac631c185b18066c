#!/usr/bin/env bash
# redis-py 8.1.0 with hiredis 3.5.0: each message of a Pub/Sub connection under RESP3 (the default) is turned into text
# for a debug line, although the logger is not enabled for DEBUG: the text is made before logging is asked.
#
# Behaviour: for a message of 1 MB the text is made once for each message. Who receives thousands a second pays for it;
# `protocol=2` in the client's arguments takes another path without it.
#
# Output seen on 2026-11-27 (Python 3.11):
#   logger enabled for DEBUG: False; texts made for 3 messages: 3
#
# Exit status 0 while that holds, 1 when a release behaves otherwise.
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
print(f"logger enabled for DEBUG: {enabled}; texts made for 3 messages: {made}")
sys.exit(0 if (enabled, made) == (False, 3) else 1)
PYTHON
