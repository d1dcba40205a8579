"""By which token a client is let in, and under which name.

    1.  the file that --token-file names
    2.  the variable CHATROOM_TOKEN
    3.  the file of tokens: $XDG_CONFIG_HOME/chatroom/netrc, else ~/.config/chatroom/netrc; there by
        HOST:PORT, by HOST, or by `default`:

            machine chat.example:3000 login alice password TOKEN

    4.  a person at the terminal, where a command asks for it

Owns these sources and their order. Rules:

1. A token is in no error, and never on the command line, which everybody can read.
2. A file of tokens that others may read or change isn't used, nor one that belongs to somebody else. It has
   the form of ~/.netrc: words, comments in lines that begin with #, and no macros.
3. A file is read anew each time the token is wanted, so that a client gets the next one before the old one
   ends. While that fails the last one stays.

It doesn't know how a token reaches the server.
"""

import os
import re
import shlex
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from chatroom.client.address import Place
from chatroom.core.errors import StartError
from chatroom.core.names import clean_username
from chatroom.system.files import read_file

VARIABLE = "CHATROOM_TOKEN"
DEVELOPMENT_TOKEN = "dev-token"  # noqa: S105  (everybody knows it)
_MAX_FILE = 64 * 1024
_TOKEN = re.compile(r"[!-~]{1,16384}")
_OTHERS = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH
_DEFAULT = "default"
_EXAMPLE = "machine chat.example login NAME password TOKEN"

Ask = Callable[[Place], str | None]
"""Asks a person for the token of a place; None if there is nobody to ask."""


class Credentials:
    """The token of a client, and the `username` that stood beside it, if one did."""

    def __init__(self, read: Callable[[], str], file: str | None = None, username: str | None = None) -> None:
        """`read` gives the token, and does so again if it is in a `file`. Raises what `read` raises."""
        self.username = username
        self._read = read
        self._file = file
        self._token = read()
        self._known = {self._token}

    def token(self) -> str:
        """The token as it is now. It blocks, though not for long."""
        if self._file is not None and os.path.isfile(self._file):  # a pipe gives it only once
            with suppress(StartError):
                self._token = self._read()
                self._known.add(self._token)
        return self._token

    def are_in(self, text: str) -> bool:
        """Whether a token is in it: the one as it is now, or an earlier one, which may be valid still."""
        self.token()
        return any(token in text for token in self._known)


def find_credentials(
    place: Place, environ: Mapping[str, str], *, token_file: str | None = None, ask: Ask | None = None
) -> Credentials:
    """The token for `place`, from the first source that has one. Raises StartError."""
    if token_file is not None:
        return Credentials(lambda: token_of_file(token_file), token_file)
    if value := environ.get(VARIABLE, "").strip():
        return Credentials(lambda: token_of_variable(value))
    path = netrc_path(environ)
    if path is not None and (entry := _entry(path, place)) is not None:
        return Credentials(lambda: _token_in(path, place), path, entry.username)
    if ask is not None and (typed := ask(place)):
        return Credentials(lambda: _checked("the token that was typed", typed))
    raise StartError(_missing(place, path))


def _missing(place: Place, path: str | None) -> str:
    ways = [f"set {VARIABLE}", "give --token-file FILE"]
    if path is not None:
        ways.append(f"write {_EXAMPLE} into {path}")
    said = f"a token is needed: {', '.join(ways[:-1])} or {ways[-1]}"
    if place.host in {"localhost", "::1"} or place.host.startswith("127."):
        said += f"; a server of this machine that has no --tokens takes {DEVELOPMENT_TOKEN}"
    return said


# Tokens


def read_token(text: str) -> str:
    """A token that a header can hold. Raises ValueError, which doesn't repeat it."""
    if not _TOKEN.fullmatch(text):
        raise ValueError("a token is one line of visible ASCII characters")
    return text


def token_of_file(path: str) -> str:
    """The token in the file that --token-file names. Raises StartError."""
    content = read_file("--token-file", path, most=_MAX_FILE, kind="a file with the token")
    return _checked(f"--token-file {path}", content.decode("latin-1"))


def token_of_variable(value: str) -> str:
    """The token in the variable CHATROOM_TOKEN. Raises StartError."""
    return _checked(VARIABLE, value)


def _checked(source: str, text: str) -> str:
    try:
        return read_token(text.strip())
    except ValueError as error:
        raise StartError(f"{source}: {error}") from None


# The file of tokens


class _Entry(NamedTuple):
    token: str
    username: str | None


