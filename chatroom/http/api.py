"""The paths for scripts and backends: what a request to one of them asks for, and the order of its refusals.

Owns the paths below `/rooms`, their methods and parameters, and the order of refusals. Rules:

1. A request is the command of a client in another dress. Its path, method and query name the command and give
   what belongs into its `data`. The body gives the rest, and is judged by whoever knows commands.
2. Refusals come in the order of the handshake: 503 draining, path and method, the form of the head (`route`);
   then parameters given twice, 403 Origin, 429 address, 401, 400 names and numbers, 403 rights (`vet`).
3. A room's name in the path is percent-encoded UTF-8, one segment, whatever stands in it.
4. A header that makes sense only once is refused when it comes twice.
5. Pages of any origin may read all answers. That changes nothing about the check of the Origin itself.

It doesn't know tokens, rights or counts, nor what is in a room.
"""

import re
from typing import Generic, NamedTuple, Protocol, TypeVar

from chatroom.core.errors import Refusal
from chatroom.core.http import Peer, Request, Response
from chatroom.core.names import clean_room
from chatroom.http.handshake import (
    SINGLE,
    AdmissionPolicy,
    Query,
    asks_upgrade,
    check_form,
    clean,
    decode,
    identify,
    read_number,
    read_query,
)

ROOMS_PATH = "/rooms"
EVENT_STREAM = "events"
"""The command that has no answer but a stream: the others are those of a client."""

_RESOURCE = re.compile(
    rf"{ROOMS_PATH}/(?P<room>[^/]+)/(?:(?P<name>messages|members|moderation|events)|messages/(?P<id>[1-9][0-9]*))"
    rf"|{ROOMS_PATH}"
)
_METHODS: dict[str, dict[str, str]] = {
    "rooms": {"GET": "rooms"},
    "messages": {"GET": "history", "POST": "message"},
    "message": {"PATCH": "edit", "DELETE": "delete"},
    "members": {"GET": "members"},
    "moderation": {"GET": "sanctions", "POST": "moderate"},
    "events": {"GET": EVENT_STREAM},
}
"""The command that each method of a resource is."""

ACCESS = {
    "rooms": "",
    "message": "w",
    "edit": "w",
    "delete": "wm",
    "moderate": "m",
    "sanctions": "m",
    "history": "r",
    "members": "r",
    EVENT_STREAM: "r",
}
"""The rights of which a command needs one."""

_NAMES = frozenset({"token", "username"})
PARAMETERS = {
    "history": _NAMES | {"before", "after", "limit"},
    EVENT_STREAM: _NAMES | {"since", "epoch"},
    "rooms": _NAMES | {"after", "limit"},
    "sanctions": _NAMES | {"all"},
}
"""The parameters of each command that has more than _NAMES."""

WITH_BODY = frozenset({"message", "edit", "delete", "moderate"})

IDEMPOTENCY_KEY = "idempotency-key"
LAST_EVENT_ID = "last-event-id"
_API_SINGLE = (*SINGLE, "content-type", "content-encoding", "expect", IDEMPOTENCY_KEY, LAST_EVENT_ID)
_KEY = re.compile(r"[ -~]{1,64}")
_LAST_EVENT_ID = re.compile(r"([!-~]{1,64}):([0-9]+)")

PREFLIGHT = Response(
    204,
    headers=(
        ("Access-Control-Allow-Methods", "GET, HEAD, POST, PATCH, DELETE"),
        ("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, Last-Event-ID"),
        ("Access-Control-Max-Age", "600"),
    ),
)
"""The answer to `OPTIONS` for all these paths."""


class Route(NamedTuple):
    """What a path and a method ask for: a command in a room, if it has one. That is still percent-encoded."""

    command: str
    room: str | None
    number: int | None = None


class Call(NamedTuple):
    """An authenticated request: who asks for which command in which room.

    `data` is what path and query give of the command's data. `key` is the `cid` in the head. `is_json`: the
    body is JSON, and not the text itself. `head`: only the head of the answer is wanted.
    """

    command: str
    room: str
    data: dict[str, object]
    key: str | None
    is_json: bool
    head: bool = False
    username: str | None = None


def is_api(path: str) -> bool:
    """Whether the path is one of these, or would be if it existed."""
    return path.startswith(ROOMS_PATH) and path[len(ROOMS_PATH) :][:1] in ("", "/")


