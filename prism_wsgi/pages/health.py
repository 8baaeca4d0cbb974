"""The health check for a load balancer or a probe: whether the store works."""

from wsgiref.types import StartResponse, WSGIEnvironment

from prism_wsgi.errors import StoreError
from prism_wsgi.pages.answers import Refused, only_get, refuse, send_json
from prism_wsgi.stores.base import CheckableStore, SessionStore
from prism_wsgi.stores.urls import open_store

_NOBODY = "0" * 64  # an id that no session has


class HealthCheck:
    """A WSGI application that answers 200 if the store works and 503 if it does not, as JSON.

    `store` is the store of the sessions, or its URL. The answer does not say what is wrong; the log does. A store
    without `ping` is only read, and `checked` says so. The visitor's session is not read.
    """

    def __init__(self, store: SessionStore | str) -> None:
        self._store: SessionStore = open_store(store) if isinstance(store, str) else store

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        try:
            only_get(environ)
        except Refused as refused:
            return refuse(environ, start_response, refused)
        try:
            checked = check(self._store)
        except StoreError:
            return send_json(environ, start_response, {"status": "down"}, status="503 Service Unavailable")
        return send_json(environ, start_response, {"status": "up", "checked": checked})


def check(store: SessionStore) -> str:
    """Prove that a store works, and return the proof: "read and write", or "read". Raises StoreError."""
    if isinstance(store, CheckableStore):
        store.ping()
        return "read and write"
    store.load(_NOBODY)
    return "read"
