"""Pages to mount in your site: a user's devices, the time left, administration, and the store's health."""

from prism_wsgi.pages.admin import AdminPage
from prism_wsgi.pages.devices import DevicesPage
from prism_wsgi.pages.health import HealthCheck
from prism_wsgi.pages.texts import plural
from prism_wsgi.pages.time_left import TimeLeft

__all__ = ["AdminPage", "DevicesPage", "HealthCheck", "TimeLeft", "plural"]
