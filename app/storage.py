"""Bounds of what is stored: uploads are refused while there is room for the results of those accepted."""

import os
import stat
from pathlib import Path

QUEUE = "cvs"  # dramatiq's name of the queue
QUEUE_KEY = f"dramatiq:{QUEUE}"

FULL_AT = 0.8  # share of Redis's maxmemory from which uploads are refused
RESERVE = 4 << 10  # bytes of that share for the events and the result of a CV that is not processed yet
FLOOR = 256 << 20, 0.05  # bytes that stay free on the uploads' disk, or this share of a small one
# First line of the scripts that finish what was accepted: they also run when Redis refuses other writes.
ALLOW_OOM = "#!lua flags=allow-oom\n"

IS_FULL = f"""
local function is_full()
  local info = redis.pcall('INFO', 'memory')
  if type(info) ~= 'string' then return false end  -- not permitted
  local limit = tonumber(string.match(info, '\\nmaxmemory:(%d+)'))
  local needed = {RESERVE} * redis.call('HLEN', '{QUEUE_KEY}.msgs')
  return limit > 0 and tonumber(string.match(info, '\\nused_memory:(%d+)')) + needed >= {FULL_AT} * limit
end
"""
REDIS_FULL = IS_FULL + "return is_full() and 1 or 0"


def disk_is_full(folder: Path, most: int, size: int = 0) -> bool:
    """Return whether `size` more bytes would exceed `most` in `folder`, or leave too little free on its disk.

    Raises OSError.
    """
    disk = os.statvfs(folder)
    free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    if free - size < min(FLOOR[0], FLOOR[1] * total):
        return True
    used = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # processed meanwhile
            used += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return used + size > most
