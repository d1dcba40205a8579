"""Where chat.pyz unpacks itself, before shiv's own bootstrap takes over.

Owns the folder that the packages are imported from. Knows nothing of the server.

1. The cache (`SHIV_ROOT`, else `~/.shiv`) is used only if it is this user's own and no other may write there:
   a user who can write there decides what code runs here.
2. What lies in the cache is compared with the archive at every start, and replaced as a whole if it differs:
   a start that was killed half-way, a full disk or a cleaner of old files can't break the next one. Compiled
   files can't be compared; a damaged one is made again when it is imported.
3. A copy appears in the cache by one rename, so that many first starts at once never see half of one.
4. Without such a cache a private folder is made and removed again at exit. One that was left behind by a hard
   kill is removed by the next start that needs one: a lock, which the system releases, tells that it is free.
"""

import atexit
import contextlib
import fcntl
import json
import os
import shutil
import signal
import stat
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from importlib.abc import PathEntryFinder
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)
from importlib.util import cache_from_source
from pathlib import Path
from types import CodeType

import _bootstrap

_PACKAGES = "site-packages/"
_BOUND = "bound_to"
_UNPACKED = "unpacked"
_PRIVATE = ".chat.pyz-private-"
_SETTLING = 60.0  # seconds in which a private folder may not have its lock yet
_PATIENCE = 20.0  # seconds to wait for another start that is replacing the copy


def launch(file: str) -> None:
    """Unpack, and hand over to shiv's bootstrap, which imports the entry point and calls it."""
    with zipfile.ZipFile(file) as archive:
        _check_bound(archive, Path(file).name)
        folder = _unpacked(archive, Path(file).resolve().name)
    sys.path_hooks.insert(0, _importer_of(folder))
    _bootstrap.cache_path = lambda *_: folder
    _bootstrap.bootstrap()


def _check_bound(archive: zipfile.ZipFile, name: str) -> None:
    """A file with compiled parts says which interpreters can load them; another one gets one line."""
    if _BOUND not in archive.namelist():
        return
    import sysconfig  # noqa: PLC0415  (only such a file needs it)

    wanted, found = archive.read(_BOUND).decode(), sysconfig.get_config_var("SOABI")
    if found != wanted:
        sys.stderr.write(
            f"{name} was made for {wanted}, and this Python is {found}: start it with that one, or make it "
            "again with this one by ./build.sh --with-cryptography\n"
        )
        sys.exit(2)


class _Mending(SourceFileLoader):
    """Imports from source if the compiled file beside it is damaged, and writes that again."""

    def get_code(self, fullname: str) -> CodeType | None:
        try:
            return super().get_code(fullname)
        except (EOFError, ValueError, TypeError, ImportError):
            Path(cache_from_source(self.path)).unlink(missing_ok=True)
            return super().get_code(fullname)


def _importer_of(folder: Path) -> Callable[[str], PathEntryFinder]:
    make = FileFinder.path_hook((ExtensionFileLoader, EXTENSION_SUFFIXES), (_Mending, SOURCE_SUFFIXES))

    def find(path: str) -> PathEntryFinder:
        if not path.startswith(f"{folder}/"):
            raise ImportError("not ours")
        return make(path)

    return find


def _unpacked(archive: zipfile.ZipFile, name: str) -> Path:
    build = json.loads(archive.read("environment.json"))["build_id"]
    try:
        return _cached(archive, _own_root(), f"{name}_{build}")
    except (OSError, RuntimeError):  # RuntimeError: there is no home to be found
        pass
    try:
        return _private(archive)
    except OSError as error:
        sys.stderr.write(f"chat.pyz found no folder to unpack itself into ({error}): set TMPDIR to one\n")
        sys.exit(2)


# The cache


def _own_root() -> Path:
    chosen = os.environ.get("SHIV_ROOT")
    root = Path(chosen or "~/.shiv").expanduser().absolute()
    root.mkdir(
        mode=0o700, parents=bool(chosen), exist_ok=True
    )  # a home that doesn't exist is not ours to make
    state = root.stat()
    if state.st_uid != os.geteuid() or state.st_mode & 0o022:
        raise PermissionError(f"{root} is not only ours")
    return root


def _cached(archive: zipfile.ZipFile, root: Path, name: str) -> Path:
    folder = root / name
    if _matches(archive, folder):
        return folder
    with _locked(root / f".{name}_lock"):
        if not _matches(archive, folder):
            _replace(archive, folder)
    return folder


def _matches(archive: zipfile.ZipFile, folder: Path) -> bool:
    try:
        return all(_checksum(folder, entry.filename) == entry.CRC for entry in _entries(archive))
    except OSError:
        return False


def _checksum(folder: Path, name: str) -> int:
    with open(f"{folder}/{name}", "rb", buffering=0) as file:
        return zlib.crc32(file.read())


def _replace(archive: zipfile.ZipFile, folder: Path) -> None:
    name = f".{folder.name}_"
    with tempfile.TemporaryDirectory(prefix=name, dir=folder.parent, ignore_cleanup_errors=True) as work:
        fresh = Path(work, _UNPACKED)
        _extract(archive, fresh)
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


def _entries(archive: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
    return (entry for entry in archive.infolist() if entry.filename.startswith(_PACKAGES))


def _extract(archive: zipfile.ZipFile, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    for entry in _entries(archive):
        archive.extract(entry, folder)


# The private folder


def _private(archive: zipfile.ZipFile) -> Path:
    _sweep(Path(tempfile.gettempdir()))
    root = Path(tempfile.mkdtemp(prefix=_PRIVATE))
    _remove_at_exit(root)
    # The descriptor stays open, and with it the lock, until the process ends.
    fcntl.flock(os.open(root, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_EX)
    _extract(archive, root / _UNPACKED)
    sys.dont_write_bytecode = True
    return root / _UNPACKED


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
