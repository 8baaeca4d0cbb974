"""The same site in every framework, over HTTP."""

from pathlib import Path
from wsgiref.types import WSGIApplication

import pytest
from paste.deploy import loadapp, loadfilter

from prism_wsgi import ConfigError, MemoryStore, SessionMiddleware
from tests.frameworks import bottle_site, django_site, flask_site, pyramid_site, webob_site, werkzeug_site
from tests.frameworks.django_settings import configure_django
from tests.support.keys import SECRET
from tests.support.serving import SiteContract


class TestWebOb(SiteContract):
    @pytest.fixture
    def application(self, store: MemoryStore) -> WSGIApplication:
        return webob_site.make_app(store, SECRET)


class TestWerkzeug(SiteContract):
    @pytest.fixture
    def application(self, store: MemoryStore) -> WSGIApplication:
        return werkzeug_site.make_app(store, SECRET)


class TestDjango(SiteContract):
    @pytest.fixture
    def application(self, store: MemoryStore) -> WSGIApplication:
        configure_django()
        return django_site.make_app(store, SECRET)


class TestBottle(SiteContract):
    @pytest.fixture
    def application(self, store: MemoryStore) -> WSGIApplication:
        return bottle_site.make_app(store, SECRET)


class TestFlask(SiteContract):
    @pytest.fixture
    def application(self, store: MemoryStore) -> WSGIApplication:
        return flask_site.make_app(store, SECRET)


class TestPyramid(SiteContract):
    @pytest.fixture
    def application(self, store: MemoryStore) -> WSGIApplication:
        return pyramid_site.make_app(store, {"prism.secret": SECRET, "prism.store": store})


class TestPyramidInsideTheMiddleware(SiteContract):
    @pytest.fixture
    def application(self, store: MemoryStore) -> WSGIApplication:
        return SessionMiddleware(pyramid_site.make_app(store, {}), store=store, secret=SECRET)


class TestPyramidWithItsOwnSettingsInsideTheMiddleware(SiteContract):
    @pytest.fixture
    def application(self, store: MemoryStore) -> WSGIApplication:
        app = pyramid_site.make_app(
            store, {"prism.secret": SECRET, "prism.store": store, "prism.cookie_name": "inner"}
        )
        return SessionMiddleware(app, secret=SECRET, cookie_on="write")


store_of_the_ini = MemoryStore()
"""What the ini's `store` names."""


def paste_app(global_conf: dict[str, str]) -> WSGIApplication:
    return pyramid_site.make_app(store_of_the_ini, {})


INI = f"""
[pipeline:main]
pipeline = sessions site

[filter:sessions]
use = egg:prism_wsgi
secret = {SECRET}
store = {__name__}:store_of_the_ini

[app:site]
paste.app_factory = tests.frameworks.test_sites:paste_app
"""


class TestPasteDeploy(SiteContract):
    @pytest.fixture
    def application(self, store: MemoryStore, tmp_path: Path) -> WSGIApplication:
        global store_of_the_ini
        store_of_the_ini = store
        ini = tmp_path / "site.ini"
        ini.write_text(INI)
        application: WSGIApplication = loadapp(f"config:{ini}")
        return application

    def test_a_key_that_is_no_setting_is_refused_when_the_ini_is_loaded(self, tmp_path: Path) -> None:
        ini = tmp_path / "wrong.ini"
        ini.write_text(INI.replace("store =", "stor ="))
        with pytest.raises(ConfigError, match="stor is not a setting; did you mean store"):
            loadapp(f"config:{ini}")

    def test_the_middleware_has_the_settings_of_its_section(self, tmp_path: Path) -> None:
        ini = tmp_path / "settings.ini"
        section = f"use = egg:prism_wsgi\nsecret = {SECRET}\nstore = memory\nttl = 60\nsamesite = strict\n"
        ini.write_text(f"[DEFAULT]\ndebug = true\n[filter:main]\n{section}")
        middleware = loadfilter(f"config:{ini}")(webob_site.make_app(MemoryStore(), SECRET))
        assert isinstance(middleware, SessionMiddleware)
        assert middleware.site.lifetimes.ttl == 60
        assert middleware.site.cookies.cookie.samesite == "Strict"
