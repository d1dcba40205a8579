"""A disk of a server's own that stalls, fails, is full, or tells what it did: see disk.c beside this.

with Disk(tmp_path) as disk, ServerProcess(env=disk.environment, …) as server:
    with disk.stalled(): …
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.process import ROOT, clean_environment

SOURCE = Path(__file__).with_name("disk.c")


def library() -> Path:
    """The compiled library; where there is no compiler, the test is skipped, but fails where CI=true."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        if os.environ.get("CI") == "true":
            pytest.fail("a C compiler is missing, and CI tests everything")
        pytest.skip("there is no C compiler")
    built = ROOT / ".build" / "disk.so"
    if not built.exists() or built.stat().st_mtime < SOURCE.stat().st_mtime:
        built.parent.mkdir(exist_ok=True)
        draft = built.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", draft, SOURCE, "-ldl"], check=True)
        draft.replace(built)
    return built


class Disk:
    """Steers the disk of servers that run in its `environment`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "disk"
        self._folder.mkdir()
        self.environment = clean_environment({"LD_PRELOAD": str(library()), "CHAT_DISK": str(self._folder)})

    @contextmanager
    def _having(self, name: str, content: str = "") -> Iterator[None]:
        file = self._folder / name
        draft = self._folder / f"{name}-draft"
        draft.write_text(content)
        draft.replace(file)
        try:
            yield
        finally:
            file.unlink()

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """No sync returns."""
        with self._having("stall"):
            yield

    @contextmanager
    def failing(self, *, after: bool = False, spare: int = 0) -> Iterator[None]:
        """Every sync but the first `spare` fails; with `after`, having done its work."""
        with self._having("fail", f"{'after' if after else 'before'} {spare}"):
            yield

    @contextmanager
    def full(self) -> Iterator[None]:
        """No file can grow."""
        with self._having("full"):
            yield

    @contextmanager
    def traced(self) -> Iterator[Path]:
        """What happens is told by the lines of a file."""
        with self._having("trace"):
            yield self._folder / "trace"
