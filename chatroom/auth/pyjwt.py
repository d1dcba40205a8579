"""PyJWT, and the package `cryptography` that it needs for everything but HS256.

1. PyJWT is imported only where web tokens are configured, so that other starts don't wait for it.
2. `cryptography` is compiled, so the portable file can't hold it; that of the host is used. Where it is
   missing, too old or broken, a StartError names the command that helps. HS256 works all the same.
"""

import functools
import importlib
import sys
import sysconfig
from pathlib import Path
from typing import Any

from chatroom.core.errors import StartError
from chatroom.system.stdio import unheard

_OLDEST = (3, 4)
"""The release of cryptography from which PyJWT works with it, by its own `crypto` extra."""


def import_pyjwt() -> Any:
    """PyJWT. Importing it fails with a broken cryptography, so that one is kept from it (rule 2)."""
    if "jwt" not in sys.modules and _fault_of_cryptography() is not None:
        sys.modules["cryptography"] = None  # type: ignore[assignment]  # for imports: there is none
        try:
            return importlib.import_module("jwt")
        finally:
            del sys.modules["cryptography"]
    return importlib.import_module("jwt")


def require_cryptography() -> None:
    """StartError without a cryptography that works."""
    fault = _fault_of_cryptography()
    if fault is None:
        return
    command = f"{sys.executable} -m pip install --upgrade cryptography"
    if sys.prefix == sys.base_prefix and Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists():
        command = "./build.sh --with-cryptography"  # pip refuses to change the system's Python
    raise StartError(f"public keys need the Python package cryptography, which {fault}: run {command}")


@functools.cache
def _fault_of_cryptography() -> str | None:
    """What is wrong with the package, if anything."""
    try:
        with unheard():  # a panic tells its story by itself, in a hundred lines
            version = str(importlib.import_module("cryptography").__version__)
            importlib.import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
            importlib.import_module("cryptography.hazmat.primitives.serialization")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # that panic, which comes from Rust, is no Exception
        missing = isinstance(error, ModuleNotFoundError) and error.name == "cryptography"
        return "is not installed" if missing else f"is broken ({type(error).__name__}: {error})"
    release = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return None if release >= _OLDEST else f"is too old here ({version})"
