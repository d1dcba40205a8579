"""Fixtures that every test file may use."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.process import PYZ, ROOT


@pytest.fixture(scope="session")
def pyz() -> Path:
    """The built file, up to date with the sources (`CHAT_PYZ` names another one to test instead)."""
    chosen = os.environ.get("CHAT_PYZ")
    if chosen:
        return Path(chosen).resolve()
    done = subprocess.run([ROOT / "build.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return PYZ
