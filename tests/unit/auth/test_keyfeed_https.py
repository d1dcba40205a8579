"""A document from an https address, or one line that says why there is none."""

from collections.abc import Iterator

import pytest
import trio

from chatroom.auth.keyfeed import DEADLINE_SECONDS, MAX_BYTES, fetch, shown
from chatroom.core.errors import StartError
from tests.support.issuer import TRUST, Issuer


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in TRUST.items():
        monkeypatch.setenv(name, value)
    with Issuer() as issuer:
        yield issuer


async def refusal(url: str) -> str:
    with pytest.raises(StartError) as caught:
        await fetch(url)
    return str(caught.value)


async def test_what_is_there(issuer: Issuer) -> None:
    issuer.body = b'{"keys":[]}'
    assert await fetch(issuer.url + "?key=s3cret") == b'{"keys":[]}'
    assert issuer.asked == ["/jwks.json?key=s3cret"]


@pytest.mark.parametrize("status", [204, 301, 302, 307, 308, 400, 404, 500])
async def test_another_status_is_told_and_no_redirect_followed(issuer: Issuer, status: int) -> None:
    issuer.status = status
    issuer.headers = {"Location": f"https://localhost:{issuer.port}/elsewhere"}
    if status == 204:
        assert await fetch(issuer.url) == b""
        return
    line = await refusal(issuer.url + "?key=s3cret")
    assert line.startswith(f"{issuer.url} gave no keys (status {status}): ")
    assert len(issuer.asked) == 1


async def test_too_much(issuer: Issuer) -> None:
    issuer.body = b" " * MAX_BYTES
    assert len(await fetch(issuer.url)) == MAX_BYTES
    issuer.body += b" "
    assert f"(more than {MAX_BYTES // 1024} KiB)" in await refusal(issuer.url)


async def test_what_breaks_off_is_what_came_until_then(issuer: Issuer) -> None:
    issuer.headers, issuer.body = {"Content-Length": "100"}, b'{"keys":'
    assert await fetch(issuer.url) == b'{"keys":'


async def test_the_proxy_of_the_environment_is_used(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://localhost:1")
    assert "Connection refused" in await refusal(issuer.url)
    monkeypatch.setenv("no_proxy", "localhost")
    assert await fetch(issuer.url) == b""


async def test_a_certificate_that_nobody_trusts(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "(self-signed certificate" in (await refusal(issuer.url)).replace("self signed", "self-signed")
    assert issuer.asked == []


async def test_a_certificate_of_another_name(issuer: Issuer) -> None:
    assert "(Hostname mismatch" in await refusal(issuer.url.replace("localhost", "127.1"))
    assert issuer.asked == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://localhost:1/", "Connection refused"),
        ("https://nowhere.invalid/", "ame"),
        ("https://" + "a" * 64 + ".invalid/", "."),
    ],
)
async def test_nobody_there(issuer: Issuer, url: str, why: str) -> None:
    line = await refusal(url)
    assert line.startswith(f"{url} gave no keys (")
    assert why in line


async def test_what_is_no_http(issuer: Issuer) -> None:
    issuer.headers = {"X-Long": "x" * 70_000}
    assert "gave no keys (" in await refusal(issuer.url)


async def test_no_answer(issuer: Issuer, autojump_clock: trio.testing.MockClock) -> None:
    issuer.go_on.clear()
    assert f"(no answer within {DEADLINE_SECONDS:g} seconds)" in await refusal(issuer.url)


def test_an_address_is_shown_without_its_query() -> None:
    assert shown("https://a.example:8443/b?c=d&e") == "https://a.example:8443/b"
