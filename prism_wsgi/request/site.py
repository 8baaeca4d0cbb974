"""The site: the configuration that all requests to an application share."""

from collections.abc import Callable
from dataclasses import dataclass
from wsgiref.types import WSGIEnvironment

from prism_wsgi.clock import Clock, milliseconds
from prism_wsgi.events import Events
from prism_wsgi.persistence.adapter import StoreAdapter
from prism_wsgi.persistence.document import Codec
from prism_wsgi.persistence.lifetimes import Lifetimes
from prism_wsgi.request.cookie_policy import CookiePolicy

CSRF_KEY = "_csrft_"
"""The key of a session's CSRF token; Pyramid's name."""


@dataclass(frozen=True, slots=True)
class Site:
    """The settings of one SessionMiddleware, validated and ready for use; SessionMiddleware explains them.

    `csrf_keys` are the keys of the CSRF tokens in a session, which a login drops.
    """

    cookies: CookiePolicy
    lifetimes: Lifetimes
    codec: Codec
    adapter: StoreAdapter
    events: Events
    clock: Clock
    persistent: bool = True
    offers_cookie: bool = True
    answers_503: bool = True
    save_on_error: bool = False
    record_client: bool = False
    client_address: Callable[[WSGIEnvironment], str] | None = None
    is_passive: Callable[[WSGIEnvironment], bool] | None = None
    user_id_key: str | None = None
    max_sessions_per_user: int | None = None
    csrf_keys: tuple[str, ...] = (CSRF_KEY,)
    environ_key: str = "prism.session"
    id_key: str = "prism.session_id"

    def now(self) -> int:
        """Return the current time in Unix milliseconds."""
        return milliseconds(self.clock)
