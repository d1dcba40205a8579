"""Settings: the values of all options, read from the command line and the environment, and checked together.

Owns which options need or exclude each other. Rules:

1. Options that mean nothing together, or without each other, are a StartError.
2. A store has one password, in the URL or in a file. No error shows it.
3. The files of a store are read at the start only. Their content is used for as long as the server runs.

It doesn't know whether a file exists or an address is free. The code that opens them does.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chatroom import __version__
from chatroom.config.options import OPTIONS, PREFIX, Parser, is_given, values_of
from chatroom.core.errors import StartError
from chatroom.core.limits import Limits
from chatroom.core.messages import Retain
from chatroom.core.stores import StoreAddress
from chatroom.net.proxies import Proxy
from chatroom.system.files import read_file

# The options of a store

STORE_OPTIONS = tuple(
    option
    for option in OPTIONS
    if option.target in ("redis", "redis_prefix", "redis_password_file", "redis_ca")
)
MAX_PASSWORD_FILE = 4096


def check_store_options(values: Mapping[str, Any], named: Collection[str]) -> None:
    """Raises StartError for options of a store that mean nothing together."""
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
    """The address with the password and the authorities in the named files. It blocks. Raises StartError."""
    if ca is not None:
        _check_authorities(ca)
        address = replace(address, ca=ca)
    if password_file is not None:
        address = replace(address, password=_read_password(password_file))
    return address


def _check_authorities(ca: str) -> None:
    import ssl  # noqa: PLC0415  (slow to import, and --help and --version import this module)

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


# The settings

NO_DATABASE = "none"
NO_HOST = "none"


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of all options. Only the server and the commands see them; other parts get named values."""

    hosts: tuple[str, ...]
    port: int
    unix: str | None
    unix_mode: int
    admin_socket: str | None
    metrics_hosts: tuple[str, ...] | None
    metrics_port: int | None
    tls_cert: str | None
    tls_key: str | None
    db: str
    history: int
    retain: Retain | None
    new_epoch: bool
    redis: StoreAddress | None
    redis_prefix: str
    redis_password_file: str | None
    redis_ca: str | None
    node: str | None
    reuse_port: bool
    tokens: str | None
    jwt_secret_file: str | None
    jwt_public_key: str | None
    jwt_jwks: str | None
    jwt_audience: str | None
    jwt_issuer: str | None
    insecure_dev_tokens: bool
    origins: frozenset[str] | None
    trusted_proxies: frozenset[Proxy] | None
    proxy_protocol: bool
    hide_rooms: bool
    drain: float
    log_level: str
    log_format: str
    limits: Limits
    unknown_variables: tuple[str, ...]
    """Variables in the environment that begin like ours and name no option: probably a mistake."""

    @property
    def takes_development_tokens(self) -> bool:
        """Whether the well-known development tokens are valid."""
        return self.insecure_dev_tokens or not (self.tokens or self.takes_web_tokens)

    @property
    def takes_web_tokens(self) -> bool:
        """Whether JSON Web Tokens are valid."""
        return any((self.jwt_secret_file, self.jwt_public_key, self.jwt_jwks))


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings | str:
    """Read the options of `serve`. Raises StartError.

    With `--help` or `--version` the result is the text to print instead.
    """
    given = _parser().read(arguments)
    if isinstance(given, str):
        return given
    values = values_of(OPTIONS, given, environ)
    named = {option.flag for option in OPTIONS if is_given(option, given, environ)}
    _check_together(values, named)
    limits = {name.removeprefix("limits."): value for name, value in values.items() if "." in name}
    others = {name: value for name, value in values.items() if "." not in name}
    return Settings(**others, limits=Limits(**limits), unknown_variables=_unknown_variables(environ))


