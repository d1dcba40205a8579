"""Options: every one from the command line and the environment, every mistake in one line."""

from dataclasses import fields
from ipaddress import ip_network

import pytest

from chatroom import __version__
from chatroom.config.options import OPTIONS
from chatroom.config.settings import Settings, read_settings
from chatroom.core.errors import StartError
from chatroom.core.limits import Limits
from chatroom.core.messages import Retain
from chatroom.core.stores import StoreAddress, StoreKind

EXAMPLES: dict[str, tuple[str, object]] = {
    "host": ("127.0.0.1", ("127.0.0.1",)),
    "port": ("0", 0),
    "unix": ("/run/chat.sock", "/run/chat.sock"),
    "unix-mode": ("0660", 0o660),
    "admin-socket": ("/run/admin.sock", "/run/admin.sock"),
    "metrics-host": ("127.0.0.1", ("127.0.0.1",)),
    "metrics-port": ("9100", 9100),
    "tls-cert": ("c.pem", "c.pem"),
    "tls-key": ("k.pem", "k.pem"),
    "db": ("/srv/chat.db", "/srv/chat.db"),
    "history": ("500", 500),
    "retain": ("90d,100000", Retain(7_776_000, 100_000)),
    "new-epoch": ("1", True),
    "redis": ("valkeys://:pw@h", StoreAddress(StoreKind.STANDALONE, (("h", 6379),), tls=True, password="pw")),
    "redis-prefix": ("chat/2|*", "chat/2|*"),
    "redis-password-file": ("pw.txt", "pw.txt"),
    "redis-ca": ("ca.pem", "ca.pem"),
    "node": ("chat-1.example", "chat-1.example"),
    "reuse-port": ("1", True),
    "tokens": ("t.toml", "t.toml"),
    "jwt-secret-file": ("secret", "secret"),
    "jwt-public-key": ("key.pem", "key.pem"),
    "jwt-jwks": ("https://issuer.example/jwks.json", "https://issuer.example/jwks.json"),
    "jwt-audience": ("chat", "chat"),
    "jwt-issuer": ("https://issuer.example/", "https://issuer.example/"),
    "insecure-dev-tokens": ("1", True),
    "origin": ("https://a.example", frozenset({"https://a.example"})),
    "trusted-proxy": ("10.0.0.0/8", frozenset({ip_network("10.0.0.0/8")})),
    "proxy-protocol": ("1", True),
    "rate": ("0.5", 0.5),
    "burst": ("7", 7),
    "max-connections": ("8", 8),
    "max-per-user": ("9", 9),
    "max-per-ip": ("10", 10),
    "max-frame": ("1MiB", 1048576),
    "max-text": ("11", 11),
    "hide-rooms": ("1", True),
    "edit-window": ("90m", 5400.0),
    "ping-interval": ("1m", 60.0),
    "ping-timeout": ("2s", 2.0),
    "send-timeout": ("500ms", 0.5),
    "drain": ("0s", 0.0),
    "log-level": ("debug", "debug"),
    "log-format": ("json", "json"),
}
"""One value for each option, other than its default wherever there is another."""

PAIRED = {
    "metrics-host": "--metrics-port=9100",
    "tls-cert": "--tls-key=p.pem",
    "tls-key": "--tls-cert=p.pem",
    "jwt-audience": "--jwt-secret-file=p.pem",
    "jwt-issuer": "--jwt-secret-file=p.pem",
    "proxy-protocol": "--trusted-proxy=127.0.0.1",
    "redis-prefix": "--redis=redis://h",
    "redis-password-file": "--redis=redis://h",
    "redis-ca": "--redis=rediss://h",
    "node": "--redis=redis://h",
    "reuse-port": "--redis=redis://h",
}


def read(*arguments: str, **environ: str) -> Settings:
    settings = read_settings(arguments, environ)
    assert isinstance(settings, Settings)
    return settings


def field(settings: Settings, target: str) -> object:
    value: object = settings
    for name in target.split("."):
        value = getattr(value, name)
    return value


def mistake(*arguments: str, **environ: str) -> str:
    with pytest.raises(StartError) as caught:
        read_settings(arguments, environ)
    line = str(caught.value)
    assert line.isprintable()
    return line


def partner(name: str) -> list[str]:
    return [PAIRED[name]] if name in PAIRED else []


