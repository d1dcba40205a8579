"""How chat.pyz unpacks a distribution, where the cache doesn't have it as it should be.

Owns how a copy is made and put in place, and the private folder. Knows nothing of the server.

1. A copy appears in the cache by one rename, so that many first starts at once never see half of one.
2. Without a cache that can be used, a private folder is made and removed again at exit. One that was left
   behind by a hard kill is removed by the next start that needs one: a lock, which the system releases, tells
   that it is free.
3. What is wrong is said in one line: a damaged archive, or no folder to write to.
"""

import atexit
import contextlib
import fcntl
import functools
import io
import os
import shutil
import signal
import stat
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from importlib.util import cache_from_source
from pathlib import Path
from typing import NoReturn
from zipimport import zipimporter

from _launch import matches

_PRIVATE = ".chat.pyz-private-"
_SETTLING = 60.0  # seconds in which a private folder may not have its lock yet
_PATIENCE = 20.0  # seconds to wait for another start that is replacing a copy


def replace(file: str, distribution: str, folder: str, sums: Mapping[str, int]) -> None:
    """Make what a distribution's folder in the cache holds the same as in the archive. Raises OSError."""
    copies = Path(folder).parent
    with _locked(copies.parent / f".{copies.name}_lock"):
        if not matches(folder, sums):
            _put_in_place(_packed(file, distribution), Path(folder))


def private(file: str, distribution: str) -> str:
    """Unpack a distribution into the private folder of this process, and say where it is."""
    packed = _packed(file, distribution)
    try:
        folder = _private_root() / distribution
        _extract(packed, folder)
    except OSError as error:
        _give_up(f"chat.pyz found no folder to unpack itself into ({error}): set TMPDIR to one")
    return str(folder)


def discard_compiled(source: str) -> None:
    """Remove what Python has made of a module."""
    Path(cache_from_source(source)).unlink(missing_ok=True)


def _packed(file: str, distribution: str) -> bytes:
    name = os.path.basename(file)
    try:
        import bz2  # noqa: PLC0415  (this Python may have been built without it)
    except ImportError:
        _give_up(f"{name} needs Python's module bz2, and this Python has none: start it with a whole Python")
    try:
        packed = zipimporter(file).get_data(f"packages/{distribution}.zip.bz2")
        return bz2.decompress(packed)
    except (OSError, ImportError, EOFError, ValueError) as error:
        _give_up(f"{name} is damaged, or was replaced at this moment ({error}): fetch or build it again")


def _give_up(why: str) -> NoReturn:
    sys.stderr.write(f"{why}\n")
    sys.exit(2)


def _extract(packed: bytes, folder: Path) -> None:
    """What ZipFile.extractall does, in a fifth of the time. The names are our own: none leads elsewhere."""
    folder.mkdir(mode=0o700)
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        for parent in {os.path.dirname(name) for name in archive.namelist()}:
            os.makedirs(f"{folder}/{parent}", exist_ok=True)
        for name in archive.namelist():
            with open(f"{folder}/{name}", "wb") as file:
                file.write(archive.read(name))


# The cache


def _put_in_place(packed: bytes, folder: Path) -> None:
    copies = folder.parent
    prefix = f".{copies.name}_"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=copies.parent, ignore_cleanup_errors=True) as work:
        fresh = Path(work, "unpacked")
        _extract(packed, fresh)
        if not copies.is_dir() or copies.is_symlink():
            if os.path.lexists(copies):
                copies.rename(Path(work, "no folder"))
            copies.mkdir(mode=0o700)
        if os.path.lexists(folder):
            folder.rename(Path(work, "replaced"))
        fresh.rename(folder)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                for number in {signal.SIGTERM, signal.SIGINT} & signal.sigpending():
                    sys.exit(128 + number)
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


# The private folder


@functools.cache
def _private_root() -> Path:
    _sweep(Path(tempfile.gettempdir()))
    root = Path(tempfile.mkdtemp(prefix=_PRIVATE))
    _remove_at_exit(root)
    # The descriptor stays open, and with it the lock, until the process ends.
    fcntl.flock(os.open(root, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_EX)
    sys.dont_write_bytecode = True
    return root


def _remove_at_exit(root: Path) -> None:
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(root, ignore_errors=True)

    atexit.register(remove)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda number, _: sys.exit(128 + number))


def _sweep(parent: Path) -> None:
    for path in parent.glob(f"{_PRIVATE}*"):
        with contextlib.suppress(OSError):
            state = path.lstat()
            old = time.time() - state.st_mtime > _SETTLING
            if stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid() and old and _unused(path):
                shutil.rmtree(path)


def _unused(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
