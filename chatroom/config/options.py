"""The options of the command line: one table of them, and the parser that gathers their values.

Owns the names, defaults and help texts of all options, and the order of their sources. Rules:

1. `OPTIONS` is the only place that names an option. The parser, the environment, `--help` and the test of the
   documentation are made from it.
2. A flag wins over its environment variable, and the variable wins over the default. All three are written
   alike and go through the same parser.
3. Every mistake is a StartError of one line. It names the flag or the variable and says what to write.
4. A secret is read from a file that an option names. Only the URL of a store may hold one, its password. So
   an error never repeats an argument that may be such a URL.

It doesn't know which options need or exclude each other; see `settings`.
"""

import argparse
import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from chatroom.config import parsers
from chatroom.config.parsers import read_store_url
from chatroom.core.errors import StartError

PREFIX = "CHATROOM_"
_SEE_HELP = "--help lists the options"


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table.

    `target` is the field of Settings, or of its Limits. `read` parses a value, see `parsers`. `default` is as
    an operator writes it. An option with `gather` may be repeated, and its values become one collection.
    """

    name: str
    target: str
    read: Callable[[str], object]
    default: str | None
    metavar: str
    help: str
    gather: Callable[[Iterable[Any]], Collection[Any]] | None = None

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper().replace("-", "_")

    @property
    def is_switch(self) -> bool:
        return self.read is parsers.switch


_SOON, _LONG = "10ms", "24h"

OPTIONS: tuple[Option, ...] = (
    Option("host", "hosts", parsers.host, "localhost", "ADDRESS",
           "address to bind; may be repeated; localhost means both loopbacks where they exist, "
           "none only --unix", tuple),
    Option("port", "port", parsers.whole(0, 65535), "3000", "N", "port to listen on; 0 picks a free one"),
    Option("unix", "unix", parsers.unix_path, None, "PATH", "listen on a Unix socket as well"),
    Option("unix-mode", "unix_mode", parsers.mode, "0666", "MODE",
           "permissions of the Unix socket, in octal"),
    Option("admin-socket", "admin_socket", parsers.unix_path, None, "PATH",
           "a Unix socket for its owner alone, where ./chat.pyz admin needs no token and may do everything"),
    Option("metrics-host", "metrics_hosts", parsers.host, None, "ADDRESS",
           "address of the port for metrics; may be repeated; localhost if left out", tuple),
    Option("metrics-port", "metrics_port", parsers.whole(0, 65535), None, "N",
           "a port of its own for /metrics, /healthz and /readyz; the main port then has no /metrics"),
    Option("tls-cert", "tls_cert", parsers.path, None, "FILE", "PEM file of the certificate chain"),
    Option("tls-key", "tls_key", parsers.path, None, "FILE", "PEM file of the private key"),
    Option("db", "db", parsers.path, "chat.db", "PATH",
           "the SQLite file that keeps the messages; none keeps them in memory only"),
    Option("history", "history", parsers.whole(0, 500), "50", "N", "messages replayed on join, 0 to 500"),
    Option("retain", "retain", parsers.retain, None, "LIMIT",
           "how long messages are kept: an age like 90d, a count per room like 100000, or both: 90d,100000"),
    Option("new-epoch", "new_epoch", parsers.switch, "0", "",
           "begin a new epoch, so that clients which resume are told what they may have missed"),
    Option("redis", "redis", read_store_url, None, "URL",
           "a Valkey or Redis that keeps the messages instead, for several nodes: redis://, rediss:// (TLS), "
           "unix://, redis+sentinel:// or redis+cluster://"),
    Option("redis-prefix", "redis_prefix", parsers.key_prefix, "chatroom", "TEXT",
           "what all keys and channels there begin with"),
    Option("redis-password-file", "redis_password_file", parsers.path, None, "FILE",
           "password for --redis, where its URL has none"),
    Option("redis-ca", "redis_ca", parsers.path, None, "FILE",
           "PEM file of the authorities whose certificates are believed by --redis, instead of the system's"),
    Option("node", "node", parsers.node, None, "NAME",
           "name of this node among those of --redis; host name and process id if left out"),
    Option("reuse-port", "reuse_port", parsers.switch, "0", "",
           "let other nodes on this machine listen at the same --port"),
    Option("tokens", "tokens", parsers.path, None, "FILE", "TOML file of static tokens"),
    Option("jwt-secret-file", "jwt_secret_file", parsers.path, None, "FILE",
           "secret of JSON Web Tokens signed with HS256, 32 bytes at least"),
    Option("jwt-public-key", "jwt_public_key", parsers.path, None, "FILE",
           "PEM public key of JSON Web Tokens signed with RS256, ES256 or EdDSA"),
    Option("jwt-jwks", "jwt_jwks", parsers.file_or_https, None, "FILE|URL",
           "JWK set of the issuer of JSON Web Tokens: a file, or an https address"),
    Option("jwt-audience", "jwt_audience", parsers.text, None, "NAME",
           "what the aud of JSON Web Tokens must name"),
    Option("jwt-issuer", "jwt_issuer", parsers.text, None, "NAME",
           "what the iss of JSON Web Tokens must be"),
    Option("insecure-dev-tokens", "insecure_dev_tokens", parsers.switch, "0", "",
           "allow the development tokens on an address that is not loopback"),
    Option("origin", "origins", parsers.origin, None, "ORIGIN",
           "browser origin to let in; may be repeated; without it, any", frozenset),
    Option("trusted-proxy", "trusted_proxies", parsers.proxy, None, "CIDR",
           "peers whose X-Forwarded-For is believed; unix for those of the Unix socket; may be repeated",
           frozenset),
    Option("proxy-protocol", "proxy_protocol", parsers.switch, "0", "",
           "each --trusted-proxy begins a connection with a header of the PROXY protocol, version 1 or 2"),
    Option("rate", "limits.message_rate", parsers.number(1e6), "5", "N",
           "messages per second and username; 0 lifts this and the limit on other commands"),
    Option("burst", "limits.message_burst", parsers.whole(1, 10**6), "20", "N",
           "messages that a username may send at once"),
    Option("max-connections", "limits.connections", parsers.whole(1, 10**6), "10000", "N",
           "WebSocket connections in all"),
    Option("max-per-user", "limits.per_user", parsers.whole(1, 10**6), "20", "N", "connections per username"),
    Option("max-per-ip", "limits.per_address", parsers.whole(1, 10**6), "200", "N",
           "connections per address; loopback is exempt"),
    Option("max-frame", "limits.frame_bytes", parsers.size("1KiB", "16MiB"), "64KiB", "SIZE",
           "largest message on the wire, in bytes"),
    Option("max-text", "limits.text_chars", parsers.whole(1, 10**6), "4000", "N",
           "longest text, in characters"),
    Option("hide-rooms", "hide_rooms", parsers.switch, "0", "",
           "tell nobody which rooms there are; rooms whose name is known can be followed still"),
    Option("edit-window", "limits.edit_seconds", parsers.duration("0s", "3650d"), "24h", "TIME",
           "how long authors may edit and delete their messages; 0 never"),
    Option("ping-interval", "limits.ping_interval", parsers.duration(_SOON, _LONG), "20s", "TIME",
           "pause between keepalive pings"),
    Option("ping-timeout", "limits.ping_timeout", parsers.duration(_SOON, _LONG), "20s", "TIME",
           "how long a ping may stay unanswered"),
    Option("send-timeout", "limits.send_timeout", parsers.duration(_SOON, _LONG), "10s", "TIME",
           "how long a write may make no progress"),
    Option("drain", "drain", parsers.duration("0s", "1h"), "5s", "TIME",
           "how long a stop may take to tell everyone"),
    Option("log-level", "log_level", parsers.choice("debug", "info", "warning", "error"), "info", "LEVEL",
           "least level that is logged: debug, info, warning or error"),
    Option("log-format", "log_format", parsers.choice("auto", "text", "json"), "auto", "FORMAT",
           "text, json, or auto: text on a terminal, else json"),
)  # fmt: skip


class Parser(argparse.ArgumentParser):
    """Gathers what a command is given for its `options`, as text. A mistake is a StartError."""

    def __init__(
        self,
        options: Sequence[Option],
        *,
        prog: str,
        usage: str,
        description: str,
        epilog: str | None = None,
        version: str | None = None,
        words: bool = False,
    ) -> None:
        """`version` is the text for `--version`, which the command has only with it.

        With `words` it takes any number of them, also between options and behind `--`.
        """
        super().__init__(prog, usage, description, epilog, add_help=False, allow_abbrev=False)
        self._words = words
        self._options = options
        self._version = version
        for option in options:
            self._add_option(option)
        if version is not None:
            self.add_argument("--version", action="store_true", help="print the version and exit")
        self.add_argument("--help", "-h", action="store_true", help="print this text and exit")
        if words:
            self.add_argument("words", nargs="*", help=argparse.SUPPRESS)

    def read(self, arguments: Sequence[str]) -> argparse.Namespace | str:
        """What the arguments give, or the text that `--help` or `--version` asks for. Raises StartError."""
        if self._words:
            end = list(arguments).index("--") if "--" in arguments else len(arguments)
            given, rest = self.parse_known_intermixed_args(arguments[:end])
            given.words.extend(arguments[end + 1 :])
        else:
            given, rest = self.parse_known_args(arguments)
        if given.help:
            return self.format_help()
        if self._version is not None and given.version:
            return self._version
        if rest:
            raise StartError(unknown(rest[0], self._options))
        return given

    def _add_option(self, option: Option) -> None:
        how: dict[str, Any] = {"dest": option.target, "help": option.help}
        if option.is_switch:
            self.add_argument(option.flag, action="append_const", const="1", **how)
            return
        if option.default is not None:
            how["help"] += f" [{option.default}]"
        self.add_argument(option.flag, action="append", metavar=option.metavar, **how)

    def error(self, message: str) -> NoReturn:
        """Raises StartError. argparse would print its usage and exit."""
        raise StartError(
            message.removeprefix("argument ")
            .replace("expected one argument", f"needs a value; {_SEE_HELP}")
            .replace("ignored explicit argument", "takes no value, but was given")
        )


def unknown(word: str, options: Iterable[Option]) -> str:
    """The error for an unknown argument. It doesn't repeat what follows `=`, which may be a secret."""
    if not word.startswith("-"):
        return f"unexpected argument{quoted(word)}; {_SEE_HELP}"
    name = word.partition("=")[0][:64]
    near = difflib.get_close_matches(name, [option.flag for option in options], n=1)
    return f"unknown option {name!r}; " + (f"did you mean {near[0]}?" if near else _SEE_HELP)