def test_the_defaults_are_those_of_the_limits_and_of_the_contract() -> None:
    assert read() == Settings(
        hosts=("localhost",),
        port=3000,
        unix=None,
        unix_mode=0o666,
        admin_socket=None,
        metrics_hosts=None,
        metrics_port=None,
        tls_cert=None,
        tls_key=None,
        db="chat.db",
        history=50,
        retain=None,
        new_epoch=False,
        redis=None,
        redis_prefix="chatroom",
        redis_password_file=None,
        redis_ca=None,
        node=None,
        reuse_port=False,
        tokens=None,
        jwt_secret_file=None,
        jwt_public_key=None,
        jwt_jwks=None,
        jwt_audience=None,
        jwt_issuer=None,
        insecure_dev_tokens=False,
        origins=None,
        trusted_proxies=None,
        proxy_protocol=False,
        hide_rooms=False,
        drain=5.0,
        log_level="info",
        log_format="auto",
        limits=Limits(),
        unknown_variables=(),
    )


def test_every_option_has_an_example_here() -> None:
    assert [option.name for option in OPTIONS] == list(EXAMPLES)


def test_every_target_is_a_field_and_every_field_of_settings_is_a_target() -> None:
    targets = {option.target for option in OPTIONS}
    own = {item.name for item in fields(Settings)} - {"limits", "unknown_variables"}
    limits = {f"limits.{item.name}" for item in fields(Limits)}
    assert {target for target in targets if "." not in target} == own
    assert {target for target in targets if "." in target} <= limits


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_flag_and_variable(option) -> None:  # type: ignore[no-untyped-def]
    text, value = EXAMPLES[option.name]
    more = partner(option.name)
    flag = [option.flag] if option.is_switch else [option.flag, text]
    assert field(read(*flag, *more), option.target) == value
    assert field(read(*more, **{option.variable: text}), option.target) == value
    assert field(read(*more, **{option.variable: f" {text} "}), option.target) == value
    if not option.is_switch:
        assert field(read(f"{option.flag}={text}", *more), option.target) == value


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_an_empty_variable_counts_as_unset(option) -> None:  # type: ignore[no-untyped-def]
    assert read(**{option.variable: " "}) == read()


def test_names_of_variables() -> None:
    assert {option.variable for option in OPTIONS} >= {
        "CHATROOM_LOG_LEVEL",
        "CHATROOM_MAX_PER_IP",
        "CHATROOM_DB",
    }


def test_the_flag_wins_even_over_a_broken_variable() -> None:
    assert read("--port", "1", CHATROOM_PORT="2").port == 1
    assert read("--port", "1", CHATROOM_PORT="tcp://10.0.0.1:3000").port == 1
    assert read("--host", "::1", CHATROOM_HOST="a,b").hosts == ("::1",)
    assert read("--insecure-dev-tokens", CHATROOM_INSECURE_DEV_TOKENS="0").insecure_dev_tokens is True


def test_repeatable_options() -> None:
    assert read("--host", "::1", "--host", "127.0.0.1", "--host", "::1").hosts == ("::1", "127.0.0.1")
    assert read(CHATROOM_HOST="::1, 127.0.0.1").hosts == ("::1", "127.0.0.1")
    assert read(CHATROOM_ORIGIN="null,https://a.example").origins == frozenset(("null", "https://a.example"))
    trusted = frozenset((ip_network("::1"), "unix"))
    assert read("--trusted-proxy", "::1", "--trusted-proxy", "unix").trusted_proxies == trusted
    assert read(CHATROOM_TRUSTED_PROXY="unix,::1/128").trusted_proxies == trusted


def test_of_an_option_that_is_no_list_the_last_counts() -> None:
    assert read("--port", "1", "--port", "2").port == 2


