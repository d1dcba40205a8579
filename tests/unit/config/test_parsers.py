"""Values as an operator writes them: what is read, what is refused and what is said then."""

import re
from collections.abc import Callable
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.config import parsers
from chatroom.core.messages import Retain

BAD_NUMBERS = ["", " ", "-1", "+1", "1e3", "nan", "inf", "NaN", "0x10", "1_000", "٣", "1 ", "9" * 16, "abc"]


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("500", 500), ("007", 7)])
def test_whole_numbers(text: str, value: int) -> None:
    assert parsers.whole(0, 500)(text) == value


@pytest.mark.parametrize("text", [*BAD_NUMBERS, "501", "1.0"])
def test_not_whole_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="is not a whole number from 0 to 500"):
        parsers.whole(0, 500)(text)


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("5", 5.0), ("0.5", 0.5), ("1000000", 1e6)])
def test_numbers(text: str, value: float) -> None:
    assert parsers.number(1e6)(text) == value


@pytest.mark.parametrize("text", [*BAD_NUMBERS, "1000000.1", ".5", "5.", "5/s"])
def test_not_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number from 0 to 1e\\+06"):
        parsers.number(1e6)(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20s", 20), ("5m", 300), ("1h", 3600), ("1d", 86400), ("500ms", 0.5), ("1.5s", 1.5), ("10ms", 0.01)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parsers.duration("10ms", "24h")(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("20", "'20' has no unit: write 20s"),
        ("0", "'0' is out of range"),
        ("9ms", "out of range: give a duration from 10ms to 24h"),
        ("25h", "out of range"),
        ("20 s", "write it like 500ms, 20s, 5m, 1h or 7d"),
        ("20S", "is not a duration"),
        ("2d", "out of range: give a duration from 10ms to 24h"),
        ("-1s", "is not a duration"),
        ("nans", "is not a duration"),
        ("1e1s", "is not a duration"),
        ("٣s", "is not a duration"),
        ("1m30s", "is not a duration"),
        ("", "is not a duration"),
        ("s", "is not a duration"),
    ],
)
def test_not_durations(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parsers.duration("10ms", "24h")(text)


@pytest.mark.parametrize(
    ("text", "count"), [("64KiB", 65536), ("1MiB", 1048576), ("65536", 65536), ("1024", 1024)]
)
def test_sizes(text: str, count: int) -> None:
    assert parsers.size("1KiB", "16MiB")(text) == count


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("64kb", "is not a size: write it like 64KiB, 1MiB or 65536"),
        ("64K", "is not a size"),
        ("64 KiB", "is not a size"),
        ("-1", "is not a size"),
        ("1.5MiB", "is not a size"),
        ("٣KiB", "is not a size"),
        ("", "is not a size"),
        ("1023", "out of range: give a size from 1KiB to 16MiB"),
        ("17MiB", "out of range"),
    ],
)
def test_not_sizes(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parsers.size("1KiB", "16MiB")(text)


def test_choices_name_each_other() -> None:
    assert parsers.choice("a", "b")("b") == "b"
    with pytest.raises(ValueError, match="'c' is not known: choose a or b"):
        parsers.choice("a", "b")("c")
    with pytest.raises(ValueError, match="'A' is not known: choose a, b or c"):
        parsers.choice("a", "b", "c")("A")


def test_switches() -> None:
    assert parsers.switch("1") is True
    assert parsers.switch("0") is False
    for text in ("", "true", "yes", "on", "01", "2"):
        with pytest.raises(ValueError, match="is neither 1"):
            parsers.switch(text)


def test_paths() -> None:
    assert parsers.path("a b/ü") == "a b/ü"
    assert parsers.unix_path("x" * 107) == "x" * 107
    with pytest.raises(ValueError, match="an empty file name"):
        parsers.path("")
    with pytest.raises(ValueError, match="an empty file name"):
        parsers.unix_path("")
    for long in ("x" * 108, "ü" * 54):
        with pytest.raises(ValueError, match="longer than the 107 bytes"):
            parsers.unix_path(long)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("chat.example.org", "chat.example.org"),
        ("my_host-2", "my_host-2"),
    ],
)
def test_hosts(text: str, address: str) -> None:
    assert parsers.host(text) == address


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "for all of them write 0.0.0.0 or ::"),
        ("127.0.0.1:80", "give the port by --port"),
        ("chat:3000", "give the port by --port"),
        ("[::1]:3000", "give the port by --port"),
        ("127.0.0.256", "is neither an IP address nor a host name"),
        ("1", "is neither"),
        ("a b", "is neither"),
        ("a,b", "is neither"),
        ("*", "is neither"),
        ("-x", "is neither"),
        ("http://x", "is neither"),
        ("a\nb", "is neither"),
        ("bücher", "is neither"),
        ("x" * 300, "is neither"),
    ],
)
def test_not_hosts(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parsers.host(text)


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "https://chat.example",
        "http://localhost:8000",
        "http://127.0.0.1:3000",
        "http://[::1]:3000",
        "https://chat.example:80",
        "chrome-extension://abcdef",
        "tauri://localhost",
    ],
)
def test_origins(text: str) -> None:
    assert parsers.origin(text) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("*", "without this option every origin is let in"),
        ("file://", "so write null"),
        ("https://chat.example/", "as a browser sends it, https://chat.example$"),
        ("https://chat.example/path?x#y", "https://chat.example$"),
        ("HTTPS://Chat.Example", "https://chat.example$"),
        ("https://chat.example:443", "https://chat.example$"),
        ("http://chat.example:80/", "http://chat.example$"),
        ("https://chat.example:0443", "https://chat.example$"),
        ("https://chat.example:99999", "https://chat.example$"),
        ("chat.example", "like https://chat.example or"),
        ("https://bücher.example", "like https://chat.example or"),
        ("https://a b", "like https://chat.example or"),
        ("https://u:p@chat.example", "like https://chat.example or"),
        ("https://", "like https://chat.example or"),
        ("https://a,https://b", "like https://chat.example or"),
        ("NULL", "like https://chat.example or"),
        ("", "like https://chat.example or"),
    ],
)
def test_not_origins(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parsers.origin(text)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("192.0.2.1", "192.0.2.1/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
    ],
)
def test_proxies(text: str, network: str) -> None:
    assert parsers.proxy(text) == ip_network(network)


