"""The rendering of pages: Jinja2's templates with a page's sentences, and the static files."""

import hashlib
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, PrefixLoader, StrictUndefined
from markupsafe import Markup, escape

from prism_wsgi.errors import ConfigError
from prism_wsgi.pages.answers import send
from prism_wsgi.pages.clients import browser_of
from prism_wsgi.pages.texts import Text, Texts

_RIGHT_TO_LEFT = frozenset({"ar", "arc", "ckb", "dv", "fa", "he", "ks", "ps", "sd", "syr", "ug", "ur", "yi"})
_TYPES = {"css": "text/css", "js": "text/javascript"}
_YEAR = "public, max-age=31536000, immutable"


class Rendering:
    """The templates and the sentences of a page.

    `templates` is a directory, or several, that is searched before the templates of this package. A template there
    may extend the one that it replaces: `{% extends "prism_wsgi/devices.html" %}`.
    """

    def __init__(
        self,
        texts: Mapping[str, Text] | None,
        lang: str,
        templates: "str | os.PathLike[str] | list[str] | None",
    ) -> None:
        if not isinstance(lang, str) or not lang.replace("-", "").isalnum():
            raise ConfigError(f'lang must be a language tag such as "en" or "pt-BR", not {lang!r}')
        own = PackageLoader("prism_wsgi.pages")
        above = [FileSystemLoader(templates)] if templates else []
        self.texts = Texts(texts)
        self._environment = Environment(
            loader=ChoiceLoader([*above, PrefixLoader({"prism_wsgi": own}), own]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {
            "text": self._text,
            "ago": self._ago,
            "moment": _moment,
            "device": self.device,
            "lang": lang,
            "dir": "rtl" if lang.partition("-")[0].lower() in _RIGHT_TO_LEFT else "ltr",
            "stylesheet": link_to("pages.css"),
        }
        self._environment.filters["bdi"] = _bdi

    def render(self, template: str, **values: Any) -> bytes:
        """Return a page as HTML in UTF-8."""
        return self._environment.get_template(template).render(**values).encode()

    def device(self, user_agent: str | None) -> str:
        """Name a browser and its system: "Firefox on Linux"."""
        found = browser_of(user_agent or "")
        if found.name and found.system:
            return self.texts.say("browser_on_system", browser=found.name, system=found.system)
        return found.name or found.system or self.texts.say("unknown_device")

    def _text(self, name: str, **values: Any) -> Markup:
        pattern = self.texts.pattern(name)
        # Markup.format escapes the values, except those that are Markup already.
        return escape(pattern).format(**values) if isinstance(pattern, str) else escape(pattern(**values))

    def _ago(self, milliseconds: int | None, now: int) -> Markup:
        if milliseconds is None:
            return self._text("unknown")
        minutes = max(0, now - milliseconds) // 60_000
        if minutes < 1:
            said = self._text("just_now")
        elif minutes < 60:
            said = self._text("minutes_ago", count=minutes)
        elif minutes < 48 * 60:
            said = self._text("hours_ago", count=minutes // 60)
        else:
            said = self._text("days_ago", count=minutes // (24 * 60))
        at = datetime.fromtimestamp(milliseconds / 1000, UTC)
        return Markup('<time datetime="{}" title="{}">{}</time>').format(
            at.isoformat(timespec="seconds"), f"{at:%Y-%m-%d %H:%M} UTC", said
        )


def link_to(name: str) -> str:
    """Return the relative link to a file that each page serves: a query, so that it works under any prefix."""
    return f"?file={name}&v={hashlib.sha256(_content(name)).hexdigest()[:12]}"


def send_file(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes] | None:
    """Serve one of the pages' static files; None if the request asks for none of them."""
    name = environ.get("QUERY_STRING", "").partition("&")[0].removeprefix("file=")
    if name not in ("pages.css", "time_left.js") or environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return None
    content_type = f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8"
    # A link without the content's hash, in a site's template say, is cached for an hour only.
    is_pinned = f"?{environ['QUERY_STRING']}" == link_to(name)
    cache_control = _YEAR if is_pinned else "public, max-age=3600"
    return send(environ, start_response, _content(name), content_type, cache_control=cache_control)


@cache
def _content(name: str) -> bytes:
    return (files("prism_wsgi.pages") / "static" / name).read_bytes()


def _moment(milliseconds: int) -> Markup:
    """Show a moment in UTC; the heading above it names the time zone."""
    at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(timespec="seconds"), f"{at:%Y-%m-%d %H:%M}")


def _bdi(value: object) -> Markup:
    """Isolate a visitor's text, which may run in another direction than the sentence around it."""
    return Markup("<bdi>{}</bdi>").format(value)