def test_rate_zero_is_allowed() -> None:
    assert read("--rate", "0").limits.message_rate == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--port", "70000"], "--port: '70000' is not a whole number from 0 to 65535"),
        (["--port", "-1"], "--port: '-1' is not a whole number from 0 to 65535"),
        (["--port=\n"], "--port: '\\n' is not a whole number from 0 to 65535"),
        (["--port", "1", "--port", "x"], "--port: 'x' is not a whole number from 0 to 65535"),
        (["--port", "x", "--port", "1"], "--port: 'x' is not a whole number from 0 to 65535"),
        (["--port"], "--port: needs a value; --help lists the options"),
        (["--port", "--host", "::1"], "--port: needs a value; --help lists the options"),
        (["--insecure-dev-tokens=1"], "--insecure-dev-tokens: takes no value, but was given '1'"),
        (["--prot", "3000"], "unknown option '--prot'; did you mean --port?"),
        (["--por", "3000"], "unknown option '--por'; did you mean --port?"),
        (["--bearer=s3cret"], "unknown option '--bearer'; --help lists the options"),
        (["-p", "3000"], "unknown option '-p'; --help lists the options"),
        (["--port", "1", "3000"], "unexpected argument '3000'; --help lists the options"),
        (["x\u2028y"], "unexpected argument 'x\\u2028y'; --help lists the options"),
        (
            ["--retain", "90x"],
            "--retain: '90x' is no limit: write an age like 90d or 12h, a count per room like 100000, "
            "or both: 90d,100000",
        ),
        (
            ["--unix", "a/../s", "--admin-socket", "./s"],
            "--admin-socket is --unix already, where everybody needs a token: choose another path",
        ),
        (["--admin-socket", ""], "--admin-socket: an empty file name: give the path of a file"),
        (["--db", ""], "--db: an empty file name: give the path of a file"),
        (
            ["--db", "none", "--retain", "1d"],
            "--retain means nothing with --db none: leave one of them out",
        ),
        (["--db", "none", "--new-epoch"], "--new-epoch means nothing with --db none: leave one of them out"),
        (["--history", "501"], "--history: '501' is not a whole number from 0 to 500"),
        (["--burst", "0"], "--burst: '0' is not a whole number from 1 to 1000000"),
        (["--rate", "nan"], "--rate: 'nan' is not a number from 0 to 1e+06"),
        (["--rate", "-1"], "--rate: '-1' is not a number from 0 to 1e+06"),
        (["--rate", "inf"], "--rate: 'inf' is not a number from 0 to 1e+06"),
        (["--drain", "5"], "--drain: '5' has no unit: write 5s, or another of ms, s, m, h, d"),
        (
            ["--ping-interval", "0s"],
            "--ping-interval: '0s' is out of range: give a duration from 10ms to 24h",
        ),
        (["--max-frame", "1"], "--max-frame: '1' is out of range: give a size from 1KiB to 16MiB"),
        (["--log-level", "trace"], "--log-level: 'trace' is not known: choose debug, info, warning or error"),
        (["--tokens", ""], "--tokens: an empty file name: give the path of a file"),
        (["--host", "a,b"], "--host: 'a,b' is neither an IP address nor a host name"),
        (
            ["--tls-cert", "c"],
            "--tls-cert needs --tls-key beside it: give both, or neither to serve without TLS",
        ),
        (
            ["--tls-key", "k"],
            "--tls-key needs --tls-cert beside it: give both, or neither to serve without TLS",
        ),
        (
            ["--jwt-secret-file", "s", "--jwt-jwks", "j"],
            "--jwt-secret-file and --jwt-jwks exclude each other: give one source of keys",
        ),
        (
            ["--jwt-public-key", "k", "--jwt-jwks", "j"],
            "--jwt-public-key and --jwt-jwks exclude each other: give one source of keys",
        ),
        (
            ["--jwt-audience", "a"],
            "--jwt-audience means nothing without keys: give one of --jwt-secret-file, --jwt-public-key, "
            "--jwt-jwks beside it",
        ),
        (
            ["--jwt-jwks", "http://issuer.example/jwks"],
            "--jwt-jwks: what comes by 'http' may be anybody's: give an https address, or a file",
        ),
        (
            ["--redis", "redis://h", "--db", "chat.db"],
            "--db and --redis exclude each other, since messages are kept in one place: leave one out; "
            "./chat.pyz copy brings a database into a store",
        ),
        (
            ["--redis", "redis://h", "--db", "none"],
            "--db and --redis exclude each other, since messages are kept in one place: leave one out; "
            "./chat.pyz copy brings a database into a store",
        ),
        (
            ["--reuse-port"],
            "--reuse-port needs --redis beside it: without, each process would have rooms of its own, and "
            "people would miss each other silently",
        ),
        (["--node", "a"], "--node means nothing without --redis: leave it out, or give both"),
        (
            ["--redis-prefix", "chatroom"],
            "--redis-prefix means nothing without --redis: leave it out, or give both",
        ),
        (["--redis-ca", "f"], "--redis-ca means nothing without --redis: leave it out, or give both"),
        (
            ["--redis", "redis://h", "--redis-ca", "f"],
            "--redis-ca means nothing without TLS: write rediss:// for redis://, or leave it out",
        ),
        (
            ["--redis", "redis://:pw@h", "--redis-password-file", "f"],
            "--redis has a password and --redis-password-file another: leave one of them out",
        ),
        (
            ["--redis", "redis://me@h"],
            "--redis names a user without a password: give it by --redis-password-file",
        ),
        (["--redis", ""], "--redis: no URL: write it like redis://localhost:6379"),
        (["--node", "a b"], "--node: 'a b' is no name of a node: give 1 to 64 visible ASCII characters"),
        (
            ["--node", "x" * 65],
            f"--node: {'x' * 65!r} is no name of a node: give 1 to 64 visible ASCII characters",
        ),
        *(
            (
                ["--redis", "redis://h", "--redis-prefix", wrong],
                "--redis-prefix: give 1 to 64 visible ASCII characters, without braces",
            )
            for wrong in ("", "a b", "{a", "a}", "a\n", "\x7f", "ä", "x" * 65)
        ),
    ],
)
def test_mistakes_on_the_command_line(arguments: list[str], line: str) -> None:
    assert mistake(*arguments) == line


