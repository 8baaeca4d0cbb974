"""Flask-Login: its logins are logins of the session, and "remember me" is a session that lives longer."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import flask
import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, confirm_login, current_user, encode_cookie, login_user, logout_user
from flask_wtf.csrf import generate_csrf

from prism_wsgi import ConfigError, MemoryStore
from prism_wsgi.flask import PrismSessions, session
from tests.support.browsing import Clock
from tests.support.keys import SECRET

DAY = 24 * 3600  # seconds
HOUR = 3600


class User(UserMixin):  # type: ignore[misc]
    id = "42"


class Shop:
    """A shop on Flask-Login; its sessions idle out after an hour, and remembered ones after 30 days."""

    def __init__(self, **options: object) -> None:
        self.clock = Clock()
        self.store = MemoryStore(ttl=400 * DAY, clock=self.clock)
        self.app = Flask(__name__)
        self.app.config.update(
            SECRET_KEY=SECRET,
            PERMANENT_SESSION_LIFETIME=HOUR,
            REMEMBER_COOKIE_DURATION=timedelta(days=30),
            REMEMBER_COOKIE_REFRESH_EACH_REQUEST=True,
        )
        PrismSessions(self.app, store=self.store, clock=self.clock, **options)  # type: ignore[arg-type]
        LoginManager(self.app).user_loader(lambda _: User())
        pages: dict[str, Callable[[], object]] = {
            "visit": lambda: flask.session.update(basket=1),
            "login": lambda: login_user(User()),
            "remember": lambda: login_user(User(), remember=True),
            "remember-a-week": lambda: login_user(User(), remember=True, duration=timedelta(days=7)),
            "confirm": confirm_login,
            "logout": logout_user,
            "me": lambda: current_user.is_authenticated,
            "session": lambda: f"{session.user} {session.ttl} {session.persistent} {session.get('_fresh')}",
            "keys": lambda: sorted(flask.session),
            "proved": lambda: session.authenticated_at,
            "token": generate_csrf,
        }
        for name, page in pages.items():
            self.app.add_url_rule(f"/{name}", name, lambda page=page: str(page()))

    def browser(self) -> FlaskClient:
        return self.app.test_client()


def remember_cookies(response: object) -> list[str]:
    headers = response.headers.getlist("Set-Cookie")  # type: ignore[attr-defined]
    return [one for one in headers if one.startswith("remember_token=")]


def text(browser: FlaskClient, path: str) -> str:
    return browser.get(path).text


def test_a_login_has_a_new_id_and_names_the_user() -> None:
    shop = Shop()
    browser, attacker = shop.browser(), shop.browser()
    browser.get("/visit")
    planted = browser.get_cookie("session")
    assert planted is not None
    browser.get("/login")
    attacker.set_cookie("session", planted.value)
    assert (text(browser, "/me"), text(attacker, "/me")) == ("True", "False")
    assert text(browser, "/session") == f"42 {HOUR} False True"
    assert [one.user for one in shop.store.find(user="42")] == ["42"]


def test_a_logout_ends_the_login_and_keeps_the_other_data() -> None:
    shop = Shop()
    browser, other = shop.browser(), shop.browser()
    browser.get("/visit")
    browser.get("/login")
    before = browser.get_cookie("session")
    assert before is not None
    browser.get("/logout")
    other.set_cookie("session", before.value)
    assert (text(browser, "/keys"), text(browser, "/me"), text(other, "/me")) == ("['basket']", "False", "False")
    assert shop.store.find(user="42") == []


def test_a_login_drops_the_csrf_token_of_flask_wtf() -> None:
    shop = Shop()
    browser = shop.browser()
    browser.get("/token")
    assert text(browser, "/keys") == "['csrf_token']"
    browser.get("/login")
    assert "csrf_token" not in text(browser, "/keys")


@pytest.mark.parametrize(("path", "seconds"), [("/remember", 30 * DAY), ("/remember-a-week", 7 * DAY)])
def test_remember_me_is_a_longer_session_and_sets_no_remember_cookie(path: str, seconds: int) -> None:
    shop = Shop()
    browser = shop.browser()
    answer = browser.get(path)
    assert remember_cookies(answer) == []
    assert f"Max-Age={seconds}" in answer.headers["Set-Cookie"]
    assert text(browser, "/session") == f"42 {seconds} True True"
    assert "_remember" not in text(browser, "/keys")
    assert remember_cookies(browser.get("/me")) == []
    shop.clock.advance(seconds - 2 * HOUR)
    assert text(browser, "/me") == "True"


def test_a_remember_cookie_duration_that_is_text_fails_the_login() -> None:
    shop = Shop()
    shop.app.config.update(REMEMBER_COOKIE_DURATION="3600", PROPAGATE_EXCEPTIONS=True)
    with pytest.raises(ConfigError, match="REMEMBER_COOKIE_DURATION must be a timedelta or a number of seconds"):
        shop.browser().get("/remember")


def test_strong_protection_logs_out_a_remembered_user_whose_cookie_another_browser_sends() -> None:
    shop = Shop()
    shop.app.config["SESSION_PROTECTION"] = "strong"
    browser = shop.browser()
    browser.get("/visit")
    browser.get("/remember")
    assert browser.get("/me", headers={"User-Agent": "another"}).text == "False"
    assert text(browser, "/keys") == "['basket']"
    assert shop.store.find(user="42") == []


def test_strong_protection_keeps_a_remembered_user_in_a_session_that_the_application_made_permanent() -> None:
    shop = Shop()
    shop.app.config["SESSION_PROTECTION"] = "strong"
    shop.app.before_request(lambda: setattr(flask.session, "permanent", True))
    browser = shop.browser()
    browser.get("/remember")
    assert browser.get("/me", headers={"User-Agent": "another"}).text == "True"
    assert text(browser, "/session") == f"42 {30 * DAY} True False"


def test_the_end_of_all_sessions_is_the_end_of_remember_me() -> None:
    shop = Shop()
    browser = shop.browser()
    browser.get("/remember")
    assert shop.store.destroy_all("42") == 1
    assert text(browser, "/me") == "False"


def test_a_remembered_user_is_not_fresh_after_a_session_lifetime_without_use() -> None:
    shop = Shop()
    browser = shop.browser()
    browser.get("/remember")
    for _ in range(20):
        shop.clock.advance(HOUR - 60)  # used all the while
        assert text(browser, "/session").endswith("True True")
    shop.clock.advance(HOUR + 1)
    for _ in range(2):
        assert text(browser, "/session") == f"42 {30 * DAY} True False"
    browser.get("/confirm")
    assert text(browser, "/session").endswith("True True")


def test_the_next_login_is_not_remembered_unless_it_says_so() -> None:
    browser = Shop().browser()
    for path in ("/remember", "/logout", "/login"):
        browser.get(path)
    assert text(browser, "/session") == f"42 {HOUR} False True"


def remember_token(shop: Shop) -> str:
    with shop.app.app_context():
        return str(encode_cookie("42"))


def test_a_remember_cookie_logs_nobody_in_and_is_deleted() -> None:
    shop = Shop()
    browser = shop.browser()
    browser.set_cookie("remember_token", remember_token(shop))
    answer = browser.get("/me")
    assert answer.text == "False"
    assert browser.get_cookie("remember_token") is None
    assert remember_cookies(browser.get("/me")) == []


@pytest.mark.parametrize("until", [date(2027, 1, 16), datetime(2027, 1, 16, 9, tzinfo=UTC)])
def test_a_remember_cookie_is_taken_over_once_until_a_day(until: date) -> None:
    shop = Shop(remember_until=until)
    shop.clock.now = datetime(2027, 1, 16, 8, tzinfo=UTC).timestamp()
    browser, stolen = shop.browser(), remember_token(shop)
    browser.get("/visit")
    planted = browser.get_cookie("session")
    browser.set_cookie("remember_token", stolen)
    assert text(browser, "/me") == "True"
    assert planted != browser.get_cookie("session")
    assert browser.get_cookie("remember_token") is None
    assert text(browser, "/session") == f"42 {30 * DAY} True False"
    assert text(browser, "/proved") == "None"
    assert len(list(shop.store.find(user="42"))) == 1
    shop.clock.advance(DAY)
    late = shop.browser()
    late.set_cookie("remember_token", stolen)
    assert text(late, "/me") == "False"


def test_flask_login_may_keep_its_remember_cookie() -> None:
    shop = Shop(remember="flask-login")
    browser = shop.browser()
    assert remember_cookies(browser.get("/remember")) != []
    assert text(browser, "/session") == f"42 {HOUR} False True"
    shop.store.destroy_all("42")
    assert text(browser, "/me") == "True"


def test_an_application_without_flask_login_has_no_user_key() -> None:
    app = Flask(__name__)
    app.config["SECRET_KEY"] = SECRET
    PrismSessions(app, store=MemoryStore())
    app.add_url_rule("/", view_func=lambda: str(flask.session.update(_user_id="7") or session.user))
    browser = app.test_client()
    assert [browser.get("/").text for _ in range(2)] == ["None", "None"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"remember": "cookie"}, 'remember must be "session" or "flask-login"'),
        ({"remember_until": "2027-01-01"}, "remember_until must be a date"),
        ({"remember_until": datetime(2027, 1, 1)}, "must have a time zone"),  # noqa: DTZ001
    ],
)
def test_a_wrong_choice_is_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        PrismSessions(**options)  # type: ignore[arg-type]
