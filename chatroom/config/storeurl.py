"""Store URLs: from what an operator writes for --redis to the address of a store.

    redis://[[USER][:PASSWORD]@]HOST[:PORT][/DB]        also valkey://, and with TLS rediss:// and valkeys://
    unix://[[USER][:PASSWORD]@]/PATH[?db=DB]
    redis+sentinel://[…@]HOST[:PORT][,HOST[:PORT]]…/PRIMARY[/DB]
    redis+cluster://[…@]HOST[:PORT][,HOST[:PORT]]…      both also with valkey, rediss and valkeys

1. What is wrong is a ValueError of one line. It repeats nothing of the text: a slip of the pen may have put
   the password anywhere in it.
2. User, password and path are percent-encoded where they hold anything but what stands in a URL by itself.
3. IPv6 addresses stand in brackets.
"""

import re
from ipaddress import IPv6Address
from urllib.parse import unquote

from chatroom.core.stores import StoreAddress, StoreKind

PORT, SENTINEL_PORT = 6379, 26379
MAX_HOSTS = 32
_EXAMPLE = "write it like redis://localhost:6379"
_PLAIN, _SECURE = ("redis", "valkey"), ("rediss", "valkeys")
_VISIBLE = re.compile(r"[!-~]+")
_PERCENT = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?\.?")
_PRIMARY = re.compile(r"[A-Za-z0-9._-]{1,100}")
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^][:]*))(?::([0-9]{1,5}))?")
_NUMBER = re.compile(r"[0-9]{1,5}")
_UNIX_PATH_BYTES = 107


def read_store_url(text: str) -> StoreAddress:
    """The address that a URL says. Raises ValueError (rule 1)."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise ValueError(f"no URL: {_EXAMPLE}")
    if not _VISIBLE.fullmatch(text):
        raise ValueError("only visible ASCII characters stand in a URL: percent-encode others")
    base, _, kind = scheme.lower().partition("+")
    if base not in (*_PLAIN, *_SECURE) or kind not in ("", StoreKind.SENTINEL, StoreKind.CLUSTER):
        if scheme.lower() == "unix":
            return _read_unix(rest)
        raise ValueError(
            "an unknown scheme: write redis://, rediss:// (TLS), valkey://, valkeys:// (TLS), unix://, "
            "redis+sentinel:// or redis+cluster://"
        )
    if "?" in rest or "#" in rest:
        raise ValueError("? and # mean nothing here: percent-encode them in a password, else leave them out")
    place, _, path = rest.partition("/")
    if "@" in path:
        raise ValueError("a / before the @: percent-encode it in a password, as %2F")
    who, hosts = _split_user(place)
    tls = base in _SECURE
    match kind:
        case StoreKind.SENTINEL:
            primary, _, db = path.partition("/")
            if not _PRIMARY.fullmatch(primary):
                raise ValueError(
                    "the primary's name is missing behind the Sentinels: write it like "
                    "redis+sentinel://host:26379/primary"
                )
            return StoreAddress(
                StoreKind.SENTINEL, _read_hosts(hosts, SENTINEL_PORT), None, tls, *who, _read_db(db), primary
            )
        case StoreKind.CLUSTER:
            if path:
                raise ValueError("a Cluster has one database: leave out what follows the hosts")
            return StoreAddress(StoreKind.CLUSTER, _read_hosts(hosts, PORT), None, tls, *who)
    found = _read_hosts(hosts, PORT)
    if len(found) > 1:
        raise ValueError("several hosts: write redis+sentinel:// or redis+cluster:// for them, or one host")
    return StoreAddress(StoreKind.STANDALONE, found, None, tls, *who, _read_db(path))


def _read_unix(rest: str) -> StoreAddress:
    place, _, query = rest.partition("?")
    user, slash, path = place.partition("/")
    if "@" in path:
        raise ValueError(
            "an @ behind the first /: percent-encode it in a path as %40, and / before it as %2F"
        )
    who, host = _split_user(user)
    if host or not slash or not path:
        raise ValueError("no path of a socket: write it like unix:///run/valkey.sock, with three slashes")
    if "#" in place or (query and not query.startswith("db=")):
        raise ValueError("only ?db=N may stand behind the path: percent-encode ? and # in it")
    decoded = "/" + _decode(path)
    if "\0" in decoded or len(decoded.encode()) > _UNIX_PATH_BYTES:
        raise ValueError(f"a socket's path has at most {_UNIX_PATH_BYTES} bytes, and no NUL among them")
    return StoreAddress(StoreKind.STANDALONE, (), decoded, False, *who, _read_db(query.removeprefix("db=")))


def _split_user(place: str) -> tuple[tuple[str | None, str | None], str]:
    """User and password, each None where it is left out, and what stands behind the @."""
    user, at, rest = place.rpartition("@")
    if not at:
        return (None, None), rest
    if "@" in user:
        raise ValueError("more than one @: percent-encode it in a password, as %40")
    name, colon, password = user.partition(":")
    if not name and not password:
        raise ValueError("nothing stands before the @: write USER:PASSWORD, :PASSWORD or nothing there")
    if colon and not password:
        raise ValueError("an empty password: leave out the colon before the @")
    return (_decode(name) or None, _decode(password) or None), rest


def _decode(text: str) -> str:
    if _PERCENT.fullmatch(text):
        try:
            return unquote(text, errors="strict")
        except UnicodeDecodeError:
            pass
    raise ValueError("% begins no character: write % itself as %25, and others in UTF-8")


def _read_hosts(text: str, port: int) -> tuple[tuple[str, int], ...]:
    found = dict.fromkeys(_read_host(part, port) for part in text.split(","))
    if len(found) > MAX_HOSTS:
        raise ValueError(f"more than {MAX_HOSTS} hosts: some of them are enough")
    return tuple(found)


def _read_host(text: str, usual_port: int) -> tuple[str, int]:
    if not text:
        raise ValueError(f"a host is missing: {_EXAMPLE}")
    match = _HOST.fullmatch(text)
    if match is None:
        raise ValueError(
            "no host and port: write HOST:PORT, IPv6 in brackets, and percent-encode : and / in a password"
        )
    six, name, written = match.groups()
    port = usual_port if written is None else int(written)
    if not 0 < port <= 65535:
        raise ValueError("a port is a number from 1 to 65535")
    if six is not None:
        try:
            return str(IPv6Address(six)), port
        except ValueError:
            raise ValueError("what stands in brackets is no IPv6 address") from None
    if not _NAME.fullmatch(name):
        raise ValueError("a host is a name or an address: letters, digits, dots and hyphens")
    return name, port


def _read_db(text: str) -> int:
    if not text:
        return 0
    if not _NUMBER.fullmatch(text):
        raise ValueError("the database behind the host is a number, like /0")
    return int(text)
