"""The built file starts wherever a person puts it, whoever they are."""

import ast
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import chatroom
from tests.support.process import ROOT, ServerProcess, clean_environment

QUIET = ("--db", "none")
NOBODY = 65534
TERMINAL = {"prompt_toolkit", "wcwidth"}  # what only a person at a terminal needs
OLD = ("2.7", "3.6", "3.8", "3.9", "3.10")


def environment(**extra: str) -> dict[str, str]:
    """An ordinary environment, in which the file chooses by itself where to unpack."""
    env = clean_environment(extra)
    if "SHIV_ROOT" not in extra:
        del env["SHIV_ROOT"]
    return env


def interpreter(version: str) -> str | None:
    """A working Python of that version, from the path or from pyenv."""
    kept = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python"))
    for candidate in (f"python{version}", *map(str, kept)):
        found = shutil.which(candidate)
        if found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
            return found
    return None


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may read; pytest's own are private."""
    folder = Path("/tmp", f"chat-public-{os.getpid()}")
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


# Where it lies and how it is called


@pytest.mark.parametrize("name", ["chat.pyz", "a file with spaces.pyz", "ünïcode", "chat.zip"])
def test_any_path_will_do(pyz: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    copy = shutil.copy(pyz, folder / name)
    env = environment(SHIV_ROOT=str(tmp_path / "cache"))
    with ServerProcess(*QUIET, command=[sys.executable, str(copy)], env=env) as server:
        assert server.stop() == 0


def test_relative_path_and_symbolic_link(pyz: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(pyz)
    with ServerProcess(*QUIET, command=[sys.executable, "link"], cwd=tmp_path) as server:
        assert server.stop() == 0


def test_it_is_a_program(pyz: Path, tmp_path: Path) -> None:
    (tmp_path / "python3").symlink_to(sys.executable)
    env = environment(PATH=f"{tmp_path}:/usr/bin:/bin", HOME=str(tmp_path))
    with ServerProcess(*QUIET, command=[str(pyz)], env=env) as server:
        assert server.stop() == 0


@pytest.mark.parametrize("flags", ["-I", "-S", "-E", "-B", "-OO", "-P", "-Xutf8=0"])
def test_flags_of_the_interpreter(pyz: Path, flags: str) -> None:
    with ServerProcess(*QUIET, command=[sys.executable, flags, str(pyz)]) as server:
        assert server.stop() == 0


def test_modules_in_the_working_directory_are_not_imported(pyz: Path, tmp_path: Path) -> None:
    for name in ("trio", "chatroom", "json", "h11"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger')\n")
    with ServerProcess(*QUIET, command=[sys.executable, str(pyz)], cwd=tmp_path) as server:
        assert server.stop() == 0


def test_it_needs_no_environment_at_all(pyz: Path, temporary: Path) -> None:
    with ServerProcess(*QUIET, command=[sys.executable, str(pyz)], env={"TMPDIR": str(temporary)}) as server:
        assert server.stop() == 0


# Homes and users


def test_a_home_that_is_not_there_is_not_made(pyz: Path, tmp_path: Path, temporary: Path) -> None:
    absent = tmp_path / "absent"
    env = environment(HOME=str(absent), TMPDIR=str(temporary))
    with ServerProcess(*QUIET, command=[sys.executable, str(pyz)], env=env) as server:
        (private,) = temporary.iterdir()
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert server.stop() == 0
    assert not absent.exists()
    assert list(temporary.iterdir()) == []


def test_a_home_that_is_a_file(pyz: Path, tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "file").write_text("")
    env = environment(HOME=str(tmp_path / "file"), TMPDIR=str(temporary))
    with ServerProcess(*QUIET, command=[sys.executable, str(pyz)], env=env) as server:
        assert server.stop() == 0
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("home", ["/root", "/proc", "{public}", None])
def test_as_another_user(pyz: Path, public: Path, home: str | None) -> None:
    """nobody owns none of these homes; the interpreter is the system's where root's own can't be reached."""
    python = _python_for_nobody()
    copy = shutil.copy(pyz, public / "chat.pyz")
    (public / "tmp").mkdir()
    (public / "tmp").chmod(0o1777)
    env = {"TMPDIR": str(public / "tmp"), "PATH": os.environ["PATH"]}
    if home is not None:
        env["HOME"] = home.format(public=public)
    command = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", python, str(copy)]
    with ServerProcess(*QUIET, command=command, env=env, cwd=public) as server:
        assert os.stat(f"/proc/{server.pid}").st_uid == NOBODY
        assert server.stop() == 0
    assert list((public / "tmp").iterdir()) == []


def _python_for_nobody() -> str:
    allowed = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    look = "import sys; sys.exit(sys.version_info < (3, 11))"
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        if subprocess.run([*allowed, python, "-c", look], capture_output=True, check=False).returncode == 0:
            return python
    pytest.skip("nobody can't run any Python here that is new enough")


# What is wrong is said in one line


def test_the_first_code_compiles_on_old_pythons() -> None:
    source = (ROOT / "bundle" / "__main__.py").read_text("ascii")
    ast.parse(source, feature_version=(3, 4))


def test_too_old_a_python_gets_one_line(pyz: Path) -> None:
    pretend = "import runpy, sys; sys.version_info = (3, 10, 4); sys.argv = [sys.argv[1]]; "
    run = "runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", pretend + run, pyz], capture_output=True, text=True, check=False
    )
    _says_what_is_needed(done)


@pytest.mark.parametrize("version", OLD)
def test_a_real_old_python_gets_one_line(pyz: Path, version: str) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    done = subprocess.run([python, pyz, "--version"], capture_output=True, text=True, check=False)
    _says_what_is_needed(done)
    assert f"Python {version}" in done.stderr


def _says_what_is_needed(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "needs Python 3.11 or newer" in done.stderr


def test_nowhere_to_unpack_is_one_line(pyz: Path, tmp_path: Path) -> None:
    """A process that may write no file at all finds no folder either."""
    limit = "import os, resource as r, sys; r.setrlimit(r.RLIMIT_FSIZE, (0, 0)); "
    limit += "os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", limit, sys.executable, str(pyz)]
    env = environment(HOME=str(tmp_path), COVERAGE_PROCESS_CONFIG="")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "TMPDIR" in done.stderr


# It is quick: what takes time at a start is importing and unpacking, and both can be counted


def imported(done: str) -> set[str]:
    """The modules in what `-X importtime` says."""
    return {line.rpartition("|")[2].strip() for line in done.splitlines() if line.startswith("import time:")}


def test_a_warm_start_imports_little_and_unpacks_nothing(pyz: Path, tmp_path: Path) -> None:
    """A start isn't over when it says that it listens: what is loaded behind that is through at a stop."""
    env = clean_environment({"SHIV_ROOT": str(tmp_path)}, measured=False)
    with ServerProcess(*QUIET, command=[sys.executable, str(pyz)], env=env) as server:
        assert server.stop() == 0
    unpacked = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with ServerProcess(*QUIET, command=[sys.executable, "-X", "importtime", str(pyz)], env=env) as server:
        assert server.stop() == 0
        modules = imported(server.stderr)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == unpacked
    assert {"trio", "h11", "sqlite3", "chatroom.server", "prometheus_client"} <= modules
    assert not modules & {
        "asyncio",
        "multiprocessing",
        "unittest",
        "cryptography",
        "jwt",
        "redis",
        "hypothesis",
        *TERMINAL,
    }
    assert len(modules) < 480


def test_the_version_imports_next_to_nothing(pyz: Path) -> None:
    command = [sys.executable, "-X", "importtime", str(pyz), "--version"]
    env = clean_environment(measured=False)
    subprocess.run(command, capture_output=True, check=True, env=env)
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert chatroom.__version__ in done.stdout
    modules = imported(done.stderr)
    assert "chatroom.config.options" in modules
    assert not modules & {"trio", "h11", "ssl", "sqlite3", "redis", "http", "email", "chatroom.server"}
    assert not modules & {"zipfile", "_unpack", "tempfile", *TERMINAL}
    assert len(modules) < 150


def test_say_imports_what_a_client_needs(pyz: Path, tmp_path: Path) -> None:
    env = clean_environment({"CHATROOM_TOKEN": "dev-token", "XDG_STATE_HOME": str(tmp_path)}, measured=False)
    with ServerProcess(*QUIET) as server:
        command = [sys.executable, "-X", "importtime", str(pyz), "say", server.ws_url]
        for text in ("first", "second"):
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=env, input=text)
        assert done.stdout == "stored as 2 in general\n"
        modules = imported(done.stderr)
    assert {"trio", "trio_websocket", "chatroom.say"} <= modules
    assert not modules & {"_unpack", "asyncio", "sqlite3", "redis", "prometheus_client", *TERMINAL}
    assert not modules & {"chatroom.server", "chatroom.config.settings", "chatroom.core.messages"}
    assert len(modules) < 370
