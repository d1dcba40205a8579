"""Option parsers: from the text of an option to the value that the program uses.

Owns the notations of all values. Rules:

1. A parser takes one string and returns a value. Raises ValueError with one line that says what to write.
2. Only ASCII digits are numbers: no sign, no exponent, no NaN, no infinity, no digits of other scripts.
3. A length of time has a unit, since a bare `20` might mean anything.
4. The URL of a store has one of these forms:

       redis://[[USER][:PASSWORD]@]HOST[:PORT][/DB]      also valkey://, and with TLS rediss:// and valkeys://
       unix://[[USER][:PASSWORD]@]/PATH[?db=DB]
       redis+sentinel://[…@]HOST[:PORT][,HOST[:PORT]]…/PRIMARY[/DB]
       redis+cluster://[…@]HOST[:PORT][,HOST[:PORT]]…    both also with valkey, rediss and valkeys

5. An error about such a URL repeats nothing of it: a mistake may have put the password anywhere in it.
6. User, password and path of a URL are percent-encoded where they hold reserved characters. IPv6 addresses
   stand in brackets.
7. What only options of the server are made of is imported when one is read: all commands use this module, and
   the time that some of them take is the time of their imports.

It doesn't know whether a text comes from a flag or from the environment. The caller names the source.
"""

import re
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote

if TYPE_CHECKING:
    from chatroom.core.messages import Retain
    from chatroom.core.stores import StoreAddress
    from chatroom.net.proxies import Proxy

# Store URLs

PORT, SENTINEL_PORT = 6379, 26379
MAX_HOSTS = 32
_EXAMPLE = "write it like redis://localhost:6379"
_PLAIN, _SECURE = ("redis", "valkey"), ("rediss", "valkeys")
_VISIBLE = re.compile(r"[!-~]+")
_PERCENT = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*")
_PRIMARY = re.compile(r"[A-Za-z0-9._-]{1,100}")
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^][:]*))(?::([0-9]{1,5}))?")
_PORT_NUMBER = re.compile(r"[0-9]{1,5}")


def read_store_url(text: str) -> "StoreAddress":
    """The address in the URL of a store. Raises ValueError (rule 5)."""
    from chatroom.core.stores import StoreAddress, StoreKind  # noqa: PLC0415  (rule 7)

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
    authority, _, path = rest.partition("/")
    if "@" in path:
        raise ValueError("a / before the @: percent-encode it in a password, as %2F")
    account, hosts = _split_user(authority)
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
                StoreKind.SENTINEL,
                _read_hosts(hosts, SENTINEL_PORT),
                None,
                tls,
                *account,
                _read_db(db),
                primary,
            )
        case StoreKind.CLUSTER:
            if path:
                raise ValueError("a Cluster has one database: leave out what follows the hosts")
            return StoreAddress(StoreKind.CLUSTER, _read_hosts(hosts, PORT), None, tls, *account)
    found = _read_hosts(hosts, PORT)
    if len(found) > 1:
        raise ValueError("several hosts: write redis+sentinel:// or redis+cluster:// for them, or one host")
    return StoreAddress(StoreKind.STANDALONE, found, None, tls, *account, _read_db(path))


def _read_unix(rest: str) -> "StoreAddress":
    from chatroom.core.stores import StoreAddress, StoreKind  # noqa: PLC0415

    before, _, query = rest.partition("?")
    user, slash, path = before.partition("/")
    if "@" in path:
        raise ValueError(
            "an @ behind the first /: percent-encode it in a path as %40, and / before it as %2F"
        )
    account, host = _split_user(user)
    if host or not slash or not path:
        raise ValueError("no path of a socket: write it like unix:///run/valkey.sock, with three slashes")
    if "#" in before or (query and not query.startswith("db=")):
        raise ValueError("only ?db=N may stand behind the path: percent-encode ? and # in it")
    decoded = "/" + _decode(path)
    if "\0" in decoded or len(decoded.encode()) > _UNIX_PATH_BYTES:
        raise ValueError(f"a socket's path has at most {_UNIX_PATH_BYTES} bytes, and no NUL among them")
    return StoreAddress(
        StoreKind.STANDALONE, (), decoded, False, *account, _read_db(query.removeprefix("db="))
    )


def _split_user(authority: str) -> tuple[tuple[str | None, str | None], str]:
    """User and password, each None if it is left out, and the text behind the @. Raises ValueError."""
    user, at, rest = authority.rpartition("@")
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
    six, name, given_port = match.groups()
    port = usual_port if given_port is None else int(given_port)
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
    if not _PORT_NUMBER.fullmatch(text):
        raise ValueError("the database behind the host is a number, like /0")
    return int(text)


