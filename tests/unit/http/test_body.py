"""Bodies: by length and in chunks, however the bytes are cut, and what is refused."""

from collections.abc import Sequence

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.core.errors import Refusal
from chatroom.http.body import MAX_BESIDE, MAX_CHUNKS, MAX_LINE, BodyReader

MOST = 1000


def read(length: int | None, data: bytes, cuts: Sequence[int] = (), most: int = MOST) -> BodyReader:
    """The reader after all of `data`, handed over in pieces that are as long as `cuts` say, over and over."""
    reader = BodyReader(length, most)
    at, number = 0, 0
    while at < len(data):
        size = cuts[number % len(cuts)] if cuts else len(data)
        reader.feed(data[at : at + size])
        at, number = at + size, number + 1
    return reader


def result(length: int | None, data: bytes, cuts: Sequence[int] = ()) -> object:
    """What becomes of `data`: the body and what is behind it, a refusal, or None if more has to come."""
    try:
        reader = read(length, data, cuts)
    except Refusal as refusal:
        return refusal.status, refusal.text
    return (reader.body, reader.trailing) if reader.complete else None


def chunked(pieces: Sequence[bytes], extension: bytes = b"", trailers: bytes = b"") -> bytes:
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    return chunks + b"0\r\n" + trailers + b"\r\n"


@pytest.mark.parametrize("cut", [1, 2, 3, 100])
def test_a_body_of_a_length_ends_there(cut: int) -> None:
    assert result(5, b"helloGET /", [cut]) == (b"hello", b"GET /")
    assert result(0, b"GET /", [cut]) == (b"", b"GET /")
    assert result(5, b"hell", [cut]) is None


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 100])
def test_chunks_make_one_body(cut: int) -> None:
    assert result(None, chunked([b"hel", b"lo"]) + b"GET /", [cut]) == (b"hello", b"GET /")
    assert result(None, chunked([]), [cut]) == (b"", b"")
    assert result(None, chunked([b"a\r\nb"], b";name=value"), [cut]) == (b"a\r\nb", b"")
    assert result(None, chunked([b"a"], trailers=b"X-Sum: 1\r\nY:\r\n"), [cut]) == (b"a", b"")
    assert result(None, b"A\r\n0123456789\r\n00\r\n\r\n", [cut]) == (b"0123456789", b"")


REFUSED = {
    "no size": b"\r\n",
    "no hex": b"x\r\n",
    "signed": b"+5\r\nhello\r\n0\r\n\r\n",
    "with a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "white space first": b" 5\r\nhello\r\n0\r\n\r\n",
    "white space behind": b"5 \r\nhello\r\n0\r\n\r\n",
    "underscore": b"1_0\r\nhello\r\n0\r\n\r\n",
    "bare line feed": b"5\nhello\r\n0\r\n\r\n",
    "bare line feed at the end": b"5\r\nhello\r\n0\n\n",
    "bare line feed behind data": b"5\r\nhello\n0\r\n\r\n",
    "longer than its size": b"4\r\nhello\r\n0\r\n\r\n",
    "shorter than its size": b"6\r\nhello\r\n0\r\n\r\n",
    "huge size": b"fffffffff\r\n",
    "negative": b"-1\r\n",
    "control character in an extension": b"5;a=\x00\r\nhello\r\n0\r\n\r\n",
    "carriage return in an extension": b"5;a=\rb\r\nhello\r\n0\r\n\r\n",
    "trailer without a colon": b"0\r\nX\r\n\r\n",
    "folded trailer": b"0\r\nX: a\r\n b\r\n\r\n",
    "a request in place of trailers": b"0\r\nGET / HTTP/1.1\r\n\r\n",
    "long line": b"5;" + b"a" * MAX_LINE + b"\r\n",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("cut", [1, 7, 10_000])
def test_bad_chunks_are_refused(data: bytes, cut: int) -> None:
    found = result(None, data, [cut])
    assert isinstance(found, tuple)
    assert found[0] == 400


@pytest.mark.parametrize("cut", [1, 100, 10_000])
def test_everything_is_bounded(cut: int) -> None:
    assert result(MOST, b"x" * MOST, [cut]) == (b"x" * MOST, b"")
    assert result(None, chunked([b"x" * 600, b"y" * 400]), [cut]) == (b"x" * 600 + b"y" * 400, b"")
    too_large = (413, f"The body is too large: at most {MOST} bytes")
    assert result(MOST + 1, b"", [cut]) == too_large
    assert result(None, chunked([b"x" * 600, b"y" * 401]), [cut]) == too_large
    assert result(None, b"ffffffff\r\n", [cut]) == too_large


def test_chunks_and_what_stands_beside_them_are_bounded() -> None:
    assert read(None, chunked([b"x"] * (MAX_CHUNKS - 1)), most=MAX_CHUNKS).complete
    with pytest.raises(Refusal, match="Too many chunks"):
        read(None, chunked([b"x"] * MAX_CHUNKS), most=2 * MAX_CHUNKS)
    extension = b";" + b"e" * 400
    fitting = MAX_BESIDE // len(extension)
    assert read(None, chunked([b"x"] * fitting, extension)).complete
    with pytest.raises(Refusal, match="Too much beside the chunks"):
        read(None, chunked([b"x"] * (fitting + 1), extension))
    with pytest.raises(Refusal, match="Too much beside the chunks"):
        read(None, chunked([], trailers=b"X: y\r\n" * (MAX_BESIDE // 6 + 1)))


def test_little_is_kept_of_a_body_in_chunks() -> None:
    reader = BodyReader(None, 100_000)
    reader.feed(b"10000\r\n")
    for _ in range(16):
        reader.feed(b"x" * 4096)
        assert len(reader._buffer) == 0
    reader.feed(b"\r\n0\r\n\r\n")
    assert reader.body == b"x" * 65536


tokens = st.sampled_from(
    [b"0", b"5", b"a", b"\r\n", b"\n", b"\r", b";", b"e=1", b"hello", b":", b"X: y", b" ", b"\x00", b"GET /"]
)


@given(st.lists(tokens, max_size=12).map(b"".join), st.lists(st.integers(1, 7), min_size=1, max_size=4))
def test_the_result_does_not_depend_on_the_cuts(data: bytes, cuts: list[int]) -> None:
    assert result(None, data, cuts) == result(None, data)
    assert result(5, data, cuts) == result(5, data)


@given(
    st.lists(st.binary(min_size=1, max_size=20), max_size=8),
    st.sampled_from([b"", b";a", b';a="b c"']),
    st.sampled_from([b"", b"X: y\r\n", b"A:\r\nB: c\r\n"]),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
def test_h11_finds_the_same_body(
    pieces: list[bytes], extension: bytes, trailers: bytes, cuts: list[int]
) -> None:
    data = chunked(pieces, extension, trailers)
    reference = h11.Connection(h11.SERVER)
    reference.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    assert isinstance(reference.next_event(), h11.Request)
    body = b""
    while isinstance(event := reference.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert result(None, data, cuts) == (body, b"")
