"""Mount the ready pages in Django: devices, administration, time left and health, one line each."""

import os
import secrets
import signal
import threading
from wsgiref.simple_server import make_server

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from prism_wsgi import MemoryStore, get_session

store = MemoryStore()
settings.configure(
    ALLOWED_HOSTS=["localhost"],
    INSTALLED_APPS=["prism_wsgi.django"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    PRISM_SESSION_STORE=store,
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("SESSION_SECRET") or secrets.token_urlsafe(32),
    SESSION_COOKIE_AGE=3600,
    SESSION_COOKIE_SECURE=True,
    SESSION_ENGINE="prism_wsgi.django",
)
application = get_wsgi_application()

from prism_wsgi.django.views import page_view  # noqa: E402 - Django needs its settings first
from prism_wsgi.pages import AdminPage, DevicesPage, HealthCheck, TimeLeft  # noqa: E402

FORM = """<!doctype html>
<title>Ready pages</title>
<p>You are {}.
<form method="post"><input name="user"><button>Log in</button></form>
"""


@csrf_exempt
def front(request: HttpRequest) -> HttpResponse:
    user = request.POST.get("user")
    if user in ("ada", "grace"):  # yours checks a password; with django.contrib.auth, call its login()
        request.session.prism.login(user)
    return HttpResponse(FORM.format(request.session.prism.user or "nobody"))


urlpatterns = [
    path("", front),
    path("devices", page_view(DevicesPage(login_url="/"))),
    path("admin", page_view(AdminPage(store, allow=lambda environ: get_session(environ).user == "grace"))),
    path("time-left", page_view(TimeLeft())),
    path("health", page_view(HealthCheck(store))),
]


def main() -> None:
    with make_server("localhost", int(os.environ.get("PORT", "8000")), application) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever()


if __name__ == "__main__":
    main()
