"""A small shop written for Beaker and nothing else; by one changed line, the tests run it on prism_wsgi too."""

import json
import os
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from beaker.middleware import SessionMiddleware

OWN_KEYS = ("_creation_time", "_accessed_time", "_domain", "_path")


def view(session: Any, given: dict[str, str]) -> object:
    values = {key: value for key, value in session.items() if key not in OWN_KEYS}
    return {"values": values, "is_new": session.is_new}


def put(session: Any, given: dict[str, str]) -> object:
    session.update(given)
    return "put"


def put_and_save(session: Any, given: dict[str, str]) -> object:
    session.update(given)
    session.save()
    return "saved"


def save_and_put(session: Any, given: dict[str, str]) -> object:
    session.save()
    session.update(given)
    return "saved, then put"


def save_nothing(session: Any, given: dict[str, str]) -> object:
    session.save()
    return session.is_new


def add_to_basket(session: Any, given: dict[str, str]) -> object:
    session.setdefault("basket", []).append(given["what"])
    if "save" in given:
        session.save()
    return session["basket"]


def forget(session: Any, given: dict[str, str]) -> object:
    del session[given["key"]]
    session.save()
    return given["key"] in session


def clear(session: Any, given: dict[str, str]) -> object:
    session.clear()
    session.save()
    return "cleared"


def put_and_revert(session: Any, given: dict[str, str]) -> object:
    session.update(given)
    session.revert()
    session.save()
    return sorted(set(session) - set(OWN_KEYS))


def put_and_load(session: Any, given: dict[str, str]) -> object:
    session.update(given)
    session.load()
    return sorted(set(session) - set(OWN_KEYS))


def login(session: Any, given: dict[str, str]) -> object:
    session.regenerate_id()
    session["user"] = given["user"]
    session.save()
    return "welcome"


def logout(session: Any, given: dict[str, str]) -> object:
    session.delete()
    return [key for key in session if key not in OWN_KEYS]


def logout_and_put(session: Any, given: dict[str, str]) -> object:
    session.delete()
    session.update(given)
    session.save()
    return "gone"


def start_over(session: Any, given: dict[str, str]) -> object:
    before = session.id
    session.invalidate()
    if given:
        session.update(given)
        session.save()
    return {"same_id": session.id == before, "is_new": session.is_new}


def my_id(session: Any, given: dict[str, str]) -> object:
    return session.id


def describe(session: Any, given: dict[str, str]) -> object:
    return {
        "own_keys": sorted(key for key in session if key in OWN_KEYS),
        "times": [type(session[key]).__name__ for key in ("_creation_time", "_accessed_time")],
        "created": session.created == session["_creation_time"],
        "used_before": session.last_accessed is not None,
        "path": session.path,
        "domain": session.domain,
        "has_user": session.has_key("user"),
        "copy": type(session.copy()).__name__,
        "accessed": session.accessed(),
        "dirty": session.dirty(),
    }


def fail_after_save(session: Any, given: dict[str, str]) -> object:
    session.update(given)
    session.save()
    raise LookupError


VIEWS: dict[str, Callable[[Any, dict[str, str]], object]] = {
    f"/{one.__name__}": one
    for one in (
        view,
        put,
        put_and_save,
        save_and_put,
        save_nothing,
        add_to_basket,
        forget,
        clear,
        put_and_revert,
        put_and_load,
        login,
        logout,
        logout_and_put,
        start_over,
        my_id,
        describe,
        fail_after_save,
    )
}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    given = {name: values[0] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
    if environ["PATH_INFO"] == "/unused":
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b'"unused"']
    session = environ["beaker.session"]
    try:
        answer, status = VIEWS[environ["PATH_INFO"]](session, given), "200 OK"
    except LookupError:
        answer, status = "failed", "500 Internal Server Error"
    start_response(status, [("Content-Type", "application/json")])
    if environ["PATH_INFO"] == "/put":
        session["too"] = "late"  # the response has begun: Beaker does not save it
    return [json.dumps(answer).encode()]


if __name__ == "__main__":
    config = {
        "session.type": "ext:database",
        "session.url": os.environ["SESSION_URL"],
        "session.secret": os.environ["SESSION_SECRET"],
        "session.key": "shop",
        "session.data_dir": "data",
        "session.timeout": "900",
        "session.data_serializer": "json",
        "session.cookie_expires": os.environ.get("COOKIE_EXPIRES", "true"),
        "session.auto": os.environ.get("AUTO", "false"),
    }
    make_server("localhost", int(os.environ["PORT"]), SessionMiddleware(app, config)).serve_forever()