def route(request: Request, *, draining: bool) -> Route | None:
    """What the request asks for; None for OPTIONS. Raises Refusal: the first half of their order."""
    check_draining(draining and request.method != "OPTIONS")
    match = _RESOURCE.fullmatch(request.path)
    if match is None or asks_upgrade(request):
        raise Refusal(404, "Not Found")
    room, name, number = match.groups()
    commands = _METHODS[name or ("rooms" if room is None else "message")]
    method = request.method
    if method == "OPTIONS":
        return None
    command = commands.get("GET" if method == "HEAD" else method)
    if command is None:
        raise Refusal(405, "Method Not Allowed", (("Allow", _allowed(commands)),))
    _check_form(request)
    return Route(command, room, None if number is None else read_number("id", number))


def check_draining(draining: bool) -> None:
    """Raises Refusal 503 if the server is about to stop."""
    if draining:
        raise Refusal(503, "Restarting", (("Retry-After", "5"),))


def _allowed(commands: dict[str, str]) -> str:
    methods = [*commands, "OPTIONS"]
    if "GET" in commands:
        methods.insert(1, "HEAD")
    return ", ".join(methods)


def _check_form(request: Request) -> None:
    check_form(request, _API_SINGLE)
    for coding in request.values("transfer-encoding"):
        if coding.lower() != "chunked" or request.http_version == "1.0":
            raise Refusal(400, "Transfer-Encoding must be chunked")
    for expected in request.values("expect"):
        if expected.lower() != "100-continue":
            raise Refusal(417, "Only 100-continue can be expected")
    for coding in request.values("content-encoding"):
        if coding.lower() != "identity":
            raise Refusal(415, "A body must not be compressed")


Identity = TypeVar("Identity")


class Caller(NamedTuple, Generic[Identity]):
    """Who has made a call: the peer, its identity and its name."""

    peer: Peer
    identity: Identity
    username: str
    call: Call


class CallPolicy(AdmissionPolicy[Identity], Protocol[Identity]):
    """The steps of `vet` that depend on more than the request."""

    def authorize_call(self, identity: Identity, username: str | None, room: str, access: str) -> str:
        """The caller's username. Raises Refusal 403 without the right to that name, or any of `access`."""


def vet(request: Request, asked: Route, policy: CallPolicy[Identity]) -> Caller[Identity]:
    """Take the steps of `policy` in their order. Raises Refusal: the second half of the order of refusals."""
    query = read_query(request, known=PARAMETERS.get(asked.command, _NAMES))
    identity = identify(request, query, policy)
    call = _read_call(request, asked, query)
    username = policy.authorize_call(identity, call.username, call.room, ACCESS[call.command])
    return Caller(request.peer, identity, username, call)


def _read_call(request: Request, asked: Route, query: Query) -> Call:
    """The names and numbers of a request. Raises Refusal 400."""
    username = query.username()
    room = "" if asked.room is None else _read_room(asked.room)
    data: dict[str, object] = {} if asked.number is None else {"id": asked.number}
    match asked.command:
        case "history":
            data = _numbers(query, "before", "after", "limit")
        case "rooms":
            data = _numbers(query, "limit")
            if (after := query.value("after")) is not None:
                data["after"] = after
        case "sanctions":
            data = _read_all(query)
        case "events":
            data = _resume(request, query)
    media = request.values("content-type")
    is_json = bool(media) and media[0].partition(";")[0].strip(" \t").lower() == "application/json"
    return Call(asked.command, room, data, _read_key(request), is_json, request.method == "HEAD", username)


def _read_room(raw: str) -> str:
    name = decode(raw)
    if name is None:
        raise Refusal(400, "The room in the path is not percent-encoded UTF-8")
    return clean(clean_room, name)


def _numbers(query: Query, *names: str) -> dict[str, object]:
    found = ((name, query.value(name)) for name in names)
    return {name: read_number(name, value) for name, value in found if value is not None}


def _read_all(query: Query) -> dict[str, object]:
    value = query.value("all")
    if value not in (None, "true", "false"):
        raise Refusal(400, "all must be true or false")
    return {} if value is None else {"all": value == "true"}


def _read_key(request: Request) -> str | None:
    keys = request.values(IDEMPOTENCY_KEY)
    if keys and not _KEY.fullmatch(keys[0]):
        raise Refusal(400, "Idempotency-Key must be 1 to 64 printable ASCII characters")
    return keys[0] if keys else None


def _resume(request: Request, query: Query) -> dict[str, object]:
    """Where the reader of a stream resumes: the header of a client that comes back counts first."""
    since, epoch = query.resume()
    last = [value for value in request.values(LAST_EVENT_ID) if value]
    if last:
        match = _LAST_EVENT_ID.fullmatch(last[0])
        if match is None:
            raise Refusal(400, "Last-Event-ID must be EPOCH:ID, as the stream has it")
        epoch, since = match[1], read_number("Last-Event-ID", match[2])
    return {"since": since, "epoch": epoch}
