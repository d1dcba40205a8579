"""Makes chat.pyz, the same bytes wherever it is made; or, if asked, an edition of it for this platform only.

1. requirements/runtime.txt names what goes in (platform.txt, what goes into the other edition), and
   requirements/build.txt what it is made with, all by hash.
2. shiv bundles the packages. Its archive is written again, in parts: a start unpacks only the distributions
   that it imports, which are known by the notes of `pip`. Nothing of the machine goes in: no path, time,
   mode, order of a folder or Python version shows in the file.
3. Each step is skipped if its inputs haven't changed, so only changed locks need the network.
4. Only pure Python goes in; tests of other projects and what `pip` notes about an installation stay out.
5. `--with-cryptography` adds what is compiled. Such a file has another name, and says for which Python it is.
"""

import csv
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from archive import ENVIRONMENT, read_bundle, write_archive

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".build"
VENV = WORK / "venv"
PYTHON = VENV / "bin" / "python"
BUILDERS = (ROOT / "build.sh", *(ROOT / "bundle" / f"{name}.py" for name in ("build", "archive")))
FIRST_CODE = ("__main__.py", "_launch.py", "_unpack.py")
BUILD_LOCK = ROOT / "requirements" / "build.txt"
EPOCH_SECONDS = "315532800"
PURE = (
    "--only-binary=:all:",
    *("--platform", "any"),
    *("--implementation", "py"),
    *("--abi", "none"),
    *("--python-version", "3.11"),
)
NOTES = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}  # in *.dist-info
TESTS = {"_tests", "tests"}
NATIVE = {".so", ".pyd", ".dylib", ".dll"}


@dataclass(frozen=True)
class Edition:
    """What is made: its file, the lock of what goes in, and which wheels of that; `bound` to which Python."""

    target: Path
    lock: Path
    wheels: tuple[str, ...]
    bound: str | None = None

    @property
    def libraries(self) -> str:
        """Where its libraries are gathered."""
        return f"libraries-{self.lock.stem}"


PORTABLE = Edition(ROOT / "chat.pyz", ROOT / "requirements" / "runtime.txt", PURE)
BOUND = Edition(
    ROOT / "chat-with-cryptography.pyz",
    ROOT / "requirements" / "platform.txt",
    ("--only-binary=:all:",),
    sysconfig.get_config_var("SOABI"),
)


