"""The built server and JSON Web Tokens: who is let in, what is refused alike, and keys that change."""

import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.client import Chat, target
from tests.support.issuer import TRUST, Issuer
from tests.support.process import ROOT, ServerProcess, clean_environment, python_command
from tests.support.raw import Answer, ask, get, knock
from tests.support.scene import Scene, Served, await_true, check_stderr, gauges, refused_start, served
from tests.support.signing import (
    SECRET,
    algorithm_of,
    as_json,
    b64,
    claims,
    jwk,
    jwks,
    private_key,
    private_pem,
    public_pem,
    token,
    unnamed,
)

KINDS = {"HS256": "HS256", "RSA": "RS256", "P-256": "ES256", "Ed25519": "EdDSA"}


def signer(kind: str) -> Any:
    return SECRET if kind == "HS256" else private_key(kind)


def now(**more: Any) -> dict[str, Any]:
    return claims(time.time(), **more)


def source(kind: str, folder: Path) -> tuple[str, str]:
    """The options of a server that takes tokens of this kind."""
    file = folder / kind
    file.write_bytes(SECRET + b"\n" if kind == "HS256" else public_pem(private_key(kind)))
    return "--jwt-secret-file" if kind == "HS256" else "--jwt-public-key", str(file)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(pyz: Path, kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    options = source(kind, tmp_path_factory.mktemp("keys"))
    with served("--insecure-dev-tokens", "--rate", "0", *options, secrets=("eyJ", SECRET.decode())) as server:
        yield server


@pytest.fixture
def scene(server: Served) -> Iterator[Scene]:
    with Scene(server) as scene:
        yield scene


def test_a_token_is_its_name_and_its_rights(scene: Scene, kind: str) -> None:
    good = token(now(rooms={"general": "rw", "ops-*": "r", "drop": "w"}), signer(kind))
    chat = scene.join("alice", "ops-1", token=good)
    assert chat.ask("message", text="x")["code"] == "forbidden"
    assert chat.ask("switch_room", room="den")["code"] == "forbidden"
    assert chat.ask("switch_room", room="general")["event"] == "switched"
    chat.settle()
    chat.say("hello", "c1")
    assert chat.receive()["data"]["username"] == "alice"
    port = scene.server.port
    assert ask(port, "/?" + urlencode({"token": good})).text == '{"username": "alice", "room": "general"}\n'
    for query in ({"username": "bob"}, {"room": "drop"}, {"room": "den"}):
        assert knock(port, "/?" + urlencode({"token": good, **query})).status == 403


def refused(kind: str) -> dict[str, str]:
    """Tokens that are refused, by what is wrong with them."""
    key, name = signer(kind), KINDS[kind]
    good = token(now(), key)
    head, body, proof = good.split(".")
    wrong = SECRET[::-1] if kind == "HS256" else private_key(kind, 2)
    public = private_key("RSA") if kind == "HS256" else key
    return {
        "expired": token(now(exp=int(time.time()) - 60), key),
        "no exp": token(now(exp=None), key),
        "too long a life": token(now(exp=int(time.time()) + 31 * 24 * 3600), key),
        "not yet": token(now(nbf=int(time.time()) + 120), key),
        "issued next year": token(now(iat=int(time.time()) + 365 * 24 * 3600), key),
        "for somebody else": token(now(aud="mail"), key),
        "no name": token(now(sub=None), key),
        "no valid name": token(now(sub="al ice"), key),
        "malformed rooms": token(now(rooms=["general"]), key),
        "a claim twice": token(as_json(now())[:-1] + b', "sub": "bob"}', key),
        "NaN": token(b'{"sub":"alice","exp":NaN}', key),
        "too large": token(b'{"sub":"alice","exp":1e999}', key),
        "crit": token(now(), key, {"alg": name, "crit": ["exp"]}),
        "none": f"{b64(as_json({'alg': 'none'}))}.{body}.",
        "none, signed": f"{b64(as_json({'alg': 'none'}))}.{body}.{proof}",
        "unsigned": f"{head}.{body}.",
        "another key": token(now(), wrong),
        "a key of its own": token(now(), wrong, {"alg": name, "jwk": {"kty": "oct", "k": b64(SECRET)}}),
        "signed with the PEM": token(now(), public_pem(public)),
        "signed with the PEM's text": token(now(), public_pem(public).rstrip()),
        "another kind": token(now(), private_key("RSA" if kind == "P-256" else "P-256")),
        "another algorithm": token(now(), key, {"alg": "HS512" if kind == "HS256" else "HS256"}),
        "cut off": good[:-1],
        "garbage": "eyJhbGciOiJIUzI1NiJ9.e30.x",
        "no token of this kind": "wrong-secret",
    }


def seen(answer: Answer) -> tuple[int, str, dict[str, str]]:
    return (
        answer.status,
        answer.text,
        {name: value for name, value in answer.headers.items() if name != "date"},
    )


def test_all_that_is_wrong_is_answered_alike(scene: Scene, kind: str) -> None:
    port = scene.server.port
    missing = seen(knock(port, "/"))
    assert missing[:2] == (401, "Unauthorized")
    for what, wrong in refused(kind).items():
        assert seen(knock(port, "/?" + urlencode({"token": wrong}))) == missing, what
        assert knock(port, "/", ("Authorization", f"Bearer {wrong}")).status == 401, what
        assert ask(port, "/", ("Authorization", f"Bearer {wrong}")).text == "Unauthorized", what
    good = token(now(), signer(kind))
    assert knock(port, "/", ("Authorization", f"Bearer {good}")).status == 101


def test_a_token_renews_the_one_before(scene: Scene, kind: str) -> None:
    chat = scene.join("alice", "ops-1", token=token(now(rooms={"ops-1": "r"}), signer(kind)))
    assert chat.ask("message", text="x")["code"] == "forbidden"
    assert chat.ask("auth", token=token(now(sub="bob"), signer(kind)))["code"] == "forbidden"
    assert chat.ask("auth", token=token(now(), signer(kind)))["event"] == "ack"
    chat.say("hello", "c1")
    assert chat.receive()["cid"] == "c1"


# Beside other tokens


def status(server: ServerProcess, shown: str) -> int:
    return knock(server.port, "/?" + urlencode({"token": shown, "username": "alice"})).status


@pytest.mark.usefixtures("measured")
def test_web_tokens_stand_beside_static_ones_and_end_the_development_tokens(
    pyz: Path, tmp_path: Path
) -> None:
    (tmp_path / "tokens").write_text('[[token]]\ntoken = "own"\n\n[[token]]\ntoken = "any"\n')
    options = source("HS256", tmp_path)
    with ServerProcess("--tokens", str(tmp_path / "tokens"), *options, "--host", "0.0.0.0") as server:
        assert [status(server, shown) for shown in ("own", token(now()), "dev-token", "")] == [
            101,
            101,
            401,
            401,
        ]
        assert server.stop() == 0
        assert '"event": "unbound_tokens", "count": 2' in server.stderr
    with ServerProcess(*options) as server:
        assert [status(server, shown) for shown in ("token-alice", token(now()))] == [401, 101]
        assert server.stop() == 0
        assert "unbound_tokens" not in server.stderr


@pytest.mark.usefixtures("measured")
def test_a_name_that_the_token_file_binds_is_for_no_web_token(pyz: Path, tmp_path: Path) -> None:
    """An issuer's users may choose their names: the file says whose they are."""
    file = tmp_path / "tokens"
    file.write_text('[[token]]\ntoken = "own"\nusername = "bob"\n')
    with ServerProcess("--tokens", str(file), *source("HS256", tmp_path)) as server:
        answer = ask(server.port, "/?" + urlencode({"token": token(now(sub="bob"))}))
        assert (answer.status, answer.text) == (403, "This username is reserved for other tokens")
        bob = Chat(server.ws_url + target("den", "bob", "own"))
        assert bob.ask("auth", token=token(now(sub="bob")))["code"] == "forbidden"
        alice = Chat(server.ws_url + target("den", "alice", token(now())))
        bob.expect("joined", username="alice")
        file.write_text('[[token]]\ntoken = "own"\nusername = "alice"\n')
        server.signal(signal.SIGHUP)
        assert alice.closing() == (4503, "the username is reserved for other tokens now")
        assert bob.closing() == (4503, "the token is bound to another username now")
        assert status(server, token(now())) == 403
        assert knock(server.port, "/?" + urlencode({"token": token(now(sub="bob"))})).status == 101
        for chat in (alice, bob):
            chat.close()
        assert server.stop() == 0


def test_audience_and_issuer(pyz: Path, tmp_path: Path) -> None:
    named = ("--jwt-audience", "chat", "--jwt-issuer", "us")
    with ServerProcess(*source("HS256", tmp_path), *named) as server:
        assert status(server, token(now(aud=["mail", "chat"], iss="us"))) == 101
        for more in (
            {},
            {"aud": "chat"},
            {"iss": "us"},
            {"aud": "mail", "iss": "us"},
            {"aud": "chat", "iss": "we"},
        ):
            assert status(server, token(now(**more))) == 401, more
        assert server.stop() == 0


# The command


def test_what_the_command_makes_is_let_in(pyz: Path, tmp_path: Path) -> None:
    options = source("HS256", tmp_path)
    named = ("--jwt-audience", "chat", "--jwt-issuer", "us")
    command = [*python_command(), "token", "--sub", "alice", "--room", "general:rw", "--room", "ops-*:r"]
    done = subprocess.run(
        [*command, *options, *named], capture_output=True, text=True, check=True, env=clean_environment()
    )
    assert (done.stderr, done.stdout.count("\n")) == ("", 1)
    with ServerProcess(*options, *named) as server:
        query = {"token": done.stdout.strip()}
        answers = [knock(server.port, "/?" + urlencode(query | {"room": room})) for room in ("ops-1", "den")]
        assert [answer.status for answer in answers] == [101, 403]
        assert server.stop() == 0


def test_the_longest_token_is_let_in_however_it_is_shown(pyz: Path, tmp_path: Path) -> None:
    options = source("HS256", tmp_path)
    longest = max(
        (token(now(rooms={"general": "rw"}, x="x" * size)) for size in range(5900, 6100)),
        key=lambda made: len(made) if len(made) <= 8192 else 0,
    )
    assert len(longest) > 8180
    with ServerProcess(*options) as server:
        assert knock(server.port, f"/?token={longest}").status == 101
        assert knock(server.port, "/", ("Authorization", f"Bearer {longest}")).status == 101
        shown = ("Sec-WebSocket-Protocol", f"chatroom.v1, bearer.{longest}")
        assert knock(server.port, "/", shown).status == 101
        assert server.stop() == 0


@pytest.mark.usefixtures("measured")
def test_the_example_of_the_documentation_works(pyz: Path, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here to make a secret with")
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    (example,) = re.findall(r"```sh\n(openssl .*?)```", page, re.DOTALL)
    secret, server, mint = example.replace("./chat.pyz", shlex.join(python_command())).splitlines()
    run = partial(subprocess.run, shell=True, cwd=tmp_path, check=True, text=True, env=clean_environment())
    run(secret)
    with ServerProcess(command=shlex.split(server.removesuffix(" &")), cwd=tmp_path) as process:
        shown = run(mint, stdout=subprocess.PIPE).stdout.strip()
        assert status(process, shown) == 101
        assert process.stop() == 0


# Keys at an address

OLD, NEW = private_key("RSA"), private_key("RSA", 2)


CURVE, EDWARDS = private_key("P-256"), private_key("Ed25519")


def headed(key: Any, kid: str, algorithm: str | None = None) -> str:
    return token(now(), key, {"alg": algorithm or algorithm_of(key), "kid": kid})


@pytest.mark.usefixtures("measured")
def test_a_set_from_a_file(pyz: Path, tmp_path: Path) -> None:
    (tmp_path / "set").write_bytes(jwks(jwk(OLD, "old"), jwk(NEW, "new"), {"kty": "oct", "k": b64(SECRET)}))
    with ServerProcess("--jwt-jwks", str(tmp_path / "set")) as server:
        assert [status(server, headed(OLD, "old")), status(server, headed(NEW, "new"))] == [101, 101]
        for wrong in (headed(OLD, "new"), headed(NEW, "newer"), token(now(), OLD), token(now())):
            assert status(server, wrong) == 401
        assert server.stop() == 0


ISSUERS_SET = (
    jwk(private_key("RSA", 3), "enc", use="enc"),
    jwk(OLD, "old", use="sig", alg="RS256"),
    jwk(CURVE, "curve", use="sig"),
    {"kty": "oct", "k": b64(SECRET), "kid": "oct", "alg": "HS256"},
    jwk(EDWARDS, "edwards", key_ops=["verify"]),
    jwk(private_key("P-256", 2), "derive", key_ops=["deriveKey"]),
)
"""What an issuer publishes while it changes its algorithm."""


def check_issuers_set(server: ServerProcess) -> None:
    """Each key is good for its own algorithm, and nothing that a token says changes that."""
    for key, kid in ((OLD, "old"), (CURVE, "curve"), (EDWARDS, "edwards")):
        assert status(server, headed(key, kid)) == 101, kid
    wrong = [
        headed(OLD, "curve"),
        headed(OLD, "curve", "ES256"),
        headed(CURVE, "old"),
        headed(CURVE, "old", "RS256"),
        headed(CURVE, "edwards", "EdDSA"),
        headed(private_key("RSA", 3), "enc"),
        headed(private_key("P-256", 2), "derive"),
        headed(SECRET, "oct"),
        headed(public_pem(OLD), "old", "HS256"),
        headed(as_json(jwk(CURVE, "curve")), "curve", "HS256"),
        headed(OLD, "old", "none"),
        token(now(), OLD),
        token(now(), CURVE),
    ]
    for number, shown in enumerate(wrong):
        assert status(server, shown) == 401, number


def test_a_set_of_several_kinds_from_a_file_changes_at_a_hangup(pyz: Path, tmp_path: Path) -> None:
    (tmp_path / "set").write_bytes(jwks(*ISSUERS_SET))
    with ServerProcess("--jwt-jwks", str(tmp_path / "set")) as server:
        check_issuers_set(server)
        (tmp_path / "set").write_bytes(jwks(jwk(NEW, "new"), jwk(CURVE, "curve")))
        server.signal(signal.SIGHUP)
        await_true(lambda: '"event": "reloaded"' in server.stderr, "the set is read again")
        assert status(server, headed(NEW, "new")) == status(server, headed(CURVE, "curve")) == 101
        assert status(server, headed(OLD, "old")) == status(server, headed(EDWARDS, "edwards")) == 401
        assert server.stop() == 0


def test_a_set_of_several_kinds_from_an_address_changes_its_kind(pyz: Path) -> None:
    """A reload brings keys of a kind that wasn't there before."""
    with Issuer() as issuer:
        issuer.body = jwks(jwk(OLD, "old"))
        with ServerProcess("--jwt-jwks", issuer.url, env=clean_environment(TRUST)) as server:
            assert status(server, headed(CURVE, "curve")) == 401
            issuer.body = jwks(*ISSUERS_SET)
            server.signal(signal.SIGHUP)
            await_true(lambda: '"event": "reloaded"' in server.stderr, "the set is fetched again")
            check_issuers_set(server)
            assert server.stop() == 0


@pytest.mark.usefixtures("measured")
def test_a_set_from_an_address_is_fetched_and_the_last_good_one_kept(pyz: Path) -> None:
    with Issuer() as issuer:
        issuer.body = jwks(jwk(OLD, "old"))
        with ServerProcess("--jwt-jwks", issuer.url + "?key=s3cret", env=clean_environment(TRUST)) as server:
            assert status(server, headed(OLD, "old")) == 101
            assert issuer.asked == ["/jwks.json?key=s3cret"]
            await_true(
                lambda: '"event": "keys", "algorithms": "RS256", "count": 1' in server.stderr, "it is logged"
            )
            issuer.status = 500
            assert status(server, headed(NEW, "new")) == 401
            assert status(server, headed(OLD, "old")) == 101
            assert get(server.port, "/readyz").status == 200
            assert 0 <= gauges(server)["chatroom_keys_age_seconds"] < 60
            assert server.stop() == 0
            check_stderr(server.stderr, "s3cret", "eyJ")


def test_a_hangup_while_keys_are_still_fetched_ends_nothing(pyz: Path) -> None:
    with Issuer() as issuer:
        issuer.body = jwks(jwk(OLD, "old"))
        issuer.go_on.clear()
        server = ServerProcess("--jwt-jwks", issuer.url, env=clean_environment(TRUST))

        def hang_up() -> None:
            await_true(lambda: bool(issuer.asked), "keys are asked for")
            server.signal(signal.SIGHUP)
            issuer.go_on.set()

        meanwhile = threading.Thread(target=hang_up)
        meanwhile.start()
        with server:
            assert status(server, headed(OLD, "old")) == 101
            assert server.stop() == 0
        meanwhile.join()


# What can't be used is said at the start


def test_an_address_that_gives_no_keys_is_one_line(pyz: Path) -> None:
    with Issuer() as issuer:
        for code, body, says in (
            (500, b"", "gave no keys (status 500)"),
            (302, b"", "gave no keys (status 302)"),
            (200, b"<html>", "is no JWK set"),
            (200, jwks(), "has no usable key"),
            (200, jwks({"kty": "oct", "k": b64(SECRET)}), "has no usable key"),
        ):
            issuer.status, issuer.body = code, body
            line = refused_start("--port", "0", "--jwt-jwks", issuer.url, env=TRUST)
            assert line.startswith(f"chatroom: {issuer.url} {says}")
        line = refused_start("--port", "0", "--jwt-jwks", issuer.url)
        assert "certificate" in line
    assert "Connection refused" in refused_start("--port", "0", "--jwt-jwks", issuer.url)


@pytest.mark.parametrize(
    ("flag", "content", "says"),
    [
        ("--jwt-secret-file", b"short\n", "has 5 bytes"),
        ("--jwt-secret-file", public_pem(OLD), "holds a key that is no secret"),
        ("--jwt-secret-file", jwks(jwk(OLD)), "holds a key that is no secret"),
        ("--jwt-public-key", SECRET, "is no usable key"),
        ("--jwt-public-key", private_pem(OLD), "holds a private key"),
        ("--jwt-jwks", public_pem(OLD), "is no JWK set"),
        ("--jwt-jwks", jwks(), "has no usable key"),
    ],
    ids=unnamed,
)
def test_a_file_that_is_no_key_is_one_line(
    pyz: Path, tmp_path: Path, flag: str, content: bytes, says: str
) -> None:
    (tmp_path / "file").write_bytes(content)
    line = refused_start("--port", "0", flag, str(tmp_path / "file"))
    assert says in line
    assert not (tmp_path / "chat.db").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--jwt-secret-file", "absent"), "can't be read"),
        (("--jwt-jwks", "http://issuer.example/"), "give an https address"),
        (("--jwt-jwks", "https://user:pass@issuer.example/"), "leave that and the password out"),
        (("--jwt-jwks", "a", "--jwt-secret-file", "b"), "exclude each other"),
        (("--jwt-issuer", "us"), "means nothing without keys"),
    ],
)
def test_a_wrong_option_is_one_line(pyz: Path, arguments: tuple[str, ...], says: str) -> None:
    line = refused_start(*arguments)
    assert says in line
    assert "pass@" not in line
