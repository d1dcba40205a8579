"""Keys from files: what is usable is used as what it is, what isn't is one line."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chatroom.auth.keys import (
    MAX_FILE,
    MAX_KEYS,
    key_set,
    public_key,
    read_key_file,
    read_secret,
    secret_key,
    sign,
)
from chatroom.auth.webtokens import parse_compact
from chatroom.core.errors import StartError
from tests.support.process import ROOT, clean_environment
from tests.support.signing import (
    SECRET,
    as_json,
    b64,
    jwk,
    jwks,
    private_key,
    private_pem,
    public_pem,
    signature,
    token,
    unnamed,
)

CERTIFICATE = (
    b"-----BEGIN CERTIFICATE-----"
    + (
        (ROOT / "tests" / "support" / "localhost.pem")
        .read_bytes()
        .partition(b"-----BEGIN CERTIFICATE-----")[2]
    )
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


def mistake(read: Any, *arguments: Any) -> str:
    with pytest.raises(StartError) as caught:
        read(*arguments)
    line = str(caught.value)
    assert line.isprintable()
    return line


def proves(key: Any, signer: Any) -> bool:
    signed = parse_compact(token(None, signer))
    return bool(key.check(signed.signed, signed.signature))


# Secrets


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b" \t\n\n"])
def test_white_space_at_the_end_of_a_secret_is_not_part_of_it(file: Path, end: bytes) -> None:
    file.write_bytes(SECRET + end)
    key = secret_key(str(file))
    assert (key.algorithm, key.kid, key.signature_bytes) == ("HS256", None, 32)
    assert proves(key, SECRET)
    assert not proves(key, SECRET + b"\n")


def test_white_space_elsewhere_is(file: Path) -> None:
    file.write_bytes(b" " + SECRET)
    assert read_secret(str(file)) == b" " + SECRET


def test_a_secret_may_be_any_bytes(file: Path) -> None:
    file.write_bytes(bytes(range(128, 160)))
    assert proves(secret_key(str(file)), bytes(range(128, 160)))


@pytest.mark.parametrize("secret", [b"", b"\n", b"x" * 31, b"x" * 31 + b" \n"])
def test_a_short_secret_is_refused(file: Path, secret: bytes) -> None:
    file.write_bytes(secret)
    line = mistake(read_secret, str(file))
    assert f"--jwt-secret-file {file} has {len(secret.rstrip())} bytes" in line
    assert "openssl rand -hex 32" in line


def public_material() -> dict[str, bytes]:
    key = private_key("P-256")
    return {
        "public PEM": public_pem(key),
        "private PEM": private_pem(key),
        "certificate": CERTIFICATE,
        "PEM behind a remark": b"our key:\n" + public_pem(private_key("RSA")),
        "JWK": as_json(jwk(key)),
        "JWK set": jwks(jwk(key, "a")),
        "secret JWK": as_json({"kty": "oct", "k": b64(SECRET)}),
        "ssh": b"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQDQ alice@example",
    }


@pytest.mark.parametrize("what", public_material())
def test_what_may_be_public_is_no_secret(file: Path, what: str) -> None:
    file.write_bytes(public_material()[what])
    assert "holds a key that is no secret" in mistake(read_secret, str(file))


def test_what_is_signed_is_proven(file: Path) -> None:
    file.write_bytes(SECRET)
    signed = parse_compact(sign(SECRET, {"sub": "alice"}))
    assert (signed.algorithm, signed.payload) == ("HS256", b'{"sub":"alice"}')
    assert secret_key(str(file)).check(signed.signed, signed.signature)


# Files


@pytest.mark.parametrize(
    ("name", "why"), [("absent", "No such file"), (".", "directory"), ("\0", "null byte")]
)
def test_a_file_that_can_not_be_read(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(StartError, match=rf"^--jwt-jwks .*can't be read \(.*{why}.*give a file of keys$"):
        read_key_file("--jwt-jwks", f"{tmp_path}/{name}")


def test_a_file_without_an_end_is_refused() -> None:
    assert f"larger than {MAX_FILE // 1024} KiB" in mistake(read_secret, "/dev/zero")


# Public keys


@pytest.mark.parametrize(
    ("kind", "algorithm", "length"),
    [("RSA", "RS256", 256), ("RSA3072", "RS256", 384), ("P-256", "ES256", 64), ("Ed25519", "EdDSA", 64)],
)
def test_a_public_key_has_the_algorithm_of_its_kind(
    file: Path, kind: str, algorithm: str, length: int
) -> None:
    signer = private_key(kind)
    file.write_bytes(public_pem(signer))
    key = public_key(str(file))
    assert (key.algorithm, key.kid, key.signature_bytes) == (algorithm, None, length)
    assert len(signature(b"x", signer)) == length
    assert proves(key, signer)
    assert not proves(key, private_key(kind, 2))
    for proof in (b"", b"\0", bytes(length), b"\xff" * length, bytes(length + 1)):
        assert not key.check(b"x", proof)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is no usable key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "is no usable key"),
        (b"-----BEGIN PUBLIC KEY-----\n", "is no usable key"),
        (public_pem(private_key("RSA")) * 2, "give one PEM public key"),
        (public_pem(private_key("RSA1024")), "RSA with 2048 to 8192 bits"),
        (public_pem(private_key("P-384")), "P-256"),
        (private_pem(private_key("RSA")), "holds a private key"),
        (private_pem(private_key("Ed25519")), "holds a private key"),
        (CERTIFICATE, "holds a certificate"),
        (SECRET, "is no usable key"),
    ],
    ids=unnamed,
)
def test_what_is_no_public_key(file: Path, content: bytes, says: str) -> None:
    file.write_bytes(content)
    line = mistake(public_key, str(file))
    assert line.startswith(f"--jwt-public-key {file} ")
    assert says in line


# Sets

RSA, RSA2, CURVE, EDWARDS = (
    private_key("RSA"),
    private_key("RSA", 2),
    private_key("P-256"),
    private_key("Ed25519"),
)
OCT = {"kty": "oct", "k": b64(SECRET)}


def found(*entries: object) -> list[tuple[str, str | None]]:
    return [(key.algorithm, key.kid) for key in key_set(jwks(*entries), "set")]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([jwk(RSA)], [("RS256", None)]),
        ([jwk(RSA, "a"), jwk(RSA2, "b")], [("RS256", "a"), ("RS256", "b")]),
        ([jwk(CURVE, "c")], [("ES256", "c")]),
        ([jwk(EDWARDS, "d")], [("EdDSA", "d")]),
        ([jwk(RSA, "a", alg="RS256", use="sig", key_ops=["verify"])], [("RS256", "a")]),
        ([jwk(RSA, "a", x5c=["AAAA"], other={"b": 1})], [("RS256", "a")]),
        # several kinds
        (
            [jwk(RSA, "a"), jwk(CURVE, "c"), jwk(RSA2, "b")],
            [("RS256", "a"), ("ES256", "c"), ("RS256", "b")],
        ),
        ([jwk(EDWARDS, "d"), jwk(RSA, "a")], [("EdDSA", "d"), ("RS256", "a")]),
        ([jwk(RSA, "a"), jwk(CURVE, "a")], [("RS256", "a"), ("ES256", "a")]),
        ([jwk(RSA), jwk(CURVE), jwk(RSA2, "b")], [("RS256", None), ("ES256", None), ("RS256", "b")]),
        ([jwk(RSA, "a"), jwk(RSA, "a", use="sig"), jwk(RSA, "a", alg="RS512")], [("RS256", "a")]),
        ([jwk(RSA, "a"), jwk(RSA2, "a", use="enc")], [("RS256", "a")]),
        ([OCT, jwk(RSA, "a")], [("RS256", "a")]),
        # what isn't for us
        ([jwk(RSA2, "enc", use="enc"), jwk(RSA, "a")], [("RS256", "a")]),
        ([jwk(RSA2, "b", alg="RSA-OAEP"), jwk(RSA, "a")], [("RS256", "a")]),
        ([jwk(RSA2, "b", alg="PS256"), jwk(RSA, "a")], [("RS256", "a")]),
        ([jwk(RSA2, "b", alg="HS256"), jwk(RSA, "a")], [("RS256", "a")]),
        ([jwk(RSA2, "b", alg="none"), jwk(RSA, "a")], [("RS256", "a")]),
        ([jwk(RSA2, "b", key_ops=["encrypt"]), jwk(RSA, "a")], [("RS256", "a")]),
        ([jwk(RSA2, "b", key_ops="verify"), jwk(RSA, "a")], [("RS256", "a")]),
        ([jwk(RSA2, "b") | {"kid": 5}, jwk(RSA, "a")], [("RS256", "a")]),
        ([{"kty": "RSA", "kid": "b", "n": "AQAB", "e": "AQAB"}, jwk(RSA, "a")], [("RS256", "a")]),
        ([{"kty": "RSA", "kid": "b", "n": 7, "e": []}, jwk(RSA, "a")], [("RS256", "a")]),
        ([{"kty": "RSA", "kid": "b"}, jwk(RSA, "a")], [("RS256", "a")]),
        ([{"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}, jwk(RSA, "a")], [("RS256", "a")]),
        ([jwk(RSA2, "b") | {"kty": ["RSA"]}, jwk(RSA, "a")], [("RS256", "a")]),
        ([jwk(private_key("RSA1024"), "b"), jwk(RSA, "a")], [("RS256", "a")]),
        ([{"kty": "OKP", "crv": "X25519", "x": "AAAA"}, jwk(RSA, "a")], [("RS256", "a")]),
        ([{"kty": "EC", "crv": ["P-256"]}, None, 1, "x", [], {}, jwk(RSA, "a")], [("RS256", "a")]),
    ],
)
def test_the_keys_of_a_set(entries: list[object], expected: list[tuple[str, str | None]]) -> None:
    assert found(*entries) == expected


def test_a_key_that_this_cryptography_has_been_built_without_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unsupported(_: bytes) -> None:
        raise UnsupportedAlgorithm("ed25519 is not supported by this version of OpenSSL")

    monkeypatch.setattr(Ed25519PublicKey, "from_public_bytes", unsupported)
    assert found(jwk(EDWARDS, "d"), jwk(RSA, "a")) == [("RS256", "a")]
    assert "set has no usable key" in mistake(key_set, jwks(jwk(EDWARDS, "d")), "set")


def test_a_key_of_a_set_proves_signatures() -> None:
    for signer in (RSA, CURVE, EDWARDS):
        (key,) = key_set(jwks(jwk(signer, "a")), "set")
        assert proves(key, signer)
        assert not proves(key, RSA2)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"", "is no JWK set"),
        (b"[]", "is no JWK set"),
        (b"{}", "is no JWK set"),
        (b'{"keys":{}}', "is no JWK set"),
        (b'{"keys":[],"keys":[]}', "is no JWK set"),
        (b"\xff", "is no JWK set"),
        (b"[" * 100_000, "is no JWK set"),
        (b"<html>", "is no JWK set"),
        (as_json(jwk(RSA)), "is no JWK set"),
        (jwks(*[{}] * (MAX_KEYS + 1)), f"{MAX_KEYS} at most"),
        (jwks(), "has no usable key"),
        (jwks({}), "has no usable key"),
        (jwks(OCT), "has no usable key"),
        (jwks(OCT | {"alg": "HS256", "kid": "a"}), "has no usable key"),
        (jwks(OCT | {"alg": "RS256"}), "has no usable key"),
        (jwks(jwk(RSA, "a", use="enc")), "has no usable key"),
        (jwks(jwk(RSA, "a"), jwk(RSA2, "a")), "two RS256 keys of one kid"),
        (jwks(jwk(RSA), jwk(CURVE), jwk(RSA2)), "two RS256 keys of one kid"),
        (jwks(jwk(RSA, "a") | {"d": "AQAB"}), "holds a private key"),
        (jwks(jwk(RSA, "a"), jwk(EDWARDS, "d") | {"d": "AQAB"}), "holds a private key"),
    ],
    ids=unnamed,
)
def test_what_is_no_set(source: bytes, says: str) -> None:
    line = mistake(key_set, source, "set")
    assert line.startswith("set")
    assert says in line


# What may be missing


def without_cryptography(what: str, prepare: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `what` where `prepare` has done something about cryptography."""
    (folder / "secret").write_bytes(SECRET)
    (folder / "key").write_bytes(public_pem(CURVE))
    code = f"{prepare}\nfrom chatroom.auth import keys\nprint({what})"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder,
        env=clean_environment({"PYTHONPATH": f"{folder}:{ROOT}"}),
    )  # fmt: skip


