"""The build's own compressor: gzip reads what it makes, and it is small enough to be worth it."""

import gzip
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle import deflate
from bundle.deflate import gzipped
from tests.support.process import ROOT

WINDOW = 32_768
FAR = random.Random(1).randbytes(WINDOW + 5)


@given(
    st.lists(st.sampled_from([b"import ", b"self.x", b"\n    ", b"a", b"\xff\x90", bytes(300)])).map(b"".join)
)
def test_gzip_reads_what_repeats(content: bytes) -> None:
    assert gzip.decompress(gzipped(content)) == content


@given(st.binary(max_size=2000))
def test_gzip_reads_any_bytes(content: bytes) -> None:
    assert gzip.decompress(gzipped(content)) == content


@pytest.mark.parametrize("length", [*range(9), *range(255, 265), 515, 516, 517, 1000])
def test_gzip_reads_a_run_of_any_length(length: int) -> None:
    assert gzip.decompress(gzipped(bytes(length) + b"end")) == bytes(length) + b"end"


@pytest.mark.parametrize("far", [*range(5, 40), 4096, 4097, 24_576, 24_577, WINDOW - 1, WINDOW, WINDOW + 1])
def test_gzip_reads_a_match_at_any_distance(far: int) -> None:
    content = FAR[:far] + FAR[: min(far, 20)]
    assert gzip.decompress(gzipped(content)) == content
    assert (len(gzipped(content)) < len(gzipped(FAR[:far])) + 15) == (far <= WINDOW)


def test_much_is_gathered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    content = (ROOT / "bundle" / "build.py").read_bytes()
    whole = gzipped(content)
    monkeypatch.setattr(deflate, "_FLUSH", 7)
    assert gzipped(content) == whole


def test_source_becomes_less_than_half() -> None:
    content = b"".join(path.read_bytes() for path in sorted((ROOT / "chatroom" / "core").glob("*.py")))
    assert len(gzipped(content)) < len(content) / 2
    assert len(gzipped(content)) < 2 * len(zlib.compress(content))
