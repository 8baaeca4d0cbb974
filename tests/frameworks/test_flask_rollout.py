"""Old workers with Flask's own sessions and new ones with ours, behind one browser."""

import flask
import pytest
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user

from prism_wsgi import MemoryStore
from prism_wsgi.cookie_fallbacks import FlaskCookie
from prism_wsgi.flask import PrismSessions
from tests.support.keys import SECRET

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


class User(UserMixin):  # type: ignore[misc, unused-ignore]
    def __init__(self, user_id: str) -> None:
        self.id = user_id


def notebook() -> flask.Flask:
    app = flask.Flask(__name__)
    app.config.update(SECRET_KEY=SECRET)
    LoginManager(app).user_loader(User)

    @app.get("/login")
    def login() -> str:
        login_user(User("7"))
        return "in"

    @app.get("/logout")
    def logout() -> str:
        logout_user()
        return "out"

    @app.get("/")
    def show() -> str:
        return str(current_user.get_id())

    return app


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def new(store: MemoryStore) -> FlaskClient:
    app = notebook()
    app.config.update(SESSION_COOKIE_NAME="prism_session")
    PrismSessions(app, store=store, cookie_fallbacks=[FlaskCookie(SECRET)], keep_fallbacks=True)
    return app.test_client()


@pytest.fixture
def old(new: FlaskClient) -> FlaskClient:
    client = notebook().test_client()
    client._cookies = new._cookies  # one browser
    return client


def test_a_visitor_stays_logged_in_at_old_and_new_workers_in_turn(
    old: FlaskClient, new: FlaskClient, store: MemoryStore
) -> None:
    old.get("/login")
    assert [client.get("/").text for client in (new, old, new, old)] == ["7"] * 4
    assert len(list(store.find(user="7"))) == 1


def test_a_logout_at_a_new_worker_holds_at_the_old_ones(old: FlaskClient, new: FlaskClient) -> None:
    old.get("/login")
    assert new.get("/").text == "7"
    new.get("/logout")
    assert [client.get("/").text for client in (new, old)] == ["None"] * 2


def test_a_visitor_who_logs_in_at_a_new_worker_stays_a_visitor_of_it(old: FlaskClient, new: FlaskClient) -> None:
    new.get("/login")
    assert [client.get("/").text for client in (new, old, new)] == ["7", "None", "7"]