def quoted(word: str) -> str:
    """The argument for an error, behind a blank. Empty if the argument may be a URL (rule 4)."""
    return "" if any(sign in word for sign in ":/@") else f" {word[:64]!r}"


def is_given(option: Option, given: argparse.Namespace, environ: Mapping[str, str]) -> bool:
    """Whether a flag or the environment gives the option a value, so that it isn't the default."""
    return getattr(given, option.target) is not None or bool(environ.get(option.variable, "").strip())


def values_of(
    options: Iterable[Option], given: argparse.Namespace, environ: Mapping[str, str]
) -> dict[str, Any]:
    """The value of each option, by its target. Raises StartError."""
    return {option.target: value_of(option, getattr(given, option.target), environ) for option in options}


def value_of(option: Option, flags: list[str] | None, environ: Mapping[str, str]) -> Any:
    """The value of one option, from its flags, the environment or its default. Raises StartError."""
    source = option.flag
    texts = flags
    if texts is None and (variable := environ.get(option.variable, "").strip()):
        source = option.variable
        texts = [part.strip() for part in variable.split(",")] if option.gather else [variable]
    if texts is None:
        texts = [] if option.default is None else [option.default]
    try:
        values = [option.read(text) for text in texts]
    except ValueError as error:
        raise StartError(f"{source}: {error}") from None
    if not values:
        return None
    return option.gather(dict.fromkeys(values)) if option.gather else values[-1]