def test_the_proxies_at_the_unix_socket() -> None:
    assert parsers.proxy("unix") == "unix"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no network"),
        ("*", "is no network"),
        ("localhost", "write one like 10.0.0.0/8 or ::1, or unix"),
        ("UNIX", "is no network"),
        ("10.0.0.0/33", "is no network"),
        ("10.0.0.0/-1", "is no network"),
        ("10.0.0.0/255.0.0.0", "is no network"),
        ("10.0.0.0/", "is no network"),
        ("10.0.0.0/8 ", "is no network"),
        ("10.0.0", "is no network"),
        ("127.0.0.1:80", "is no network"),
        ("[::1]", "is no network"),
        ("fe80::1%eth0", "is no network"),
        ("\u06610.0.0.1", "is no network"),
        ("10.0.0.1/8", "write 10.0.0.0/8"),
        ("2001:db8::1/64", "write 2001:db8::/64"),
        ("::ffff:10.0.0.0/104", "write them as such"),
    ],
)
def test_not_proxies(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parsers.proxy(text)


READERS: list[Callable[[str], object]] = [
    parsers.whole(0, 5),
    parsers.number(5),
    parsers.duration("0s", "1h"),
    parsers.size("1", "1MiB"),
    parsers.choice("a"),
    parsers.switch,
    parsers.path,
    parsers.unix_path,
    parsers.host,
    parsers.origin,
    parsers.proxy,
]


@given(st.sampled_from(READERS), st.text() | st.text(alphabet="0123456789.smhKiB:/[]-abc", max_size=12))
def test_a_reader_raises_nothing_but_value_errors_of_one_line(
    read: Callable[[str], object], text: str
) -> None:
    try:
        read(text)
    except ValueError as error:
        assert str(error).isprintable()  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90d", Retain(7_776_000, None)),
        ("12h", Retain(43_200, None)),
        ("30m", Retain(1_800, None)),
        ("100000", Retain(None, 100_000)),
        ("90d,100000", Retain(7_776_000, 100_000)),
        ("1, 1d", Retain(86_400, 1)),
    ],
)
def test_how_long_messages_are_kept(text: str, expected: Retain) -> None:
    assert parsers.retain(text) == expected
    assert not expected.everything


@pytest.mark.parametrize(
    "text", ["", ",", "0", "0d", "90s", "1d,2d", "1,2", "90d,", "-1", "1.5d", "9" * 13, "1d,1,1d", "٣"]
)
def test_no_limits(text: str) -> None:
    with pytest.raises(ValueError, match="is no limit"):
        parsers.retain(text)


@pytest.mark.parametrize("value", ["chat", "https://issuer.example/", "ünïcode", " "])
def test_texts(value: str) -> None:
    assert parsers.text(value) == value


@pytest.mark.parametrize("value", ["", "a\nb", "a\u202eb", "\0"])
def test_not_texts(value: str) -> None:
    with pytest.raises(ValueError, match="give a name of printable characters"):
        parsers.text(value)


@pytest.mark.parametrize(
    ("value", "is_address"),
    [
        ("jwks.json", False),
        ("/etc/chatroom/jwks.json", False),
        ("https:odd", False),
        ("https://issuer.example", True),
        ("https://issuer.example:8443/jwks.json?a=b", True),
        ("HTTPS://issuer.example/", True),
        ("https://[::1]:8443/", True),
    ],
)
def test_files_and_addresses(value: str, is_address: bool) -> None:
    assert parsers.file_or_https(value) == value
    assert parsers.is_https(value) == is_address


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "an empty file name"),
        ("http://issuer.example/", "what comes by 'http' may be anybody's: give an https address, or a file"),
        ("HTTP://issuer.example/", "give an https address, or a file"),
        ("file:///etc/passwd", "give an https address, or a file"),
        ("ftp://issuer.example/", "give an https address, or a file"),
        ("://issuer.example/", "give an https address, or a file"),
        ("https://", "no https address: write it like https://issuer.example/jwks.json"),
        ("https:///jwks.json", "no https address"),
        ("https://issuer.example:port/", "no https address"),
        ("https://issuer.example:0/", "no https address"),
        ("https://issuer.example:65536/", "no https address"),
        ("https://issuer.example\\@evil.example/", "leave that and the password out"),
        ("https://issuer.example:443:443/", "no https address"),
        ("https://[::1/", "no https address"),
        ("https://issuer.example/a b", "no https address"),
        ("https://issuer.example/\r\nHost: x", "no https address"),
        ("https://issuer.example/é", "no https address"),
        ("https://issuer.example/#keys", "no https address"),
        ("https://alice:s3cret@issuer.example/", "leave that and the password out"),
        ("https://alice@issuer.example/", "leave that and the password out"),
    ],
)
def test_not_files_and_addresses(value: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        parsers.file_or_https(value)
    assert "s3cret" not in str(caught.value)


@given(st.text())
def test_whatever_is_given_is_a_file_or_an_address_or_a_value_error(value: str) -> None:
    try:
        parsers.is_https(parsers.file_or_https(value))
    except ValueError:
        return
