"""The password of a store, from its file; what the options need beside each other is in test_settings."""

from pathlib import Path

import pytest

from chatroom.config.settings import MAX_PASSWORD_FILE, complete_address
from chatroom.core.errors import StartError
from chatroom.core.stores import StoreAddress, StoreKind
from tests.support.proxies import CERTIFICATE

HERE = StoreAddress(StoreKind.STANDALONE, (("h", 6379),), username="me")


def test_without_a_file_the_address_stays() -> None:
    assert complete_address(HERE, None, None) is HERE


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"s3cret\n", "s3cret"),
        (b"s3cret\r\n", "s3cret"),
        (b"s3cret", "s3cret"),
        (b" s3 cret \n", " s3 cret "),
        ("gehe\u00efm\n".encode(), "gehe\u00efm"),
    ],
)
def test_the_password_is_the_file_without_the_end_of_its_line(
    content: bytes, password: str, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    found = complete_address(HERE, str(file), None)
    assert (found.password, found.username) == (password, "me")
    assert password not in repr(found)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "can't be read (No such file or directory): give a file with the password"),
        (b"", "is empty: write the password into it"),
        (b"\n", "is empty: write the password into it"),
        (b"s3cret\xff", "is no text in UTF-8"),
        (b"s3cret" + b"x" * MAX_PASSWORD_FILE, "is larger than 4 KiB: give a file with the password"),
    ],
)
def test_what_is_no_password_is_one_line_without_it(content: bytes | None, says: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StartError) as caught:
        complete_address(HERE, str(file), None)
    assert str(caught.value) == f"--redis-password-file {file} {says}"


def test_authorities_are_looked_at_before_they_are_believed(tmp_path: Path) -> None:
    assert complete_address(HERE, None, str(CERTIFICATE)).ca == str(CERTIFICATE)
    file = tmp_path / "ca.pem"
    for content, reason in (
        (None, "No such file or directory"),
        (b"nonsense", "NO_CERTIFICATE_OR_CRL_FOUND"),
    ):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(StartError) as caught:
            complete_address(HERE, None, str(file))
        assert (
            str(caught.value)
            == f"--redis-ca {file} can't be used ({reason}): give a PEM file of certificates"
        )
