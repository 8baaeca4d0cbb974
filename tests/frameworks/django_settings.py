"""Django's settings for the tests of this process: they can be set once, and each test overrides what it is about."""

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path

ADMIN_MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]


def configure_django() -> None:
    """Set up Django with its users, its admin and our application, unless that was done."""
    if settings.configured:
        return
    settings.configure(
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="a key of the tests, which signs nothing that lasts",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "prism_wsgi.django",
        ],
        LOGGING_CONFIG=None,
        MIDDLEWARE=[],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        ROOT_URLCONF="tests.frameworks.django_settings",
        SESSION_ENGINE="prism_wsgi.django",
        PRISM_SESSION_STORE="memory",
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        USE_TZ=True,
    )
    django.setup()


def visits(request: HttpRequest) -> HttpResponse:
    """Count the visits of a session."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(str(request.session["visits"]))


def read(request: HttpRequest) -> HttpResponse:
    """Read the session only."""
    return HttpResponse(str(request.session.get("visits")))


urlpatterns = [path("visits", visits), path("read", read)]
