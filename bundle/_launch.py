"""Where chat.pyz imports its packages from: copies in a cache, each looked at before it is used.

Owns the cache, and the import of what lies there. Knows nothing of the server.

1. The cache (`SHIV_ROOT`, else `~/.shiv`) is used only if it is this user's own and no other may write there:
   a user who can write there decides what code runs here.
2. A distribution is unpacked when a package of it is first imported: what isn't needed costs a start nothing.
3. What lies in the cache is compared with the archive by every start that imports it, and replaced as a whole
   if it differs: a start that was killed half-way, a full disk or a cleaner of old files can't break the next
   one. Compiled files can't be compared; a damaged one is made again when it is imported.
4. shiv's own bootstrap unpacks everything at once, and imports a dozen modules for it: an eighth of
   `--version`. So its place is taken here.
5. Python compiles this module at every start. So what only some starts need is in `_unpack`, and the slow
   modules of the standard library stay out.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import zlib
from importlib import import_module
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    PathFinder,
    SourceFileLoader,
)
from zipimport import zipimporter

_NEW_OBJECTS = (
    10_000  # between two runs of the collector: what imports make stays, and is hardly worth a look
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from importlib.metadata import Distribution, DistributionFinder
    from types import CodeType
    from typing import Any


def launch(file: str) -> None:
    """Import the entry point that was given to shiv, and call it."""
    gc.set_threshold(_NEW_OBJECTS)
    find_packages(file)
    environment = json.loads(zipimporter(file).get_data("environment.json"))
    module, _, name = environment["entry_point"].partition(":")
    sys.exit(getattr(import_module(module), name)())


def find_packages(file: str) -> None:
    """Have Python import what the file holds. Ends the process if this Python can't load it."""
    contents = json.loads(zipimporter(file).get_data("contents.json"))
    _check_bound(contents["bound_to"], os.path.basename(file))
    packages = Packages(os.path.realpath(file), contents)
    sys.meta_path.insert(0, packages)
    sys.path_hooks.insert(0, packages.path_entry_finder)


def _check_bound(wanted: str | None, name: str) -> None:
    """A file with compiled parts says which interpreters can load them; another one gets one line."""
    if wanted is None:
        return
    import sysconfig  # noqa: PLC0415  (only such a file needs it)

    found = sysconfig.get_config_var("SOABI")
    if found != wanted:
        sys.stderr.write(
            f"{name} was made for {wanted}, and this Python is {found}: start it with that one, or make it "
            "again with this one by ./build.sh --with-cryptography\n"
        )
        sys.exit(2)


class Packages:
    """Finds the packages of the archive, and what their distributions say of themselves."""

    def __init__(self, file: str, contents: Mapping[str, Any]) -> None:
        self._file = file
        self._contents = contents
        self._folders: dict[str, str] = {}  # of the distributions that were asked for

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        """Where a package of the archive lies by now. Modules in it are found by its own path."""
        distribution = self._contents["packages"].get(name)
        if distribution is None:
            return None
        return PathFinder.find_spec(name, [self._folder(distribution)], target)

    def find_distributions(self, context: DistributionFinder.Context) -> Iterable[Distribution]:
        """What importlib.metadata asks for: of that which is imported already."""
        return PathFinder.find_distributions(
            type(context)(name=context.name, path=list(self._folders.values()))
        )

    def path_entry_finder(self, path: str) -> FileFinder:
        """Import from a folder of ours. Raises ImportError for another folder."""
        if not path.startswith(tuple(self._folders.values())):
            raise ImportError("not ours")
        return FileFinder(path, (ExtensionFileLoader, EXTENSION_SUFFIXES), (_Mending, SOURCE_SUFFIXES))

    def _folder(self, distribution: str) -> str:
        if distribution not in self._folders:
            self._folders[distribution] = self._looked_at(distribution)
        return self._folders[distribution]

    def _looked_at(self, distribution: str) -> str:
        sums = self._contents["files"][distribution]
        try:
            copies = f"{os.path.basename(self._file)}_{self._contents['build']}"
            folder = f"{own_root()}/{copies}/{distribution}"
            if not matches(folder, sums):
                import _unpack  # noqa: PLC0415  (rule 5)

                _unpack.replace(self._file, distribution, folder, sums)
        except OSError:
            import _unpack  # noqa: PLC0415

            return _unpack.private(self._file, distribution)
        return folder


class _Mending(SourceFileLoader):
    """Imports from source if the compiled file beside it is damaged, and writes that again."""

    def get_code(self, fullname: str) -> CodeType | None:
        try:
            return super().get_code(fullname)
        except (EOFError, ValueError, TypeError, ImportError):
            import _unpack  # noqa: PLC0415  (rule 5)

            _unpack.discard_compiled(self.path)
            return super().get_code(fullname)


def own_root() -> str:
    """The folder of the cache, which is made if it isn't there. Raises OSError if it can't be used."""
    chosen = os.environ.get("SHIV_ROOT")
    root = os.path.expanduser(chosen or "~/.shiv")
    if root.startswith("~"):
        raise FileNotFoundError("there is no home to be found")
    root = os.path.abspath(root)
    try:  # noqa: SIM105  (rule 5: contextlib is a slow one)
        (os.makedirs if chosen else os.mkdir)(root, 0o700)  # a home that isn't there is not ours to make
    except FileExistsError:
        pass
    state = os.stat(root)
    if state.st_uid != os.geteuid() or state.st_mode & 0o022:
        raise PermissionError(f"{root} is not only ours")
    return root


def matches(folder: str, sums: Mapping[str, int]) -> bool:
    """Whether the files of a distribution are there, and none of them differs."""
    try:
        for name, wanted in sums.items():
            with open(f"{folder}/{name}", "rb", buffering=0) as file:
                if zlib.crc32(file.read()) != wanted:
                    return False
    except OSError:
        return False
    return True
