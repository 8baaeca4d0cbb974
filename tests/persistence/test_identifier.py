"""The id and the secret behind it: random, one-way, never adopted from a client, never overwritten."""

import ast
import inspect
import os
import secrets
import sqlite3
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest

import prism_wsgi
from prism_wsgi import Session, SQLAlchemyStore, StoredSession
from prism_wsgi.tokens import Signer, issued_at, new_secret, session_id
from tests.support.browsing import Clock, Site, ThreeVerbStore, call, read, write

pytest_plugins = ["tests.support.site_fixtures"]

SOURCES = sorted(Path(inspect.getfile(prism_wsgi)).parent.rglob("*.py"))


def test_a_secret_holds_208_random_bits_behind_the_time() -> None:
    drawn = [new_secret(1_800_000_000_000) for _ in range(200)]
    assert {len(secret) for secret in drawn} == {43}
    assert len({secret[:8] for secret in drawn}) == 1
    for position in range(8, 42):
        assert len({secret[position] for secret in drawn}) > 20


def test_randomness_comes_from_the_system_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def token_bytes(count: int | None = None) -> bytes:
        asked.append(count)
        return b"r" * (count or 0)

    monkeypatch.setattr(secrets, "token_bytes", token_bytes)
    assert new_secret(5) == new_secret(5)
    assert asked == [26, 26]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_weak_source_of_ids_and_no_pickle_is_imported(path: Path) -> None:
    banned = {"random", "pickle", "marshal", "shelve", "dill", "yaml", "jsonpickle"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not banned & {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] not in banned
            assert not {"uuid1", "uuid4"} & {alias.name for alias in node.names}


def test_signatures_are_compared_in_constant_time() -> None:
    source = inspect.getsource(Signer.verify)
    assert "compare_digest" in source
    assert not [
        node
        for node in ast.walk(ast.parse(inspect.getsource(inspect.getmodule(Signer))))  # type: ignore[arg-type]
        if isinstance(node, ast.Compare)
        and any(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops)
        and "signature" in ast.unparse(node)
    ]


def test_without_randomness_a_request_fails_and_nothing_is_set(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(count: int | None = None) -> bytes:
        raise OSError("no randomness")

    monkeypatch.setattr(secrets, "token_bytes", broken)
    with pytest.raises(OSError, match="no randomness"):
        site.browser().visit(write(n=1))
    assert site.calls == []


def test_ids_are_ordered_by_time() -> None:
    ids = [session_id(new_secret(now)) for now in range(1_800_000_000_000, 1_800_000_000_050)]
    assert ids == sorted(ids)


def test_the_id_is_made_one_way_from_the_secret() -> None:
    secret = new_secret(1_800_000_000_000)
    assert len(session_id(secret)) == 64
    assert session_id(secret) == session_id(secret)
    assert issued_at(secret) == 1_800_000_000_000
    other = secret[:-1] + ("A" if secret[-1] != "A" else "E")
    assert session_id(other)[12:] != session_id(secret)[12:]


@pytest.mark.parametrize("now", [0, 0x01A3_FFFF_FFFF, 0x01A3_FBEF_BEFB, (1 << 48) - 1], ids="{:012x}".format)
def test_a_secret_and_its_id_say_when_it_was_drawn(now: int) -> None:
    secret = new_secret(now)
    assert issued_at(secret) == now
    assert int(session_id(secret)[:12], 16) == now


# Strict mode: an id we do not hold is never written under


def forget(session: Session) -> None:
    session.logout()


def regenerate(session: Session) -> None:
    session.regenerate()


@pytest.mark.parametrize("end", ["logout", "expiry", "regenerate", "deleted in the store"])
@pytest.mark.parametrize("step", [write(n=2), lambda session: session.login("ann")])
def test_an_id_that_is_no_longer_held_is_not_adopted(site: Site, end: str, step: Any) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    header = browser.cookie_header
    old_id = browser.visit(lambda session: session.id).result
    assert isinstance(site.store, ThreeVerbStore)
    if end == "logout":
        browser.visit(forget)
    elif end == "regenerate":
        browser.visit(regenerate)
        site.clock.advance(60)
    elif end == "expiry":
        row = site.store.load(old_id)
        assert row is not None
        row.expires_at = int(site.clock() * 1000) + 1000
        site.store.save(row)
        site.clock.advance(2)
    else:
        site.store.store.destroy(old_id)
    page = site.browser().visit(step, HTTP_COOKIE=header)
    assert list(page.cookies) == ["prism_session"]
    assert page.cookies["prism_session"][:43] != header.partition("=")[2][:43]
    kept = site.store.load(old_id)
    assert kept is None or kept.superseded


def test_a_signed_cookie_for_an_id_that_never_was_is_not_adopted(site: Site) -> None:
    secret = new_secret(int(site.clock() * 1000))
    token = site.middleware.site.cookies.signer.sign(secret, int(site.clock()))
    page = site.browser().visit(write(n=1), HTTP_COOKIE=f"prism_session={token}")
    assert page.cookies["prism_session"][:43] != secret
    assert site.store.load(session_id(secret)) is None


def test_a_cookie_under_which_nothing_was_stored_outlives_its_ttl_by_nothing(site: Site) -> None:
    browser = site.browser()
    first = browser.visit(lambda session: session.id).result
    header = browser.cookie_header
    site.clock.advance(3600)
    page = site.browser().visit(lambda session: session.id, HTTP_COOKIE=header)
    assert page.result != first
    site.clock.advance(-1)
    assert site.browser().visit(lambda session: session.id, HTTP_COOKIE=header).result == first


# Creating inserts, and never overwrites


def draw(monkeypatch: pytest.MonkeyPatch, *randoms: bytes) -> None:
    """Let the next secrets have these random bytes, and those behind them true ones."""
    planned = list(randoms)
    monkeypatch.setattr(
        secrets, "token_bytes", lambda count: planned.pop(0) * count if planned else os.urandom(count)
    )


def test_an_id_that_is_taken_is_not_overwritten(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hole in tower-sessions before 0.12.1."""
    draw(monkeypatch, b"a", b"a", b"b")
    ann, bob = site.browser(), site.browser()
    ann.visit(write(name="Ann"))
    page = bob.visit(write(name="Bob"))
    assert ann.token[:43] != bob.token[:43]
    assert page.status == 200
    assert ann.visit(read("name")).result == "Ann"
    assert bob.visit(read("name")).result == "Bob"


def test_regenerate_with_a_taken_id_overwrites_nobodys_session(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(monkeypatch, b"a", b"b", b"a", b"c")
    ann, bob = site.browser(), site.browser()
    ann.visit(write(name="Ann"))
    bob.visit(write(name="Bob"))
    bob.visit(regenerate)
    assert ann.token[:43] != bob.token[:43]
    assert ann.visit(read("name")).result == "Ann"
    assert bob.visit(read("name")).result == "Bob"


# The secret is in the cookie alone


def test_a_stolen_database_opens_no_session(migrated_file: Path, tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "stolen.db"
    path.write_bytes(migrated_file.read_bytes())
    store = SQLAlchemyStore(f"sqlite:///{path}", clock=clock)
    site = Site(store, clock)
    browser = site.browser()
    for handler in (write(n=1), regenerate, lambda session: session.login("ann"), write(n=2)):
        browser.visit(handler)
    secret, _, signature = browser.token.split(".")
    files = [one.read_bytes() for one in tmp_path.iterdir()]
    with sqlite3.connect(path) as connection:
        dump = "\n".join(connection.iterdump())
    connection.close()
    assert browser.visit(lambda session: session.id).result.upper() in dump.upper()
    for hidden in (secret, signature, browser.token):
        assert hidden not in dump
        assert not any(hidden.encode() in content for content in files)
    store.close()


def test_what_a_listing_shows_opens_nothing(site: Site) -> None:
    assert isinstance(site.store, ThreeVerbStore)
    browser = site.browser()
    browser.visit(lambda session: session.login("ann"))
    (listed,) = site.store.store.find(user="ann")
    assert isinstance(listed, StoredSession)
    for value in (listed.id, f"{listed.id[:43]}.0.{listed.id[:43]}"):
        anonymous = site.browser().visit(lambda session: session.user, HTTP_COOKIE=f"prism_session={value}")
        assert anonymous.result is None


def test_the_environ_offers_the_id_and_not_the_secret(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    secret = browser.token[:43]
    page = browser.visit(lambda session: [repr(session), str(session), session.id, f"{session}"])
    assert all(secret not in text for text in page.result)
    assert call(validator(site.middleware)).status == 200
