"""The archive that a build makes: nothing in it tells when, where or by which Python it was written.

    __main__.py, _launch.py, …    what Python imports out of the archive itself
    environment.json              what shiv says of the file: the entry point among it
    contents.json                 what the distributions hold, see `contents_of`
    packages/trio-0.35.0.zip.bz2  a distribution: an archive in the archive, compressed as a whole

bzip2 makes the same bytes of the same input in each of its releases since 1.0.3, of 2005. Of zlib and xz that
can't be said: zlib-ng, and releases of xz, make other ones.

A start reads the list of an archive as a whole: this one's is short, however many files are packed.
"""

import bz2
import hashlib
import io
import json
import stat
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

SHEBANG = b"#!/usr/bin/env python3\n"
ENVIRONMENT = "environment.json"
_SITE_PACKAGES = "site-packages/"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time that a zip archive can say

Files = Mapping[str, bytes]  # by name, below the folder that packages are imported from
Distributions = Mapping[str, Files]  # by name and version, as in trio-0.35.0


def write_archive(
    target: Path,
    first_code: Files,
    distributions: Distributions,
    *,
    bound_to: str | None = None,
) -> None:
    """Write `target`, to be run by what its first line names.

    `first_code` has environment.json, too. `bound_to` is the only ABI that can load what is in it. Raises
    ValueError if two distributions have a package of the same name.
    """
    contents = json.dumps(contents_of(distributions, bound_to), sort_keys=True)
    entries = {**first_code, "contents.json": contents.encode()}
    for name, files in distributions.items():
        packed = io.BytesIO()
        _write(packed, files)
        entries[f"packages/{name}.zip.bz2"] = bz2.compress(packed.getvalue())
    with target.open("wb") as file:
        file.write(SHEBANG)
        _write(file, entries)


def read_bundle(archive: Path) -> tuple[bytes, dict[str, bytes]]:
    """What shiv's archive holds: its notes, in one order, and the files of the packages."""
    files = _read(archive)
    notes = json.dumps(json.loads(files[ENVIRONMENT]), sort_keys=True, indent=1).encode()
    return notes, {
        name.removeprefix(_SITE_PACKAGES): content
        for name, content in files.items()
        if name.startswith(_SITE_PACKAGES)
    }


def read_archive(archive: Path) -> tuple[dict[str, bytes], dict[str, dict[str, bytes]]]:
    """What `write_archive` was given: the first code, and the distributions."""
    first_code, distributions = _read(archive), {}
    del first_code["contents.json"]
    for entry in [name for name in first_code if name.startswith("packages/")]:
        name = entry.removeprefix("packages/").removesuffix(".zip.bz2")
        distributions[name] = _read(io.BytesIO(bz2.decompress(first_code.pop(entry))))
    return first_code, distributions


def contents_of(distributions: Distributions, bound_to: str | None) -> dict[str, object]:
    """What a start has to know of the distributions without unpacking one.

    `build` differs when anything in them does; `packages` says which distribution has the package (or module)
    of a name; `files` has the CRC-32 of each file of a distribution.
    """
    digest = hashlib.sha256()
    owners: dict[str, str] = {}
    for distribution, files in sorted(distributions.items()):
        for name, content in sorted(files.items()):
            digest.update(f"{distribution}/{name} {len(content)}\n".encode() + content)
        for package in _packages(files):
            if owners.setdefault(package, distribution) != distribution:
                raise ValueError(f"{package} is in {owners[package]} and in {distribution}")
    sums = {
        distribution: {name: zlib.crc32(content) for name, content in files.items()}
        for distribution, files in distributions.items()
    }
    return {"build": digest.hexdigest(), "bound_to": bound_to, "packages": owners, "files": sums}


def _packages(files: Iterable[str]) -> set[str]:
    tops = {name.partition("/")[0] for name in files}
    return {top.partition(".")[0] for top in tops if not top.endswith(".dist-info")}


def _write(target: BinaryIO, files: Files) -> None:
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in sorted(files.items()):
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system = 3
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)


def _read(source: Path | BinaryIO) -> dict[str, bytes]:
    with zipfile.ZipFile(source) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