def _parser() -> Parser:
    return Parser(
        OPTIONS,
        prog="chatroom",
        usage="./chat.pyz [serve] [options]\n       ./chat.pyz backup [--db PATH] TO\n"
        "       ./chat.pyz copy --db PATH --redis URL\n"
        "       ./chat.pyz export [--db PATH] [--output FILE] ROOM\n"
        "       ./chat.pyz import [--db PATH] [--room NAME] < FILE\n"
        "       ./chat.pyz admin COMMAND …\n"
        "       ./chat.pyz join URL | tail URL | say URL < TEXT\n"
        "       ./chat.pyz token --sub NAME [--room ROOM:RIGHTS]… --jwt-secret-file FILE",
        description="A chat server for browsers and other WebSocket clients, in one file.",
        epilog=f"Every option is also an environment variable: {PREFIX} and its name in capitals, hyphens as "
        "underscores; repeated values separated by commas, switches 1 or 0. The flag wins.",
        version=f"chatroom {__version__}\n",
    )


def _check_together(values: Mapping[str, Any], named: Collection[str]) -> None:
    """Raises StartError by rule 1. `named` are the flags of options that weren't left out."""
    if (values["tls_cert"] is None) != (values["tls_key"] is None):
        have, lack = ("--tls-cert", "--tls-key") if values["tls_key"] is None else ("--tls-key", "--tls-cert")
        raise StartError(f"{have} needs {lack} beside it: give both, or neither to serve without TLS")
    _check_places(values)
    _check_store(values, named)
    _check_web_tokens(values)
    if values["db"] == NO_DATABASE:
        for target, flag in (("retain", "--retain"), ("new_epoch", "--new-epoch")):
            if values[target]:
                raise StartError(f"{flag} means nothing with --db none: leave one of them out")


def _check_places(values: Mapping[str, Any]) -> None:
    if NO_HOST in values["hosts"] and len(values["hosts"]) > 1:
        raise StartError("--host none means no address at all: leave it out, or the others")
    sockets = [values["unix"], values["admin_socket"]]
    if None not in sockets and len(set(map(os.path.abspath, sockets))) == 1:
        raise StartError(
            "--admin-socket is --unix already, where everybody needs a token: choose another path"
        )
    if values["metrics_hosts"] and values["metrics_port"] is None:
        raise StartError("--metrics-host needs --metrics-port beside it: give both, or neither")
    if values["proxy_protocol"] and not values["trusted_proxies"]:
        raise StartError("--proxy-protocol needs --trusted-proxy beside it: name the proxies that begin so")


def _check_store(values: Mapping[str, Any], named: Collection[str]) -> None:
    """Raises StartError if messages would be kept in two places, or if node options have no store."""
    check_store_options(values, named)
    if values["redis"] is not None:
        if "--db" in named:
            raise StartError(
                "--db and --redis exclude each other, since messages are kept in one place: leave one out; "
                "./chat.pyz copy brings a database into a store"
            )
        return
    if values["reuse_port"]:
        raise StartError(
            "--reuse-port needs --redis beside it: without, each process would have rooms of its own, and "
            "people would miss each other silently"
        )
    if values["node"] is not None:
        raise StartError("--node means nothing without --redis: leave it out, or give both")


def _check_web_tokens(values: Mapping[str, Any]) -> None:
    """Raises StartError if keys come from two sources: a secret and public keys are never valid together."""
    sources = {
        "--jwt-secret-file": "jwt_secret_file",
        "--jwt-public-key": "jwt_public_key",
        "--jwt-jwks": "jwt_jwks",
    }
    given = [flag for flag, target in sources.items() if values[target]]
    if len(given) > 1:
        raise StartError(f"{given[0]} and {given[1]} exclude each other: give one source of keys")
    for target, flag in (("jwt_audience", "--jwt-audience"), ("jwt_issuer", "--jwt-issuer")):
        if values[target] and not given:
            raise StartError(f"{flag} means nothing without keys: give one of {', '.join(sources)} beside it")


def _unknown_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    known = {option.variable for option in OPTIONS}
    return tuple(sorted(name for name in environ if name.startswith(PREFIX) and name not in known))
