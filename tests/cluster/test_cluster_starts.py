"""Starts that a store makes impossible: exit code 2, one line that says why, and no password in it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.support.proxies import CERTIFICATE
from tests.support.scene import Served, await_true, check_clean, refused_start
from tests.support.several import come, reasons
from tests.support.stores import Kind, Stores, hold_port

pytestmark = pytest.mark.usefixtures("pyz")

PASSWORD = "s3cret-pa55word"


def refusal(url: str, *options: str) -> str:
    """The line that says why no server runs on this store, behind its address."""
    line = refused_start("--port", "0", "--redis", url, *options)
    assert "pa55word" not in line
    return line


@contextmanager
def talking(answer: bytes) -> Iterator[str]:
    """Something at a port that answers INFO by this, and other commands as is fit; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(client: socket.socket) -> None:
            with client, suppress(OSError):
                while data := client.recv(65536):
                    for command in data.split(b"*")[1:]:
                        fit = b"*0\r\n" if b"CONFIG\r\n" in command else b"+OK\r\n"
                        client.sendall(answer if b"INFO\r\n" in command else fit)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def bulk(text: str) -> bytes:
    return f"${len(text)}\r\n{text}\r\n".encode()


def test_nobody_is_there() -> None:
    with hold_port() as held:
        line = refusal(f"redis://127.0.0.1:{held.getsockname()[1]}")
    assert "the store can't be reached" in line


def test_somebody_is_there_who_says_nothing(stores: Stores) -> None:
    store = stores.start()
    store.freeze()
    assert "the store does not answer" in refusal(store.url)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there is no Valkey or Redis"),
        (b"\x00\xff\x00\xff\r\n", "what answers there is no Valkey or Redis"),
        (b":1\r\n", "what answers there is no Valkey or Redis"),
        (b"*0\r\n", "what answers there is no Valkey or Redis"),
        (b"$-1\r\n", "what answers there is no Valkey or Redis"),
        (b"-DENIED Redis is running in protected mode, secret-pa55word\r\n", "refuses a command ('DENIED')"),
    ],
)
def test_something_else_is_there(answer: bytes, says: str) -> None:
    with talking(answer) as url:
        assert says in refusal(url)


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ("redis_version:6.2.14", "the store is Redis 6.2.14: 7.0 is the oldest that will do"),
        (
            "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:7.1.9",
            "the store is Valkey 7.1.9: 7.2 is the oldest that will do",
        ),
    ],
)
def test_it_is_too_old(about: str, says: str) -> None:
    with talking(bulk(f"# Server\r\n{about}\r\nrun_id:a\r\n")) as url:
        assert says in refusal(url)


@pytest.mark.parametrize("kind", [Kind.REDIS])
def test_its_certificate_is_not_to_be_believed(stores: Stores) -> None:
    store = stores.start("bind 127.0.0.1 127.0.0.2", tls=True, password=PASSWORD)
    unverified = "the store's certificate can't be verified"
    assert unverified in refusal(store.url)
    assert unverified in refusal(store.url.replace("127.0.0.1", "127.0.0.2"), "--redis-ca", str(CERTIFICATE))
    assert "the store can't be reached" in refusal(store.url.replace("rediss", "redis"))
    with Served("--redis", store.url, "--redis-ca", str(CERTIFICATE)) as server:
        assert server.stop() == 0


@pytest.mark.parametrize("kind", Kind)
def test_its_settings_or_its_users_rights_will_not_do(stores: Stores) -> None:
    store = stores.start(
        "maxmemory 100mb",
        "maxmemory-policy volatile-lru",
        password=PASSWORD,
        users=[
            f"ann on >{PASSWORD} ~* &* +@all -function",
            f"bob on >{PASSWORD} ~* &* +@all -fcall",
            f"cy on >{PASSWORD} ~others:* &* +@all",
            f"di on >{PASSWORD} ~* resetchannels +@all",
            f"eve on >{PASSWORD} ~* &* +@all -info",
        ],
    )
    assert "set maxmemory-policy to noeviction" in refusal(store.url)
    store.config_set("maxmemory", 0)
    for user, says in (
        ("ann", "the store's user may not load functions (FUNCTION LOAD)"),
        ("bob", "the store does not let its user do what is needed"),
        ("cy", "the store does not let its user do what is needed"),
        ("di", "the store does not let its user do what is needed"),
        ("eve", "the store does not let its user do what is needed"),
        ("nobody", "the store refuses the user or the password"),
    ):
        assert says in refusal(store.url.replace("://:", f"://{user}:")), user


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("kind", Kind)
def test_it_takes_no_writes(stores: Stores) -> None:
    store = stores.start()
    store.ask("REPLICAOF", "127.0.0.1", "1")
    assert "the store is read-only (a replica)" in refusal(store.url)
    store.ask("REPLICAOF", "NO", "ONE")
    store.config_set("min-replicas-to-write", 1)
    assert "too few of the store's replicas are connected" in refusal(store.url)
    store.config_set("min-replicas-to-write", 0)
    store.config_set("maxmemory", 1)
    assert "the store's memory is full" in refusal(store.url)
    store.config_set("maxmemory", 0)
    with Served("--redis", store.url) as server:
        assert server.stop() == 0
    store.config_set("maxmemory", 1)
    with Served("--redis", store.url) as server:  # its functions are there: it can be read
        await_true(lambda: reasons(server) == (503, ["the store's memory is full"]), "it knows", 3)
        come(server, "den", "ann").close()
        store.config_set("maxmemory", 0)
        await_true(lambda: reasons(server) == (200, []), "it knows", 3)
        check_clean(server)
        assert server.stop() == 0


def test_the_key_of_the_nodes_is_something_else(stores: Stores) -> None:
    store = stores.start()
    store.ask("SET", "chatroom:nodes", "mine")
    assert "keys with the prefix belong to something else" in refusal(store.url)
    assert store.ask("GET", "chatroom:nodes") == "mine"


@pytest.mark.parametrize(
    ("url", "options"),
    [
        (f"redis//:{PASSWORD}@127.0.0.1", ()),
        (f"http://:{PASSWORD}@127.0.0.1", ()),
        (f"redis://:{PASSWORD}@127.0.0.1:99999", ()),
        (f"redis://:{PASSWORD}/x@127.0.0.1", ()),
        (f"redis://:{PASSWORD}@@127.0.0.1", ()),
        (f"redis://:{PASSWORD}@127.0.0.1/x", ()),
        (f"redis://:{PASSWORD}@", ()),
        (f"redis+sentinel://:{PASSWORD}@127.0.0.1", ()),
        (f"redis://:{PASSWORD}@127.0.0.1", ("--db", "chat.db")),
        (f"redis://:{PASSWORD}@127.0.0.1", ("--redis-prefix", "a{b")),
        (f"redis://:{PASSWORD}@127.0.0.1", ("--redis-ca", str(CERTIFICATE))),
        ("", ()),
    ],
)
def test_it_is_not_said_where_it_is(url: str, options: tuple[str, ...]) -> None:
    assert "--redis" in refusal(url, *options)
