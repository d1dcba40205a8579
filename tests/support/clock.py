"""A clock of a server's own that is set while it runs, by libfaketime; the monotonic clock stays true.

clock = Clock(tmp_path)
with ServerProcess(env=clock.environment, …): clock.set(days=200)
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.process import clean_environment


def library() -> str:
    """What `faketime` preloads; where it isn't installed, the test is skipped, but fails where CI=true."""
    command = shutil.which("faketime")
    if command is None:
        message = "there is no faketime on the path: ./test.sh installs it where apt-get may be used"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    asked = [command, "-f", "+0", "printenv", "LD_PRELOAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


class Clock:
    """The time of day of servers that run in its `environment`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(days=0)
        self.environment = clean_environment(
            {
                "LD_PRELOAD": library(),
                "FAKETIME_TIMESTAMP_FILE": str(self._file),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "NO_FAKE_STAT": "1",
            }
        )

    def set(self, *, days: int = 0, minutes: int = 0) -> None:
        """Set it so much ahead of the true time."""
        draft = self._file.with_suffix(".draft")
        draft.write_text(f"{days * 24 * 60 + minutes:+}m\n")
        draft.replace(self._file)
