"""Request and Response: WebOb's, with sessions and Cookie values."""

import json
from collections.abc import Callable, Mapping
from typing import Any, cast, overload

import webob

from prism_wsgi.cookies import Cookie
from prism_wsgi.errors import ConfigError
from prism_wsgi.request.phases import DETACHED
from prism_wsgi.session import Session

DEFAULT_ENVIRON_KEY = "prism.session"


def get_session(environ_or_request: object, *, environ_key: str = DEFAULT_ENVIRON_KEY) -> Session:
    """Return the session of a request, given its WSGI environ or any object with an `environ`.

    After the response is over, in a WebSocket's handler for example, the session is read afresh.
    Raises ConfigError when the request did not come through SessionMiddleware.
    """
    environ = getattr(environ_or_request, "environ", environ_or_request)
    if not isinstance(environ, Mapping) or not isinstance(environ.get(environ_key), Session):
        raise ConfigError(
            f"This request has no session under {environ_key!r}: wrap the application in SessionMiddleware("
            "application, ...), and use the environ_key given there"
        )
    session = cast(Session, environ[environ_key])
    if session._state.stage is DETACHED:
        with session._alone():
            session._state.look_again()  # the response is over, and another request may have logged the visitor out
    return session


class Request(webob.Request):
    """A WebOb request whose `session` is the visitor's; see `webob.Request` for everything else."""

    @property
    def session(self) -> Session:
        """The visitor's session. Raises ConfigError without SessionMiddleware around the application."""
        session = self.environ.get("webob.adhoc_attrs", {}).get("session")  # set for every environ_key
        if isinstance(session, Session) and DEFAULT_ENVIRON_KEY not in self.environ:
            return session
        return get_session(self.environ)


class _JSON:
    """`Response.json(data)` makes a response; `response.json` stays WebOb's property, the decoded body."""

    @overload
    def __get__(self, response: None, owner: type["Response"]) -> "Callable[..., Response]": ...
    @overload
    def __get__(self, response: "Response", owner: type["Response"]) -> Any: ...
    def __get__(self, response: "Response | None", owner: type["Response"]) -> Any:
        return owner.from_json if response is None else response.json_body

    def __set__(self, response: "Response", data: Any) -> None:
        response.json_body = data


class Response(webob.Response):
    """A WebOb response that takes Cookie values; see `webob.Response` for everything else."""

    json = _JSON()

    @classmethod
    def from_json(cls, data: Any, *, status: int | str = 200) -> "Response":
        """Return a response with `data` as JSON; also callable as `Response.json(data)`."""
        return cls(json.dumps(data), status=status, content_type="application/json", charset="UTF-8")

    def set_cookie(self, name: Any, *arguments: Any, **attributes: Any) -> None:
        """Set a Cookie; or, given a name and value, a cookie by WebOb's own parameters."""
        if isinstance(name, Cookie):
            self.headerlist.append(("Set-Cookie", name.header_value))
        else:
            super().set_cookie(name, *arguments, **attributes)

    def delete_cookie(self, name: Any, *arguments: Any, **attributes: Any) -> None:
        """Delete a Cookie, repeating its attributes as browsers require; or, given a name, as WebOb does."""
        if isinstance(name, Cookie):
            self.headerlist.append(("Set-Cookie", name.deletion().header_value))
        else:
            super().delete_cookie(name, *arguments, **attributes)


Request.ResponseClass = Response
