"""The session engine for Django, on every store: what Django's own engines promise, and what they lack."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.frameworks.django_settings import ADMIN_MIDDLEWARE, configure_django

configure_django()

from django.contrib.auth import SESSION_KEY, get_user_model, login, logout  # noqa: E402 - Django needs its settings
from django.contrib.sessions.backends.base import UpdateError  # noqa: E402
from django.contrib.sessions.middleware import SessionMiddleware  # noqa: E402
from django.core.exceptions import ImproperlyConfigured  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.test import AsyncClient, Client, override_settings  # noqa: E402
from django.utils.safestring import mark_safe  # noqa: E402
from django.utils.translation import gettext_lazy  # noqa: E402

from prism_wsgi import MemoryStore, StoreUnavailable  # noqa: E402
from prism_wsgi.django import SessionStore  # noqa: E402
from prism_wsgi.django.checks import check_settings  # noqa: E402
from prism_wsgi.django.databases import database_url  # noqa: E402
from prism_wsgi.django.site import configured_site  # noqa: E402
from prism_wsgi.events import SessionEvent, StoreCall  # noqa: E402
from prism_wsgi.persistence.imported_ids import imported_id  # noqa: E402
from prism_wsgi.stores.base import StoredSession  # noqa: E402
from prism_wsgi.testing import ManualClock  # noqa: E402

TWO_WEEKS = 14 * 24 * 3600


@pytest.fixture
def django_store(every_store: Any, manual_clock: ManualClock) -> Iterator[Any]:
    with override_settings(PRISM_SESSION_STORE=every_store, PRISM_SESSION_OPTIONS={"clock": manual_clock}):
        yield every_store


@pytest.fixture(scope="module")
def _users_table() -> None:
    call_command("migrate", verbosity=0)


@pytest.fixture
def ada(_users_table: None) -> Iterator[Any]:
    """A user who may do everything."""
    user = get_user_model().objects.create_superuser("ada", password="correct horse")
    yield user
    user.delete()


def stored(**values: Any) -> str:
    """Store a new session with these values; return its key."""
    session = SessionStore()
    session.update(values)
    session.save()
    return str(session.session_key)


def request_with(session: SessionStore) -> HttpRequest:
    request = HttpRequest()
    request.session = session
    request.META["REMOTE_ADDR"] = "192.0.2.1"
    return request


def test_a_saved_session_is_read_by_its_key(django_store: Any) -> None:
    key = stored(colour="red")
    assert SessionStore(key)["colour"] == "red"


def test_the_store_never_sees_the_key_that_stands_in_the_cookie(django_store: Any) -> None:
    key = stored(colour="red")
    (row,) = django_store.find_all()
    assert key not in repr(row)
    assert key.encode() not in row.data
    assert SessionStore(row.id).load() == {}


def test_a_key_that_a_client_has_made_up_is_not_adopted(django_store: Any) -> None:
    made_up = "A" * 43
    session = SessionStore(made_up)
    session["colour"] = "red"
    session.save()
    assert session.session_key != made_up
    assert not SessionStore().exists(made_up)


def test_requests_at_once_that_write_different_keys_lose_nothing(django_store: Any) -> None:
    key = stored(basket=[])
    first, second = SessionStore(key), SessionStore(key)
    first["colour"], second["size"] = "red", 42
    first.save()
    second.save()
    assert second["colour"] == "red"
    assert dict(SessionStore(key).items()) == {"basket": [], "colour": "red", "size": 42}


def test_a_change_inside_a_value_is_saved_without_saying_so(django_store: Any) -> None:
    session = SessionStore(stored(basket=["tea"]))
    session["basket"].append("milk")
    assert session.modified
    session.save()
    assert SessionStore(session.session_key)["basket"] == ["tea", "milk"]


def test_reading_does_not_count_as_modified(django_store: Any) -> None:
    session = SessionStore(stored(basket=["tea"]))
    assert session["basket"] == ["tea"]
    assert not session.modified


def test_texts_that_django_makes_are_stored(django_store: Any) -> None:
    key = stored(safe=mark_safe("<b>"), lazy=gettext_lazy("Welcome"))
    assert SessionStore(key)["safe"] == "<b>"
    assert SessionStore(key)["lazy"] == "Welcome"


def test_a_session_that_another_request_ended_cannot_be_brought_back(django_store: Any) -> None:
    key = stored(colour="red")
    late = SessionStore(key)
    late["colour"] = "blue"
    SessionStore(key).flush()
    with pytest.raises(UpdateError):
        late.save()
    assert SessionStore(key).load() == {}


def test_cycle_key_keeps_the_data_and_closes_the_old_key(django_store: Any) -> None:
    old = stored(colour="red")
    session = SessionStore(old)
    session.cycle_key()
    assert session.session_key != old
    assert SessionStore(session.session_key)["colour"] == "red"
    assert SessionStore(old).load() == {}
    assert not session.exists(old)


def test_a_request_with_the_old_key_leaves_the_newer_cookie_alone(django_store: Any) -> None:
    old = stored(colour="red")
    SessionStore(old).cycle_key()
    late = SessionStore(old)
    assert late.get("colour") is None
    assert not late.is_empty(), "Django would delete the cookie that the browser has just been given"


def test_a_session_ends_when_set_expiry_says(django_store: Any, manual_clock: ManualClock) -> None:
    session = SessionStore()
    session.set_expiry(60)
    session.save()
    manual_clock.advance(59)
    assert SessionStore(session.session_key).load() != {}
    manual_clock.advance(2)
    assert SessionStore(session.session_key).load() == {}


def test_a_session_lives_as_long_as_the_setting_says(django_store: Any, manual_clock: ManualClock) -> None:
    key = stored(colour="red")
    manual_clock.advance(TWO_WEEKS - 1)
    assert SessionStore(key).load() == {"colour": "red"}
    manual_clock.advance(2)
    assert SessionStore(key).load() == {}


def test_saving_an_unchanged_session_records_its_use_and_writes_no_data(
    django_store: Any, manual_clock: ManualClock
) -> None:
    key = stored(colour="red")
    (before,) = django_store.find_all()
    manual_clock.advance(TWO_WEEKS / 2)
    session = SessionStore(key)
    assert session["colour"] == "red"
    session.save()
    (after,) = django_store.find_all()
    assert after.version == before.version
    assert after.expires_at == before.expires_at + TWO_WEEKS / 2 * 1000


def test_clear_expired_deletes_what_has_expired(manual_clock: ManualClock, empty_sqlite_url: str) -> None:
    with override_settings(PRISM_SESSION_STORE=empty_sqlite_url, PRISM_SESSION_OPTIONS={}):
        ended, alive = SessionStore(), stored(colour="red")
        ended.set_expiry(-60)
        ended.save()
        store: Any = configured_site().adapter.store
        SessionStore.clear_expired()
        assert store.stats().expired == 0
        assert SessionStore(alive)["colour"] == "red"


def test_a_failing_store_is_no_anonymous_visitor() -> None:
    class Broken(MemoryStore):
        def load(self, session_id: str) -> StoredSession | None:
            raise OSError("out of order")

    with override_settings(PRISM_SESSION_STORE=Broken()):
        key = stored(colour="red")
        with pytest.raises(StoreUnavailable):
            SessionStore(key).get("colour")


def test_a_session_imported_from_django_keeps_its_key(django_store: Any, manual_clock: ManualClock) -> None:
    key, now = "0123456789abcdefghijklmnopqrstuv", int(manual_clock() * 1000)
    row = SessionStore(stored(colour="red"))
    (saved,) = django_store.find_all()
    assert row["colour"] == "red"
    django_store.save(StoredSession(imported_id("django", key), saved.data, 0, now, now + 60_000))
    session = SessionStore(key)
    session["size"] = 42
    session.save()
    assert session.session_key == key
    assert dict(SessionStore(key).items()) == {"colour": "red", "size": 42}


# Logins by django.contrib.auth


def test_a_login_is_known_to_the_store_and_moves_the_session_once(django_store: Any, ada: Any) -> None:
    planted = stored(basket=["tea"])
    session = SessionStore(planted)
    login(request_with(session), ada)
    session.save()
    (row,) = django_store.find(user=str(ada.pk))
    assert SessionStore(planted).load() == {}
    assert SessionStore(session.session_key)["basket"] == ["tea"]
    assert row.authenticated_at is not None


def test_a_logout_ends_the_session_everywhere(django_store: Any, ada: Any) -> None:
    session = SessionStore(stored())
    login(request_with(session), ada)
    session.save()
    key = session.session_key
    late = SessionStore(key)
    late["colour"] = "red"
    logout(request_with(session))
    with pytest.raises(UpdateError):
        late.save()
    assert list(django_store.find(user=str(ada.pk))) == []


def test_a_double_click_on_the_login_button_logs_in_twice(django_store: Any, ada: Any) -> None:
    key = stored(basket=["tea"])
    first, second = SessionStore(key), SessionStore(key)
    for session in (first, second):
        assert session["basket"] == ["tea"]
    for session in (first, second):
        login(request_with(session), ada)
        session.save()
    for session in (first, second):
        assert SessionStore(session.session_key)[SESSION_KEY] == str(ada.pk)


def test_another_user_gets_nothing_of_the_first_ones_session(django_store: Any, ada: Any) -> None:
    bob = get_user_model().objects.create_user("bob", password="battery staple")
    session = SessionStore(stored())
    login(request_with(session), ada)
    session["secret"] = "of ada"
    session.save()
    login(request_with(session), bob)
    session.save()
    assert "secret" not in SessionStore(session.session_key)
    assert list(django_store.find(user=str(ada.pk))) == []
    bob.delete()


def test_the_newest_logins_of_a_user_stay(every_store: Any, ada: Any, manual_clock: ManualClock) -> None:
    options = {"clock": manual_clock, "max_sessions_per_user": 2}
    with override_settings(PRISM_SESSION_STORE=every_store, PRISM_SESSION_OPTIONS=options):
        keys = []
        for _ in range(4):
            session = SessionStore()
            login(request_with(session), ada)
            session.save()
            keys.append(session.session_key)
            manual_clock.advance(1)
        assert [bool(SessionStore(key).load()) for key in keys] == [False, False, True, True]


def test_observers_are_told_of_logins_and_logouts(ada: Any) -> None:
    told: list[str] = []

    class Listener:
        def on_event(self, event: SessionEvent) -> None:
            told.append(str(event.kind))

        def on_store_call(self, call: StoreCall) -> None:
            pass

    with override_settings(PRISM_SESSION_STORE=MemoryStore(), PRISM_SESSION_OPTIONS={"observers": [Listener()]}):
        session = SessionStore()
        login(request_with(session), ada)
        session.save()
        logout(request_with(session))
    assert told == ["started", "logged_in", "logged_out", "ended"]


# Through Django's own middleware and test clients


@pytest.fixture
def _middleware() -> Iterator[None]:
    with override_settings(MIDDLEWARE=ADMIN_MIDDLEWARE, PRISM_SESSION_STORE=MemoryStore()):
        yield


@pytest.mark.usefixtures("_middleware")
def test_the_test_client_keeps_a_session() -> None:
    client = Client()
    assert [client.get("/visits").content for _ in range(3)] == [b"1", b"2", b"3"]


@pytest.mark.usefixtures("_middleware")
def test_the_async_test_client_keeps_a_session() -> None:
    async def visit() -> list[bytes]:
        client = AsyncClient()
        return [(await client.get("/visits")).content for _ in range(3)]

    assert asyncio.run(visit()) == [b"1", b"2", b"3"]


def test_the_async_verbs_do_as_the_others_do(django_store: Any) -> None:
    async def use() -> None:
        session = SessionStore()
        await session.aset("colour", "red")
        await session.asave()
        old = session.session_key
        await session.acycle_key()
        assert session.session_key != old
        assert await SessionStore(session.session_key).aget("colour") == "red"
        assert not await session.aexists(old)
        await session.aflush()
        assert session.session_key is None

    asyncio.run(use())


@pytest.mark.usefixtures("_middleware")
def test_force_login_of_the_test_client_works_unchanged(ada: Any) -> None:
    client = Client()
    client.force_login(ada)
    assert client.session[SESSION_KEY] == str(ada.pk)


@pytest.mark.usefixtures("_middleware")
def test_a_read_of_nothing_sets_no_cookie() -> None:
    client = Client()
    client.get("/read")
    assert not client.cookies


def test_every_request_renews_the_cookie_where_django_is_told_so() -> None:
    with override_settings(
        MIDDLEWARE=ADMIN_MIDDLEWARE, PRISM_SESSION_STORE=MemoryStore(), SESSION_SAVE_EVERY_REQUEST=True
    ):
        client = Client()
        client.get("/visits")
        assert "sessionid" in client.get("/read").cookies


def test_a_request_whose_session_has_ended_meanwhile_is_answered_400() -> None:
    def respond(request: HttpRequest) -> Any:
        SessionStore(request.session.session_key).flush()
        request.session["late"] = True
        return HttpResponse()

    with override_settings(PRISM_SESSION_STORE=MemoryStore()):
        request = HttpRequest()
        request.COOKIES["sessionid"] = stored(colour="red")
        SessionMiddleware(respond).process_request(request)
        assert request.session["colour"] == "red"
        from django.contrib.sessions.exceptions import SessionInterrupted

        response = respond(request)
        with pytest.raises(SessionInterrupted):
            SessionMiddleware(respond).process_response(request, response)


# Settings


def test_a_project_without_the_setting_is_told_what_to_set() -> None:
    with override_settings(PRISM_SESSION_STORE=None):
        (error,) = check_settings()
    assert error.id == "prism_wsgi.E001"
    assert "PRISM_SESSION_STORE" in str(error.msg)


def test_an_alias_that_is_none_of_the_databases_is_refused() -> None:
    with override_settings(PRISM_SESSION_STORE="sessions"), pytest.raises(ImproperlyConfigured, match="default"):
        configured_site()


def test_an_option_that_does_not_exist_is_refused() -> None:
    with (
        override_settings(PRISM_SESSION_STORE="memory", PRISM_SESSION_OPTIONS={"max_session": 3}),
        pytest.raises(ImproperlyConfigured, match="'max_session'"),
    ):
        configured_site()


def test_a_broken_option_is_one_error_of_the_system_check() -> None:
    with override_settings(PRISM_SESSION_STORE="memory", PRISM_SESSION_OPTIONS={"max_sessions_per_user": 0}):
        (error,) = check_settings()
    assert error.id == "prism_wsgi.E001"


def test_sessions_in_memory_are_warned_of_outside_debugging() -> None:
    with override_settings(PRISM_SESSION_STORE="memory", DEBUG=False):
        assert [one.id for one in check_settings()] == ["prism_wsgi.W001"]
    with override_settings(PRISM_SESSION_STORE="memory", DEBUG=True):
        assert check_settings() == []


def test_a_serializer_of_djangos_is_warned_of() -> None:
    with override_settings(PRISM_SESSION_STORE="memory", DEBUG=True, SESSION_SERIALIZER="app.Pickle"):
        assert [one.id for one in check_settings()] == ["prism_wsgi.W002"]


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (
            {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": "shop",
                "USER": "ada",
                "PASSWORD": "a@b",
                "HOST": "db",
            },
            "postgresql+psycopg://ada:a%40b@db/shop",
        ),
        (
            {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": "shop",
                "HOST": "/run/postgresql",
                "PORT": 5433,
                "OPTIONS": {"sslmode": "require", "pool": True},
            },
            "postgresql+psycopg://:5433/shop?sslmode=require&host=%2Frun%2Fpostgresql",
        ),
        ({"ENGINE": "django.db.backends.sqlite3", "NAME": "/srv/shop.db"}, "sqlite:////srv/shop.db"),
        ({"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}, "memory"),
    ],
)
def test_the_url_of_a_database_follows_from_djangos_settings(
    given: dict[str, Any], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import ConnectionHandler

    from prism_wsgi.django import databases

    monkeypatch.setattr(databases, "connections", ConnectionHandler({"default": given}))
    assert database_url("default") == url


# The admin


@pytest.fixture
def admin_client(ada: Any) -> Iterator[Client]:
    with override_settings(
        MIDDLEWARE=ADMIN_MIDDLEWARE,
        PRISM_SESSION_STORE=MemoryStore(),
        ROOT_URLCONF="tests.frameworks.django_admin_urls",
    ):
        client = Client()
        client.force_login(ada)
        yield client


SESSIONS = "/admin/prism_wsgi/livesession/"


def test_the_admin_lists_sessions_by_the_names_of_their_users(admin_client: Client) -> None:
    stored(colour="red")
    text = admin_client.get(SESSIONS).content.decode()
    assert ">ada</a>" in text
    assert "nobody" in text
    assert "this session" in text


def test_the_admin_ends_a_session(admin_client: Client) -> None:
    key = stored(colour="red")
    store: Any = configured_site().adapter.store
    (row,) = [one for one in store.find_all() if one.user is None]
    answer = admin_client.post(SESSIONS, {"end": row.id}, follow=True)
    assert "Sessions ended: 1" in answer.content.decode()
    assert SessionStore(key).load() == {}


def test_the_admin_ends_all_sessions_of_a_user_but_the_administrators_own(admin_client: Client, ada: Any) -> None:
    other = SessionStore()
    login(request_with(other), ada)
    other.save()
    answer = admin_client.post(SESSIONS, {"end_user": str(ada.pk)}, follow=True)
    assert "Sessions ended: 1" in answer.content.decode()
    assert SessionStore(other.session_key).load() == {}
    assert admin_client.get(SESSIONS).status_code == 200


def test_the_admin_finds_the_sessions_of_a_user(admin_client: Client, ada: Any) -> None:
    stored(colour="red")
    assert "nobody" not in admin_client.get(SESSIONS, {"user": str(ada.pk)}).content.decode()
    assert "No sessions" in admin_client.get(SESSIONS, {"user": "no such user"}).content.decode()


def test_staff_without_the_permission_see_no_sessions(admin_client: Client) -> None:
    staff = get_user_model().objects.create_user("bob", password="battery staple", is_staff=True)
    client = Client()
    client.force_login(staff)
    assert client.get(SESSIONS).status_code == 403
    assert client.post(SESSIONS, {"end_user": "1"}).status_code == 403
    staff.delete()


@pytest.mark.usefixtures("_users_table")
def test_a_project_has_no_migration_to_make_for_the_sessions() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)
    assert "prism_wsgi_livesession" not in connection.introspection.table_names()


# The session as prism_wsgi's, and its ready pages


def logged_in(user: Any) -> Client:
    client = Client(HTTP_HOST="localhost")
    client.force_login(user)
    return client


@pytest.fixture
def _pages(_middleware: None) -> Iterator[None]:
    with override_settings(ROOT_URLCONF="tests.frameworks.django_pages_urls"):
        yield


@pytest.mark.usefixtures("_pages")
def test_the_devices_page_ends_another_device(ada: Any) -> None:
    phone, desk = logged_in(ada), logged_in(ada)
    text = desk.get("/devices").content.decode()
    (token,) = re.findall('name="csrf_token" value="([0-9a-f]{64})"', text)[:1]
    (other,) = set(re.findall('name="end" value="([0-9a-f]{64})"', text))
    assert desk.post("/devices", {"csrf_token": token, "end": other}).status_code == 303
    assert "The device is logged out." in desk.get("/devices?done").content.decode()
    assert SESSION_KEY in desk.session
    assert phone.get("/read-user").content == b"None"


@pytest.mark.usefixtures("_pages")
def test_the_devices_page_refuses_a_form_without_its_token(ada: Any) -> None:
    phone, desk = logged_in(ada), logged_in(ada)
    assert desk.post("/devices", {"others": "yes"}).status_code == 403
    assert phone.get("/read-user").content == str(ada.pk).encode()


@pytest.mark.usefixtures("_pages")
def test_the_devices_page_sends_a_visitor_to_log_in() -> None:
    answer = Client(HTTP_HOST="localhost").get("/devices")
    assert (answer.status_code, answer["Location"]) == (303, "/login")


@pytest.mark.usefixtures("_pages")
def test_the_time_left_is_told_without_counting_as_use(ada: Any) -> None:
    assert 0 < logged_in(ada).get("/time-left").json()["seconds"] <= TWO_WEEKS


def test_a_view_asks_whether_the_login_is_fresh(django_store: Any, ada: Any, manual_clock: ManualClock) -> None:
    session = SessionStore()
    login(request_with(session), ada)
    session.save()
    later = SessionStore(session.session_key)
    assert later.prism.is_fresh(300)
    manual_clock.advance(301)
    assert not later.prism.is_fresh(300)
    later.prism.confirm_login()
    assert later.modified
    later.save()
    assert later.session_key != session.session_key
    assert SessionStore(later.session_key).prism.is_fresh(300)


def test_a_user_logs_out_elsewhere(django_store: Any, ada: Any) -> None:
    here, there = SessionStore(), SessionStore()
    for session in (here, there):
        login(request_with(session), ada)
        session.save()
    assert SessionStore(here.session_key).prism.logout_elsewhere() == 1
    assert SessionStore(there.session_key).load() == {}
    assert SESSION_KEY in SessionStore(here.session_key)


def test_what_a_view_assigns_to_the_session_as_prisms_is_saved(django_store: Any) -> None:
    session = SessionStore()
    session.prism["colour"] = "red"
    assert session.modified
    session.save()
    assert SessionStore(session.session_key)["colour"] == "red"


@pytest.mark.usefixtures("_middleware")
def test_a_login_without_django_contrib_auth_is_kept() -> None:
    request = HttpRequest()
    middleware = SessionMiddleware(lambda request: HttpResponse())
    middleware.process_request(request)
    request.session.prism.login("ada")
    answer = middleware.process_response(request, HttpResponse())
    later = SessionStore(answer.cookies["sessionid"].value)
    assert later.prism.user == "ada"


def test_clearing_a_session_that_was_not_read_keeps_its_key(django_store: Any) -> None:
    key = stored(colour="red")
    session = SessionStore(key)
    session.clear()
    session.save()
    assert session.session_key == key
    assert SessionStore(key).load() == {}
