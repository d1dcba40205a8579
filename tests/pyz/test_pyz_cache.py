"""Where the built file unpacks itself: quick when nothing is wrong, never the victim of what lies there."""

import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.client import Chat, target
from tests.support.process import ServerProcess, clean_environment
from tests.support.raw import get

PRIVATE = ".chat.pyz-private-"
LONG_AGO = 1_600_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


def start(pyz: Path, root: Path, **env: str) -> ServerProcess:
    command = [sys.executable, str(pyz)]
    return ServerProcess(
        "--db", "none", command=command, env=clean_environment({"SHIV_ROOT": str(root), **env})
    )


def run_once(pyz: Path, root: Path, **env: str) -> None:
    with start(pyz, root, **env) as server:
        assert server.stop() == 0, server.stderr


def copy_in(root: Path) -> Path:
    (folder,) = (path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return folder


def package_in(folder: Path, name: str) -> Path:
    """A package in a copy, wherever its distribution is."""
    (package,) = folder.glob(f"*/{name}")
    return package


def inodes(folder: Path) -> dict[str, int]:
    """Which copies of distributions these are: another one has another number."""
    return {path.name: path.stat().st_ino for path in (folder, *folder.iterdir())}


def test_six_first_starts_at_once(pyz: Path, root: Path) -> None:
    servers = [start(pyz, root) for _ in range(6)]
    command, env = servers[0].command, servers[0].env
    processes = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in servers
    ]
    first = [process.stdout.readline() for process in processes if process.stdout]
    for process in processes:
        process.terminate()
    assert [process.communicate() and process.returncode for process in processes] == [0] * 6
    assert all(line.startswith("Listening on ") for line in first)
    assert sorted(path.name for path in root.iterdir()) == sorted(
        [copy_in(root).name, f".{copy_in(root).name}_lock"]
    )


def test_the_second_start_uses_what_the_first_unpacked(pyz: Path, root: Path, temporary: Path) -> None:
    run_once(pyz, root)
    before = inodes(copy_in(root))
    run_once(pyz, root, TMPDIR=str(temporary))
    assert inodes(copy_in(root)) == before
    assert list(temporary.iterdir()) == []


def test_what_is_not_imported_is_not_unpacked(pyz: Path, root: Path) -> None:
    def unpacked() -> set[str]:
        return {path.name.partition("-")[0] for path in copy_in(root).iterdir()}

    env = clean_environment({"SHIV_ROOT": str(root)})
    subprocess.run([sys.executable, pyz, "--version"], check=True, capture_output=True, env=env)
    assert unpacked() == {"chatroom"}
    run_once(pyz, root)
    assert {"chatroom", "trio", "h11"} <= unpacked()
    assert unpacked().isdisjoint({"redis", "pyjwt"})


def test_what_is_not_imported_is_not_looked_at(pyz: Path, root: Path) -> None:
    run_once(pyz, root)
    _cut_short(copy_in(root))
    before = inodes(copy_in(root))
    env = clean_environment({"SHIV_ROOT": str(root)})
    subprocess.run([sys.executable, pyz, "--version"], check=True, capture_output=True, env=env)
    assert inodes(copy_in(root)) == before


def test_a_server_that_listens_needs_the_file_no_more(pyz: Path, root: Path, tmp_path: Path) -> None:
    """It may be replaced by the next version while the server runs: all that is imported has been by then."""
    copy = tmp_path / "chat.pyz"
    shutil.copy(pyz, copy)
    with start(copy, root) as server:
        assert get(server.port, "/healthz").status == 200
        copy.write_bytes(b"another version")
        for path in ("/", "/metrics", "/readyz"):
            assert get(server.port, path).status == 200
        with closing(Chat(server.ws_url + target("r", "ann"))) as ann:
            ann.say("hello")
            assert ann.texts(1) == ["hello"]
        assert server.stop() == 0


