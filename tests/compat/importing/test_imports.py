"""`prism-wsgi import`: sessions that Django, Flask-Session and Beaker themselves have stored."""

import importlib.util
import json
import pickle
import subprocess
import sys
import zlib
from base64 import b64encode
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from prism_wsgi import MemoryStore, RedisStore, SessionMiddleware, SQLAlchemyStore, get_session, migrate
from prism_wsgi.cli import commands
from prism_wsgi.clock import system_clock
from prism_wsgi.compat.importing.beaker import BeakerPeer
from prism_wsgi.compat.importing.flask_session import FlaskSessionPeer
from prism_wsgi.compat.importing.importing import import_sessions
from prism_wsgi.compat.importing.peer import Skip, SkippedError
from prism_wsgi.cookie_fallbacks import BeakerCookie, DjangoCookie, FlaskSessionCookie, PeerCookie
from prism_wsgi.persistence.imported_ids import earlier_imported_id, imported_id
from prism_wsgi.testing import new_session
from tests.compat.importing.write_peers import MAX_SIZE, OLD_SECRET, SECRET, TIMEOUT
from tests.support import databases
from tests.support.plain_store import PlainStore

pytestmark = pytest.mark.whole

WRITER = Path(__file__).parent / "write_peers.py"
MODULES = {"django": "django", "flask-session": "flask_session", "beaker": "beaker"}
OPTIONS = {
    "django": ["--secret-key", SECRET, "--secret-key-fallback", OLD_SECRET, "--trust-logins"],
    "flask-session": [],
    "beaker": ["--timeout", str(TIMEOUT), "--user-key", "user"],
}
LIMIT = ["--max-size", str(MAX_SIZE)]
COOKIES: dict[str, PeerCookie] = {
    "django": DjangoCookie(),
    "flask-session": FlaskSessionCookie(),
    "beaker": BeakerCookie(secret=SECRET),
}
READABLE = {
    "django": {"ada", "stranger", "compressed", "fallback"},
    "flask-session": {"ada", "stranger", "json"},
    "beaker": {"ada", "stranger", "long"},
}
SKIPPED = {
    "django": dict.fromkeys(["expired", "bad_signature", "bad_user", "pickled", "too_large", "unstorable"], 1),
    "flask-session": dict.fromkeys(["expired", "pickled", "too_large", "unstorable"], 1),
    "beaker": dict.fromkeys(["empty", "expired", "no_session", "pickled", "too_large"], 1),
}
ADA = {
    "django": {
        "_auth_user_id": "7",
        "_auth_user_backend": "some.Backend",
        "cart": ["apple", {"n": 2}],
        "name": "Åsa",
    },
    "flask-session": {"_user_id": "7", "cart": ["apple", {"n": 2}], "name": "Åsa", "raw": b"\0\1"},
    "beaker": {"user": "ada", "cart": ["apple", {"n": 2}], "name": "Åsa"},
}


