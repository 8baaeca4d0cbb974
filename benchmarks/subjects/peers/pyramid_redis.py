"""pyramid_session_redis: Pyramid's sessions in Redis.

Its best documented settings: JSON instead of pickle, the time to live kept by Redis alone.
"""

import json
from typing import Any
from wsgiref.types import WSGIApplication

from pyramid.config import Configurator
from pyramid.response import Response
from pyramid_session_redis import RedisSessionFactory

from benchmarks.machine.databases import Places
from benchmarks.subjects.scenarios import ACTIONS
from benchmarks.subjects.subject import SECRET, SHORT_TTL, Subject


def subjects(places: Places) -> list[Subject]:
    """Return pyramid_session_redis, where Redis answers."""
    if "redis" not in places:
        return []
    factory = RedisSessionFactory(
        secret=SECRET,
        timeout=SHORT_TTL,
        redis_url=places["redis"].partition("?")[0],  # the prefix is not for it
        serialize=lambda session: json.dumps(session).encode(),
        deserialize=json.loads,
    )
    return [Subject("pyramid_session_redis", "redis", _application(factory), _application(None), framework="Pyramid")]


def _application(session_factory: object) -> WSGIApplication:
    with Configurator(session_factory=session_factory) as config:
        for path, action in {**ACTIONS, "/login": _login}.items():

            def view(request: Any, action: Any = action) -> Response:
                session = request.session if session_factory and request.path != "/untouched" else None
                return Response(action(session), content_type="text/plain")

            config.add_route(path, path)
            config.add_view(view, route_name=path)
        application: WSGIApplication = config.make_wsgi_app()
    return application


def _login(session: Any) -> bytes:
    kept = dict(session)
    session.invalidate()  # all that it offers; the data is carried over by hand
    session.update({**kept, "user": "alice"})
    return b"ok"
