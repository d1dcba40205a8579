"""Paths for scripts: what a request asks for, what it gives, and the order of refusals."""

from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.auth.tokens import TokenTable
from chatroom.core.connectionlimits import ConnectionLimits
from chatroom.core.errors import Refusal
from chatroom.core.http import Peer, Request
from chatroom.core.limits import Limits
from chatroom.http.api import ACCESS, PREFLIGHT, Caller, is_api, route, vet
from chatroom.http.handshake import HIGHEST_ID
from chatroom.http.site import Admissions

PEER = Peer("192.0.2.1")
TOKENS = """
[[token]]
token = "good"
username = "alice"
rooms = { general = "rw", "a/b" = "rw", news = "r", inbox = "w", mine = "rwm" }
[[token]]
token = "open"
rooms = { "*" = "rwm" }
"""


def request(method: str, target: str, *headers: tuple[str, str], version: str = "1.1") -> Request:
    path, _, query = target.partition("?")
    given = (("host", "chat.example"), ("authorization", "Bearer good"), *headers)
    return Request(method, path, query, given, version, PEER)


def admissions(origins: frozenset[str] | None = None, limits: Limits | None = None) -> Admissions:
    connection_limits = ConnectionLimits(limits or Limits())
    return Admissions(TokenTable.parse(TOKENS, "tokens"), connection_limits, origins, lambda: 0.0)


def call(method: str, target: str, *headers: tuple[str, str], **options: Any) -> Caller[Any]:
    asked = request(method, target, *headers, **options)
    found = route(asked, draining=False)
    assert found is not None
    return vet(asked, found, admissions())


def refusal(method: str, target: str, *headers: tuple[str, str], **options: Any) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        call(method, target, *headers, **options)
    return caught.value.status, caught.value.text


# Paths and methods

COMMANDS = {
    ("GET", "/rooms"): "rooms",
    ("GET", "/rooms/general/messages"): "history",
    ("HEAD", "/rooms/general/messages"): "history",
    ("POST", "/rooms/general/messages"): "message",
    ("PATCH", "/rooms/general/messages/12"): "edit",
    ("DELETE", "/rooms/general/messages/12"): "delete",
    ("GET", "/rooms/general/members"): "members",
    ("POST", "/rooms/mine/moderation"): "moderate",
    ("GET", "/rooms/mine/moderation"): "sanctions",
    ("GET", "/rooms/general/events"): "events",
}


@pytest.mark.parametrize(("line", "command"), COMMANDS.items())
def test_a_path_and_a_method_are_a_command(line: tuple[str, str], command: str) -> None:
    assert call(*line).call.command == command


def test_every_command_has_a_right_that_it_needs() -> None:
    assert set(COMMANDS.values()) == set(ACCESS)


@pytest.mark.parametrize(
    "path",
    [
        "/rooms/",
        "/rooms//messages",
        "/rooms/general",
        "/rooms/general/",
        "/rooms/general/messages/",
        "/rooms/general/messages/0",
        "/rooms/general/messages/-1",
        "/rooms/general/messages/1/2",
        "/rooms/general/messages/x",
        "/rooms/general/messages/01",
        "/rooms/general/Messages",
        "/rooms/a/b/messages",
        "/rooms/general/events/1",
        "/rooms/general/sanctions",
    ],
)
def test_other_paths_are_not_found(path: str) -> None:
    assert is_api(path)
    for method in ("GET", "POST", "OPTIONS"):
        assert refusal(method, path) == (404, "Not Found")


def test_only_paths_below_rooms_are_asked_here() -> None:
    assert [is_api(path) for path in ("/", "/room", "/roomss", "/rooms", "/rooms/", "/rooms/x")] == [
        False, False, False, True, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/rooms", "GET, HEAD, OPTIONS"),
        ("/rooms/general/messages", "GET, HEAD, POST, OPTIONS"),
        ("/rooms/general/messages/12", "PATCH, DELETE, OPTIONS"),
        ("/rooms/general/members", "GET, HEAD, OPTIONS"),
        ("/rooms/general/moderation", "GET, HEAD, POST, OPTIONS"),
        ("/rooms/general/events", "GET, HEAD, OPTIONS"),
    ],
)
def test_another_method_is_told_which_ones_there_are(path: str, allowed: str) -> None:
    with pytest.raises(Refusal) as caught:
        call("PUT", path)
    assert (caught.value.status, caught.value.headers) == (405, (("Allow", allowed),))
    assert route(request("OPTIONS", path), draining=True) is None
    methods = dict(PREFLIGHT.headers)["Access-Control-Allow-Methods"].split(", ")
    assert set(allowed.split(", ")) - {"OPTIONS"} <= set(methods)


