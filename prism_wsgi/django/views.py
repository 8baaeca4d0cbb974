"""Views: the ready pages as views of a Django project."""

from collections.abc import Callable
from io import BytesIO
from typing import Any
from wsgiref.types import WSGIApplication

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from prism_wsgi.http import DEFAULT_ENVIRON_KEY


def page_view(page: WSGIApplication) -> Callable[[HttpRequest], HttpResponse]:
    """Return the view of a ready page: `path("devices", page_view(DevicesPage()))`.

    The page works on `request.session`. It has CSRF tokens in the session itself, so Django's check is left out.
    """

    def view(request: HttpRequest) -> Any:
        session = request.session.prism
        environ = {
            **request.META,
            "wsgi.input": BytesIO(request.body),
            DEFAULT_ENVIRON_KEY: session,
            "webob.adhoc_attrs": {"session": session},
        }
        response = HttpResponse()

        def start_response(status: str, headers: list[tuple[str, str]], *error: Any) -> Callable[[bytes], object]:
            code, _, reason = status.partition(" ")
            response.status_code = int(code)
            response.reason_phrase = reason
            for name, value in headers:
                response[name] = value
            return body.append

        body: list[bytes] = []
        body += page(environ, start_response)
        response.content = b"".join(body)
        return response

    exempt: Callable[[HttpRequest], HttpResponse] = csrf_exempt(view)
    return exempt
