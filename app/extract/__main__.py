"""Print the text of a CV: see the package."""

import io
import os
import resource
import sys
import unicodedata
from importlib import import_module
from pathlib import Path

# An isolated Python has only this directory in its path.
sys.path[0] = str(Path(__file__).parents[2])

from app.extract import REFUSED, TEXT_LIMIT, TOO_MUCH, Refused  # noqa: E402

CPU_SECONDS = 10
MEMORY_BYTES = 1 << 30
# Ligatures, spaces of other widths and zero-width characters, replaced by what a reader sees.
_PLAIN = {
    **{code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB00, 0xFB07)},
    **dict.fromkeys([0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " "),
    **dict.fromkeys([0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF], ""),
}


def extract(kind: str, path: Path) -> str:
    """Return the text of a CV, at most TEXT_LIMIT characters. Raises Refused."""
    found = io.StringIO()
    for piece in import_module(f"app.extract.{kind}").read(path):
        found.write(piece[: TEXT_LIMIT - found.tell()] + "\n")
        if found.tell() >= TEXT_LIMIT:
            break
    if not found.getvalue().strip():
        raise Refused(
            "The file contains no text; it may be a scan. Upload a version whose text can be selected."
        )
    return unicodedata.normalize("NFC", found.getvalue().translate(_PLAIN))


def main() -> None:
    """Print the text of a CV."""
    os.nice(10)  # after the sockets, also where the container has no bound
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kind, path = sys.argv[1:]
    try:
        output = extract(kind, Path(path))
    except Refused as refused:
        output = str(refused)
    except MemoryError:
        output = TOO_MUCH
    else:
        sys.stdout.buffer.write(output.encode("utf-8", "replace"))
        return
    sys.stdout.buffer.write(output.encode())
    sys.exit(REFUSED)


if __name__ == "__main__":
    main()
