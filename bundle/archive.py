"""The archive that a build makes: nothing in it tells when, where or by which Python it was written.

    __main__.py, _launch.py, …   what Python imports out of the archive itself
    contents.json                what the distributions hold, see `contents_of`
    packages/trio-0.35.0.zip.gz  a distribution: an archive in the archive, compressed as a whole

A start reads the list of an archive as a whole: this one's is short, however many files are packed.
"""

import gzip
import hashlib
import io
import json
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

SHEBANG = b"#!/usr/bin/env python3\n"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time that a zip archive can say

Files = Mapping[str, bytes]  # by name, below the folder that packages are imported from
Distributions = Mapping[str, Files]  # by name and version, as in trio-0.35.0


def write_archive(
    target: Path,
    first_code: Files,
    distributions: Distributions,
    *,
    compress: Callable[[bytes], bytes],
    bound_to: str | None = None,
) -> None:
    """Write `target`, to be run by what its first line names.

    `compress` makes gzip of bytes. `bound_to` is the only ABI that can load what is in it.
    Raises ValueError if two distributions have a package of the same name.
    """
    contents = json.dumps(contents_of(distributions, bound_to), sort_keys=True)
    entries = {**first_code, "contents.json": contents.encode()}
    for name, files in distributions.items():
        packed = io.BytesIO()
        _write(packed, files)
        entries[f"packages/{name}.zip.gz"] = compress(packed.getvalue())
    with target.open("wb") as file:
        file.write(SHEBANG)
        _write(file, entries)


def read_archive(archive: Path) -> tuple[dict[str, bytes], dict[str, dict[str, bytes]]]:
    """What `write_archive` was given: the first code, and the distributions."""
    first_code, distributions = _read(archive), {}
    del first_code["contents.json"]
    for entry in [name for name in first_code if name.startswith("packages/")]:
        name = entry.removeprefix("packages/").removesuffix(".zip.gz")
        distributions[name] = _read(io.BytesIO(gzip.decompress(first_code.pop(entry))))
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