@pytest.fixture(params=list(MODULES))
def package(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if importlib.util.find_spec(MODULES[name]) is None:
        pytest.skip(f"{name} is not installed")
    return name


def written(package: str, url: str, cwd: Path) -> dict[str, str]:
    """Let a package store sessions of its own; return their cookies by name."""
    command = [sys.executable, str(WRITER), package, url]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cookies: dict[str, str] = json.loads(done.stdout)
    return cookies


def run(*arguments: str) -> Result:
    return CliRunner().invoke(commands, ["import", *arguments], prog_name="prism-wsgi")


def run_json(*arguments: str) -> tuple[int, dict[str, Any]]:
    result = run(*arguments, "--json")
    assert result.stdout, result.stderr
    return result.exit_code, json.loads(result.stdout)


def imported(package: str, url: str, *options: str) -> tuple[int, dict[str, Any]]:
    return run_json(package, "--from", url, "--url", url, *OPTIONS[package], *LIMIT, *options)


def seen_with(cookie: PeerCookie, value: str, store: Any) -> tuple[dict[str, Any], str | None]:
    """Return the values and the user that an application sees for an old cookie."""
    seen: list[tuple[dict[str, Any], str | None]] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        session = get_session(environ)
        seen.append((dict(session), session.user))
        start_response("200 OK", [])
        return [b""]

    site = SessionMiddleware(app, store=store, secret=SECRET, cookie_fallbacks=[cookie])
    environ: dict[str, Any] = {"HTTP_COOKIE": f"{cookie.name}={value}"}
    list(site(environ, lambda status, headers, exc_info=None, /: lambda data: None))
    return seen[0]


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql", "mariadb"], indirect=True)
def test_real_sessions_are_imported_and_opened_by_their_old_cookies(
    package: str, database_url: str, tmp_path: Path
) -> None:
    if package == "django" and "mysql" in database_url and importlib.util.find_spec("MySQLdb") is None:
        pytest.skip("Django needs mysqlclient for MariaDB")
    migrate.upgrade(database_url)
    cookies = written(package, database_url, tmp_path)
    code, counted = imported(package, database_url)
    assert code == 3
    assert counted["imported"] == len(READABLE[package])
    assert counted["skipped"] == SKIPPED[package]
    store, cookie = SQLAlchemyStore(database_url), COOKIES[package]
    values, user = seen_with(cookie, cookies["ada"], store)
    values.pop("_creation_time", None)
    assert values == ADA[package]
    assert user == ("ada" if package == "beaker" else "7")
    for name, value in cookies.items():
        if name not in ("ada", "keys"):
            assert bool(seen_with(cookie, value, store)[0]) == (name in READABLE[package]), name
    store.close()


@pytest.mark.parametrize("batch", [1, 2, 500])
def test_an_import_can_be_repeated(
    package: str, batch: int, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prism_wsgi.compat.importing.tables.BATCH", batch)
    migrate.upgrade(sqlite_url)
    written(package, sqlite_url, tmp_path)
    _, tried = imported(package, sqlite_url, "--dry-run")
    _, first = imported(package, sqlite_url)
    _, again = imported(package, sqlite_url)
    assert tried == {**first, "dry_run": True}
    assert first["read"] == len(READABLE[package]) + sum(SKIPPED[package].values())
    assert again["imported"] == 0
    assert again["skipped"]["already_imported"] == first["imported"]


def test_sessions_move_to_a_redis_too(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with databases.redis_prefix() as prefix:
        store = RedisStore(databases.REDIS, prefix=prefix)
        monkeypatch.setattr(
            import_module("prism_wsgi.cli.imports"), "open_store", lambda url, table_name: closing(store)
        )
        cookies = written("django", sqlite_url, tmp_path)
        code, counted = run_json("django", "--from", sqlite_url, "--url", databases.REDIS, *OPTIONS["django"], *LIMIT)
        assert (code, counted["imported"]) == (3, len(READABLE["django"]))
        assert seen_with(DjangoCookie(), cookies["ada"], store) == (ADA["django"], "7")


def test_the_result_is_readable(package: str, sqlite_url: str, tmp_path: Path) -> None:
    migrate.upgrade(sqlite_url)
    written(package, sqlite_url, tmp_path)
    shown = run(package, "--from", sqlite_url, "--url", sqlite_url, *OPTIONS[package], *LIMIT)
    first, *reasons = shown.stdout.splitlines()
    assert first.startswith(f"{len(READABLE[package])} of ")
    assert "!        1  pickled, and nothing is ever unpickled" in reasons
    assert len(reasons) == len(SKIPPED[package])


def test_progress_is_told_line_by_line(
    empty_sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("prism_wsgi.cli.progress"), "SECONDS_BETWEEN_LINES", 0)
    written("django", empty_sqlite_url, tmp_path)
    shown = run("django", "--from", empty_sqlite_url, "--url", empty_sqlite_url, *OPTIONS["django"], "--progress")
    assert [line.partition(" read")[0] for line in shown.stderr.splitlines()] == [str(one) for one in range(1, 11)]


def test_a_secret_key_that_is_wrong_imports_nothing(empty_sqlite_url: str, tmp_path: Path) -> None:
    written("django", empty_sqlite_url, tmp_path)
    result = run("django", "--from", empty_sqlite_url, "--url", empty_sqlite_url, "--secret-key", "wrong", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["imported"] == 0


@pytest.mark.parametrize("what", ["no table", "no file", "no target"])
def test_an_import_names_the_table_or_file_that_is_missing(what: str, sqlite_url: str, tmp_path: Path) -> None:
    source, target = sqlite_url, sqlite_url
    migrate.upgrade(sqlite_url)
    if what == "no file":
        source = f"sqlite:///{tmp_path}/typo.db"
    if what == "no target":
        target = f"sqlite:///{tmp_path}/typo.db"
    result = run("flask-session", "--from", source, "--url", target)
    assert result.exit_code == 1
    assert {
        "no table": "check --from and --table",
        "no file": "check --from",
        "no target": "prism-wsgi db upgrade",
    }[what] in result.stderr


def beaker_row(number: int, value: object) -> dict[str, object]:
    text = b64encode(zlib.compress(json.dumps({"_accessed_time": 1, "n": value}).encode())).decode()
    return {"namespace": f"{number:032x}", "data": pickle.dumps({"session": text})}


def test_rows_are_imported_one_by_one_whatever_the_others_are() -> None:
    rows = [beaker_row(number, number if number % 3 else "x" * 2000) for number in range(1, 100)]
    rows[10]["data"] = b"\x80\x05broken"
    rows[20]["data"] = b""
    store = MemoryStore()
    result = import_sessions(BeakerPeer(None), rows, store, user_key=None, max_size=1000)
    assert result.imported == 65
    assert result.skipped == {Skip.TOO_LARGE: 32, Skip.PICKLED: 1, Skip.UNREADABLE: 1}
    assert store.load(imported_id("beaker", f"{1:032x}")) is not None


def import_rows(rows: list[dict[str, object]], store: Any, *, dry_run: bool = False) -> tuple[int, int]:
    """Import from Beaker; return how many sessions were imported, and how many ended."""
    clock = getattr(store, "_clock", system_clock)
    result = import_sessions(BeakerPeer(None), rows, store, user_key="n", max_size=1000, dry_run=dry_run, clock=clock)
    return result.imported, result.ended


def waits(number: int, store: Any) -> bool:
    found = store.load(imported_id("beaker", f"{number:032x}"))
    return found is not None and not found.superseded


@pytest.mark.parametrize("end", ["destroy", "revoke", "destroy_all"])
def test_a_session_that_was_ended_here_is_not_brought_back_by_a_second_import(every_store: Any, end: str) -> None:
    rows = [beaker_row(number, number) for number in (1, 2)]
    store = every_store
    assert import_rows(rows, store) == (2, 0)
    (session,) = store.find(user="1")
    if end == "destroy":
        store.destroy(session.id)
    elif end == "revoke":
        assert store.revoke(session.id, user="1")
    else:
        assert store.destroy_all("1") == 1
    assert import_rows(rows, store) == (0, 0)
    assert [waits(number, store) for number in (1, 2)] == [False, True]


def test_a_session_that_an_earlier_checkout_imported_is_not_imported_again() -> None:
    store = MemoryStore()
    rows = [beaker_row(1, 1)]
    assert import_rows(rows, store) == (1, 0)
    (session,) = store.find(user="1")
    moved = MemoryStore()
    moved.save(replace(session, id=earlier_imported_id("beaker", f"{1:032x}"), version=0))
    assert import_rows(rows, moved) == (0, 0)


def test_a_session_that_was_ended_in_a_store_of_three_methods_is_not_brought_back(tmp_path: Path) -> None:
    rows, store = [beaker_row(number, number) for number in (1, 2)], PlainStore(tmp_path / "sessions.db")
    assert import_rows(rows, store) == (2, 0)
    store.destroy(imported_id("beaker", f"{1:032x}"))
    assert import_rows(rows, store, dry_run=True) == import_rows(rows, store) == (0, 0)
    assert [waits(number, store) for number in (1, 2)] == [False, True]


def test_a_second_import_ends_what_waits_and_has_ended_in_the_package(every_store: Any) -> None:
    rows, store = [beaker_row(number, number) for number in range(1, 7)], every_store
    theirs = new_session(user="ada", expires_at=int(store._clock() * 1000) + 600_000)
    store.save(theirs)
    assert import_rows(rows, store) == (6, 0)
    deleted, emptied, unreadable, *others = rows
    text = b64encode(zlib.compress(json.dumps({"_accessed_time": 1}).encode())).decode()
    emptied["data"] = pickle.dumps({"session": text})
    unreadable["data"] = b""
    later = [emptied, unreadable, *others, beaker_row(7, 7)]
    assert import_rows(later, store, dry_run=True) == import_rows(later, store) == (1, 2)
    assert [waits(number, store) for number in range(1, 8)] == [False, False, True, True, True, True, True]
    assert store.load(theirs.id) is not None
    assert import_rows([deleted, *later], store) == (0, 0)


def test_the_import_of_one_package_ends_nothing_of_another_and_an_empty_table_nothing_at_all() -> None:
    store = MemoryStore()
    assert import_rows([beaker_row(1, 1)], store) == (1, 0)
    others = import_sessions(FlaskSessionPeer("session:"), [{"expiry": None}], store, user_key=None, max_size=1000)
    assert (others.read, others.ended) == (1, 0)
    assert import_rows([], store) == (0, 0)
    assert waits(1, store)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("size", [1, 200, 300, 70_000, 200_000])
def test_beakers_container_is_read_without_unpickling(protocol: int, size: int) -> None:
    text = b64encode(zlib.compress(json.dumps({"text": "x" * size}).encode(), 0)).decode()
    row = {"namespace": "0" * 32, "data": pickle.dumps({"session": text}, protocol)}
    assert BeakerPeer(None).read(row, 0).values == {"text": "x" * size}


@pytest.mark.parametrize(
    "inner", [pickle.dumps({"text": "x"}, 2), zlib.compress(b"[1]"), zlib.compress(b"{"), b"nothing", b""]
)
def test_beakers_other_data_is_skipped(inner: bytes) -> None:
    row = {"namespace": "0" * 32, "data": pickle.dumps({"session": b64encode(inner).decode()})}
    with pytest.raises(SkippedError) as caught:
        BeakerPeer(None).read(row, 0)
    assert caught.value.reason in (Skip.PICKLED, Skip.UNREADABLE)


def test_a_few_bytes_that_claim_to_be_gigabytes_are_skipped() -> None:
    bomb = b64encode(zlib.compress(b"[" * 20_000_000)).decode()
    row = {"namespace": "0" * 32, "data": pickle.dumps({"session": bomb})}
    with pytest.raises(SkippedError) as caught:
        BeakerPeer(None).read(row, 0)
    assert caught.value.reason is Skip.TOO_LARGE


class Trap:
    """Unpickled, it would end the test."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (sys.exit, (99,))


@pytest.mark.parametrize("value", [Trap(), {"session": Trap()}, [Trap()]])
def test_a_pickle_is_never_run(value: object) -> None:
    row = {"namespace": "0" * 32, "data": pickle.dumps(value)}
    with pytest.raises(SkippedError) as caught:
        BeakerPeer(None).read(row, 0)
    assert caught.value.reason is Skip.PICKLED
