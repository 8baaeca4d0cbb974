"""Pages to mount in your site: where a user is logged in, how long they stay so, and whether the store works."""

from prism_wsgi.pages.devices import DevicesPage
from prism_wsgi.pages.health import HealthCheck
from prism_wsgi.pages.texts import plural
from prism_wsgi.pages.time_left import TimeLeft

__all__ = ["DevicesPage", "HealthCheck", "TimeLeft", "plural"]
