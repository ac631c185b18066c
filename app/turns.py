"""Turns: users take turns, so that one who uploads much does not delay others.

The queue has one message for each CV and says how much work there is, not whose. A worker that takes one asks
here for the next CV of the user whose turn it is. A message that returns to the queue, because its worker was
killed, goes on with the CV that it was given first.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import redis

from app.storage import ALLOW_OOM, QUEUE_KEY

ACTOR = "process_cv"
TURNS_KEY = f"{QUEUE_KEY}.turns"  # list of the users who have waiting CVs, the next first
TAKEN_KEY = f"{QUEUE_KEY}.taken"  # hash: the CV in a message, and the CV that is processed for it
BUSY = "busy"

# KEYS: turns, taken, batch of the message's own CV. ARGV: that CV's id, then the users who must wait.
# Returns user, batch, CV and kind joined by spaces, or 'own' for the message's own CV, 'busy' when all that
# wait are theirs, '' when none waits.
_TAKE = (
    ALLOW_OOM
    + f"""
local taken = redis.call('HGET', KEYS[2], ARGV[1])
if taken then return taken end
-- Without this field it was stored before there were turns.
if redis.call('EXISTS', KEYS[3]) == 1 and redis.call('HEXISTS', KEYS[3], 'cpu') == 0 then return 'own' end
local must_wait, passed = {{}}, false
for i = 2, #ARGV do must_wait[ARGV[i]] = true end
for _, user in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  local waiting = 'user:' .. user .. ':waiting'
  passed = passed or must_wait[user]
  while not must_wait[user] do
    local entry = redis.call('LPOP', waiting)
    if not entry then
      redis.call('LREM', KEYS[1], 1, user)
      break
    end
    local batch, id = string.match(entry, '^(%S+) (%S+)')
    local cv = redis.call('HGET', 'batch:' .. batch, 'cv:' .. id)
    -- A worker that knows no turns may have processed it.
    if not cv or cjson.decode(cv).progress < 100 then
      redis.call('LREM', KEYS[1], 1, user)
      if redis.call('LRANGE', waiting, 0, 0)[1] then redis.call('RPUSH', KEYS[1], user) end
      redis.call('HSET', KEYS[2], ARGV[1], user .. ' ' .. entry)
      return user .. ' ' .. entry
    end
  end
end
return passed and '{BUSY}' or ''
"""
)


class Job(NamedTuple):
    """A CV to process."""

    user_id: str
    batch_id: str
    cv_id: str
    kind: str


class Busy(Exception):
    """The CVs that wait are all of users who already have their share of this process."""


def waiting_key(user_id: str) -> str:
    """Return the key of the list of a user's CVs that no worker has taken yet."""
    return f"user:{user_id}:waiting"


class Turns:
    """Hands out CVs to the threads of one process, of which no user gets more than `share`."""

    def __init__(self, client: "redis.Redis") -> None:
        self.share = 1
        self._client = client
        self._script = client.register_script(_TAKE)
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()

    @contextmanager
    def take(self, own: Job) -> Iterator[Job | None]:
        """Yield the CV whose turn it is, for the message of `own`; None when no CV waits.

        After an error, the same message yields the same CV. Raises RedisError, and Busy when it has to wait.
        """
        with self._lock:
            at_share = [user for user, count in self._running.items() if count >= self.share]
            reply = self._script(
                keys=[TURNS_KEY, TAKEN_KEY, f"batch:{own.batch_id}"], args=[own.cv_id, *at_share]
            )
            text = reply.decode() if isinstance(reply, bytes) else reply
            if text == BUSY:
                raise Busy
            job = own if text == "own" else Job(*text.split(" ")) if text else None
            if job:
                self._running[job.user_id] += 1
        try:
            yield job
            self._client.execute_command("HDEL", TAKEN_KEY, own.cv_id)
        finally:
            if job:
                with self._lock:
                    self._running[job.user_id] -= 1
                    self._running += Counter()  # drops the users at zero
