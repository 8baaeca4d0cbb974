"""The shop: a basket and a login, all in the session."""

from typing import Any, NamedTuple

from prism_wsgi.http import Request
from prism_wsgi.session import Session

MAX_NAME = 40
MOST_OF_ONE = 9
HOUR = 3600  # seconds
DAY = 24 * HOUR


class Article(NamedTuple):
    """Something that the shop sells; the price is in euros."""

    key: str
    name: str
    price: int


ARTICLES = [
    Article("prism", "Prism", 12),
    Article("lens", "Lens", 8),
    Article("mirror", "Mirror", 15),
    Article("lantern", "Lantern", 24),
    Article("sundial", "Sundial", 30),
    Article("rainbow", "Rainbow", 5),
]


def show(request: Request) -> dict[str, Any]:
    """Return what the shop's page shows."""
    session = request.session
    quantities = {article: session.get(f"basket.{article.key}", 0) for article in ARTICLES}
    basket = [(article, quantity) for article, quantity in quantities.items() if quantity]
    total = sum(article.price * quantity for article, quantity in basket)
    visits = count_visit(session)
    return {"articles": ARTICLES, "basket": basket, "total": total, "visits": visits, "max_name": MAX_NAME}


def count_visit(session: Session) -> int:
    """Count a visit, also where two tabs are opened at the same moment."""
    with session.atomic():
        visits: int = session.get("visits", 0) + 1
        session["visits"] = visits
    return visits


def add(request: Request) -> str:
    """Put an article into the basket."""
    session = request.session
    key = f"basket.{article_of(request).key}"
    with session.atomic():  # two clicks at once count as two
        session[key] = min(session.get(key, 0) + 1, MOST_OF_ONE)
    return f"Added. The basket takes {MOST_OF_ONE} of each."


def empty(request: Request) -> str:
    """Take everything out of the basket."""
    for article in ARTICLES:
        request.session.pop(f"basket.{article.key}", None)
    return "The basket is empty."


def log_in(request: Request) -> str:
    """Log in under any name. A real shop checks a password here."""
    name = field(request, "name").strip()
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        return f"A name has 1 to {MAX_NAME} printable characters."
    stay: dict[str, Any] = {
        "browser": {"ttl": HOUR, "persistent": False},
        "remember": {"ttl": 30 * DAY, "persistent": True},
        "short": {"ttl": 90, "persistent": False},
    }[field(request, "stay")]
    request.session.login(name, **stay)
    return f"Welcome, {name}. The session has a new id, and the same basket."


def log_out(request: Request) -> str:
    """End the session, basket and all."""
    request.session.logout()
    return "Logged out. The old session is deleted, and this is a new one."


def log_out_elsewhere(request: Request) -> str:
    """End the user's sessions on all other devices."""
    if request.session.user is None:
        return "Log in first."
    return f"Other sessions that have ended: {request.session.logout_elsewhere()}"


def article_of(request: Request) -> Article:
    """Return the article that a form names. Raises KeyError for what the shop does not sell."""
    return {article.key: article for article in ARTICLES}[field(request, "article")]


def field(request: Request, name: str) -> str:
    """Return what a field of the form says. Raises KeyError where the form has none of that name."""
    value = request.POST.get(name)
    if not isinstance(value, str):  # a file
        raise KeyError(name)
    return value
