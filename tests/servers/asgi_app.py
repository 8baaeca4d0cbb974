"""The application of the servers for ASGI: `served_app`, adapted."""

from typing import Any, cast

from a2wsgi import WSGIMiddleware

from tests.servers.served_app import application as wsgi_application

application = WSGIMiddleware(cast(Any, wsgi_application), workers=16)  # its environ is a type of its own
