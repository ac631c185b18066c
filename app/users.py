"""Who holds most, and removal of one user's data: `python -m app.users top|remove` in the api's container."""

import argparse
import json
import sys
from typing import Any

import redis

from app.batches import batch_from, batch_key, listing_key
from app.events import stream
from app.redis_password import from_url
from app.settings import WorkerSettings, load
from app.turns import TURNS_KEY, waiting_key

SHOWN = 20  # users

# KEYS: list of batches, waiting CVs, stream, turns. ARGV: user. Returns the CVs' ids by batch, space-joined.
_REMOVE = """
local cvs = {}
for _, id in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  cvs[#cvs + 1] = redis.call('HGET', 'batch:' .. id, 'cvs') or ''
  redis.call('DEL', 'batch:' .. id)
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('LREM', KEYS[4], 0, ARGV[1])
return cvs
"""


def held(client: "redis.Redis", user_id: str) -> dict[str, Any]:
    """Return the number of a user's CVs, of those not processed yet, and the latter's bytes on disk."""
    found: dict[str, Any] = {"user_id": user_id, "cvs": 0, "unfinished": 0, "unfinished_bytes": 0}
    for batch_id in client.execute_command("LRANGE", listing_key(user_id), 0, -1):
        fields = client.execute_command("HGETALL", batch_key(batch_id))
        for cv in batch_from(fields)["cvs"] if fields else ():
            found["cvs"] += 1
            if cv["progress"] < 100:
                found["unfinished"] += 1
                found["unfinished_bytes"] += cv["size"]
    return found


def remove(client: "redis.Redis", settings: WorkerSettings, user_id: str) -> int:
    """Remove a user's batches, events and uploads, and return the number of CVs.

    Jobs that are left in the queue find nothing to do; sockets stay open.
    """
    batches = client.register_script(_REMOVE)(
        keys=[listing_key(user_id), waiting_key(user_id), stream(user_id), TURNS_KEY], args=[user_id]
    )
    cvs = [cv_id for text in batches for cv_id in text.split()]
    for cv_id in cvs:
        (settings.upload_dir / cv_id).unlink(missing_ok=True)
    return len(cvs)


def main() -> None:
    """Show the users who hold most, or remove what one user holds."""
    parser = argparse.ArgumentParser(prog="python -m app.users", description=main.__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    commands.add_parser(
        "top",
        help="print, as JSON, the users who hold most, of those whose list of batches stands on the input",
    )
    removing = commands.add_parser("remove", help="remove a user's batches, events and uploads for good")
    removing.add_argument("user_id", help="the user's id: the subject (sub) of the session")
    arguments = parser.parse_args()
    settings = load(WorkerSettings)
    client = redis.Redis.from_url(
        **from_url(settings.redis_url, settings.redis_password_file), decode_responses=True, socket_timeout=10
    )
    if arguments.command == "remove":
        print(
            json.dumps({"user_id": arguments.user_id, "removed": remove(client, settings, arguments.user_id)})
        )
        return
    names = [
        line.strip().removeprefix("user:").removesuffix(":batches") for line in sys.stdin if line.strip()
    ]
    found = sorted((held(client, name) for name in names), key=lambda user: -user["cvs"])
    print("\n".join(json.dumps(user) for user in found[:SHOWN]))


if __name__ == "__main__":
    main()
