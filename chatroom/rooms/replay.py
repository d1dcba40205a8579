"""Where a reader who enters a room starts: after `since`, or some messages before the end.

A recovery is whole or none: what can't be given without a gap is not called recovered.
"""

from dataclasses import dataclass

MAX_RECOVERED = 500
"""The most messages that a resume brings back."""


@dataclass(frozen=True, slots=True)
class Resume:
    """What a client says it has: the last id it saw, and the epoch it was told with it."""

    since: int
    epoch: str


@dataclass(frozen=True, slots=True)
class Start:
    """The id after which the reader begins; `recovered` is None where no resume was asked for."""

    after: int
    recovered: bool | None


def start_of_replay(resume: Resume | None, *, epoch: str, first_id: int, last_id: int, history: int) -> Start:
    """Where to begin in a room whose log keeps `first_id` to `last_id`; `history` is the usual replay."""
    usual = max(last_id - history, first_id - 1, 0)
    if resume is None:
        return Start(usual, None)
    missed = last_id - resume.since
    if resume.epoch == epoch and 0 <= missed <= MAX_RECOVERED and resume.since + 1 >= first_id:
        return Start(resume.since, True)
    return Start(usual, False)
