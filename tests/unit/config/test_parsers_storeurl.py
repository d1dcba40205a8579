"""What an operator writes for --redis: what is read, what is refused, and that no error shows a secret."""

from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.config.parsers import MAX_HOSTS, read_store_url
from chatroom.core.stores import StoreAddress, StoreKind

ALONE, SENTINEL, CLUSTER = StoreKind.STANDALONE, StoreKind.SENTINEL, StoreKind.CLUSTER


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("redis://localhost", StoreAddress(ALONE, (("localhost", 6379),))),
        ("redis://localhost:7000/3", StoreAddress(ALONE, (("localhost", 7000),), db=3)),
        ("REDIS://h/", StoreAddress(ALONE, (("h", 6379),))),
        ("valkey://10.0.0.1", StoreAddress(ALONE, (("10.0.0.1", 6379),))),
        ("rediss://h", StoreAddress(ALONE, (("h", 6379),), tls=True)),
        ("valkeys://h", StoreAddress(ALONE, (("h", 6379),), tls=True)),
        ("redis://[::1]", StoreAddress(ALONE, (("::1", 6379),))),
        ("redis://[2001:DB8::0:1]:7000/1", StoreAddress(ALONE, (("2001:db8::1", 7000),), db=1)),
        ("redis://:pw@h", StoreAddress(ALONE, (("h", 6379),), password="pw")),
        ("redis://me:p%40w%2F@h", StoreAddress(ALONE, (("h", 6379),), username="me", password="p@w/")),
        ("redis://me:a:b@h", StoreAddress(ALONE, (("h", 6379),), username="me", password="a:b")),
        ("redis://me:%C3%A4@h", StoreAddress(ALONE, (("h", 6379),), username="me", password="ä")),
        ("redis://me@h", StoreAddress(ALONE, (("h", 6379),), username="me")),
        ("unix:///run/valkey.sock", StoreAddress(ALONE, unix="/run/valkey.sock")),
        ("unix:///a%20b%3F?db=2", StoreAddress(ALONE, unix="/a b?", db=2)),
        ("unix://:pw@/s", StoreAddress(ALONE, unix="/s", password="pw")),
        (
            "redis+sentinel://a,b:7000,[::1]/chat/2",
            StoreAddress(SENTINEL, (("a", 26379), ("b", 7000), ("::1", 26379)), db=2, primary="chat"),
        ),
        (
            "valkeys+sentinel://:pw@a/chat",
            StoreAddress(SENTINEL, (("a", 26379),), tls=True, password="pw", primary="chat"),
        ),
        ("redis+cluster://a,b:7000,a", StoreAddress(CLUSTER, (("a", 6379), ("b", 7000)))),
        ("rediss+cluster://a:1", StoreAddress(CLUSTER, (("a", 1),), tls=True)),
    ],
)
def test_urls(text: str, address: StoreAddress) -> None:
    assert read_store_url(text) == address


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no URL: write it like redis://localhost:6379"),
        ("localhost:6379", "no URL"),
        ("redis:h", "no URL"),
        ("http://h", "an unknown scheme: write redis://"),
        ("redis+ring://h", "an unknown scheme"),
        ("unix+cluster:///h", "an unknown scheme"),
        ("redis://", "a host is missing"),
        ("redis://:pw@", "a host is missing"),
        ("redis:///1", "a host is missing"),
        ("redis+cluster://a,", "a host is missing"),
        ("redis://h?db=1", "? and # mean nothing here"),
        ("redis://a,b", "several hosts"),
        ("redis://h:0", "a number from 1 to 65535"),
        ("redis://h:65536", "a number from 1 to 65535"),
        ("redis://h:abc", "no host and port"),
        ("redis://::1", "no host and port"),
        ("redis://[::g]", "no host and port"),
        ("redis://[::1:]", "no IPv6 address"),
        ("redis://a b", "only visible ASCII"),
        ("redis://ä", "only visible ASCII"),
        ("redis://h/x", "the database behind the host is a number"),
        ("redis://h/-1", "the database behind the host is a number"),
        ("redis://h/1/2", "the database behind the host is a number"),
        ("redis://-h", "a host is a name or an address"),
        ("redis://me:@h", "an empty password"),
        ("redis://@h", "nothing stands before the @"),
        ("redis://:p@w@h", "more than one @"),
        ("redis://:p/w@h", "a / before the @"),
        ("redis://:p%w@h", "% begins no character"),
        ("redis://:%ff@h", "% begins no character"),
        ("redis+sentinel://a", "the primary's name is missing"),
        ("redis+sentinel://a/", "the primary's name is missing"),
        ("redis+sentinel://a/chat/x", "is a number"),
        ("redis+cluster://a/1", "a Cluster has one database"),
        ("unix://run/s", "with three slashes"),
        ("unix://", "with three slashes"),
        ("unix:///", "with three slashes"),
        ("unix:///s?x=1", "only ?db=N"),
        ("unix:///s#1", "only ?db=N"),
        ("unix:///s?db=x", "is a number"),
        ("unix:///a@b", "an @ behind the first /"),
        ("unix:///%00", "no NUL"),
        ("unix:///" + "x" * 107, "at most 107 bytes"),
        ("redis+cluster://" + ",".join(f"h{n}" for n in range(MAX_HOSTS + 1)), "more than 32 hosts"),
    ],
)
def test_what_is_no_store(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        read_store_url(text)
    assert says in str(caught.value)


names = st.from_regex(r"[a-z0-9_]([a-z0-9.-]{0,20}[a-z0-9_])?", fullmatch=True)
ports = st.integers(1, 65535)
hosts = st.tuples(st.one_of(names, st.ip_addresses(v=6).map(str)), ports)
secrets = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
paths = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=25)
dbs = st.integers(0, 99999)
several = st.lists(hosts, min_size=1, max_size=5, unique=True).map(tuple)
addresses = st.one_of(
    st.builds(StoreAddress, st.just(ALONE), st.tuples(hosts), tls=st.booleans(), db=dbs),
    st.builds(StoreAddress, st.just(ALONE), unix=paths.map("/".__add__), db=dbs),
    st.builds(StoreAddress, st.just(SENTINEL), several, tls=st.booleans(), db=dbs, primary=names),
    st.builds(StoreAddress, st.just(CLUSTER), several, tls=st.booleans()),
)


