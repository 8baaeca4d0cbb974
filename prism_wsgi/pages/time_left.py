"""The time that a session has left unless it is used, and a script that warns of its end."""

from collections.abc import Mapping
from wsgiref.types import StartResponse, WSGIEnvironment

from prism_wsgi.clock import Clock, system_clock
from prism_wsgi.http import Request
from prism_wsgi.pages.answers import Refused, only_get, refuse, send_json
from prism_wsgi.pages.rendering import Rendering, link_to, send_file
from prism_wsgi.pages.texts import Text


class TimeLeft:
    """A WSGI application that tells as JSON how many seconds the session has left, without counting as its use.

    `{"seconds": 290}`; null if nobody is logged in. Its script shows a warning `warn_before` seconds before the
    end, and a button that keeps the user logged in: `<script src="/time-left?file=time_left.js" defer></script>`.
    With `?stay` the request counts as use, as every other page of the site does.
    `texts`, `lang` and `clock` are those of DevicesPage.
    """

    def __init__(
        self,
        *,
        warn_before: int = 120,
        texts: Mapping[str, Text] | None = None,
        lang: str = "en",
        clock: Clock = system_clock,
    ) -> None:
        self._warn_before = warn_before
        self._rendering = Rendering(texts, lang, None)
        self._lang = lang
        self._clock = clock

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        file = send_file(environ, start_response)
        if file is not None:
            return file
        try:
            only_get(environ)
        except Refused as refused:
            return refuse(environ, start_response, refused)
        session = Request(environ).session
        session.passive = environ.get("QUERY_STRING", "") != "stay"
        seconds = None
        if session.user is not None:
            seconds = max(0, int(session.expires_at.timestamp() - self._clock()))
        say, minutes = self._rendering.texts.say, -(-(seconds or 0) // 60)
        return send_json(
            environ,
            start_response,
            {
                "seconds": seconds,
                "warn_before": self._warn_before,
                "warning": say("time_is_short", count=minutes),
                "final_warning": say("time_is_final", count=minutes),
                "over": say("time_is_over"),
                "stay": say("stay"),
                "lang": self._lang,
                "stylesheet": link_to("pages.css"),
            },
        )
