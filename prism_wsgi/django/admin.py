"""Sessions in Django's admin: listing them, finding a user's sessions, and ending them."""

from datetime import UTC, datetime
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse

from prism_wsgi.django.models import LiveSession
from prism_wsgi.django.site import configured_site
from prism_wsgi.django.state import key_identity
from prism_wsgi.pages.overview import SESSION_ID, Listed, listed, report_ended
from prism_wsgi.stores.base import IndexedStore

PAGE = 50


@admin.register(LiveSession)
class LiveSessionAdmin(admin.ModelAdmin):
    """The page of the live sessions; it needs the permissions to view them and to delete them."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False, because only a visitor can begin a session."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False, because the data in a session belongs to the visitor."""
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show a page of sessions, or end the sessions that a form names."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            if not self.has_delete_permission(request):
                raise PermissionDenied
            ended = _end(request)
            self.message_user(request, f"Sessions ended: {ended}", messages.SUCCESS if ended else messages.WARNING)
            return HttpResponseRedirect(request.get_full_path())
        user, after = request.GET.get("user", "").strip(), request.GET.get("after", "")
        found = _found(user, after if SESSION_ID.fullmatch(after) else None)
        return TemplateResponse(
            request,
            "admin/prism_wsgi/sessions.html",
            {
                **self.admin_site.each_context(request),
                **(extra_context or {}),
                "title": "Sessions",
                "opts": self.model._meta,
                "rows": None if found is None else _rows(found[:PAGE]),
                "more_after": found[PAGE - 1].id if found is not None and len(found) > PAGE else None,
                "user": user,
                "own_id": _own_id(request),
                "may_end": self.has_delete_permission(request),
            },
        )


def _found(user: str, after: str | None) -> list[Listed] | None:
    """Return one more session than a page has; None where the store cannot list them."""
    if "\0" in user:
        return []
    found = listed(configured_site().adapter.store, user=user or None, limit=PAGE + 1, after=after)
    return None if found is None else list(found)


def _rows(found: list[Listed]) -> list[dict[str, Any]]:
    """Return the page's row for each session, with the user's name instead of the key."""
    names = _names({one.user for one in found if one.user is not None})
    return [
        {
            "id": one.id,
            "user": one.user,
            "name": names.get(one.user or "", one.user),
            "created_at": _moment(one.created_at),
            "last_seen_at": _moment(getattr(one, "last_seen_at", None)),
            "expires_at": _moment(one.expires_at),
        }
        for one in found
    ]


def _names(keys: set[str]) -> dict[str, str]:
    model = get_user_model()
    valid = []
    for key in keys:
        try:
            valid.append(model._meta.pk.to_python(key))
        except ValidationError:
            continue
    return {str(pk): user.get_username() for pk, user in model._default_manager.in_bulk(valid).items()}


def _end(request: HttpRequest) -> int:
    """End the session or the user's sessions that the form names, except the administrator's own."""
    site, own = configured_site(), _own_id(request)
    store = site.adapter.store
    session_id, user = request.POST.get("end", ""), request.POST.get("end_user", "")
    if SESSION_ID.fullmatch(session_id) and session_id != own:
        row = site.adapter.live_behind(session_id)
        ended = [] if row is None else [row]
        for one in ended:
            site.adapter.end(one.id)
    elif user and "\0" not in user and isinstance(store, IndexedStore):
        ended = [one for one in site.adapter.sessions_of(user) if one.id != own]
        site.adapter.destroy_all(user, own)
    else:
        ended = []
    report_ended(site.events, ended, f"admin:{request.user.get_username()}")
    return len(ended)


def _own_id(request: HttpRequest) -> str:
    identity = key_identity(request.session.session_key)
    return "" if identity is None else identity.id


def _moment(milliseconds: int | None) -> Any:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