@given(addresses, secrets, secrets)
def test_what_is_shown_is_the_same_place_without_user_and_password(
    address: StoreAddress, username: str | None, password: str | None
) -> None:
    whole = replace(address, username=username, password=password)
    assert read_store_url(whole.shown) == address
    user = quote(username or "", safe="") + (f":{quote(password, safe='')}" if password else "")
    scheme, _, rest = whole.shown.partition("://")
    assert read_store_url(f"{scheme}://{user}{'@' if user else ''}{rest}") == whole


@given(addresses, st.text(st.sampled_from("S@:/?#%[], é\n"), min_size=1, max_size=12), st.data())
def test_no_error_and_no_repr_shows_a_password_or_a_user(
    address: StoreAddress, noise: str, data: st.DataObject
) -> None:
    """Wherever a secret stands, and however badly it is written: `XyZ` is in no sentence of ours."""
    scheme, _, rest = address.shown.partition("://")
    secret = noise + "XyZ" + noise[::-1]
    where = data.draw(st.integers(0, len(rest)))
    for text in (
        f"{scheme}://XyZ:{secret}@{rest}",
        f"{scheme}://{secret}@{rest}",
        f"{scheme}:/{secret}@{rest}",
        f"{secret}://{rest}",
        f"{scheme}://{rest[:where]}:{secret}@{rest[where:]}",
    ):
        said, shown = outcome(text)
        assert "XyZ" not in said
        assert "\n" not in said
        assert "XyZ" not in shown


def outcome(text: str) -> tuple[str, str]:
    """What is said of a URL, and what is shown of its address, but for a user without a password."""
    try:
        found = read_store_url(text)
    except ValueError as error:
        return str(error), ""
    if "XyZ" in found.shown:
        return "", ""  # no password at all, but a path, a primary or a host
    return "", repr(replace(found, username=None))