def main(arguments: list[str]) -> None:
    """Bring the file up to date, one build at a time."""
    if arguments not in ([], ["--with-cryptography"]):
        sys.exit("build.sh: unknown arguments; write ./build.sh or ./build.sh --with-cryptography")
    edition = BOUND if arguments else PORTABLE
    started = time.monotonic()
    WORK.mkdir(exist_ok=True)
    with (WORK / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sources = _sources()
        target = edition.target
        key = (edition.bound or "") + _digest([*BUILDERS, edition.lock, BUILD_LOCK, *sources.values()])
        if _is_current(target, key):
            _say(f"{target.name} is up to date")
            return
        _tools()
        _dependencies(edition)
        _project(sources)
        _say(f"packing {target.name}")
        _pack(edition)
        _mark(target.name, key + _digest([target]))
    size, seconds = target.stat().st_size / 1e6, time.monotonic() - started
    _say(f"made {target.name}: {size:.2f} MB in {seconds:.0f} s")


def _is_current(target: Path, key: str) -> bool:
    return target.is_file() and os.access(target, os.X_OK) and _marked(target.name, key + _digest([target]))


# Steps


def _tools() -> None:
    """shiv and setuptools, in an environment of their own."""
    key = _digest([BUILD_LOCK]) + sys.version
    if _marked("venv", key) and _runs(PYTHON):
        return
    _say(f"installing the build tools, with Python {sys.version.split()[0]}")
    _unmark("venv")
    _run(sys.executable, "-m", "venv", "--clear", VENV)
    _install("--require-hashes", "--only-binary=:all:", "-r", BUILD_LOCK)
    _mark("venv", key)


def _dependencies(edition: Edition) -> None:
    """The libraries, as wheels that run anywhere, or here."""
    key = (edition.bound or "") + _digest([edition.lock])
    if _marked(edition.libraries, key):
        return
    _say("fetching the libraries")
    target = _emptied(edition.libraries)
    _install("--require-hashes", *edition.wheels, "--target", target, "-r", edition.lock)
    _mark(edition.libraries, key)


def _project(sources: dict[str, Path]) -> None:
    """The project's own wheel, made from a copy that holds the page where the package wants it."""
    stage, target = _emptied("stage"), _emptied("project")
    for name, source in sources.items():
        copy = stage / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
    _install("--no-build-isolation", "--no-index", "--target", target, stage)


def _pack(edition: Edition) -> None:
    environment, files = _bundled(edition)
    distributions = {
        name: {file: files[file] for file in own}
        for part in (edition.libraries, "project")
        for name, own in _distributions(WORK / part)
    }
    native = [name for own in distributions.values() for name in own if Path(name).suffix in NATIVE]
    if native and not edition.bound:
        sys.exit(f"build.sh: these are not pure Python: {', '.join(native)}")
    first_code = {name: (ROOT / "bundle" / name).read_bytes() for name in FIRST_CODE}
    fresh = WORK / edition.target.name
    try:
        write_archive(fresh, first_code | {ENVIRONMENT: environment}, distributions, bound_to=edition.bound)
    except ValueError as error:
        sys.exit(f"build.sh: {error}")
    fresh.chmod(0o755)
    fresh.replace(edition.target)


def _bundled(edition: Edition) -> tuple[bytes, dict[str, bytes]]:
    """What shiv makes of the libraries and the project: its environment.json, and the packages' files."""
    site, raw = _emptied("site"), WORK / "shiv.pyz"
    for part in (edition.libraries, "project"):
        for _, names in _distributions(WORK / part):
            for name in names:
                copy = site / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(WORK / part / name, copy)
                copy.chmod(0o644)
    _run(
        *(PYTHON, "-m", "shiv", "--site-packages", site, "--uncompressed", "--reproducible"),
        *("--entry-point", "chatroom.cli:main", "--python", "/usr/bin/env python3", "--output-file", raw),
    )
    return read_bundle(raw)


# What goes in


def _sources() -> dict[str, Path]:
    """Everything of the project that the file is made from, by its name in the copy that is built."""
    modules = (path for kind in ("*.py", "*.lua") for path in (ROOT / "chatroom").rglob(kind))
    names = ["pyproject.toml", "LICENSE", *(str(path.relative_to(ROOT)) for path in modules)]
    sources = {name: ROOT / name for name in sorted(names)}
    sources["chatroom/client.html"] = ROOT / "client.html"
    for name in FIRST_CODE:
        sources[f"bundle/{name}"] = ROOT / "bundle" / name
    for path in sources.values():
        if not path.is_file():
            sys.exit(f"build.sh: {path.relative_to(ROOT)} is missing")
    return sources


def _distributions(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The name of each distribution that pip has installed there, and of its files, as far as they go in."""
    for record in folder.glob("*.dist-info/RECORD"):
        with record.open(newline="", encoding="utf-8") as file:
            names = [row[0] for row in csv.reader(file)]
        yield record.parent.name.removesuffix(".dist-info"), [name for name in names if _goes_in(Path(name))]


def _goes_in(name: Path) -> bool:
    noted = name.parent.suffix == ".dist-info" and name.name in NOTES
    return not noted and name.parts[0] != ".." and TESTS.isdisjoint(name.parts)


# Small tools


def _install(*arguments: str | Path) -> None:
    options = ("--no-deps", "--no-compile", "--quiet", "--disable-pip-version-check", "--no-input")
    _run(PYTHON, "-m", "pip", "install", *options, *arguments)


def _run(*command: str | Path) -> None:
    """Run it; if it fails, say what it said. What a machine sets for pip's targets is not for us."""
    settings = {
        "PIP_CONSTRAINT": os.devnull,
        "PIP_USER": "0",
        "SOURCE_DATE_EPOCH": EPOCH_SECONDS,
        "PYTHONWARNINGS": "ignore",
    }
    env = {name: value for name, value in os.environ.items() if name not in {"PIP_TARGET", "PIP_PREFIX"}}
    done = subprocess.run(command, env={**env, **settings}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}build.sh: {Path(command[0]).name} failed: {command[1:4]}")


def _runs(python: Path) -> bool:
    return python.exists() and subprocess.run([python, "-c", ""], check=False).returncode == 0


def _digest(paths: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        name = str(path.relative_to(ROOT))
        total.update(f"{name}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _emptied(name: str) -> Path:
    _unmark(name)
    shutil.rmtree(WORK / name, ignore_errors=True)
    (WORK / name).mkdir()
    return WORK / name


def _mark(name: str, key: str) -> None:
    (WORK / f"{name}.made-from").write_text(key)


def _unmark(name: str) -> None:
    (WORK / f"{name}.made-from").unlink(missing_ok=True)


def _marked(name: str, key: str) -> bool:
    mark = WORK / f"{name}.made-from"
    return mark.is_file() and mark.read_text() == key


def _say(text: str) -> None:
    print(f"build.sh: {text}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
