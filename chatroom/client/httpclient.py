"""Requests to a server by HTTP: over TCP, TLS or a Unix socket, with the standard library alone.

Owns one connection, the form of its requests, and what their failures mean:

    Unreachable    there was no answer, or one that says that the server can do nothing now: 503
    Refused        the server has answered that it won't

1. The token is in a header of the request, never in its address, and in no error.
2. A request that may have been lost is sent again once, where the server has closed a connection that was
   kept. So each request has to be one that may be done twice; a post has its key.
3. A server that is asked too fast says when to ask again (429), and that is waited for.
4. Of an answer that isn't the server's own, such as a proxy's page, nothing is repeated but its status. It is
   never followed elsewhere, and never read beyond MAX_ANSWER.

It doesn't know what is asked for, nor any part of the server.
"""

import http.client
import json
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from chatroom.client.address import Place, trusting
from chatroom.client.backoff import retry_after
from chatroom.core.errors import ChatroomError

SECONDS = 30.0
"""How long to wait for a connection, or for the next bytes of an answer."""
MAX_ANSWER = 16 * 1024 * 1024
MAX_PAUSES = 600.0
"""How long a request may wait for its pace, in seconds altogether."""
_MAX_LINE = 500


class Unreachable(ChatroomError):
    """The server can't be asked now; later it may answer."""


class Refused(ChatroomError):
    """The server has refused the request by `status`. The message is its own sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class UnixConnection(http.client.HTTPConnection):
    """The same over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Called by the library before the first request."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """A client of one server. It blocks."""

    def __init__(
        self,
        place: Place,
        *,
        token: str | None = None,
        username: str | None = None,
        ca: str | None = None,
        seconds: float = SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`username` is the name to ask by, where the token leaves that open. Raises StartError."""
        self._place = place
        self._names = {} if username is None else {"username": username}
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._sleep = sleep
        if place.unix is not None:
            self._connection: http.client.HTTPConnection = UnixConnection(place.unix, seconds)
        elif place.secure:
            context = trusting(ca)
            self._connection = http.client.HTTPSConnection(
                place.host, place.port, timeout=seconds, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(place.host, place.port, timeout=seconds)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int] | None = None,
        body: object = None,
        key: str | None = None,
    ) -> dict[str, Any]:
        """The JSON object that the server answers with; `body` is sent as JSON, under the key `key`.

        Raises Refused, Unreachable.
        """
        parameters = {**self._names, **(query or {})}
        target = self._place.path + path + (f"?{urlencode(parameters)}" if parameters else "")
        headers = dict(self._headers)
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        if key is not None:
            headers["Idempotency-Key"] = key
        waited = 0.0
        while True:
            response, content = self._exchange(method, target, data, headers)
            pause = retry_after(response.headers.get("Retry-After"))
            if response.status != 429 or pause is None or waited + pause > MAX_PAUSES:
                return self._read(response, content)
            self._sleep(pause)
            waited += pause

    def _exchange(
        self, method: str, target: str, data: bytes | None, headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Send a request, and read its answer. Raises Unreachable."""
        kept = self._connection.sock is not None
        try:
            self._connection.request(method, target, data, headers)
            response = self._connection.getresponse()
            content = response.read(MAX_ANSWER + 1)
            if response.length and len(content) <= MAX_ANSWER:
                raise http.client.IncompleteRead(content, response.length)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            if kept and isinstance(error, ConnectionError | http.client.RemoteDisconnected):
                return self._exchange(method, target, data, headers)
            raise Unreachable(f"{self._place.shown} can't be reached: {_reason(error)}") from None
        if len(content) > MAX_ANSWER:
            self._connection.close()
            raise Unreachable(f"{self._place.shown} answers without end")
        return response, content

    def _read(self, response: http.client.HTTPResponse, content: bytes) -> dict[str, Any]:
        """Raises Refused, Unreachable."""
        kind = response.headers.get_content_type()
        if 200 <= response.status < 300 and kind == "application/json":
            try:
                found = json.loads(content)
            except (ValueError, RecursionError):
                found = None
            if isinstance(found, dict):
                return found
        elif kind == "text/plain" and 0 < len(content.strip()) <= _MAX_LINE and response.status >= 400:
            text = f"{content.decode('utf-8', 'replace').strip()} ({response.status})"
            raise Unreachable(text) if response.status == 503 else Refused(response.status, text)
        raise Unreachable(
            f"{self._place.shown} gives no answer of a chatroom, but {response.status} and {kind}"
        )


def _reason(error: Exception) -> str:
    """What went wrong, in words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        verify = getattr(error, "verify_message", None)
        if verify:
            return f"its certificate isn't trusted ({verify})"
        return getattr(error, "reason", None) or error.strerror or str(error) or type(error).__name__
    return f"no HTTP ({type(error).__name__})"
