"""Where the built server listens, with and without TLS, and what it says where it can't."""

import os
import re
import socket
import ssl
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.client import Chat, target
from tests.support.process import ROOT, ServerProcess, clean_environment, python_command
from tests.support.raw import Raw, get, handshake, head
from tests.support.scene import Scene, Served, await_true, check_clean, refused_start, served

HELLO = head("GET /healthz HTTP/1.1", ("Host", "localhost"), ("Connection", "close"))


# TCP


def test_localhost_is_both_loopbacks(pyz: Path) -> None:
    with served() as server:
        both = [f"http://127.0.0.1:{server.port}"]
        if ipv6():
            both.append(f"http://[::1]:{server.port}")
            raw = Raw(server.port, host="::1")
            raw.send(HELLO)
            assert raw.read_answer().status == 200
            raw.close()
        server.await_listening(len(both))
        assert server.lines == [f"Listening on {url}" for url in both]


def ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_hosts_may_be_repeated_and_ipv4_comes_first(pyz: Path) -> None:
    hosts = ["--host", "::1"] if ipv6() else []
    with served(*hosts, "--host", "127.0.0.1", "--host", "127.0.0.2") as server:
        urls = [f"http://127.0.0.1:{server.port}", f"http://127.0.0.2:{server.port}"]
        urls += [f"http://[::1]:{server.port}"] * bool(hosts)
        assert server.await_listening(len(urls)) == urls
    with served("--host", "127.0.0.1") as server:
        assert len(server.lines) == 1


@pytest.mark.usefixtures("measured")
def test_options_by_environment(pyz: Path) -> None:
    names = {"CHATROOM_HOST": "127.0.0.1,127.0.0.2", "CHATROOM_MAX_TEXT": "20", "CHATROOM_LOG_FORMAT": "text"}
    names |= {"CHATROOM_RATE": "0", "CHATROOM_MAX_FRAME": "128KiB"}
    with Served("--log-format", "json", env=clean_environment(names)) as server, Scene(server) as scene:
        assert len(server.await_listening(2)) == 2
        chat = scene.join("alice")
        assert chat.welcome["limits"] == {
            "text": 20, "frame": 131072, "rate": 0, "burst": 20, "unanswered": 32,
        }  # fmt: skip
        refused = chat.ask("message", text="x" * 21)
        assert (refused["code"], refused["limit"]) == ("too_long", 20)
        await_true(lambda: server.stderr, "something is logged")
        assert server.stderr.startswith("{"), "the flag wins"
        scene.over = True


def test_the_first_line_comes_at_once_through_a_pipe(pyz: Path) -> None:
    with ServerProcess() as server:
        assert re.fullmatch(r"Listening on http://127\.0\.0\.1:\d+", server.lines[0])
        assert get(server.port, "/healthz").status == 200


