"""The command `backup`: its options, and what it does with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chatroom.config.options import OPTIONS, Parser, add_option, unknown, value_of
from chatroom.config.settings import NO_DATABASE
from chatroom.core.errors import StartError
from chatroom.engines.sqlite.backup import back_up
from chatroom.system.stdio import say, stopping_between_steps


@dataclass(frozen=True, slots=True)
class BackupSettings:
    """What is to be copied where."""

    db: str
    to: str


def run_backup(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """Copy what is asked for, and say so. Raises StartError."""
    asked = read_backup(arguments, environ)
    if isinstance(asked, str):
        say(asked)
    else:
        with stopping_between_steps() as check:
            back_up(asked.db, asked.to, check)
        say(f"Copied {asked.db} to {asked.to}, and found the copy whole\n")


def read_backup(arguments: Sequence[str], environ: Mapping[str, str]) -> BackupSettings | str:
    """Read the options of `backup`, as `read_settings` does those of `serve`."""
    (option,) = [option for option in OPTIONS if option.target == "db"]
    parser = Parser(
        prog="chatroom backup",
        usage="./chat.pyz backup [--db PATH] TO",
        description="Copies the database, also while the server runs, to a file that must not exist yet.",
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("to", nargs="?", metavar="TO", help="the copy")
    add_option(parser, option)
    parser.add_argument("--help", "-h", action="store_true", help="print this text and exit")
    given, rest = parser.parse_known_args(arguments)
    if given.help:
        return parser.format_help()
    if rest:
        raise StartError(unknown(rest[0], [option]))
    database = value_of(option, given.db, environ)
    if database == NO_DATABASE:
        raise StartError("with --db none there is nothing to copy: give the server's database by --db")
    if not given.to:
        raise StartError("backup needs the name of the copy: ./chat.pyz backup --db chat.db TO")
    return BackupSettings(database, given.to)