BREAK = """
import os, sys
class Panic(BaseException): ...
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("cryptography"):
            os.write(2, b"a long story")
            raise {error}
sys.meta_path.insert(0, Broken())
"""
BROKEN = {
    "missing": ("import sys; sys.modules['cryptography'] = None", "is not installed"),
    "without a part": (
        BREAK.format(error="ModuleNotFoundError('no part', name='_cffi_backend')"),
        "is broken",
    ),
    "of another system": (
        BREAK.format(error="ImportError('wrong ELF class')"),
        "is broken (ImportError: wrong",
    ),
    "panicking": (BREAK.format(error="Panic('Python API call failed')"), "is broken (Panic: Python API"),
    "too old": ("import cryptography; cryptography.__version__ = '3.3.2'", "is too old here (3.3.2)"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_public_keys_need_cryptography(how: str, tmp_path: Path) -> None:
    prepare, says = BROKEN[how]
    done = without_cryptography("keys.public_key('key')", prepare, tmp_path)
    last = done.stderr.splitlines()[-1]
    assert "a long story" not in done.stderr
    assert last.startswith(
        "chatroom.core.errors.StartError: public keys need the Python package cryptography,"
    )
    assert says in last
    assert last.endswith(f"run {sys.executable} -m pip install --upgrade cryptography")


@pytest.mark.parametrize("how", BROKEN)
def test_a_secret_needs_none(how: str, tmp_path: Path) -> None:
    done = without_cryptography("keys.secret_key('secret').algorithm", BROKEN[how][0], tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("HS256\n", "", 0)


def test_where_pip_may_change_nothing_the_build_helps(tmp_path: Path) -> None:
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    prepare = BROKEN["missing"][0] + "; import sysconfig; sys.prefix = sys.base_prefix; "
    prepare += f"sysconfig.get_path = lambda _: {str(tmp_path)!r}"
    done = without_cryptography("keys.public_key('key')", prepare, tmp_path)
    assert done.stderr.endswith("which is not installed: run ./build.sh --with-cryptography\n")
