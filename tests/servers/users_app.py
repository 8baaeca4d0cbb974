"""One worker of a site whose users can end their sessions everywhere; run by test_users.py."""

import json
import os
from collections.abc import Iterable
from socketserver import ThreadingMixIn
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prism_wsgi import RedisStore, Session, SessionMiddleware, SQLAlchemyStore
from tests.support.keys import SECRET


def site(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with who is logged in, and in how many sessions."""
    session: Session = environ["prism.session"]
    path = environ["PATH_INFO"]
    if path == "/login":
        session.login(parse_qs(environ["QUERY_STRING"])["user"][0])
    elif session.user is not None and path == "/logout-elsewhere":
        store.destroy_all(session.user, except_id=session.id)
    elif session.user is not None and path == "/logout-everywhere":
        store.destroy_all(session.user)
    sessions = store.find(user=session.user) if session.user else []
    body = json.dumps({"user": session.user, "sessions": len(sessions), "worker": os.getpid()}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


prefix = os.environ.get("SITE_PREFIX")
where = os.environ["SITE_STORE"]
store: SQLAlchemyStore | RedisStore = RedisStore(where, prefix=prefix) if prefix else SQLAlchemyStore(where)
application = SessionMiddleware(site, store=store, secret=SECRET)

if __name__ == "__main__":
    with make_server("localhost", int(os.environ["PORT"]), application, Server) as server:
        server.serve_forever()
