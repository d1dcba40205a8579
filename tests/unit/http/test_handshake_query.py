"""Parameters and tokens of a handshake: each way to give them, and each way to give them wrong."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.core.errors import Refusal
from chatroom.core.http import Peer, Request
from chatroom.http.handshake import HIGHEST_ID, JoinRequest, Query, read_query


def query(text: str, authorization: str | None = None, subprotocols: tuple[str, ...] = ()) -> Query:
    headers = () if authorization is None else (("authorization", authorization),)
    return read_query(Request("GET", "/", text, headers, "1.1", Peer("192.0.2.1")), subprotocols)


def refusal_of_query(text: str, authorization: str | None = None, subprotocols: tuple[str, ...] = ()) -> str:
    with pytest.raises(Refusal) as caught:
        query(text, authorization, subprotocols)
    assert caught.value.status == 400
    return caught.value.text


def refusal_of_join_request(text: str) -> str:
    asked = query(text)
    with pytest.raises(Refusal) as caught:
        asked.join_request()
    assert caught.value.status == 400
    return caught.value.text


def test_a_token_comes_in_a_header_that_no_proxy_claims() -> None:
    def asked(*headers: tuple[str, str], text: str = "") -> Query:
        return read_query(Request("GET", "/handshake", text, headers, "1.1", Peer("192.0.2.1")))

    basic = ("authorization", "Basic dXNlcjpwYXNz")  # meant for the proxy
    assert asked(("chatroom-token", "T"), basic).token == "T"
    assert asked(("chatroom-token", "T"), ("authorization", "Bearer T"), text="token=T").token == "T"
    assert asked(("chatroom-token", "")).token is None
    assert asked(("chatroom-token", "two words")).token is None
    with pytest.raises(Refusal, match="Contradictory"):
        asked(("chatroom-token", "T"), text="token=U")


@pytest.mark.parametrize("text", ["", "&", "=", "token", "token=", "username=&room=&since=&epoch=", "?"])
def test_what_is_empty_counts_as_left_out(text: str) -> None:
    asked = query(text)
    assert asked.token is None
    assert asked.join_request() == JoinRequest(None, "general")


def test_all_parameters_are_read() -> None:
    asked = query("token=T&username=al%69ce&room=ops&since=42&epoch=k3f9")
    assert asked.token == "T"
    assert asked.join_request() == JoinRequest("alice", "ops", 42, "k3f9")


def test_names_are_percent_encoded_utf_8_and_a_plus_is_a_plus() -> None:
    assert query("username=a+b&room=%C3%A9t%c3%a9").join_request() == JoinRequest("a+b", "été")


def test_a_parameter_is_known_by_its_decoded_name() -> None:
    assert query("%72oom=ops").join_request().room == "ops"
    assert refusal_of_query("%72oom=ops&room=ops") == "Parameter room given twice"


@pytest.mark.parametrize("text", ["x=1&x=2", "%zz=1", "%ff=1", "x=%zz", "x=%ff", "Room=a&ROOM=b", "a;b"])
def test_unknown_parameters_are_ignored_whatever_they_hold(text: str) -> None:
    assert query(text).join_request() == JoinRequest(None, "general")
    assert query(f"{text}&room=ops&token=T").join_request().room == "ops"


@pytest.mark.parametrize("name", ["token", "username", "room", "since", "epoch"])
def test_a_parameter_given_twice_is_refused_even_with_the_same_value(name: str) -> None:
    assert refusal_of_query(f"{name}=1&{name}=1") == f"Parameter {name} given twice"
    assert refusal_of_query(f"{name}=1&x=1&{name}=%zz") == f"Parameter {name} given twice"


def test_an_empty_parameter_is_not_a_second_one() -> None:
    assert query("room=&room=ops").join_request().room == "ops"


@pytest.mark.parametrize("value", ["%", "%4", "%zz", "%ff", "%c3", "%C0%80", "%ED%A0%80", "%f4%90%80%80"])
@pytest.mark.parametrize("name", ["username", "room", "since", "epoch"])
def test_what_is_no_percent_encoded_utf_8_is_refused_only_when_asked_for(name: str, value: str) -> None:
    assert refusal_of_join_request(f"{name}={value}") == f"Parameter {name} is not percent-encoded UTF-8"


@pytest.mark.parametrize("text", ["username=a%20b", "room=%00", "username=" + "a" * 33, "room=%E2%80%8Bops"])
def test_a_bad_name_is_refused(text: str) -> None:
    assert refusal_of_join_request(text).startswith("Bad name: ")


@pytest.mark.parametrize("since", ["-1", "+1", "1.0", "1e3", "0x1", "%201", "1%0A", "%D9%A1", "1_0", "x"])
def test_since_must_be_a_non_negative_integer(since: str) -> None:
    assert refusal_of_join_request(f"since={since}&epoch=e") == "since must be a non-negative integer"


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        ("0", 0),
        ("000", 0),
        ("007", 7),
        (str(HIGHEST_ID), HIGHEST_ID),
        (str(HIGHEST_ID + 1), HIGHEST_ID),
        ("0" * 5000 + "5", 5),
        ("9" * 8000, HIGHEST_ID),
    ],
)
def test_since_is_bounded_however_long_it_is(since: str, expected: int) -> None:
    assert HIGHEST_ID == 2**63 - 1
    assert query(f"since={since}&epoch=e").join_request() == JoinRequest(None, "general", expected, "e")


def test_since_needs_an_epoch_and_an_epoch_alone_is_ignored() -> None:
    assert refusal_of_join_request("since=1") == "since needs an epoch"
    assert refusal_of_join_request("since=1&epoch=") == "since needs an epoch"
    assert query("epoch=e").join_request() == JoinRequest(None, "general")


def test_a_token_is_taken_from_each_of_three_places() -> None:
    assert query("token=a.b-c_d~").token == "a.b-c_d~"
    assert query("", "Bearer T").token == "T"
    assert query("", "bEARER   T").token == "T"
    assert query("", None, ("chatroom.v1", "bearer.T")).token == "T"
    assert query("", None, ("bearer.T", "other", "chatroom.v1")).token == "T"


def test_the_same_token_may_be_given_in_all_of_them() -> None:
    assert query("token=%54", "Bearer T", ("chatroom.v1", "bearer.T")).token == "T"


@pytest.mark.parametrize(
    ("text", "authorization", "subprotocols"),
    [
        ("token=T", "Bearer U", ()),
        ("token=T", None, ("chatroom.v1", "bearer.U")),
        ("", "Bearer T", ("chatroom.v1", "bearer.t")),
        ("", None, ("chatroom.v1", "bearer.T", "bearer.U")),
        ("token=%zz", "Bearer T", ()),
        ("token=T", "Bearer T T", ()),
    ],
)
def test_contradictory_tokens_are_refused(
    text: str, authorization: str | None, subprotocols: tuple[str, ...]
) -> None:
    assert refusal_of_query(text, authorization, subprotocols) == "Contradictory tokens"


@pytest.mark.parametrize(
    ("text", "authorization", "subprotocols"),
    [
        ("token=%zz", None, ()),
        ("token=%", None, ()),
        ("token=%ff", None, ()),
        ("token=%00", None, ()),
        ("token=a%20b", None, ()),
        ("token=a=b", None, ()),
        ("token=a/b", None, ()),
        ("token=T%0A", None, ()),
        ("token=%C3%A9", None, ()),
        ("token=a%2Cb", None, ()),
        ("", "Bearer a b", ()),
        ("", "Bearer \xe9", ()),
        ("", "Bearer a,b", ()),
        ("", None, ("chatroom.v1", "bearer.a/b")),
        ("token=%zz", "Bearer a b", ()),
    ],
)
def test_anything_wrong_inside_a_token_looks_like_a_missing_one(
    text: str, authorization: str | None, subprotocols: tuple[str, ...]
) -> None:
    assert query(text, authorization, subprotocols).token is None


def test_a_plus_in_a_token_is_a_plus() -> None:
    assert query("token=a+b").token == "a+b"


def test_what_is_not_a_way_to_give_a_token_contradicts_none() -> None:
    asked = query("token=T", "Basic dXNlcjpwYXNz", ("bearer.U",))
    assert asked.token == "T"
    assert query("", "Basic dXNlcjpwYXNz").token is None
    assert query("", "T").token is None
    assert query("", None, ("bearer.T",)).token is None


def test_an_empty_token_counts_as_left_out_wherever_it_is() -> None:
    assert query("token=T", "Bearer ", ("chatroom.v1", "bearer.")).token == "T"
    assert query("token=T", "Bearer").token == "T"
    assert query("token=", "Bearer T").token == "T"


def test_a_query_shows_no_token_when_it_is_printed() -> None:
    assert "s3cret" not in repr(query("token=s3cret&room=s3cret"))


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_comes_through_percent_encoding(key: str, value: str) -> None:
    try:
        raw = f"{quote(key, safe='')}={quote(value, safe='')}&since=1&epoch={quote(value, safe='')}"
    except UnicodeEncodeError:  # a lone surrogate can't be sent
        return
    if key in {"token", "username", "room", "since", "epoch"}:
        return
    if value:
        assert query(raw).join_request().epoch == value
    else:
        assert refusal_of_join_request(raw) == "since needs an epoch"


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=80))
def test_any_query_is_read_or_refused_with_400(text: str) -> None:
    for prefix in ("", "token=", "username=", "room=%", "since=1&epoch="):
        try:
            asked = query(prefix + text)
            asked.join_request()
        except Refusal as refusal:
            assert refusal.status == 400  # noqa: PT017 - it may as well be read
