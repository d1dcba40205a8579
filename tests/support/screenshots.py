"""Pictures of the page as people see it: `python -m tests.support.screenshots [FOLDER]`.

A small conversation is held on a server of its own, and photographed in both schemes and two widths. Without
FOLDER, the picture that stands in the README is made anew.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.browser import Visitor, chromium, still, stop_clock
from tests.support.process import ROOT, ServerProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser

README_IMAGE = ROOT / "docs" / "images" / "page.png"
ARTEFACTS = ROOT / "artifacts"
LARGE, SMALL = (1200, 720), (375, 700)
ROOM = "bridge"
OTHER_ROOMS = ("general", "workshop", "lunch")
TALK = (
    ("bob", "Morning! The new cables are in, all of them."),
    ("carol", "That was quick. Did you get the long ones, too?"),
    ("bob", "Yes, twelve of 30 m."),
    ("bob", "The list is at https://example.org/cables (ask me for the password)"),
    ("dmitri", "Before anybody mounts them, please run the check:\n```sh\n./check.sh --all --span 30\n```"),
    ("alice", "Done for the north side. `check.sh` finds nothing."),
    ("layla", "مرحبا! أنا في الطريق، خمس دقائق"),
    (
        "carol",
        "@alice can you hold the ladder for layla? It is the tall one, and the wind has picked up again.",
    ),
    ("alice", "On my way."),
    ("bob", "Then we can have lunch on the bridge at noon."),
)


def hold(stack: ExitStack, browser: Browser, server: ServerProcess, room: str = ROOM) -> dict[str, Visitor]:
    """Let them all come and say what they have to say; they stay. All know other rooms, too."""
    people: dict[str, Visitor] = {}
    for name in dict.fromkeys(name for name, _ in TALK):
        people[name] = Visitor(browser, server.url)
        stack.callback(people[name].close)
        people[name].connect(name, OTHER_ROOMS[0])
        for other in (*OTHER_ROOMS[1:], room):
            people[name].switch(other)
            people[name].page.get_by_text(f"Connected to #{other} as {name}.").wait_for()
    for number, (name, text) in enumerate(TALK, 1):
        people[name].say(text)
        people["bob"].page.wait_for_function("number => state.room.lastId >= number", arg=number)
    return people


def let_type(people: dict[str, Visitor]) -> None:
    """Alice is told that Dmitri types. By the server it would depend on what he typed in the last 3 s."""
    stop_clock(people["alice"])  # so that the mark stays
    people["alice"].page.evaluate(
        """receive('{"event":"typing","data":{"username":"dmitri","active":true}}')"""
    )
    people["alice"].page.get_by_text("dmitri is typing…").wait_for()


def photograph(visitor: Visitor, path: Path, size: tuple[int, int], scheme: str) -> Path:
    """One picture of what the visitor sees."""
    path.parent.mkdir(parents=True, exist_ok=True)
    visitor.page.set_viewport_size({"width": size[0], "height": size[1]})
    visitor.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
    still(visitor)
    visitor.page.screenshot(path=path)
    return path


def make_all(browser: Browser, server: ServerProcess, folder: Path) -> list[Path]:
    """The door and the room, large and small, light and dark."""
    made = []
    with ExitStack() as stack:
        people = hold(stack, browser, server)
        stranger = Visitor(browser, server.url)
        stack.callback(stranger.close)
        let_type(people)
        for visitor, what in ((people["alice"], "room"), (stranger, "door")):
            for size, width in ((LARGE, "large"), (SMALL, "small")):
                for scheme in ("light", "dark"):
                    path = folder / f"{what}-{width}-{scheme}.png"
                    made.append(photograph(visitor, path, size, scheme))
    return made


def make_readme_image(browser: Browser, server: ServerProcess) -> Path:
    """The one picture of the README."""
    with ExitStack() as stack:
        people = hold(stack, browser, server)
        let_type(people)
        return photograph(people["alice"], README_IMAGE, (1100, 640), "light")


def main(arguments: list[str]) -> None:
    """Make the pictures, and say where they are."""
    with chromium() as browser, ServerProcess("--db", "none", "--rate", "0") as server:
        if arguments:
            made = make_all(browser, server, Path(arguments[0]))
        else:
            made = [make_readme_image(browser, server)]
    for path in made:
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
