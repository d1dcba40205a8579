"""Autobahn's cases against an echo session on our serving stack: front door, Wire, trio-websocket."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from kosoku import FailureError, run_fuzzingclient

from tests.support.process import ROOT

COMPRESSION = ["12.*", "13.*"]  # an extension, of which we offer none
CASES = 301


@pytest.fixture
def echo_port() -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.echo_server"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        _, _ = server.communicate(timeout=30)
        assert server.returncode == 0, "the server lived through all of it"


def test_no_autobahn_case_fails(echo_port: int) -> None:
    try:
        results = asyncio.run(run_fuzzingclient(f"ws://127.0.0.1:{echo_port}", None, COMPRESSION))
    except FailureError as failure:
        pytest.fail(f"failed: {sorted(result.case_id for result in failure.results)}")
    assert len(results) == CASES
    conforming = {"OK", "NON-STRICT", "INFORMATIONAL"}
    assert {result.behavior.value for result in results} <= conforming
    assert {result.behavior_close.value for result in results} <= {"OK", "INFORMATIONAL"}
