"""What the build puts into the file, and that it makes the same one everywhere."""

import bz2
import hashlib
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bundle.archive import read_archive
from tests.pyz.test_pyz import interpreter
from tests.support.process import ROOT, clean_environment

PARTS = ("build.sh", "bundle", "chatroom", "client.html", "requirements", "pyproject.toml", "LICENSE")
NATIVE = {".so", ".pyd", ".dylib", ".dll", ".pyc"}
MINORS = {"3.11", "3.12", "3.13"}
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_NO_CACHE_DIR": "1", "PIP_FIND_LINKS": "/nowhere"}


@pytest.fixture(scope="module")
def files(pyz: Path) -> dict[str, bytes]:
    """What can be imported, by its names below the folder of packages."""
    return packed(pyz)


def packed(pyz: Path) -> dict[str, bytes]:
    return {name: content for files in read_archive(pyz)[1].values() for name, content in files.items()}


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def clone(target: Path) -> Path:
    """The sources in another folder, with the modes that the umask gives, as a clone would have them."""
    target.mkdir(parents=True)
    for part in PARTS:
        if (ROOT / part).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, target / part, ignore=ignore, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(ROOT / part, target / part)
    return target


def build(folder: Path, **env: str) -> str:
    """Run build.sh there; what it said."""
    done = subprocess.run(
        ["sh", folder / "build.sh"], capture_output=True, text=True, check=False, env=clean_environment(env)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# What is in it


def test_it_is_small_and_starts_by_itself(pyz: Path) -> None:
    assert pyz.stat().st_size < 5_000_000
    assert pyz.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert stat.S_IMODE(pyz.stat().st_mode) == 0o755


def test_pure_python_only(files: dict[str, bytes]) -> None:
    assert [name for name in files if Path(name).suffix in NATIVE] == []
    wheels = [name for name in files if name.endswith(".dist-info/WHEEL")]
    assert len(wheels) > 5
    for name in wheels:
        assert re.search(rb"^Tag: (py2\.)?(py3)(-none-any)$|^Tag: py2-none-any$", files[name], re.M), name


def test_what_runs_in_a_store_is_in_it(files: dict[str, bytes]) -> None:
    source = (ROOT / "chatroom" / "engines" / "redis" / "library.lua").read_bytes()
    assert files["chatroom/engines/redis/library.lua"] == source


def test_no_dead_weight(files: dict[str, bytes]) -> None:
    parts = {part for name in files for part in Path(name).parts}
    assert parts.isdisjoint({"_tests", "tests", "bin", "..", "__pycache__", "pip", "setuptools"})


def test_nothing_tells_where_or_when_it_was_made(pyz: Path, files: dict[str, bytes]) -> None:
    names = {Path(name).name for name in files}
    assert names.isdisjoint({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})
    with zipfile.ZipFile(pyz) as archive:
        _tells_nothing(archive)
        for name in archive.namelist():
            if name.startswith("packages/"):
                with zipfile.ZipFile(io.BytesIO(bz2.decompress(archive.read(name)))) as inner:
                    _tells_nothing(inner)


def _tells_nothing(archive: zipfile.ZipFile) -> None:
    assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.external_attr >> 16 for entry in archive.infolist()} == {stat.S_IFREG | 0o644}
    assert archive.namelist() == sorted(archive.namelist())
    for entry in archive.infolist():
        assert str(ROOT).encode() not in archive.read(entry), entry.filename


def test_its_own_list_stays_short_however_much_is_packed(pyz: Path) -> None:
    """Every start reads it. What isn't imported at once is one entry for each distribution."""
    with zipfile.ZipFile(pyz) as archive:
        own = {name for name in archive.namelist() if not name.startswith("packages/")}
    assert own == {"__main__.py", "_launch.py", "_unpack.py", "contents.json", "environment.json"}


def test_shiv_knows_it(pyz: Path) -> None:
    """What its command `shiv-info` tells of a file is in it; the entry point is taken from there."""
    with zipfile.ZipFile(pyz) as archive:
        environment = json.loads(archive.read("environment.json"))
    assert environment["entry_point"] == "chatroom.cli:main"
    assert {"build_id", "shiv_version"} <= environment.keys()


def test_common_tools_unpack_it(pyz: Path, tmp_path: Path, files: dict[str, bytes]) -> None:
    subprocess.run([sys.executable, "-m", "zipfile", "-e", pyz, tmp_path], check=True)
    packages = list((tmp_path / "packages").iterdir())
    subprocess.run(["bunzip2", *packages], check=True)
    for package in packages:
        subprocess.run([sys.executable, "-m", "zipfile", "-e", package.with_suffix(""), tmp_path], check=True)
    for name, content in files.items():
        assert (tmp_path / name).read_bytes() == content


def test_every_module_and_the_page_are_in_it(files: dict[str, bytes]) -> None:
    for path in (ROOT / "chatroom").rglob("*.py"):
        assert files[str(path.relative_to(ROOT))] == path.read_bytes()
    assert files["chatroom/client.html"] == (ROOT / "client.html").read_bytes()


def test_the_licences_of_all_are_in_it(files: dict[str, bytes]) -> None:
    projects = {Path(name).parts[0] for name in files if ".dist-info/" in name}
    licensed = {Path(name).parts[0] for name in files if "LICENSE" in name}
    assert projects - licensed == set()


