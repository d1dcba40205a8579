"""The command `backup` of the built file, as a process that gets signals."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.database import open_store
from tests.support.engine_contract import draft
from tests.support.process import clean_environment, heeding, python_command
from tests.support.scene import await_true


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_backup_that_is_interrupted_leaves_nothing(number: int, tmp_path: Path, pyz: Path) -> None:
    path, target = tmp_path / "chat.db", tmp_path / "backups" / "copy.db"
    target.parent.mkdir()
    store = open_store(path)
    store.append([draft("x" * 4000) for _ in range(15_000)])
    store.close()
    command = [*python_command(), "backup", "--db", str(path), str(target)]
    with heeding(signal.SIGINT, signal.SIGHUP):
        process = subprocess.Popen(command, env=clean_environment(), stderr=subprocess.PIPE, text=True)
    await_true(lambda: list(target.parent.iterdir()), "it has begun", pause=0.001)
    process.send_signal(number)
    said = process.communicate(timeout=20)[1]
    assert (process.returncode, said) == (1, "")
    assert list(target.parent.iterdir()) == []
