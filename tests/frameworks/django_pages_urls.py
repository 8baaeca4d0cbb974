"""The URLs of a Django site with the ready pages."""

from django.contrib.auth import SESSION_KEY
from django.http import HttpRequest, HttpResponse
from django.urls import path

from prism_wsgi.django.views import page_view
from prism_wsgi.pages import DevicesPage, TimeLeft


def read_user(request: HttpRequest) -> HttpResponse:
    """Say who is logged in."""
    return HttpResponse(str(request.session.get(SESSION_KEY)))


urlpatterns = [
    path("devices", page_view(DevicesPage())),
    path("time-left", page_view(TimeLeft())),
    path("read-user", read_user),
]