def test_a_distribution_is_whole(pyz: Path) -> None:
    """A start unpacks one by the names of its packages, and each has what says its version."""
    for name, own in read_archive(pyz)[1].items():
        assert f"{name}.dist-info/METADATA" in own
        assert any(not each.startswith(f"{name}.dist-info/") for each in own)


@pytest.mark.parametrize("python", [sys.executable, "/usr/bin/python3", *sorted(MINORS)])
@pytest.mark.parametrize("library", ["redis", "prompt_toolkit"])
def test_a_library_that_only_some_commands_import_has_all_it_needs(
    pyz: Path, tmp_path: Path, python: str, library: str
) -> None:
    """What it needs differs between Pythons, down to the third number, and the file is one for all."""
    found = interpreter(python) if python in MINORS else shutil.which(python)
    enough = "import sys; sys.exit(sys.version_info < (3, 11))"
    if found is None or subprocess.run([found, "-c", enough], check=False).returncode:
        pytest.skip(f"there is no {python} here that is new enough")
    script = (
        f"import sys; sys.path.insert(0, {str(pyz)!r}); import _launch; _launch.find_packages({str(pyz)!r}); "
        f"import {library}; from importlib.metadata import version; "
        f"assert version('{library}') == {library}.__version__"
    )
    env = clean_environment({"SHIV_ROOT": str(tmp_path / "cache")})
    command = [found, "-I", "-S", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stderr) == (0, "")


def test_locks_pin_by_hash_and_hold_no_marker_and_no_address() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        text = lock.read_text("utf-8")
        assert "://" not in text, lock
        entries = [entry for entry in re.split(r"\n(?=\S)", text) if not entry.startswith("#")]
        assert entries, lock
        for pin in entries:
            assert re.match(r"[A-Za-z0-9_.-]+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+\n?$", pin), pin
    assert "resolved" not in (ROOT / "tests" / "wscat" / "package-lock.json").read_text("utf-8")


def pins(lock: str) -> set[str]:
    """What a lock pins, `name==version`."""
    text = (ROOT / "requirements" / lock).read_text("utf-8")
    return set(re.findall(r"^(\S+==\S+)", text, re.M))


def test_the_locks_agree_with_each_other_and_with_the_project() -> None:
    assert pins("runtime.txt") <= pins("platform.txt") <= pins("dev.txt"), "what is tested is what is packed"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = (ROOT / "requirements" / "runtime.in").read_text("utf-8").splitlines()
    assert sorted(project["dependencies"]) == sorted(line for line in wanted if not line.startswith("#"))


# The same everywhere


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with umask(0o077):
        folder = clone(tmp_path_factory.mktemp("built") / "another folder")
        build(folder, SOURCE_DATE_EPOCH="1700000000", TZ="Asia/Tokyo", LC_ALL="C", PIP_TARGET="/nowhere")
    return folder


def test_another_folder_and_umask_make_the_same_bytes(pyz: Path, built: Path) -> None:
    assert digest(built / "chat.pyz") == digest(pyz)


@pytest.mark.parametrize("version", sorted(MINORS - {f"3.{sys.version_info.minor}"}))
def test_another_python_makes_the_same_bytes(pyz: Path, tmp_path: Path, version: str) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"there is no Python {version} here to build with")
    with umask(0o002):
        folder = clone(tmp_path / version)
        assert f"Python {version}." in build(folder, PYTHON=python)
    assert digest(folder / "chat.pyz") == digest(pyz)


# Built again


def test_nothing_changed_nothing_done(built: Path) -> None:
    before = (built / "chat.pyz").stat().st_ino
    assert build(built, **OFFLINE) == "build.sh: chat.pyz is up to date\n"
    assert (built / "chat.pyz").stat().st_ino == before


def test_a_damaged_file_is_made_again_without_a_network(built: Path) -> None:
    before = digest(built / "chat.pyz")
    (built / "chat.pyz").write_bytes(b"damaged")
    build(built, **OFFLINE)
    assert digest(built / "chat.pyz") == before
    (built / "chat.pyz").unlink()
    build(built, **OFFLINE)
    assert digest(built / "chat.pyz") == before


def test_a_changed_page_is_packed_without_a_network(built: Path) -> None:
    page = built / "client.html"
    before = page.read_bytes()
    page.write_bytes(before + b"<!-- new -->\n")
    build(built, **OFFLINE)
    assert packed(built / "chat.pyz")["chatroom/client.html"] == page.read_bytes()
    page.write_bytes(before)


def test_a_module_that_moved_is_packed_where_it_is(built: Path) -> None:
    module = built / "chatroom" / "rooms" / "zz.py"
    module.write_text("")
    build(built, **OFFLINE)
    module.rename(built / "chatroom" / "core" / "zz.py")
    build(built, **OFFLINE)
    found = [name for name in packed(built / "chat.pyz") if name.endswith("/zz.py")]
    assert found == ["chatroom/core/zz.py"]
    (built / "chatroom" / "core" / "zz.py").unlink()


# What is missing is said in one line


def test_no_python_is_one_line(tmp_path: Path) -> None:
    for tool in ("sh", "dirname"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "")
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    command = [str(tmp_path / "sh"), str(ROOT / "build.sh")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "build.sh needs Python 3.11 or newer" in done.stderr


def test_a_missing_page_is_one_line(tmp_path: Path) -> None:
    folder = clone(tmp_path / "clone")
    (folder / "client.html").unlink()
    command = ["sh", str(folder / "build.sh")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean_environment())
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "build.sh: client.html is missing\n")