# What a request gives


def test_the_room_is_one_encoded_segment() -> None:
    assert call("GET", "/rooms/a%2Fb/messages").call.room == "a/b"
    assert call("GET", "/rooms/%67eneral/members").call.room == "general"
    assert refusal("GET", "/rooms/a%20b/members")[0] == 400
    assert refusal("GET", "/rooms/%ff/members") == (400, "The room in the path is not percent-encoded UTF-8")
    assert refusal("GET", "/rooms/a%2/members") == (400, "The room in the path is not percent-encoded UTF-8")


@given(st.text(st.sampled_from("ab/%?#+é漢. "), min_size=1, max_size=8))
def test_every_room_can_be_named(name: str) -> None:
    asked = request("GET", f"/rooms/{quote(name, safe='')}/members?token=open")
    asked = replace(asked, headers=asked.headers[:1])
    found = route(asked, draining=False)
    assert found is not None
    if " " in name:
        with pytest.raises(Refusal, match="may not contain spaces"):
            vet(asked, found, admissions())
    else:
        assert vet(asked, found, admissions()).call.room == name


def test_history_is_asked_for_by_numbers() -> None:
    assert call("GET", "/rooms/general/messages?before=7&limit=5").call.data == {"before": 7, "limit": 5}
    assert call("GET", "/rooms/general/messages?after=0&limit=").call.data == {"after": 0}
    huge = "9" * 5000
    assert call("GET", f"/rooms/general/messages?after={huge}").call.data == {"after": HIGHEST_ID}
    for value in ("x", "-1", "1.0", "%31x", "1_0", "٣"):
        target = f"/rooms/general/messages?limit={quote(value, safe='%')}"
        assert refusal("GET", target) == (400, "limit must be a non-negative integer"), value
    assert refusal("GET", "/rooms/general/messages?limit=1&limit=1")[1] == "Parameter limit given twice"


def test_the_page_of_rooms_begins_behind_a_name() -> None:
    assert call("GET", "/rooms?after=a%2Fb&limit=3").call.data == {"after": "a/b", "limit": 3}
    assert call("GET", "/rooms").call.data == {}


def test_what_moderators_did_before_is_asked_for_by_a_word() -> None:
    assert call("GET", "/rooms/mine/moderation").call.data == {}
    assert call("GET", "/rooms/mine/moderation?all=true").call.data == {"all": True}
    assert call("GET", "/rooms/mine/moderation?all=false").call.data == {"all": False}
    for value in ("1", "True", "yes"):
        target = f"/rooms/mine/moderation?all={value}"
        assert refusal("GET", target) == (400, "all must be true or false"), value
    assert refusal("GET", "/rooms/general/moderation") == (403, "No right to moderate this room")


def test_a_message_has_its_number_in_the_path() -> None:
    assert call("DELETE", "/rooms/general/messages/12").call.data == {"id": 12}
    assert call("PATCH", f"/rooms/general/messages/{'9' * 40}").call.data == {"id": HIGHEST_ID}


@pytest.mark.parametrize(
    ("target", "headers", "data"),
    [
        ("", (), {"since": None, "epoch": None}),
        ("?since=5&epoch=e", (), {"since": 5, "epoch": "e"}),
        ("?since=5&epoch=e", (("last-event-id", "f:9"),), {"since": 9, "epoch": "f"}),
        ("", (("last-event-id", "f:0"),), {"since": 0, "epoch": "f"}),
        ("?since=5&epoch=e", (("last-event-id", ""),), {"since": 5, "epoch": "e"}),
    ],
)
def test_a_stream_resumes_by_its_last_event_or_by_the_query(
    target: str, headers: tuple[tuple[str, str], ...], data: dict[str, object]
) -> None:
    assert call("GET", f"/rooms/general/events{target}", *headers).call.data == data


@pytest.mark.parametrize("value", ["x", "9", ":9", "e:", "e:-1", "e:1x", "a b:1"])
def test_a_last_event_that_no_stream_gave_is_refused(value: str) -> None:
    assert refusal("GET", "/rooms/general/events", ("last-event-id", value)) == (
        400,
        "Last-Event-ID must be EPOCH:ID, as the stream has it",
    )