def netrc_path(environ: Mapping[str, str]) -> str | None:
    """Where the file of tokens is, whether it is there or not; None for who has no home."""
    base, home = environ.get("XDG_CONFIG_HOME", ""), environ.get("HOME", "")
    if not os.path.isabs(base):  # by the standard it counts for nothing then
        base = os.path.join(home, ".config") if home else ""
    return os.path.join(base, "chatroom", "netrc") if base else None


def _token_in(path: str, place: Place) -> str:
    """Raises StartError."""
    entry = _entry(path, place)
    if entry is None:
        raise StartError(_missing(place, path))
    return entry.token


def _entry(path: str, place: Place) -> _Entry | None:
    """What the file has for `place`. Raises StartError."""
    text = _read_private(path)
    if text is None:
        return None
    try:
        machines = _machines(text)
    except _Mistake as mistake:
        raise StartError(f"{path}, line {mistake.line}: write lines like {_EXAMPLE}") from None
    (host, port), bracketed = place.address, place.bracketed_host
    for name in (f"{bracketed}:{port}", bracketed, host, _DEFAULT):
        if (machine := machines.get(name)) is not None:
            token = _checked(f"{path}, password of {name}", machine.get("password", ""))
            try:
                return _Entry(token, clean_username(machine["login"]) if "login" in machine else None)
            except ValueError as error:
                raise StartError(f"{path}, login of {name}: {error}") from None
    return None


class _Mistake(Exception):
    """A line of the file makes no sense."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


def _machines(text: str) -> dict[str, dict[str, str]]:
    """What is said of each machine, by its name in small letters; the first one counts. Raises _Mistake."""
    found: dict[str, dict[str, str]] = {}
    machine: dict[str, str] | None = None
    words = iter(_words(text))
    for line, word in words:
        value = _DEFAULT if word == _DEFAULT else next(words, (line, None))[1]
        if value is None:
            raise _Mistake(line)
        if word in {"machine", _DEFAULT}:
            machine = {}
            found.setdefault(value.lower(), machine)
        elif word in {"login", "password", "account"} and machine is not None and word not in machine:
            machine[word] = value
        else:
            raise _Mistake(line)
    return found


def _words(text: str) -> Iterator[tuple[int, str]]:
    """Each word with the number of its line."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.lstrip().startswith("#"):
            yield from ((number, word) for word in line.split())


def _read_private(path: str) -> str | None:
    """The text of a file that only we may read; None if it isn't there. Raises StartError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would be waited for
        try:
            _check(path, os.fstat(descriptor))
            return os.read(descriptor, _MAX_FILE).decode()
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise StartError(f"{path} can't be read ({reason}): write lines like {_EXAMPLE}") from None


def _check(path: str, found: os.stat_result) -> None:
    """Raises StartError if the file is none to keep tokens in."""
    if not stat.S_ISREG(found.st_mode):
        raise StartError(f"{path} is no ordinary file: write lines like {_EXAMPLE} into one")
    if found.st_size > _MAX_FILE:
        raise StartError(f"{path} is larger than {_MAX_FILE // 1024} KiB: write lines like {_EXAMPLE}")
    if found.st_uid != os.geteuid():
        raise StartError(f"{path} belongs to somebody else, who may read the tokens: make one of your own")
    if found.st_mode & _OTHERS:
        raise StartError(f"others may read or change {path}: chmod 600 {shlex.quote(path)}")


# The terminal


def ask_at_terminal(place: Place) -> str | None:
    """What a person types unseen at the terminal of this process; None if it has none, or if that fails.

    Neither Ctrl-Z nor Ctrl-\\ is a signal meanwhile: a shell would make it seen, or leave all unseen.
    """
    import getpass  # noqa: PLC0415  (few are asked)
    import termios  # noqa: PLC0415
    import warnings  # noqa: PLC0415

    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return None
    try:
        before = termios.tcgetattr(terminal)
        asking = [*before[:6], [*before[6]]]
        for key in (termios.VSUSP, termios.VQUIT):
            asking[6][key] = bytes([os.fpathconf(terminal, "PC_VDISABLE")])
        try:
            termios.tcsetattr(terminal, termios.TCSADRAIN, asking)
            with warnings.catch_warnings():
                warnings.simplefilter("error", getpass.GetPassWarning)  # it would be seen
                return getpass.getpass(f"Token for {place.shown}: ").strip()
        finally:
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
    except (EOFError, OSError, ValueError, termios.error, getpass.GetPassWarning):
        return None
    finally:
        os.close(terminal)
