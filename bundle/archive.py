"""The archive that a build makes: nothing in it tells when, where or by which Python it was written."""

import json
import stat
import zipfile
from pathlib import Path

SHEBANG = b"#!/usr/bin/env python3\n"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time that a zip archive can say


def read_archive(archive: Path) -> dict[str, bytes]:
    """What shiv's archive holds, its notes in one order."""
    with zipfile.ZipFile(archive) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    notes = json.loads(entries["environment.json"])
    entries["environment.json"] = json.dumps(notes, sort_keys=True, indent=1).encode()
    return entries


def write_archive(target: Path, entries: dict[str, bytes]) -> None:
    """Write `target`, to be run by what its first line names."""
    with target.open("wb") as file:
        file.write(SHEBANG)
        with zipfile.ZipFile(file, "w") as archive:
            for name in sorted(entries):
                info = zipfile.ZipInfo(name, EPOCH)
                info.create_system = 3
                info.external_attr = (stat.S_IFREG | 0o644) << 16
                info.compress_type = zipfile.ZIP_STORED
                archive.writestr(info, entries[name])
