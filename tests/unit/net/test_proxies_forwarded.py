"""Whom a proxy is believed to ask for: the table of what comes in and who is counted."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatroom.config import parsers
from chatroom.core.http import Peer, Request
from chatroom.http.handshake import allowed_origin
from chatroom.net.proxies import HOPS, Proxies, read_address

LOOPBACK = Peer("127.0.0.1", exempt=True)
UNIX = Peer("unix", exempt=True)
STRANGER = Peer("198.51.100.9")
CLIENT = Peer("203.0.113.5")


def proxies(*trusted: str) -> Proxies:
    return Proxies(frozenset(map(parsers.proxy, trusted)))


NEAR = proxies("127.0.0.0/8", "10.0.0.0/8", "fd00::/8", "unix")


def request(peer: Peer, *headers: tuple[str, str], secure: bool = False) -> Request:
    return Request("GET", "/", "", (("host", "upstream:3000"), *headers), "1.1", peer, secure)


def client(*lines: str, peer: Peer = LOOPBACK, believed: Proxies = NEAR) -> Peer:
    return believed.resolve_client(request(peer, *(("x-forwarded-for", line) for line in lines))).peer


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("203.0.113.5:567", "203.0.113.5"),
        ("  203.0.113.5\t", "203.0.113.5"),
        ("2001:db8::5", "2001:db8::5"),
        ("2001:DB8:0:0::0005", "2001:db8::5"),
        ("[2001:db8::5]", "2001:db8::5"),
        ("[2001:db8::5]:567", "2001:db8::5"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("[::ffff:cb00:7105]:567", "203.0.113.5"),
        ("fe80::1%eth0", "fe80::1"),
        ("fe80::1%1", "fe80::1"),
        ("[fe80::1%25eth0]:567", "fe80::1"),
        ("::1%lo", "::1"),
        ("1.1.1.1, fe80::5%br-3f.4, ::ffff:10.0.0.9", "fe80::5"),
        # What the client wrote itself stands to the left of what the proxy saw
        ("1.1.1.1, 203.0.113.5", "203.0.113.5"),
        ("127.0.0.1, 203.0.113.5", "203.0.113.5"),
        ("unknown, unix, <script>, 203.0.113.5", "203.0.113.5"),
        ("10.0.0.1, 10.0.0.2, 203.0.113.5", "203.0.113.5"),
        # Proxies behind proxies
        ("203.0.113.5, 10.0.0.7", "203.0.113.5"),
        ("1.1.1.1, 203.0.113.5, 10.0.0.7, fd00::1, ::ffff:10.0.0.9", "203.0.113.5"),
        # Nobody but proxies: the farthest
        ("10.0.0.7", "10.0.0.7"),
        ("10.0.0.8, 10.0.0.7", "10.0.0.8"),
        ("127.0.0.2", "127.0.0.2"),
        # Empty members of a list mean nothing
        (",203.0.113.5, ,", "203.0.113.5"),
        # What can't be read: whoever wrote that counts
        ("203.0.113.5, unknown", "127.0.0.1"),
        ("203.0.113.5, nonsense, 10.0.0.7", "10.0.0.7"),
        ("203.0.113.5, unix", "127.0.0.1"),
        ("203.0.113.5.", "127.0.0.1"),
        ("203.0.113", "127.0.0.1"),
        ("203.0.113.05", "127.0.0.1"),
        ("203.0.113.5:", "127.0.0.1"),
        ("203.0.113.5:123456", "127.0.0.1"),
        ("203.0.113.5/32", "127.0.0.1"),
        ("203.0.113.5 10.0.0.7", "127.0.0.1"),
        ("3405803781", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("[203.0.113.5", "127.0.0.1"),
        ("[]", "127.0.0.1"),
        ("fe80::1%eth0\x1b[2J", "127.0.0.1"),
        ("fe80::1%", "127.0.0.1"),
        ("fe80::1%" + "e" * 65, "127.0.0.1"),
        ('"203.0.113.5"', "127.0.0.1"),
        ("for=203.0.113.5", "127.0.0.1"),
        ("\xb2", "127.0.0.1"),
    ],
)
def test_who_is_named_is_counted_and_never_exempt(line: str, address: str) -> None:
    assert client(line) == Peer(address, exempt=False)


def test_a_chain_without_an_end_is_not_followed_to_it() -> None:
    """So that a request costs little, whoever is trusted."""
    near = ["10.0.0.7"] * (HOPS - 1)
    assert client(", ".join(["203.0.113.5", *near])) == CLIENT
    assert client(", ".join(["203.0.113.5", "10.0.0.8", *near])) == Peer("10.0.0.8")


def test_several_lines_are_one_list() -> None:
    assert client("1.1.1.1", "203.0.113.5, 10.0.0.7", "", "10.0.0.8") == CLIENT
    assert client("203.0.113.5", "1.1.1.1") == Peer("1.1.1.1")


@pytest.mark.parametrize("lines", [(), ("",), (" , ,",), ("", "")])
@pytest.mark.parametrize("peer", [LOOPBACK, UNIX, Peer("10.0.0.7")])
def test_a_trusted_proxy_that_names_nobody_asks_for_itself(peer: Peer, lines: tuple[str, ...]) -> None:
    assert client(*lines, peer=peer) == peer


@pytest.mark.parametrize(
    ("believed", "peer"),
    [
        (proxies(), LOOPBACK),
        (proxies(), UNIX),
        (NEAR, STRANGER),
        (NEAR, Peer("gone")),
        (proxies("unix"), LOOPBACK),
        (proxies("0.0.0.0/0", "::/0"), UNIX),
        (proxies("127.0.0.0/8"), Peer("::1", exempt=True)),
        (proxies("10.0.0.0/8"), Peer("a00::1")),
        (proxies("198.51.100.8"), STRANGER),
    ],
)
def test_nobody_else_is_believed_in_anything(believed: Proxies, peer: Peer) -> None:
    asked = request(
        peer,
        ("x-forwarded-for", "203.0.113.5"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "chat.example"),
    )
    assert believed.resolve_client(asked) is asked


@pytest.mark.parametrize(
    ("trusted", "peer"),
    [
        ("127.0.0.1", LOOPBACK),
        ("unix", UNIX),
        ("::1", Peer("::1", exempt=True)),
        ("198.51.100.0/24", STRANGER),
        ("0.0.0.0/0", STRANGER),
        ("2001:db8::/32", Peer("2001:db8:1::1")),
        ("10.0.0.0/8", Peer("::ffff:10.0.0.1")),
    ],
)
def test_a_proxy_is_known_by_its_address_or_as_unix(trusted: str, peer: Peer) -> None:
    assert client("203.0.113.5", peer=peer, believed=proxies(trusted)) == CLIENT


def test_another_header_for_the_same_is_ignored() -> None:
    asked = request(LOOPBACK, ("forwarded", "for=203.0.113.5"), ("x-real-ip", "203.0.113.5"))
    seen = NEAR.resolve_client(asked)
    assert (seen.peer, seen.public_origins) == (LOOPBACK, ("http://upstream:3000",))


@pytest.mark.parametrize(
    ("said", "secure", "schemes"),
    [
        (["https"], False, ["https"]),
        (["HTTPS"], False, ["https"]),
        (["wss"], False, ["https"]),
        (["http"], True, ["http"]),
        (["ws"], True, ["http"]),
        # A row of proxies: the first has ended TLS, the second adds what it saw; or the other way
        (["https, http"], False, ["http", "https"]),
        (["http", "https,"], False, ["http", "https"]),
        (["nonsense, https"], False, ["https"]),
        (["nonsense"], False, ["http"]),
        (["nonsense"], True, ["https"]),
        ([""], True, ["https"]),
        ([], True, ["https"]),
    ],
)
def test_every_scheme_that_a_proxy_names_may_be_the_one_that_is_seen(
    said: list[str], secure: bool, schemes: list[str]
) -> None:
    asked = request(LOOPBACK, *(("x-forwarded-proto", text) for text in said), secure=secure)
    assert NEAR.resolve_client(asked).public_origins == tuple(
        f"{scheme}://upstream:3000" for scheme in schemes
    )


@pytest.mark.parametrize(
    ("said", "hosts"),
    [
        (["chat.example"], ["chat.example"]),
        (["chat.example:8443"], ["chat.example:8443"]),
        (["chat.example, inner:80"], ["chat.example", "inner:80"]),
        (["chat.example", "inner:80"], ["chat.example", "inner:80"]),
        (["chat.example, inner/"], ["chat.example"]),
        (["chat.example/"], ["upstream:3000"]),
        (["user@chat.example"], ["upstream:3000"]),
        (["\xff"], ["upstream:3000"]),
        ([""], ["upstream:3000"]),
        ([], ["upstream:3000"]),
    ],
)
def test_every_host_that_a_proxy_names_may_be_the_one_that_is_seen(said: list[str], hosts: list[str]) -> None:
    asked = request(LOOPBACK, *(("x-forwarded-host", text) for text in said))
    assert NEAR.resolve_client(asked).public_origins == tuple(f"http://{host}" for host in hosts)


def test_of_long_lists_only_so_much_is_read() -> None:
    asked = request(
        LOOPBACK,
        ("x-forwarded-proto", ", ".join(["https"] + ["http"] * HOPS)),
        ("x-forwarded-host", ", ".join(f"h{number}" for number in range(HOPS + 9))),
    )
    assert len(NEAR.resolve_client(asked).public_origins) == HOPS


@pytest.mark.parametrize(
    ("headers", "origin", "own"),
    [
        # Host unchanged, TLS at the proxy
        ((("host", "chat.example"), ("x-forwarded-proto", "https")), "https://chat.example", True),
        ((("host", "chat.example:8443"), ("x-forwarded-proto", "https")), "https://chat.example:8443", True),
        ((("host", "chat.example"), ("x-forwarded-proto", "https")), "http://chat.example", False),
        ((("host", "chat.example"), ("x-forwarded-proto", "https")), "https://evil.example", False),
        # Host rewritten
        (
            (
                ("host", "upstream:3000"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "chat.example"),
            ),
            "https://chat.example",
            True,
        ),
        ((("host", "upstream:3000"), ("x-forwarded-proto", "https")), "https://chat.example", False),
        # A row of proxies, each of which adds what it sees: the page's own origin is one of them
        (
            (
                ("host", "upstream:3000"),
                ("x-forwarded-proto", "https, http"),
                ("x-forwarded-host", "chat.example, inner"),
            ),
            "https://chat.example",
            True,
        ),
        ((("host", "chat.example"), ("x-forwarded-proto", "https,http")), "https://chat.example", True),
        ((("host", "chat.example"), ("x-forwarded-proto", "https,http")), "https://evil.example", False),
        # A proxy that says nothing about it
        ((("host", "chat.example"),), "http://chat.example", True),
        ((("host", "chat.example"),), "https://chat.example", False),
    ],
)
def test_the_servers_own_origin_is_the_one_that_the_client_sees(
    headers: tuple[tuple[str, str], ...], origin: str, own: bool
) -> None:
    asked = Request("GET", "/", "", (*headers, ("origin", origin)), "1.1", LOOPBACK)
    assert allowed_origin(NEAR.resolve_client(asked), frozenset()) is own
    if "https" in origin:
        assert not allowed_origin(proxies().resolve_client(asked), frozenset())


@pytest.mark.parametrize("hosts", [["upstream:3000", "other"], ["a/b"], ["", ""], []])
def test_what_a_proxy_says_hides_no_fault_of_the_head(hosts: list[str]) -> None:
    headers = (*(("host", host) for host in hosts), ("x-forwarded-host", "chat.example"))
    asked = Request("GET", "/", "", headers, "1.1", LOOPBACK)
    assert list(NEAR.resolve_client(asked).values("host")) == hosts
    assert NEAR.resolve_client(asked).public_origins == ("http://chat.example",)


WORDS = st.sampled_from(
    ["203.0.113.5", "10.0.0.1", "127.0.0.1", "::1", "2001:db8::1", "unknown", "", " ", "unix", ":1", "%", "["]
)
LATIN = st.text(st.characters(max_codepoint=255), max_size=20)


@given(st.lists(WORDS | LATIN, max_size=12))
@example(["fe80::1%\n"])
def test_whatever_is_said_an_address_comes_out_and_the_end_of_the_list_decides(words: list[str]) -> None:
    """What a client writes to the left of the address that the proxy saw changes nothing."""
    found = client(",".join(words))
    assert read_address(found.address) is not None
    assert client(",".join([*words, "203.0.113.5"])) == CLIENT