def test_the_key_is_in_a_header() -> None:
    assert call("POST", "/rooms/general/messages").call.key is None
    assert call("POST", "/rooms/general/messages", ("idempotency-key", "a b")).call.key == "a b"
    for key in ("", "x" * 65, "\xe9"):
        assert refusal("POST", "/rooms/general/messages", ("idempotency-key", key)) == (
            400,
            "Idempotency-Key must be 1 to 64 printable ASCII characters",
        )


@pytest.mark.parametrize(
    ("media", "is_json"),
    [
        ("application/json", True),
        ("Application/JSON ; charset=utf-8", True),
        ("application/json5", False),
        ("application/x-www-form-urlencoded", False),
        ("", False),
    ],
)
def test_the_kind_of_a_body_is_told(media: str, is_json: bool) -> None:
    assert call("POST", "/rooms/general/messages", ("content-type", media)).call.is_json is is_json


# Refusals


def test_rights_are_those_of_the_command() -> None:
    assert refusal("POST", "/rooms/news/messages") == (403, "No right to write in this room")
    assert call("POST", "/rooms/inbox/messages").username == "alice"
    assert refusal("GET", "/rooms/inbox/messages") == (403, "No right to this room")
    assert refusal("GET", "/rooms/inbox/events") == (403, "No right to this room")
    assert refusal("PATCH", "/rooms/news/messages/1") == (403, "No right to write in this room")
    assert call("DELETE", "/rooms/mine/messages/1").call.room == "mine"
    assert refusal("POST", "/rooms/general/moderation") == (403, "No right to moderate this room")
    assert refusal("GET", "/rooms/general/members?username=bob")[0] == 403


FORMS = [
    ("Header content-type given twice", 400, (("content-type", "a"), ("content-type", "a"))),
    ("Header idempotency-key given twice", 400, (("idempotency-key", "a"), ("idempotency-key", "a"))),
    ("Header last-event-id given twice", 400, (("last-event-id", "a"), ("last-event-id", "a"))),
    ("Both Content-Length and", 400, (("content-length", "1"), ("transfer-encoding", "chunked"))),
    ("Bad Content-Length", 400, (("content-length", "1x"),)),
    ("Transfer-Encoding must be chunked", 400, (("transfer-encoding", "gzip, chunked"),)),
    ("Only 100-continue can be expected", 417, (("expect", "a miracle"),)),
    ("A body must not be compressed", 415, (("content-encoding", "gzip"),)),
]


@pytest.mark.parametrize(("text", "status", "headers"), FORMS)
def test_the_form_of_a_head_is_checked(text: str, status: int, headers: tuple[tuple[str, str], ...]) -> None:
    found = refusal("POST", "/rooms/general/messages", *headers)
    assert found[0] == status
    assert found[1].startswith(text)


def test_chunks_need_http_1_1() -> None:
    chunked = ("transfer-encoding", "Chunked")
    assert call("POST", "/rooms/general/messages", chunked).call.command == "message"
    assert refusal("POST", "/rooms/general/messages", chunked, version="1.0")[0] == 400


def test_a_handshake_has_no_such_path() -> None:
    assert refusal("GET", "/rooms/general/events", ("upgrade", "websocket")) == (404, "Not Found")


def test_refusals_come_in_the_order_of_the_handshake() -> None:
    limits = Limits(per_address=1)
    policy = admissions(frozenset({"https://chat.example"}), limits)
    slot = policy.connection_limits.take_slot(PEER, "bob")
    headers = (("host", "a"), ("host", "a"), ("authorization", "Bearer bad"), ("origin", "https://elsewhere"))
    asked = Request("PUT", "/rooms/x y/nothing", "token=a&username=b&username=b", headers, "1.1", PEER)
    draining, seen = True, []

    def answer() -> int:
        try:
            found = route(asked, draining=draining)
            assert found is not None
            vet(asked, found, policy)
        except Refusal as refused:
            return refused.status
        return 200

    def change(**parts: Any) -> None:
        nonlocal asked
        asked = replace(asked, **parts)
        seen.append(answer())

    seen.append(answer())
    draining = False
    change()
    change(path="/rooms/%20/messages")
    change(method="POST")
    change(headers=headers[1:])
    change(query="username=%20")
    change(headers=(*headers[1:3], ("origin", "https://chat.example")))
    slot.release()
    change()
    change(headers=(("host", "a"), ("authorization", "Bearer good")))
    change(query="")
    change(path="/rooms/news/messages")
    change(path="/rooms/general/messages")
    assert seen == [503, 404, 405, 400, 400, 403, 429, 401, 400, 400, 403, 200]