@pytest.mark.parametrize(
    "arguments",
    [
        ["--redis", "redis://me:s3cret@h:x"],
        ["--redis=redis://me:s3cret@"],
        ["--redis", "s3cret@h"],
        ["--redi", "redis://me:s3cret@h"],
        ["--redi=redis://me:s3cret@h"],
        ["redis://me:s3cret@h"],
        ["me:s3cret@h"],
        ["--redis", "redis://h", ":s3cret"],
        ["--redis", "redis://me:s3cret@h", "--db", "x"],
        ["--redis", "redis://me:s3cret@h", "--redis-password-file", "f"],
        ["--redis", "redis://me:s3cret@h", "--redis-ca", "f"],
        ["--redis", "redis://me:s3cret@h", "--port", "x"],
    ],
)
def test_no_mistake_repeats_a_password(arguments: list[str]) -> None:
    assert "s3cret" not in mistake(*arguments)


def test_the_url_of_a_store_may_be_a_variable_and_a_database_is_refused_beside_it_only_if_named() -> None:
    assert read(CHATROOM_REDIS="redis://h").redis == StoreAddress(StoreKind.STANDALONE, (("h", 6379),))
    assert "--db and --redis exclude each other" in mistake(CHATROOM_REDIS="redis://h", CHATROOM_DB="x")
    assert read(CHATROOM_REDIS="redis://h", CHATROOM_DB=" ").db == "chat.db"
    assert "s3cret" not in mistake(CHATROOM_REDIS="redis://s3cret@h:x")


def test_what_is_read_shows_no_password() -> None:
    settings = read("--redis", "redis://me:s3cret@h", "--retain", "1d", "--new-epoch", "--history", "7")
    assert "s3cret" not in repr(settings)
    assert (settings.new_epoch, settings.history, settings.retain) == (True, 7, Retain(86400))


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"CHATROOM_PORT": "x"}, "CHATROOM_PORT: 'x' is not a whole number from 0 to 65535"),
        (
            {"CHATROOM_INSECURE_DEV_TOKENS": "yes"},
            "CHATROOM_INSECURE_DEV_TOKENS: 'yes' is neither 1 (on) nor 0 (off)",
        ),
        ({"CHATROOM_HOST": "::1,"}, "CHATROOM_HOST: an empty address: for all of them write 0.0.0.0 or ::"),
        (
            {"CHATROOM_TLS_CERT": "c"},
            "--tls-cert needs --tls-key beside it: give both, or neither to serve without TLS",
        ),
    ],
)
def test_mistakes_in_the_environment(environ: dict[str, str], line: str) -> None:
    assert mistake(**environ) == line


def test_a_long_mistake_is_cut() -> None:
    assert len(mistake("x" * 5000)) < 150
    assert len(mistake("--" + "x" * 5000)) < 150


def test_variables_that_mean_nothing_are_told_and_harmless() -> None:
    environ = {"CHATROOM_PROT": "1", "CHATROOM_RADIS": "x", "OTHER": "y", "CHATROOM_PORT": "5"}
    settings = read(**environ)
    assert settings.unknown_variables == ("CHATROOM_PROT", "CHATROOM_RADIS")
    assert settings.port == 5


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_option_and_wins_over_mistakes(flag: str) -> None:
    text = read_settings(["--port", "x", flag], {"CHATROOM_RATE": "x"})
    assert isinstance(text, str)
    words = text.split()
    assert all(option.flag in words for option in OPTIONS)
    assert "[64KiB]" in words


def test_version() -> None:
    assert read_settings(["--version"], {}) == f"chatroom {__version__}\n"
