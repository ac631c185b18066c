"""One CV's process: after `confine` it can read the file that it was given, compute, and write to its output.

The system calls that remain allow no other file, socket, process or signal. So a parser that was taken over
can lie about its own CV and do nothing else; it can't even reach the other processes of its container.
"""

import ctypes
import errno
import io
import os
import pkgutil
import resource
import signal
import unicodedata
from importlib import import_module
from typing import BinaryIO

from app.extract import KINDS, REFUSED, TEXT_LIMIT, TOO_MUCH, Refused

CPU_SECONDS = 10
MEMORY_BYTES = 1 << 30
ALLOWED = (
    *("read", "readv", "pread64", "write", "writev", "lseek", "close", "fstat", "newfstatat", "dup"),
    *("mmap", "munmap", "mremap", "mprotect", "madvise", "brk", "futex", "membarrier", "sched_yield"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall"),
    *("clock_gettime", "gettimeofday", "time", "getrandom", "getrusage", "getpid", "gettid"),
    *("exit", "exit_group"),
)
FAILED = 1  # exit status
_ERRNO = 0x00050000 | errno.EPERM  # SCMP_ACT_ERRNO, and SCMP_ACT_ALLOW, of seccomp.h
_ALLOW = 0x7FFF0000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4  # of sys/prctl.h
# Ligatures, spaces of other widths and zero-width characters, replaced by what a reader sees.
_PLAIN = {
    **{code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB00, 0xFB07)},
    **dict.fromkeys([0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " "),
    **dict.fromkeys([0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF], ""),
}


class CannotConfine(Exception):
    """The kernel or the library refuses the confinement; the text says which."""


def preload() -> None:
    """Import all that reading a CV may need, because nothing can be imported later."""
    for kind in KINDS:
        import_module(f"app.extract.{kind}")
    for package in ("encodings", "pypdf", "chardet"):
        for found in pkgutil.walk_packages(import_module(package).__path__, f"{package}."):
            try:
                import_module(found.name)
            except ImportError:
                continue  # for another system, or with an optional dependency
    # Loads the models of its encodings.
    for _ in import_module("app.extract.text").read(io.BytesIO("Zürich, Genève".encode("cp1252"))):
        pass


def protect() -> None:
    """End with the parent, and let no process of the same user trace this one. Raises CannotConfine."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) or libc.prctl(_PR_SET_DUMPABLE, 0):
        raise CannotConfine(f"prctl failed: {os.strerror(ctypes.get_errno())}")


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise CannotConfine(f"{error}; install the package libseccomp2") from None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
    ]
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    return library


def confine() -> None:
    """Limit this process to reading, computing and writing, for good. Raises CannotConfine."""
    library = _library()
    os.nice(10)  # after the sockets, also where the container has no bound
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    protect()
    rules = library.seccomp_init(_ERRNO)
    for name in ALLOWED:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if library.seccomp_rule_add_array(rules, _ALLOW, number, 0, None):
            raise CannotConfine(f"libseccomp refuses a rule for {name}")
    if failed := library.seccomp_load(rules):
        raise CannotConfine(f"the kernel refuses the system call filter: {os.strerror(-failed)}")


def extract(kind: str, file: BinaryIO) -> str:
    """Return the text of a CV, at most TEXT_LIMIT characters. Raises Refused."""
    found = io.StringIO()
    for piece in import_module(f"app.extract.{kind}").read(file):
        found.write(piece[: TEXT_LIMIT - found.tell()] + "\n")
        if found.tell() >= TEXT_LIMIT:
            break
    if not found.getvalue().strip():
        raise Refused(
            "The file contains no text; it may be a scan. Upload a version whose text can be selected."
        )
    return unicodedata.normalize("NFC", found.getvalue().translate(_PLAIN))


def run(kind: str) -> int:
    """Confine this process, read the CV on its standard input, and write its text to its standard output.

    Returns the exit status, 0 for a text. Otherwise the output is a message for the user, with REFUSED, and
    after a line break the reason. Raises CannotConfine.
    """
    confine()
    try:
        output, status = extract(kind, open(0, "rb", closefd=False)), 0  # noqa: SIM115
    except Refused as refused:
        cause = refused.__cause__
        output, status = f"{refused}\n{type(cause).__name__}: {cause}" if cause else str(refused), REFUSED
    except MemoryError:
        output, status = TOO_MUCH, REFUSED
    except Exception as error:
        output, status = f"\n{type(error).__name__}: {error}", FAILED
    with open(1, "wb", closefd=False) as target:
        target.write(output.encode("utf-8", "replace"))
    return status
