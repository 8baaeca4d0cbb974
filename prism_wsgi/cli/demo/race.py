"""The races: six requests write to one session at the same moment, and a slow one writes while its user logs out.

Beside the first stands a session as most packages keep it: each request reads the whole of it and writes the whole.
"""

import time
from typing import Any

from prism_wsgi.cli.demo.shop import ARTICLES, article_of
from prism_wsgi.http import Request

written_whole: dict[str, dict[str, bool]] = {}
"""The other sessions, by the id of the visitor's; for the comparison they live as long as the demo runs."""


def show(request: Request) -> dict[str, Any]:
    """Return what the race's page shows: what both sessions have kept."""
    session = request.session
    whole = written_whole.get(session.id)  # None before a race, and where a login has given the session a new id
    return {
        "articles": ARTICLES,
        "has_run": whole is not None,
        "kept": [article for article in ARTICLES if f"race.{article.key}" in session],
        "kept_whole": [article for article in ARTICLES if article.key in (whole or {})],
    }


def clear(request: Request) -> None:
    """Begin anew."""
    written_whole.pop(request.session.id, None)
    for article in ARTICLES:
        request.session.pop(f"race.{article.key}", None)


def write(request: Request) -> None:
    """Write to both sessions; six requests do so at once."""
    session, article = request.session, article_of(request)
    whole = dict(written_whole.get(session.id, {}))
    work()
    session[f"race.{article.key}"] = True  # saves one key; what the others write stays
    whole[article.key] = True
    written_whole[session.id] = whole  # saves all; what the others wrote meanwhile is lost


def write_slowly(request: Request) -> str:
    """Write after eight seconds, in which the user may log out elsewhere."""
    session = request.session
    work(seconds=8)
    session["race.late"] = True  # dropped where the session has ended: nothing brings it back
    return "Written: nobody has ended this login meanwhile."


def work(seconds: float = 0.3) -> None:
    """Take as long as a page that asks a database or two: the other requests have read the session meanwhile."""
    time.sleep(seconds)
