"""The comparison servers' packages, under .build/: a venv with `websockets` and uvloop, and npm's `ws`."""

import shutil
import subprocess
import sys

from benchmarks.systems import BUILD, HERE, NODE_MODULES, VENV_PYTHON

REQUIREMENTS = HERE / "requirements.txt"
NODE_FILES = ("package.json", "package-lock.json")


def prepare() -> None:
    """Install what is missing or no longer what the locks say."""
    wanted = REQUIREMENTS.read_text()
    stamp = BUILD / "bench-venv" / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(stamp.parent)], check=True)
        subprocess.run(
            [
                str(VENV_PYTHON),
                "-m",
                "pip",
                "install",
                "-q",
                "--disable-pip-version-check",
                "--require-hashes",
                "--only-binary=:all:",
                "-r",
                str(REQUIREMENTS),
            ],
            check=True,
        )
        stamp.write_text(wanted)
    folder = NODE_MODULES.parent
    folder.mkdir(parents=True, exist_ok=True)
    lock = (HERE / "package-lock.json").read_text()
    stamp = NODE_MODULES / ".locked"
    if not stamp.exists() or stamp.read_text() != lock:
        for name in NODE_FILES:
            shutil.copy(HERE / name, folder / name)
        subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True)
        stamp.write_text(lock)
