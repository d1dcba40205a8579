"""What web tokens with public keys need: taken from the host, said to be missing, or in a file of its own."""

import json
import subprocess
import sys
import sysconfig
import time
import venv
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import cryptography
import pytest

from tests.pyz.test_pyz import interpreter
from tests.pyz.test_pyz_build import MINORS, build, clone, digest, packed
from tests.support.process import ROOT, ServerProcess, clean_environment
from tests.support.raw import knock
from tests.support.signing import SECRET, algorithm_of, claims, jwk, jwks, private_key, public_pem, token

KINDS = ("RSA", "P-256", "Ed25519")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with public keys, a set and a secret."""
    folder = tmp_path_factory.mktemp("keys")
    for kind in KINDS:
        (folder / kind).write_bytes(public_pem(private_key(kind)))
    (folder / "set").write_bytes(jwks(*[jwk(private_key(kind), kind) for kind in KINDS]))
    (folder / "secret").write_bytes(SECRET)
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has nothing."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def equipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has cryptography."""
    folder = tmp_path_factory.mktemp("equipped")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    home = Path(cryptography.__file__).parent.parent
    for name in ("cryptography", *(path.name for path in home.glob("_cffi_backend*"))):
        (site / name).symlink_to(home / name)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def bound() -> Path:
    """The file for this platform."""
    return built(ROOT)


def built(folder: Path) -> Path:
    command = ["sh", str(folder / "build.sh"), "--with-cryptography"]
    env = clean_environment({"PYTHON": sys.executable})
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "chat-with-cryptography.pyz"


def lets_in(python: Path, file: Path, option: str, key: Path, signer: Any, **header: str) -> bool:
    shown = token(claims(time.time()), signer, header or None)
    with ServerProcess(option, str(key), "--db", "none", command=[str(python), str(file)]) as server:
        status = knock(server.port, "/?" + urlencode({"token": shown})).status
        assert knock(server.port, "/?" + urlencode({"token": shown[:-4]})).status == 401
        assert server.stop() == 0
    return status == 101


def test_a_secret_needs_nothing(pyz: Path, bare: Path, keys: Path) -> None:
    assert lets_in(bare, pyz, "--jwt-secret-file", keys / "secret", SECRET)


@pytest.mark.parametrize(
    ("option", "name"),
    [("--jwt-public-key", "P-256"), ("--jwt-jwks", "set"), ("--jwt-jwks", "https://localhost:1/never-asked")],
)
def test_what_is_missing_is_said_with_the_command_that_helps(
    pyz: Path, bare: Path, keys: Path, option: str, name: str
) -> None:
    done = subprocess.run(
        [bare, pyz, "--port", "0", "--db", "none", option, name if "://" in name else keys / name],
        capture_output=True, text=True, check=False, env=clean_environment(),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "chatroom: public keys need the Python package cryptography, which is not installed: "
        f"run {bare} -m pip install --upgrade cryptography\n"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_host_has_is_used(pyz: Path, equipped: Path, keys: Path, kind: str) -> None:
    assert lets_in(equipped, pyz, "--jwt-public-key", keys / kind, private_key(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_works_with_what_the_host_has(pyz: Path, equipped: Path, keys: Path, kind: str) -> None:
    key = private_key(kind)
    assert lets_in(equipped, pyz, "--jwt-jwks", keys / "set", key, alg=algorithm_of(key), kid=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_for_one_platform_needs_nothing(bound: Path, bare: Path, keys: Path, kind: str) -> None:
    assert lets_in(bare, bound, "--jwt-public-key", keys / kind, private_key(kind))


@pytest.mark.parametrize("version", sorted(MINORS - {f"3.{sys.version_info.minor}"}))
def test_the_file_for_one_platform_says_so_on_another(bound: Path, version: str) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    done = subprocess.run(
        [python, bound, "--version"], capture_output=True, text=True, check=False, env=clean_environment()
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("chat-with-cryptography.pyz was made for cpython-3")
    assert "./build.sh --with-cryptography" in done.stderr


def test_only_the_file_for_one_platform_is_bound_to_one(pyz: Path, bound: Path) -> None:
    assert bound_to(pyz) is None
    assert bound_to(bound) == sysconfig.get_config_var("SOABI")
    files = packed(bound)
    assert any(name.endswith(".so") for name in files)
    assert "chatroom/server.py" in files
    licensed = {Path(name).parts[0] for name in files if "LICENSE" in name}
    assert {Path(name).parts[0] for name in files if ".dist-info/" in name} == licensed


def bound_to(file: Path) -> str | None:
    with zipfile.ZipFile(file) as archive:
        return json.loads(archive.read("contents.json"))["bound_to"]


def test_another_folder_makes_the_same_bytes(bound: Path, tmp_path: Path) -> None:
    assert digest(built(clone(tmp_path / "another folder"))) == digest(bound)


def test_both_files_are_made_side_by_side(pyz: Path, bound: Path) -> None:
    before = digest(bound)
    assert build(ROOT) == "build.sh: chat.pyz is up to date\n"
    assert digest(built(ROOT)) == before


def test_an_unknown_argument_is_one_line() -> None:
    done = subprocess.run(
        ["sh", ROOT / "build.sh", "--with"],
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(),
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "--with-cryptography" in done.stderr
