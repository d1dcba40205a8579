"""docs/operations.md says what the code does: every table is held against it, in both directions."""

import ast
import re
import shutil
import subprocess
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from chatroom.admin import WORDS, read_admin
from chatroom.auth import keyfeed, keys, webtokens
from chatroom.auth.tokens import DEVELOPMENT_TOKENS, TokenTable
from chatroom.config.options import OPTIONS, Option
from chatroom.config.settings import Settings, read_settings
from chatroom.copies import read_backup, read_copy
from chatroom.core.errors import CloseCode
from chatroom.core.limits import Limits
from chatroom.core.statistics import REFUSALS, Drop, Statistics, Unready
from chatroom.core.stores import StoreStatistics
from chatroom.credentials import READ_SECONDS
from chatroom.http.api import ROOMS_PATH
from chatroom.http.handshake import PATHS
from chatroom.logs import VALUE_CHARS
from chatroom.metrics import Metrics
from chatroom.mint import read_mint
from chatroom.process import SPARE_DESCRIPTORS
from chatroom.transfer import read_export, read_import
from tests.support.process import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text()
NOTHING = "–"  # noqa: RUF001


def table(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without code marks."""
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(heading + "\n")]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def word(cell: str) -> str | None:
    return cell.strip("`") if cell != NOTHING else None


def test_every_option_with_its_variable_and_default() -> None:
    documented = [
        (word(flag), word(variable), word(default)) for flag, variable, default, _ in table("Options")
    ]
    assert documented == [(option.flag, option.variable, option.default) for option in OPTIONS]


def refusal(option: Option) -> str:
    """What an option says of a value that is too large in every unit."""
    said = []
    for text in ("9" * 15, "9" * 15 + "h"):
        try:
            option.read(text)
        except ValueError as error:
            said.append(str(error))
    return " ".join(said)


def test_ranges_in_the_text_are_those_of_the_code() -> None:
    meanings = {row[0]: row[3] for row in table("Options")}
    ranges = {
        option: found[0]
        for option in OPTIONS
        if (found := re.search(r"\d\w* to \d\w*", meanings[f"`{option.flag}`"]))
    }
    assert len(ranges) == 8
    for option, words_of_range in ranges.items():
        assert words_of_range in refusal(option)


def test_the_commands_shown_are_accepted() -> None:
    commands = re.findall(
        r"^(?:    \./chat\.pyz|ExecStart=/usr/local/bin/chat\.pyz) (.+)$", PAGE, re.MULTILINE
    )
    assert len(commands) >= 7
    for command in commands:
        name, _, options = command.partition(" ")
        if name == "admin":
            assert read_admin(options.split(), {})
        elif name == "backup":
            assert read_backup(options.split(), {})
        elif name == "copy":
            assert read_copy(options.split(), {})
        elif name == "token":
            assert read_mint(options.split(), {})
        elif name == "export":
            assert read_export(options.split(), {})
        elif name == "import":
            assert read_import(options.partition("<")[0].split(), {})
        else:
            assert read_settings(command.removeprefix("serve ").split(), {})


def test_every_command_of_admin() -> None:
    named = {each: cell for cell, _ in table("Looking after rooms") for each in re.findall(r"[a-z]+", cell)}
    assert set(named) == set(WORDS)
    for command, cell in named.items():
        assert cell.strip("`").endswith(WORDS[command].replace(" TEXT|-", " TEXT")), command


def test_every_metric_with_its_labels() -> None:
    numbers: dict[str, Any] = dict.fromkeys((field.name for field in fields(Statistics)), 0)
    store = StoreStatistics(**dict.fromkeys((field.name for field in fields(StoreStatistics)), 0))
    now = Statistics(**{**numbers, "store": store, "unready": frozenset(), "drops": {}, "refusals": {}})
    shown = {}
    for family in text_string_to_metric_families(Metrics(lambda: now).render().decode()):
        names = {sample.name.removesuffix("_bucket") for sample in family.samples}
        labels = [label for sample in family.samples for label in sample.labels]
        shown[family.name if family.type == "histogram" else names.pop()] = sorted(set(labels))
    assert {word(name): words(labels) for name, labels, _ in table("Metrics")} == shown


# What to watch

RULES = re.search(r"```yaml\n(groups:\n.*?)```", PAGE, re.DOTALL)
LABELS = {
    "reason": {*map(str, Drop), *map(str, Unready)},
    "status": {*map(str, REFUSALS)},
    "job": {"chatroom"},
}


def test_every_alert_is_explained_and_asks_for_what_there_is() -> None:
    """By names and labels; `promtool` knows the rest."""
    assert RULES is not None
    explained = [(word(alert), meaning.partition(":")[0]) for alert, meaning, _ in table("What to watch")]
    rules = re.findall(r"- alert: (\w+)\n\s+expr: .*?labels: \{severity: (\w+)\}", RULES[1], re.DOTALL)
    assert explained == rules
    assert RULES[1].count("- alert:") == len(rules)
    shown = {word(name) for name, _, _ in table("Metrics")}
    asked = {name.removesuffix("_bucket") for name in re.findall(r"\b(?:chatroom|process)_\w+", RULES[1])}
    assert asked <= shown
    watched = {label for label, _, _ in re.findall(r'(\w+)(!?=~?)"([^"]*)"', RULES[1])}
    assert watched == set(LABELS)
    for label, _, values in re.findall(r'(\w+)(!?=~?)"([^"]*)"', RULES[1]):
        assert set(values.split("|")) <= LABELS[label]


def test_the_alerts_are_rules_of_prometheus(tmp_path: Path) -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("there is no promtool here")
    assert RULES is not None
    (tmp_path / "rules.yml").write_text(RULES[1])
    done = subprocess.run(
        [promtool, "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def code_events() -> dict[str, tuple[str, set[str]]]:
    """What is logged, at which level and with which fields, by all calls of `log_event` in the code."""
    events: dict[str, tuple[str, set[str]]] = {"log_lines_dropped": ("warning", {"count"})}
    for path in sorted((ROOT / "chatroom").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or ast.unparse(call.func) != "log_event":
                continue
            level = ast.unparse(call.args[0]).removeprefix("logging.").lower()
            event = str(ast.literal_eval(call.args[1]))  # so its name has to be a literal
            fields = events.setdefault(event, (level, set()))[1]
            for keyword in call.keywords:
                fields.update({keyword.arg} if keyword.arg else spread(ast.unparse(keyword.value)))
    return events


def spread(expression: str) -> set[str]:
    """The fields that `**` adds: those that tell a connection, or those of `whereabouts`."""
    if re.search(r"client\.fields\(\)", expression):
        return {"conn", "peer", "username"}
    assert re.search(r"\b(whereabouts|fields)\b", expression), expression
    return {"exception", "location"}


def test_every_log_event_with_its_level_and_fields() -> None:
    documented = {str(word(event)): (level, set(words(fields))) for event, level, fields, _ in table("Logs")}
    code = code_events()
    code["crash"][1].add("traceback")
    assert documented == code


def test_every_reason_of_a_drop_with_its_close_code() -> None:
    codes = {str(Drop.of(code)): str(int(code)) for code in CloseCode if code is not CloseCode.NORMAL}
    expected = [(str(drop), codes.get(str(drop), NOTHING)) for drop in Drop]
    assert [(word(reason), code) for reason, code, _ in table("Why connections end")] == expected


def test_every_status_that_is_refused_with() -> None:
    raised = set()
    for path in (ROOT / "chatroom").rglob("*.py"):
        raised |= set(re.findall(r"(?:Refusal|_refusal|refuse)\((\d{3})\b", path.read_text()))
    documented = [status for status, _ in table("Why handshakes and requests are refused")]
    assert documented == [str(status) for status in REFUSALS]
    assert raised <= set(documented)


def test_every_path() -> None:
    assert {word(path) for path, _ in table("HTTP endpoints")} == PATHS | {ROOMS_PATH}


def test_every_exit_code() -> None:
    cli = (ROOT / "chatroom" / "cli.py").read_text()
    returned = {str(value) for value in re.findall(r"return ([0-9])\b", cli)}
    assert {code for code, _ in table("Start, stop, exit codes")} == returned


def test_the_token_file_shown_is_accepted() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert len(tomllib.loads(example)["token"]) == 2
    tokens = TokenTable.parse(example, "example")
    alice, anyone = tokens.verify("s3cret"), tokens.verify("test")
    assert alice is not None
    assert anyone is not None
    assert (alice.username, anyone.username) == ("alice", None)
    assert anyone.rights.can("ops-1", "r")
    assert not anyone.rights.can("ops-1", "w")


@pytest.mark.parametrize("token", DEVELOPMENT_TOKENS)
def test_the_development_tokens_are_named(token: str) -> None:
    assert f"`{token}`" in PAGE


def test_numbers_in_the_text() -> None:
    limits = Limits()
    settings = read_settings([], {})
    assert isinstance(settings, Settings)
    needed = settings.limits.connections + SPARE_DESCRIPTORS
    for sentence in (
        f"at least\n{needed:,}: `ulimit -Hn`",
        f"and {SPARE_DESCRIPTORS} more by itself",
        f"a value ends after {VALUE_CHARS} characters",
        f"wasn't complete after {limits.head_seconds:.0f} seconds",
        f"the first line of a head has {limits.head_line // 1024} KiB",
        f"a head has {limits.head_bytes // 1024} KiB",
        f"or there are over {limits.head_headers}",
        f"over {limits.wrong_tokens} wrong tokens",
        f"`--max-connections` ({limits.connections:,};",
        f"chatroom_connections > 0.9 * {limits.connections}\n",
        f"the waiting room of {limits.unauthenticated} |",
        f"a secret of {keys.SECRET_BYTES} bytes at least",
        f"RSA ({keys.RSA_BITS[0]} to {keys.RSA_BITS[1]} bits)",
        f"the end, at most {webtokens.MOST_AHEAD // 86400} days ahead",
        f"`{webtokens.MOST_AHEAD // 86400}d` at most",
        f"may differ by {webtokens.LEEWAY} seconds",
        f"more than {webtokens.MAX_TOKEN} characters",
        f"within {keyfeed.DEADLINE_SECONDS:g} seconds, without following redirects",
        f"then every {keyfeed.REFRESH_SECONDS / 60:g} minutes",
        f"{keyfeed.PAUSE_SECONDS:g} seconds after the last time at the earliest",
        f"After {READ_SECONDS:.0f} seconds the reload has failed",
    ):
        assert sentence in PAGE, sentence
