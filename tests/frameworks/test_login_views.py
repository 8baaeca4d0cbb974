"""The login views of Flask-Security and Flask-AppBuilder: their logins are logins of the session."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from prism_wsgi import MemoryStore
from prism_wsgi.flask import PrismSessions, session
from tests.support.keys import SECRET

pytestmark = pytest.mark.whole  # to hash passwords and make tables takes seconds

PASSWORD = "correct horse battery staple"


@dataclass
class Shop:
    """An application whose users log in by the view of a library; /me says who is logged in to the session."""

    app: Flask
    store: MemoryStore
    user: str
    log_in: Callable[[FlaskClient], int]
    log_out: Callable[[FlaskClient], object]

    def browser(self) -> FlaskClient:
        return self.app.test_client()


def make_app(folder: Path) -> tuple[Flask, MemoryStore]:
    app, store = Flask(__name__), MemoryStore()
    app.config.update(
        SECRET_KEY=SECRET,
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{folder / 'users.db'}",
        SQLALCHEMY_TRACK_MODIFICATIONS=False,
        WTF_CSRF_ENABLED=False,
    )
    PrismSessions(app, store=store)

    @app.get("/visit")
    def visit() -> str:
        session["basket"] = 1
        return "visited"

    @app.get("/everywhere")
    def everywhere() -> str:
        assert session.user is not None
        session.logout_elsewhere()
        session.logout()
        return "gone"

    return app, store


def with_flask_security(folder: Path) -> Shop:
    security: Any = pytest.importorskip("flask_security", reason="Flask-Security-Too is not installed")
    models: Any = pytest.importorskip("flask_security.models.fsqla_v3", reason="Flask-SQLAlchemy is not installed")
    from flask_sqlalchemy import SQLAlchemy

    app, store = make_app(folder)
    app.config.update(
        SECURITY_PASSWORD_SALT=SECRET, SECURITY_PASSWORD_HASH="pbkdf2_sha512", SECURITY_PASSWORD_SINGLE_HASH=True
    )
    db = SQLAlchemy(app)
    models.FsModels.set_db_info(db)

    class Role(db.Model, models.FsRoleMixin):  # type: ignore[misc,name-defined]
        pass

    class User(db.Model, models.FsUserMixin):  # type: ignore[misc,name-defined]
        pass

    users = security.SQLAlchemyUserDatastore(db, User, Role)
    security.Security(app, users)
    with app.app_context():
        db.create_all()
        ada = users.create_user(email="ada@example.org", password=security.hash_password(PASSWORD), fs_uniquifier="7")
        db.session.commit()
        user = str(ada.fs_uniquifier)
    app.add_url_rule("/me", "me", lambda: str(security.current_user.is_authenticated))

    def log_in(browser: FlaskClient) -> int:
        return browser.post("/login", data={"email": "ada@example.org", "password": PASSWORD}).status_code

    return Shop(app, store, user, log_in, lambda browser: browser.post("/logout"))


def with_flask_appbuilder(folder: Path) -> Shop:
    appbuilder: Any = pytest.importorskip("flask_appbuilder", reason="Flask-AppBuilder is not installed")
    from flask_login import current_user

    app, store = make_app(folder)
    with app.app_context():
        db = import_module("flask_appbuilder.utils.legacy").get_sqla_class()()
        db.init_app(app)
        builder = appbuilder.AppBuilder(app, db.session)
        role = builder.sm.find_role("Admin")
        ada = builder.sm.add_user("ada", "Ada", "Lovelace", "ada@example.org", role, PASSWORD)
        user = str(ada.id)
    app.add_url_rule("/me", "me", lambda: str(current_user.is_authenticated))

    def log_in(browser: FlaskClient) -> int:
        return browser.post("/login/", data={"username": "ada", "password": PASSWORD}).status_code

    return Shop(app, store, user, log_in, lambda browser: browser.get("/logout/"))


@pytest.fixture(params=[with_flask_security, with_flask_appbuilder], ids=["Flask-Security", "Flask-AppBuilder"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries use what others have deprecated
        make: Any = request.param
        yield make(tmp_path)


def has_logged_in(browser: FlaskClient) -> bool:
    return browser.get("/me").text == "True"


def test_a_cookie_planted_before_the_login_opens_nothing_after_it(shop: Shop) -> None:
    browser, attacker = shop.browser(), shop.browser()
    browser.get("/visit")
    planted = browser.get_cookie("session")
    assert planted is not None
    assert shop.log_in(browser) == 302
    attacker.set_cookie("session", planted.value)
    assert (has_logged_in(browser), has_logged_in(attacker)) == (True, False)


def test_the_user_is_listed_and_can_be_revoked(shop: Shop) -> None:
    laptop, phone = shop.browser(), shop.browser()
    assert [shop.log_in(laptop), shop.log_in(phone)] == [302, 302]
    sessions = shop.store.find(user=shop.user)
    assert [one.user for one in sessions] == [shop.user] * 2
    assert shop.store.revoke(sessions[0].id, user=shop.user)
    assert [has_logged_in(laptop), has_logged_in(phone)] == [False, True]


def test_logging_out_ends_the_login_and_logging_out_everywhere_holds(shop: Shop) -> None:
    laptop, phone, tablet = shop.browser(), shop.browser(), shop.browser()
    for browser in (laptop, phone, tablet):
        assert shop.log_in(browser) == 302
    shop.log_out(tablet)
    assert [has_logged_in(one) for one in (laptop, phone, tablet)] == [True, True, False]
    assert phone.get("/everywhere").text == "gone"
    assert [has_logged_in(one) for one in (laptop, phone, tablet)] == [False, False, False]
    assert shop.store.find(user=shop.user) == []
