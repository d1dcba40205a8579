"""A small program at one of the screens of `join`, for their tests: it says what is typed.

    python at_screen.py editor|mono|plain|brief [HISTORY]

Lines that begin with `!` make it do something; see `_main`.
"""

import signal
import sys
from pathlib import Path

import trio

from chatroom.client.plainscreen import PlainScreen
from chatroom.client.screen import Completions, Screen
from chatroom.client.typedhistory import TypedHistory

NAMES = ("alice", "albert", "bob", "日本語")


class _Echo:
    """What happens at the keyboard, as lines and in the status."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self.told: list[str] = []

    def typing(self, text: str) -> None:
        self.told = [*self.told[-9:], text]
        self._screen.set_status(f"typed {len(text)}")

    def looking(self, there: bool) -> None:
        self._screen.show([f"looking {there}"])

    def leave(self) -> None:
        self._screen.show(["leaving"])

    def complete(self, before: str) -> Completions:
        start = before.rfind(" ") + 1
        return Completions(start, tuple(name for name in NAMES if name.startswith(before[start:])))


async def _main(screen: Screen) -> int:
    code = 0
    async with trio.open_nursery() as nursery:
        await nursery.start(_heed, screen, nursery.cancel_scope)
        echo = _Echo(screen)
        screen.attend(echo)
        screen.set_prompt("#room> ")
        screen.set_status("ready")
        screen.show(["hello"])
        code = 5 if "brief" in sys.argv else await _take_lines(screen, echo)
        nursery.cancel_scope.cancel()
    return code


async def _take_lines(screen: Screen, echo: _Echo) -> int:
    while (line := await screen.next_line()) is not None:
        match line.split(" "):
            case ["!fail"]:
                raise RuntimeError("it failed")
            case ["!show", count]:
                screen.show([f"line {number} \x1b[32mgreen\x1b[0m" for number in range(int(count))])
            case ["!raw", *words]:
                screen.show([" ".join(words)])
            case ["!back", text]:
                screen.put_back(text)
            case ["!both", text, taken]:
                screen.put_back(text)
                screen.take_back(taken)
                screen.show([f"put back {text}, taken back {taken}"])
            case ["!told"]:
                screen.show([f"told {' '.join(map(ascii, echo.told))}"])
            case ["!status", *words]:
                screen.set_status(" ".join(words))
            case ["!go", code]:
                return int(code)
            case _:
                screen.show([f"said {line!a}"])
    return 0


async def _heed(
    screen: Screen, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            screen.show(["told to stop"])
            scope.cancel()


if __name__ == "__main__":
    kind, *path = sys.argv[1:]
    if kind == "plain":
        sys.exit(PlainScreen().run(_main))
    from chatroom.client.editor import Editor

    history = TypedHistory(Path(path[0]) if path else None, is_secret=lambda line: "secret" in line)
    sys.exit(Editor(history, colours=kind == "editor").run(_main))
