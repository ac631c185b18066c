"""Serve the api of the working directory, and record the longest steps of its event loop.

Writes a line each half second: the Unix time, and the longest step's wall time and processor time in seconds.
Run as a program; the first argument is the file to write, the others are the api's own.
"""

import asyncio
import sys
import threading
import time
from pathlib import Path

INTERVAL = 0.002  # seconds between two checks
PERIOD = 0.5  # seconds that a line covers


class Watch:
    """The longest step of the running loop since the last line."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + INTERVAL
        self._cpu = time.thread_time()
        self._longest = (0.0, 0.0)
        self._loop.call_at(self._due, self._check)

    def _check(self) -> None:
        cpu = time.thread_time()
        late = self._loop.time() - self._due
        self._longest = (max(self._longest[0], late), max(self._longest[1], cpu - self._cpu))
        self._cpu = cpu
        self._due = self._loop.time() + INTERVAL
        self._loop.call_at(self._due, self._check)

    def write(self, file: Path) -> None:
        """Append a line for each period, until the process ends."""
        while True:
            time.sleep(PERIOD)
            (late, cpu), self._longest = self._longest, (0.0, 0.0)
            with file.open("a") as lines:
                lines.write(f"{time.time():.3f} {late:.4f} {cpu:.4f}\n")


def main() -> None:
    """Entry point."""
    file = Path(sys.argv.pop(1))
    sys.path[0] = str(Path.cwd())
    # The image of a revision that does not require hiredis does not have it.
    if "hiredis" not in Path("app/requirements.in").read_text().split():
        sys.modules["hiredis"] = None  # type: ignore[assignment]
    import uvicorn

    startup = uvicorn.Server.startup

    async def watched(*arguments: object, **named: object) -> None:
        await startup(*arguments, **named)  # type: ignore[arg-type]
        threading.Thread(target=Watch().write, args=(file,), daemon=True).start()

    uvicorn.Server.startup = watched  # type: ignore[method-assign]
    from app.main import main as serve

    serve()


if __name__ == "__main__":
    main()
