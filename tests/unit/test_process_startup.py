"""Descriptors are made room for, and what won't work as asked is said."""

import logging
import resource
from dataclasses import replace

import pytest

from chatroom.config.settings import Settings, read_settings
from chatroom.core.limits import Limits
from chatroom.core.logevents import logger
from chatroom.process import SPARE_DESCRIPTORS, check_startup, raise_descriptor_limit

INFINITY = resource.RLIM_INFINITY


class System:
    """Limits of a process, which may refuse to be changed."""

    def __init__(self, soft: int, hard: int, refuses: bool = False) -> None:
        self.limits = (soft, hard)
        self.refuses = refuses

    def getrlimit(self, _: int) -> tuple[int, int]:
        return self.limits

    def setrlimit(self, _: int, limits: tuple[int, int]) -> None:
        if self.refuses:
            raise ValueError
        self.limits = limits


@pytest.mark.parametrize(
    ("system", "limit", "soft"),
    [
        (System(1024, 524288), 5000, 5000),
        (System(1024, 4096), 4096, 4096),
        (System(1024, INFINITY), 5000, 5000),
        (System(9000, 9000), 9000, 9000),
        (System(INFINITY, INFINITY), 5000, INFINITY),
        (System(1024, 524288, refuses=True), 1024, 1024),
    ],
)
def test_the_soft_limit_is_raised_as_far_as_it_goes(
    system: System, limit: int, soft: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", system.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", system.setrlimit)
    hard = system.limits[1]
    assert raise_descriptor_limit(5000) == limit
    assert system.limits == (soft, hard)


class Notes(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[tuple[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.notes.append((record.getMessage(), record.__dict__["fields"]))


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    handler = Notes()
    monkeypatch.setattr(logger, "handlers", [handler])
    return handler.notes


def settings(connections: int, *unknown: str) -> Settings:
    read = read_settings([], {})
    assert isinstance(read, Settings)
    limits = Limits(connections=connections)
    return replace(read, limits=limits, unknown_variables=unknown, tokens="tokens.toml")


def test_nothing_to_say(notes: list[tuple[str, object]]) -> None:
    check_startup(settings(10), 0, 0)
    assert notes == []


def test_development_tokens_are_warned_of(notes: list[tuple[str, object]]) -> None:
    check_startup(replace(settings(10), tokens=None), 4, 0)
    check_startup(replace(settings(10), insecure_dev_tokens=True), 5, 0)
    assert [event for event, _ in notes] == ["development_tokens"] * 2


def test_tokens_for_any_name_are_warned_of(notes: list[tuple[str, object]]) -> None:
    check_startup(settings(10), 2, 0)
    assert notes == [
        (
            "unbound_tokens",
            {
                "count": 2,
                "hint": "who holds one may take any name that no token is bound to, so a name is only a name",
            },
        )
    ]


def test_moderators_among_tokens_for_any_name_are_warned_of(notes: list[tuple[str, object]]) -> None:
    check_startup(settings(10), 2, 1)
    ((event, fields),) = notes
    assert event == "unbound_tokens"
    assert "bind each token to a username" in str(fields)


def test_what_is_said(notes: list[tuple[str, object]], monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(1024, 4096)
    monkeypatch.setattr(resource, "getrlimit", system.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", system.setrlimit)
    check_startup(settings(10_000, "CHATROOM_A", "CHATROOM_B"), 0, 0)
    assert notes == [
        ("unknown_variables", {"names": "CHATROOM_A CHATROOM_B"}),
        ("few_descriptors", {"limit": 4096, "wanted": 10_000 + SPARE_DESCRIPTORS}),
    ]
