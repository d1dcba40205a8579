"""Fixtures that every test file may use."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.process import PYZ, ROOT

pytest.register_assert_rewrite("tests.engine_contract")  # so that a failure there says why

# Examples are drawn the same way each time, so that a run of the suite can be repeated; a busy machine is
# no failure, so single examples have no deadline.
settings.register_profile("chatroom", deadline=None, derandomize=True)
settings.load_profile("chatroom")


@pytest.fixture(scope="session")
def pyz() -> Path:
    """The built file, up to date with the sources (`CHAT_PYZ` names another one to test instead)."""
    chosen = os.environ.get("CHAT_PYZ")
    if chosen:
        return Path(chosen).resolve()
    done = subprocess.run([ROOT / "build.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return PYZ
