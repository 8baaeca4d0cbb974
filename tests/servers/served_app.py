"""The application that the servers serve: reads, writes, counts, logs in and out, as the path says."""

import json
import os
from collections.abc import Iterable
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

from prism_wsgi import Session, SessionMiddleware, SQLAlchemyStore


def act(session: Session, action: str, key: str, value: str) -> None:
    """Do one thing with the session."""
    if action == "put":
        session[key] = value
    elif action == "append":
        session.setdefault("list", []).append(value)
    elif action == "count":
        with session.atomic():
            session["n"] = session.get("n", 0) + 1
    elif action == "login":
        session.login(value)
    elif action == "logout":
        session.logout()


def site(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with what the session holds after the action."""
    session: Session = environ["prism.session"]
    query = parse_qs(environ.get("QUERY_STRING", ""))  # bjoern leaves an empty one out
    act(session, environ["PATH_INFO"].strip("/"), query.get("key", [""])[0], query.get("value", [""])[0])
    body = json.dumps({"user": session.user, "data": dict(session), "pid": os.getpid()}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


store = SQLAlchemyStore(os.environ["SITE_DATABASE_URL"])
# With --preload this runs before the workers are forked: they inherit a store with an open connection.
store.load("0" * 64)
application = SessionMiddleware(site, store=store, secret=os.environ["SITE_SECRET"], secure=False)