def test_a_python_without_bz2_gets_one_line(pyz: Path, root: Path) -> None:
    script = f"""import runpy, sys
sys.modules["bz2"] = None
sys.argv = [{str(pyz)!r}, "--version"]
runpy.run_path(sys.argv[0], run_name="__main__")"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=clean_environment({"SHIV_ROOT": str(root)}), check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "chat.pyz needs Python's module bz2, and this Python has none: start it with a whole Python\n"
    )


def test_a_damaged_file_is_one_line(pyz: Path, root: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(pyz) as archive:
        (entry,) = (each for each in archive.infolist() if each.filename.startswith("packages/chatroom-"))
    whole = bytearray(pyz.read_bytes())
    middle = entry.header_offset + entry.compress_size // 2
    whole[middle : middle + 100] = bytes(100)
    (tmp_path / "chat.pyz").write_bytes(whole)
    done = subprocess.run(
        [sys.executable, tmp_path / "chat.pyz", "--version"], capture_output=True, text=True, check=False,
        env=clean_environment({"SHIV_ROOT": str(root)}),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("chat.pyz is damaged")


def _half_extracted(folder: Path) -> None:
    shutil.rmtree(package_in(folder, "trio"))


def _empty(folder: Path) -> None:
    for each in folder.iterdir():
        shutil.rmtree(each)


def _poisoned(folder: Path) -> None:
    (package_in(folder, "chatroom") / "__init__.py").write_text("raise SystemExit('poisoned')\n")


def _cut_short(folder: Path) -> None:
    (package_in(folder, "trio") / "__init__.py").write_text("")


def _a_file_in_it(folder: Path) -> None:
    distribution = package_in(folder, "trio").parent
    shutil.rmtree(distribution)
    distribution.write_text("")


def _a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def _a_dangling_link(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to("/nowhere")


def _a_leftover_of_a_kill(folder: Path) -> None:
    shutil.rmtree(folder)
    (folder.parent / f".{folder.name}_half" / "unpacked").mkdir(parents=True)


def _damaged_compiled_files(folder: Path) -> None:
    compiled = list(folder.rglob("*.pyc"))
    assert compiled
    for index, path in enumerate(compiled):
        whole = path.read_bytes()
        path.write_bytes([whole[:60], whole[:16] + b"N", whole[:16] + b"\xff" * 40, b""][index % 4])


@pytest.mark.parametrize(
    "damage",
    [
        _half_extracted,
        _empty,
        _poisoned,
        _cut_short,
        _a_file_in_it,
        _a_file,
        _a_dangling_link,
        _a_leftover_of_a_kill,
        _damaged_compiled_files,
    ],
)
def test_what_is_wrong_in_the_cache_is_mended(
    pyz: Path, root: Path, temporary: Path, damage: Callable[[Path], None]
) -> None:
    run_once(pyz, root)
    folder = copy_in(root)
    damage(folder)
    run_once(pyz, root, TMPDIR=str(temporary))
    before = inodes(folder)
    run_once(pyz, root)
    assert inodes(folder) == before


def test_a_cache_that_others_may_write_to_is_not_used(pyz: Path, root: Path, temporary: Path) -> None:
    root.mkdir()
    root.chmod(0o777)
    run_once(pyz, root, TMPDIR=str(temporary))
    assert list(root.iterdir()) == []
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_cache_of_another_user_is_not_used(pyz: Path, root: Path, temporary: Path) -> None:
    run_once(pyz, root)
    _poisoned(copy_in(root))
    foreign = sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*.py"))
    os.chown(root, 65534, 65534)
    run_once(pyz, root, TMPDIR=str(temporary))
    assert sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*.py")) == foreign


def test_a_cache_that_cannot_be_written_to(pyz: Path, temporary: Path) -> None:
    run_once(pyz, Path("/proc/nothing"), TMPDIR=str(temporary))
    assert list(temporary.iterdir()) == []


def test_a_held_lock_does_not_stop_a_start_that_needs_no_change(pyz: Path, root: Path) -> None:
    import fcntl  # noqa: PLC0415

    run_once(pyz, root)
    with (root / f".{copy_in(root).name}_lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run_once(pyz, root)


# The private folder


def private(pyz: Path, temporary: Path) -> ServerProcess:
    return start(pyz, Path("/proc/nothing"), TMPDIR=str(temporary))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_private_folder_goes_with_the_server(pyz: Path, temporary: Path, number: int) -> None:
    with private(pyz, temporary) as server:
        assert [path.name.startswith(PRIVATE) for path in temporary.iterdir()] == [True]
        server.signal(number)
        assert server.wait() == 0
    assert list(temporary.iterdir()) == []


def test_the_private_folder_goes_when_the_start_is_ended(pyz: Path, temporary: Path) -> None:
    server = private(pyz, temporary)
    process = subprocess.Popen(server.command, env=server.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while not list(temporary.glob(f"{PRIVATE}*/*")) and time.monotonic() < deadline:
        pass
    process.terminate()
    process.communicate()
    assert process.returncode in {0, 128 + signal.SIGTERM}
    assert list(temporary.iterdir()) == []


def test_what_a_hard_kill_left_goes_at_the_next_start(pyz: Path, temporary: Path) -> None:
    with private(pyz, temporary) as server:
        server.signal(signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
    (left,) = temporary.iterdir()
    run_once(pyz, Path("/proc/nothing"), TMPDIR=str(temporary))
    assert left.exists(), "one that is new may belong to a start that hasn't got its lock yet"
    os.utime(left, (LONG_AGO, LONG_AGO))
    run_once(pyz, Path("/proc/nothing"), TMPDIR=str(temporary))
    assert list(temporary.iterdir()) == []


def test_only_what_nobody_uses_is_removed(pyz: Path, temporary: Path) -> None:
    (temporary / "chatroom-backup").mkdir()
    (temporary / f"{PRIVATE}file").write_text("")
    (temporary / f"{PRIVATE}link").symlink_to(temporary / "chatroom-backup")
    kept = sorted(temporary.iterdir())
    with private(pyz, temporary) as server:
        used = set(temporary.iterdir()).difference(kept).pop()
        for path in temporary.iterdir():
            os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)
        run_once(pyz, Path("/proc/nothing"), TMPDIR=str(temporary))
        assert package_in(used, "trio").is_dir()
        assert server.stop() == 0
    assert sorted(temporary.iterdir()) == kept
