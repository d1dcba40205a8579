"""Fixtures that every test file may use."""

import inspect
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
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


def run_on_virtual_clock(main: Callable[[], Awaitable[object]], *, clock: Any = None, **more: Any) -> None:
    """trio.run, but time passes only when everybody waits for it, and then at once."""
    trio.run(main, clock=clock or trio.testing.MockClock(autojump_threshold=0), **more)


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """`usefixtures("autojump_clock")` counts for a whole file; pytest-trio looks at arguments only."""
    for item in items:
        if "autojump_clock" in item.fixturenames and inspect.iscoroutinefunction(item.obj):
            item.add_marker(pytest.mark.trio(run=run_on_virtual_clock))
