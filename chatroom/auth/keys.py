"""The keys of web tokens: read from an operator's files and from JWK sets, and used by PyJWT.

Owns the formats of keys, and the import of PyJWT and `cryptography`. Rules:

1. The kind of a key determines its algorithm: a secret HS256, an RSA key RS256, a key on P-256 ES256, an
   Ed25519 key EdDSA. Nothing that is written beside a key can change that.
2. A secret is never taken from a text that looks like a public key, nor from a JWK set.
3. A set may hold keys of several kinds, as an issuer's set does while it changes its algorithm. Keys that are
   for another use by their `use`, `key_ops` or `alg` are left out, and so are all other kinds.
4. Every mistake is a StartError of one line, which shows nothing of a file but its name.
5. PyJWT is imported only where web tokens are configured, so that other starts don't wait for it.
6. `cryptography` is compiled, so the portable file can't hold it, and that of the host is used. PyJWT needs
   it for every algorithm but HS256. Where it is missing, too old or broken, a StartError names the command
   that helps, and HS256 still works.

It doesn't know tokens and claims.
"""

import functools
import hashlib
import importlib
import sys
import sysconfig
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from chatroom.auth.webtokens import MAX_KID, Key, read_object
from chatroom.core.errors import StartError
from chatroom.system.files import read_file
from chatroom.system.stdio import stderr_muted

# PyJWT and cryptography

_OLDEST = (3, 4)
"""The oldest release of cryptography that PyJWT works with, by PyJWT's `crypto` extra."""


def import_pyjwt() -> Any:
    """PyJWT. Its import fails with a broken cryptography, so it is kept from importing one (rule 6)."""
    if "jwt" not in sys.modules and _fault_of_cryptography() is not None:
        sys.modules["cryptography"] = None  # type: ignore[assignment]  # an import of it fails now
        try:
            return importlib.import_module("jwt")
        finally:
            del sys.modules["cryptography"]
    return importlib.import_module("jwt")


def require_cryptography() -> None:
    """Raises StartError without a cryptography that works."""
    fault = _fault_of_cryptography()
    if fault is None:
        return
    command = f"{sys.executable} -m pip install --upgrade cryptography"
    if sys.prefix == sys.base_prefix and Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists():
        command = "./build.sh --with-cryptography"  # pip refuses to change the system's Python
    raise StartError(f"public keys need the Python package cryptography, which {fault}: run {command}")


@functools.cache
def _fault_of_cryptography() -> str | None:
    """What is wrong with the package, if anything."""
    try:
        with stderr_muted():  # a panic of Rust prints a hundred lines
            version = str(importlib.import_module("cryptography").__version__)
            importlib.import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
            importlib.import_module("cryptography.hazmat.primitives.serialization")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        missing = isinstance(error, ModuleNotFoundError) and error.name == "cryptography"
        return "is not installed" if missing else f"is broken ({type(error).__name__}: {error})"
    release = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return None if release >= _OLDEST else f"is too old here ({version})"


# Keys

SECRET_BYTES = 32
RSA_BITS = (2048, 8192)
"""The least is that of RFC 7518, section 3.3. Beyond the most, a verification takes long."""
MAX_FILE = 256 * 1024
MAX_KEYS = 100
_KINDS = {"RSA": "RS256", "EC P-256": "ES256", "OKP Ed25519": "EdDSA"}


def read_secret(path: str) -> bytes:
    """The secret in a file, without the white space at its end. Raises StartError."""
    secret = read_key_file("--jwt-secret-file", path).rstrip()
    if len(secret) < SECRET_BYTES:
        raise StartError(
            f"--jwt-secret-file {path} has {len(secret)} bytes, without white space at its end, and a secret "
            f"has {SECRET_BYTES} at least: make one by openssl rand -hex 32"
        )
    jwt = import_pyjwt()
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(secret)
    except jwt.InvalidKeyError:
        raise StartError(
            f"--jwt-secret-file {path} holds a key that is no secret: give public keys by --jwt-public-key "
            "or --jwt-jwks"
        ) from None
    return secret


def sign(secret: bytes, payload: Mapping[str, Any]) -> str:
    """A token with this payload, signed with HS256."""
    return str(import_pyjwt().encode(dict(payload), secret, algorithm="HS256"))


def secret_key(path: str) -> Key:
    """The key made of a secret file. Raises StartError."""
    return _key("HS256", None, read_secret(path), SECRET_BYTES)


