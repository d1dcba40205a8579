"""Tokens and keys of an issuer, made without the code that is tested.

1. A token is put together from the bytes that a test gives: what no library would sign can be signed.
2. Private keys are made once for a run; they are good for nothing else.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt import get_algorithm_by_name

SECRET = b"the secret of the tests, 32 bytes and more"
NOW = 1_764_000_000
"""A moment, in seconds since 1970, for clocks that are passed in."""

Signer = PrivateKeyTypes | bytes


def b64(data: bytes) -> str:
    """base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def as_json(value: object) -> bytes:
    """The JSON of a value; bytes are JSON already."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def claims(now: float = NOW, **more: Any) -> dict[str, Any]:
    """What a good token says, and what is said beside; what is None is left out."""
    found = {"sub": "alice", "exp": int(now) + 3600, **more}
    return {name: value for name, value in found.items() if value is not None}


def token(
    payload: object = None, signer: Signer = SECRET, header: object = None, *, algorithm: str | None = None
) -> str:
    """A token; `payload` and `header` are values or the bytes to be signed."""
    name = algorithm or algorithm_of(signer)
    head = as_json({"typ": "JWT", "alg": name} if header is None else header)
    signed = f"{b64(head)}.{b64(as_json(claims() if payload is None else payload))}"
    return f"{signed}.{b64(signature(signed.encode(), signer))}"


def algorithm_of(signer: Signer) -> str:
    """The algorithm that a key is for."""
    match signer:
        case bytes():
            return "HS256"
        case rsa.RSAPrivateKey():
            return "RS256"
        case ec.EllipticCurvePrivateKey():
            return "ES256"
    return "EdDSA"


def signature(data: bytes, signer: Signer) -> bytes:
    """The signature of `data`."""
    match signer:
        case bytes():
            return hmac.new(signer, data, hashlib.sha256).digest()
        case rsa.RSAPrivateKey():
            return signer.sign(data, padding.PKCS1v15(), hashes.SHA256())
        case ec.EllipticCurvePrivateKey():
            r, s = decode_dss_signature(signer.sign(data, ec.ECDSA(hashes.SHA256())))
            size = (signer.key_size + 7) // 8
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        case ed25519.Ed25519PrivateKey():
            return signer.sign(data)
    raise AssertionError(signer)


def unnamed(value: object) -> str | None:
    """For `ids` of parameters: keys are others in each process, and no test may be called by them."""
    return "bytes" if isinstance(value, bytes) else None


@functools.cache
def private_key(kind: str, number: int = 1) -> Any:
    """The private key of a kind: RSA, with its bits behind it if they aren't 2048, P-256, P-384, Ed25519."""
    match kind:
        case "P-256":
            return ec.generate_private_key(ec.SECP256R1())
        case "P-384":
            return ec.generate_private_key(ec.SECP384R1())
        case "Ed25519":
            return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, int(kind.removeprefix("RSA") or 2048))


def public_pem(key: Any) -> bytes:
    """The public half, as PEM."""
    public: PublicKeyTypes = key.public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: Any) -> bytes:
    """The private half, as PEM."""
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def jwk(key: Any, kid: str | None = None, **more: Any) -> dict[str, Any]:
    """The public half as a JWK."""
    found = get_algorithm_by_name(algorithm_of(key)).to_jwk(key.public_key(), as_dict=True)
    return {**found, **({} if kid is None else {"kid": kid}), **more}


def jwks(*entries: object) -> bytes:
    """A JWK set."""
    return as_json({"keys": entries})
