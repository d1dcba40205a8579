"""The options of a store that nodes share: what they must have beside each other, and what their files hold.

1. There is one password, in the URL or in a file. It is in no error.
2. A file is read at the start alone: what it holds is in use for as long as the server runs.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from chatroom.config.options import OPTIONS
from chatroom.core.errors import StartError
from chatroom.core.stores import StoreAddress
from chatroom.system.files import read_file

STORE_OPTIONS = tuple(
    option
    for option in OPTIONS
    if option.target in ("redis", "redis_prefix", "redis_password_file", "redis_ca")
)
MAX_PASSWORD_FILE = 4096


def check_store_options(values: Mapping[str, Any], named: Collection[str]) -> None:
    """Refuse what can't be meant together. Raises StartError."""
    address: StoreAddress | None = values["redis"]
    if address is None:
        for option in STORE_OPTIONS:
            if option.flag in named:
                raise StartError(f"{option.flag} means nothing without --redis: leave it out, or give both")
        return
    if address.password is not None and values["redis_password_file"] is not None:
        raise StartError("--redis has a password and --redis-password-file another: leave one of them out")
    if address.username is not None and address.password is None and values["redis_password_file"] is None:
        raise StartError("--redis names a user without a password: give it by --redis-password-file")
    if values["redis_ca"] is not None and not address.tls:
        raise StartError(
            "--redis-ca means nothing without TLS: write rediss:// for redis://, or leave it out"
        )


def complete_address(address: StoreAddress, password_file: str | None, ca: str | None) -> StoreAddress:
    """The address with what the files hold that are named. It blocks. Raises StartError."""
    if ca is not None:
        _check_authorities(ca)
        address = replace(address, ca=ca)
    if password_file is not None:
        address = replace(address, password=_read_password(password_file))
    return address


def _check_authorities(ca: str) -> None:
    import ssl  # noqa: PLC0415  (--help and --version read the options, too, and are quick)

    try:
        ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise StartError(
            f"--redis-ca {ca} can't be used ({reason}): give a PEM file of certificates"
        ) from None


def _read_password(password_file: str) -> str:
    source = read_file(
        "--redis-password-file", password_file, most=MAX_PASSWORD_FILE, kind="a file with the password"
    )
    try:
        password = source.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise StartError(f"--redis-password-file {password_file} is no text in UTF-8") from None
    if not password:
        raise StartError(f"--redis-password-file {password_file} is empty: write the password into it")
    return password