def public_key(path: str) -> Key:
    """The public key in a PEM file. Raises StartError."""
    require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  (imported already)
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    source = read_key_file("--jwt-public-key", path)
    if source.count(b"-----BEGIN ") == 1:
        with suppress(ValueError, TypeError, UnsupportedAlgorithm):
            return _public(load_pem_public_key(source), None)
    raise StartError(_not_a_public_key(path, source))


def _not_a_public_key(path: str, source: bytes) -> str:
    if b"PRIVATE KEY-----" in source:
        return f"--jwt-public-key {path} holds a private key: make the public one by openssl pkey -pubout"
    if b"CERTIFICATE-----" in source:
        return f"--jwt-public-key {path} holds a certificate: take its key by openssl x509 -noout -pubkey"
    return (
        f"--jwt-public-key {path} is no usable key: give one PEM public key, of RSA with {RSA_BITS[0]} to "
        f"{RSA_BITS[1]} bits, P-256 or Ed25519"
    )


def key_set(source: bytes, name: str) -> tuple[Key, ...]:
    """The usable keys of the JWK set `source`, which came from `name`.

    No two of them have both the `kid` and the algorithm in common. Keys of different kinds may share a `kid`
    (RFC 7517, section 4.5). Raises StartError if no key is usable, or if two can't be told apart.
    """
    require_cryptography()
    try:
        entries = read_object(source).get("keys")
    except ValueError:
        entries = None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise StartError(f'{name} is no JWK set: it must be {{"keys": […]}}, {MAX_KEYS} at most')
    found: dict[tuple[str | None, str], Key] = {}
    for entry in entries:
        key = _read_entry(entry, name)
        if key is None:
            continue
        same = found.setdefault((key.kid, key.algorithm), key)
        if same.fingerprint != key.fingerprint:
            raise StartError(
                f"{name}: two {key.algorithm} keys of one kid, or two without any: each needs its own"
            )
    if not found:
        raise StartError(
            f"{name} has no usable key: it must hold a public one, of RSA with {RSA_BITS[0]} to "
            f"{RSA_BITS[1]} bits, P-256 or Ed25519, that is meant for signatures"
        )
    return tuple(found.values())


def _read_entry(entry: object, name: str) -> Key | None:
    """The key of an element of a set, None if it is not for us. Raises StartError if it is private."""
    if not isinstance(entry, dict):
        return None
    kind, kid = entry.get("kty"), entry.get("kid")
    if "d" in entry and kind in ("RSA", "EC", "OKP"):
        raise StartError(f"{name} holds a private key, which others may have read: replace it by a new one")
    algorithm = _KINDS.get("RSA" if kind == "RSA" else f"{kind} {entry.get('crv')}")
    operations = entry.get("key_ops", ["verify"])
    if (
        algorithm is None
        or entry.get("alg", algorithm) != algorithm
        or entry.get("use", "sig") != "sig"
        or not (isinstance(operations, list) and "verify" in operations)
        or not (kid is None or (isinstance(kid, str) and len(kid) <= MAX_KID))
    ):
        return None
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  (imported already)

    jwt = import_pyjwt()
    try:
        return _public(jwt.PyJWK(entry, algorithm).key, kid)
    except (jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
        return None


def _public(key: Any, kid: str | None) -> Key:
    """The key of a `cryptography` object. Raises ValueError if it isn't for us."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415  (imported already)

    match key:
        case rsa.RSAPublicKey() if RSA_BITS[0] <= key.key_size <= RSA_BITS[1]:
            return _key("RS256", kid, key, (key.key_size + 7) // 8)
        case ec.EllipticCurvePublicKey() if key.curve.name == "secp256r1":
            return _key("ES256", kid, key, 64)
        case ed25519.Ed25519PublicKey():
            return _key("EdDSA", kid, key, 64)
    raise ValueError("no key for us")


def _key(algorithm: str, kid: str | None, key: Any, signature_bytes: int) -> Key:
    verify: Callable[[bytes, Any, bytes], bool] = import_pyjwt().get_algorithm_by_name(algorithm).verify

    def check(signed: bytes, signature: bytes) -> bool:
        return verify(signed, key, signature)

    return Key(algorithm, kid, signature_bytes, check, _fingerprint(algorithm, key))


def _fingerprint(algorithm: str, key: Any) -> str:
    if isinstance(key, bytes):
        material = key
    else:
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  (imported already)

        form = serialization.PublicFormat.SubjectPublicKeyInfo
        material = key.public_bytes(serialization.Encoding.DER, form)
    return hashlib.sha256(algorithm.encode() + b" key " + material).hexdigest()[:16]


def read_key_file(flag: str, path: str) -> bytes:
    """The content of a file of keys. Raises StartError."""
    return read_file(flag, path, most=MAX_FILE, kind="a file of keys")