# Unix sockets


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A short one: the system allows a hundred bytes."""
    return str(tmp_path / "s")


def talk_by(path: str, server: Served) -> None:
    chat = Chat("ws://localhost" + target("den", "alice"), path=path)
    chat.say("hello")
    assert chat.texts(1) == ["hello"]
    other = Chat(server.ws_url + target("den", "bob"))
    assert other.texts(1) == ["hello"]
    other.close()
    chat.close()


def test_a_unix_socket_beside_tcp(pyz: Path, path: str) -> None:
    with served("--unix", path) as server:
        assert server.await_listening(2 + ipv6())[-1] == f"unix:{path}"
        talk_by(path, server)
        assert stat.S_ISSOCK(os.stat(path).st_mode)
    assert not os.path.exists(path)


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(pyz: Path, path: str) -> None:
    with Served("--unix", path) as killed:
        killed.process.kill()
        killed.wait()
    assert os.path.exists(path)
    with served("--unix", path) as server:
        talk_by(path, server)
        said = refused_start("--port", "0", "--unix", path)
        assert path in said
        talk_by(path, server)


def test_a_file_that_is_no_socket_is_left_alone(pyz: Path, path: str) -> None:
    Path(path).write_text("precious")
    assert path in refused_start("--port", "0", "--unix", path)
    assert Path(path).read_text() == "precious"


@pytest.mark.parametrize(("options", "mode"), [((), 0o666), (("--unix-mode", "0600"), 0o600)])
def test_the_mode_of_the_socket_is_no_matter_of_the_umask(
    pyz: Path, path: str, options: tuple[str, ...], mode: int
) -> None:
    command = ["sh", "-c", 'umask 077; exec "$0" "$@"', *python_command()]
    with Served("--unix", path, *options, command=command) as server:
        server.await_listening(2 + ipv6())
        assert stat.S_IMODE(os.stat(path).st_mode) == mode
        assert server.stop() == 0


@pytest.mark.usefixtures("measured")
def test_a_unix_socket_alone(pyz: Path, path: str) -> None:
    with Served("--host", "none", "--unix", path) as server:
        assert server.lines == [f"Listening on unix:{path}"]
        chat = Chat("ws://localhost" + target("den", "alice"), path=path)
        chat.say("hello")
        assert chat.texts(1) == ["hello"]
        chat.close()
        assert server.stop() == 0
    assert "--unix" in refused_start("--host", "none")
    assert "--host none" in refused_start("--host", "none", "--host", "127.0.0.1", "--unix", path)


# Addresses that cover each other, and what is refused before anything is opened


def test_a_host_that_another_covers_is_left_out(pyz: Path) -> None:
    with Served("--host", "127.0.0.1", "--host", "0.0.0.0", "--insecure-dev-tokens") as server:
        assert server.lines == [f"Listening on http://0.0.0.0:{server.port}"]
        assert get(server.port, "/healthz").status == 200
        assert server.stop() == 0
    for port in ("0", "1"):
        line = refused_start("--host", "127.0.0.1", "--host", "0.0.0.0", "--port", port)
        assert "development token" in line
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "development token" in refused_start("--host", "0.0.0.0", "--port", port)


# A port for metrics


@pytest.mark.usefixtures("measured")
def test_metrics_at_a_port_of_their_own(pyz: Path) -> None:
    with Served("--host", "127.0.0.1", "--metrics-port", "0", "--metrics-host", "127.0.0.2") as server:
        await_true(lambda: len(server.lines) == 2, "both ports are told")
        name, at, url = server.lines[1].split()
        assert (name, at) == ("Metrics", "on")
        assert url.startswith("http://127.0.0.2:")
        port = int(url.rpartition(":")[2])

        def ask(target: str, request: bytes | None = None) -> int:
            raw = Raw(port, host="127.0.0.2")
            raw.send(request or head(f"GET {target} HTTP/1.1", ("Host", "x"), ("X-Forwarded-For", "y")))
            try:
                return raw.read_answer().status
            finally:
                raw.close()

        assert [ask(path) for path in ("/metrics", "/healthz", "/readyz")] == [200, 200, 200]
        assert [ask(path) for path in ("/", "/handshake?token=dev-token", "/x")] == [404, 404, 404]
        assert ask("", handshake("/?token=dev-token")) == 404
        assert get(server.port, "/metrics").status == 404
        assert get(server.port, "/readyz").status == 200
        assert get(server.port, "/").status == 200
        crowd = [Raw(server.port) for _ in range(110)]
        assert ask("/metrics") == 200
        for raw in crowd:
            raw.close()
        check_clean(server)
        assert server.stop() == 0
        assert "untrusted_proxy" not in server.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = str(taken.getsockname()[1])
        assert "--metrics-port" in refused_start("--port", "0", "--metrics-port", number)
    assert "--metrics-port" in refused_start("--port", "3999", "--metrics-port", "3999")
    assert "--metrics-port" in refused_start("--metrics-host", "127.0.0.1")


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new self-signed one with its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    made = folder / "both.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    )
    extra = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    try:
        subprocess.run(
            [*command.split(), *extra, "-keyout", folder / "key", "-out", folder / "cert"],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        return ROOT / "tests" / "support" / "localhost.pem"
    made.write_bytes((folder / "cert").read_bytes() + (folder / "key").read_bytes())
    return made


@pytest.mark.usefixtures("measured")
def test_talking_by_tls(pyz: Path, certificate: Path) -> None:
    context = ssl.create_default_context(cafile=str(certificate))
    with Served("--tls-cert", str(certificate), "--tls-key", str(certificate), "--rate", "0") as server:
        assert all(url.startswith("https://") for url in server.listening)
        url = f"wss://localhost:{server.port}"
        alice, bob = (Chat(url + target("den", name), ssl=context) for name in ("alice", "bob"))
        alice.expect("joined")
        for number in range(200):
            alice.say(f"{number} " + "x" * 3000)
        for chat in (alice, bob):
            assert [text.split()[0] for text in chat.texts(200)] == [str(number) for number in range(200)]
        # Plain HTTP, silence and nonsense at this port end by themselves.
        for data in (
            HELLO,
            handshake("/?token=dev-token"),
            b"\x16\x03\x01\xff\xff" + b"x" * 100,
            b"\x80",
            b"",
        ):
            raw = Raw(server.port)
            raw.send(data)
            raw.half_close()
            assert not raw.read_end().startswith(b"HTTP/1.1 2")
            raw.close()
        raw = Raw(server.port)
        raw.send(b"\x16\x03\x01")
        raw.reset()
        alice.say("still here")
        assert bob.texts(1) == ["still here"]
        check_clean(server)
        # A peer that closes without TLS's own farewell, and one that does it properly
        bob.vanish()
        alice.texts(1)
        alice.expect("left", username="bob")
        alice.close()
        check_clean(server)
        assert server.stop() == 0


def test_tls_and_the_origin_of_its_own_page(pyz: Path, certificate: Path) -> None:
    options = ("--tls-cert", str(certificate), "--tls-key", str(certificate), "--origin", "https://x.example")
    context = ssl.create_default_context(cafile=str(certificate))
    with Served(*options) as server:
        for origin, status in (
            (f"https://localhost:{server.port}", 101),
            (f"http://localhost:{server.port}", 403),
        ):
            with (
                socket.create_connection(("127.0.0.1", server.port)) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as secure,
            ):
                request = handshake("/?token=dev-token", ("Origin", origin))
                secure.sendall(request.replace(b"Host: localhost", b"Host: localhost:%d" % server.port))
                assert secure.recv(12) == b"HTTP/1.1 %d" % status
        check_clean(server)
