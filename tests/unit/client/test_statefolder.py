"""Where commands keep what outlasts them: in a folder of our own, and in none that others have prepared."""

import errno
import os
import stat
import tempfile
from pathlib import Path

import pytest

from chatroom.client.statefolder import state_folder
from chatroom.core.errors import StartError

ROOT = os.geteuid() == 0


def test_the_folder_is_where_the_standard_says(tmp_path: Path) -> None:
    state, home = tmp_path / "state", tmp_path / "home"
    assert state_folder({"XDG_STATE_HOME": str(state), "HOME": str(home)}) == str(state / "chatroom")
    assert state_folder({"HOME": str(home)}) == str(home / ".local" / "state" / "chatroom")
    assert state_folder({"XDG_STATE_HOME": "relative", "HOME": str(home)}) == str(
        home / ".local" / "state" / "chatroom"
    )
    for folder in (state / "chatroom", home / ".local" / "state" / "chatroom"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place for temporary files."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder / f"chatroom-{os.geteuid()}"


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"HOME": "relative"}, {"HOME": "/dev/null"}])
def test_without_a_home_it_is_a_temporary_one(temporary: Path, environ: dict[str, str]) -> None:
    assert state_folder(environ) == str(temporary)
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700
    assert state_folder(environ) == str(temporary)


def test_a_home_in_which_nothing_can_be_written_counts_for_nothing(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "file").write_text("")
    assert state_folder({"HOME": str(tmp_path / "file")}) == str(temporary)
    assert state_folder({"XDG_STATE_HOME": "/proc"}) == str(temporary)


def test_a_place_that_is_missing_for_the_moment_is_told(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a command that is tried again later would not find what it has left."""

    def mkdir(path: str, mode: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(StartError, match=r"chatroom can't be made \(No space left on device\): mend that"):
        state_folder({"XDG_STATE_HOME": str(tmp_path / "state")})


@pytest.mark.parametrize("mode", [0o707, 0o777])
def test_a_folder_that_everybody_may_write_in_is_not_used(tmp_path: Path, temporary: Path, mode: int) -> None:
    folder = tmp_path / "state" / "chatroom"
    folder.mkdir(parents=True)
    folder.chmod(mode)
    assert state_folder({"XDG_STATE_HOME": str(tmp_path / "state")}) == str(temporary)


@pytest.mark.skipif(not ROOT, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_not_used(tmp_path: Path, temporary: Path) -> None:
    folder = tmp_path / "state" / "chatroom"
    folder.mkdir(parents=True)
    os.chown(folder, 12345, 12345)
    assert state_folder({"XDG_STATE_HOME": str(tmp_path / "state")}) == str(temporary)
    os.chown(temporary, 12345, 12345)
    with pytest.raises(StartError, match=r"isn't a folder of ours alone: set XDG_STATE_HOME"):
        state_folder({})


@pytest.mark.parametrize("kind", ["open", "link", "file"])
def test_a_temporary_one_that_others_have_prepared_is_not_used(
    tmp_path: Path, temporary: Path, kind: str
) -> None:
    if kind == "open":
        temporary.mkdir(mode=0o755)
    elif kind == "link":
        temporary.symlink_to(tmp_path)
    else:
        temporary.write_text("")
    with pytest.raises(
        StartError, match=r"isn't a folder of ours alone: set XDG_STATE_HOME to another place"
    ):
        state_folder({})


def test_without_any_place_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    with pytest.raises(
        StartError, match=r"^there is no folder to keep it in .*: set XDG_STATE_HOME to a folder$"
    ):
        state_folder({})

    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(StartError, match=r"^there is no folder to keep it in"):
        state_folder({})