# Other values

_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_AGE = re.compile(r"([0-9]{1,6})(m|h|d)")
_SIZE = re.compile(r"([0-9]{1,15})(KiB|MiB)?")
_PREFIX = re.compile(r"[!-z|~]{1,64}")
MAX_NODE = 64
_NODE = re.compile(rf"[!-~]{{1,{MAX_NODE}}}")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?\.?")
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9_][a-z0-9._-]*|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")
_CIDR = re.compile(r"[0-9A-Fa-f.:]+(?:/[0-9]{1,3})?")
_ADDRESS = re.compile(
    r"(?P<user>[^/?#@]*@)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?:[/?][!-\"$-~]*)?"
)

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_AGE_SECONDS = {"m": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "KiB": 1024, "MiB": 1024 * 1024}
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_UNIX_PATH_BYTES = 107

_Quantity = TypeVar("_Quantity", int, float)


def whole(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers from `low` to `high`."""

    def read(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,15}", text) and low <= (number := int(text)) <= high:
            return number
        raise ValueError(f"{text!r} is not a whole number from {low} to {high}")

    return read


def number(high: float) -> Callable[[str], float]:
    """A parser of decimal numbers from 0 to `high`."""

    def read(text: str) -> float:
        if _NUMBER.fullmatch(text) and (value := float(text)) <= high:
            return value
        raise ValueError(f"{text!r} is not a number from 0 to {high:g}")

    return read


def duration(low: str, high: str) -> Callable[[str], float]:
    """A parser of lengths of time from `low` to `high`, in the same notation. Values are in seconds."""
    return _between(low, high, _seconds, "a duration")


def _seconds(text: str) -> float:
    if match := _DURATION.fullmatch(text):
        return float(match[1]) * _SECONDS[match[2]]
    if text == "0":  # the one number that needs no unit
        return 0.0
    if _NUMBER.fullmatch(text):
        raise ValueError(f"{text!r} has no unit: write {text}s, or another of ms, s, m, h, d")
    raise ValueError(f"{text!r} is not a duration: write it like 500ms, 20s, 5m, 1h or 7d")


def retain(text: str) -> "Retain":
    """How long messages are kept: an age, a count per room, or both with a comma between them."""
    from chatroom.core.messages import Retain  # noqa: PLC0415

    seconds: int | None = None
    count: int | None = None
    for part in text.split(","):
        if seconds is None and (age := _AGE.fullmatch(part.strip())) and int(age[1]):
            seconds = int(age[1]) * _AGE_SECONDS[age[2]]
        elif count is None and re.fullmatch(r"[0-9]{1,12}", part.strip()) and int(part):
            count = int(part)
        else:
            raise ValueError(
                f"{text!r} is no limit: write an age like 90d or 12h, a count per room like 100000, or both: "
                "90d,100000"
            )
    return Retain(seconds, count)


def size(low: str, high: str) -> Callable[[str], int]:
    """A parser of sizes from `low` to `high`, in the same notation. Values are in bytes."""
    return _between(low, high, _bytes, "a size")


def _between(low: str, high: str, parse: Callable[[str], _Quantity], what: str) -> Callable[[str], _Quantity]:
    """`parse` with bounds. Its ValueError for a value beyond them asks for `what`."""
    least, most = parse(low), parse(high)

    def read(text: str) -> _Quantity:
        value = parse(text)
        if not least <= value <= most:
            raise ValueError(f"{text!r} is out of range: give {what} from {low} to {high}")
        return value

    return read


def _bytes(text: str) -> int:
    if match := _SIZE.fullmatch(text):
        return int(match[1]) * _BYTES[match[2] or ""]
    raise ValueError(f"{text!r} is not a size: write it like 64KiB, 1MiB or 65536 (bytes)")


def choice(*words: str) -> Callable[[str], str]:
    """A parser of one of `words`."""

    def read(text: str) -> str:
        if text in words:
            return text
        raise ValueError(f"{text!r} is not known: choose {_listed(words)}")

    return read


def _listed(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def switch(text: str) -> bool:
    """A switch: 1 or 0."""
    if text in ("0", "1"):
        return text == "1"
    raise ValueError(f"{text!r} is neither 1 (on) nor 0 (off)")


def path(text: str) -> str:
    """The name of a file. It isn't opened here."""
    if not text:
        raise ValueError("an empty file name: give the path of a file")
    return text


def text(value: str) -> str:
    """A name that is compared character by character."""
    if not value or not value.isprintable():
        raise ValueError("give a name of printable characters")
    return value


def key_prefix(text: str) -> str:
    """The prefix of keys. It has no brace, which would decide where a Cluster keeps the keys."""
    if _PREFIX.fullmatch(text):
        return text
    raise ValueError("give 1 to 64 visible ASCII characters, without braces")


def node(text: str) -> str:
    """The name of a node."""
    if _NODE.fullmatch(text):
        return text
    raise ValueError(f"{text!r} is no name of a node: give 1 to {MAX_NODE} visible ASCII characters")


def file_or_https(text: str) -> str:
    """The name of a file, or an https address. Other schemes don't prove the server's name."""
    scheme, separator, rest = path(text).partition("://")
    if not separator:
        return text
    if scheme.lower() != "https":
        raise ValueError(f"what comes by {scheme[:16]!r} may be anybody's: give an https address, or a file")
    match = _ADDRESS.fullmatch(rest)
    if match is None or not 0 < int(match["port"] or 443) <= 65535:
        raise ValueError("no https address: write it like https://issuer.example/jwks.json")
    if match["user"]:
        raise ValueError(
            "an address with a user's name in it is seen by many: leave that and the password out"
        )
    return text


def is_https(text: str) -> bool:
    """Whether a value of `file_or_https` is an address."""
    return "://" in text


def unix_path(text: str) -> str:
    """The name of a Unix socket. The kernel limits its length."""
    if len(path(text).encode("utf-8", "surrogateescape")) > _UNIX_PATH_BYTES:
        raise ValueError(f"longer than the {_UNIX_PATH_BYTES} bytes of a socket's name: use a shorter path")
    return text


def mode(text: str) -> int:
    """Permissions as chmod takes them, in octal."""
    if re.fullmatch(r"0?[0-7]{3}", text):
        return int(text, 8)
    raise ValueError(f"{text!r} is no mode: write it like 0666, 0660 or 0600")


def host(text: str) -> str:
    """An address or host name to bind, without a port. `[::1]` means `::1`."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        ip_address(bare)
    except ValueError:
        if _NAME.fullmatch(text) and not re.fullmatch(r"[0-9.]+", text):
            return text
    else:
        return bare
    if not text:
        raise ValueError("an empty address: for all of them write 0.0.0.0 or ::")
    if re.fullmatch(r".+:[0-9]+", text):
        raise ValueError(f"{text!r} is not an address: give the port by --port")
    raise ValueError(f"{text!r} is neither an IP address nor a host name")


def proxy(text: str) -> "Proxy":
    """The addresses of trusted proxies: one address, a network with a prefix length, or `unix`."""
    from chatroom.net.proxies import UNIX  # noqa: PLC0415

    if text == UNIX:
        return UNIX
    try:
        found = ip_network(text, strict=False)
    except ValueError:
        found = None
    if found is None or not _CIDR.fullmatch(text):
        raise ValueError(f"{text!r} is no network: write one like 10.0.0.0/8 or ::1, or unix")
    if isinstance(found, IPv6Network) and found.network_address.ipv4_mapped:
        raise ValueError(f"{text!r} means IPv4 addresses: write them as such, like 10.0.0.0/8")
    if ip_address(text.partition("/")[0]) != found.network_address:
        raise ValueError(f"{text!r} has bits beyond its prefix: write {found}")
    return found


def origin(text: str) -> str:
    """An origin exactly as browsers send it, since it is compared character by character; or `null`."""
    match = _ORIGIN.fullmatch(text)
    if text == "null" or (match and _usual_port(match[1], match[3])):
        return text
    if text == "*":
        raise ValueError("'*' is not an origin: without this option every origin is let in")
    if text.startswith("file:"):
        raise ValueError(f"{text!r} is not an origin: browsers send null for local files, so write null")
    raise ValueError(f"{text!r} is not an origin: write it as a browser sends it, {_likely(text)}")


def _usual_port(scheme: str, port: str | None) -> bool:
    """Whether `port` has the form of origins: not the scheme's default, and without leading zeros."""
    if port is None:
        return True
    return port == str(int(port)) and 0 < int(port) <= 65535 and _DEFAULT_PORTS.get(scheme) != int(port)


def _likely(text: str) -> str:
    """The origin that was probably meant, if a common mistake explains the text; else an example."""
    guess = re.sub(r"^([a-z][a-z0-9+.-]*://[^/?#]*)[/?#].*$", r"\1", text.lower())
    match = _ORIGIN.fullmatch(guess)
    if match and not _usual_port(match[1], match[3]):
        guess = f"{match[1]}://{match[2]}"
    return guess if match and guess != text else "like https://chat.example or http://localhost:8000"
