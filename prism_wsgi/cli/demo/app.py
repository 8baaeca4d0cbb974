"""The application that `prism-wsgi demo` serves: visits, a login, notes and flash messages, all in the session."""

import hmac
from collections.abc import Callable, Iterable
from html import escape
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prism_wsgi.http import Request, Response
from prism_wsgi.session import Session
from prism_wsgi.stores.base import SessionStore

MAX_BODY = 16 * 1024  # bytes
MAX_NAME = 40
MAX_NOTE = 400
MAX_NOTES = 20

# Only the script of TimeLeft, nothing from elsewhere, in nobody's frame.
_POLICY = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def demo_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer one request; a WSGI application."""
    request = Request(environ)
    try:
        response = _respond(request)
    except (UnicodeError, ValueError):
        response = _text("This is no request that the demo understands", 400)
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    return response(environ, start_response)


def with_pages(app: WSGIApplication, store: SessionStore) -> WSGIApplication:
    """Return the application with the pages of `prism_wsgi.pages` beside it. Raises ImportError without them."""
    from prism_wsgi.pages import AdminPage, DevicesPage, HealthCheck, TimeLeft

    pages: dict[str, WSGIApplication] = {
        "/devices": DevicesPage(login_url="/"),
        "/admin": AdminPage(store, allow=lambda environ: True),  # noqa: ARG005, the demo is for one person
        "/time-left": TimeLeft(),
        "/health": HealthCheck(store),
    }

    def demo_with_pages(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["prism_demo.has_pages"] = True
        return pages.get(environ["PATH_INFO"], app)(environ, start_response)

    return demo_with_pages


def _respond(request: Request) -> Response:
    path = request.path_info
    if path in _PAGES and request.method in ("GET", "HEAD"):
        return _PAGES[path](request)
    if path in _ACTIONS and request.method == "POST":
        return _act(request, _ACTIONS[path])
    if path in _PAGES or path in _ACTIONS:
        return _text("The demo does not answer this method here", 405)
    return _text("The demo has no such page", 404)


def _act(request: Request, action: Callable[[Session, str], str]) -> Response:
    if (request.content_length or 0) > MAX_BODY:
        return _text("This is more than the demo takes", 413)
    session = request.session
    token, value = (request.POST.get(name, "") for name in ("csrf_token", "value"))
    if not isinstance(token, str) or not isinstance(value, str):
        return _text("The demo takes no files", 400)
    if not hmac.compare_digest(token.encode(), session.get_csrf_token().encode()):
        return _text("This form is out of date: go back, reload the page and send it again", 403)
    session.flash(action(session, value.strip()))
    # 303: the browser fetches the page anew, and reloading that repeats nothing.
    return Response(status=303, location="/")


def _home(request: Request) -> Response:
    session = request.session
    page = _page(session, _count_visit(session), has_pages="prism_demo.has_pages" in request.environ)
    return Response(page, content_type="text/html", charset="UTF-8")


def _visits(request: Request) -> Response:
    return _text(f"Visit {_count_visit(request.session)}", 200)


def _count_visit(session: Session) -> int:
    with session.atomic():
        visits: int = session.get("visits", 0) + 1
        session["visits"] = visits
    return visits


def _log_in(session: Session, name: str) -> str:
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        return f"A name has 1 to {MAX_NAME} printable characters."
    session.login(name)
    return f"Welcome, {name}. The session has a new id now, and the same contents."


def _log_out(session: Session, _: str) -> str:
    session.logout()
    return "Logged out: the old session is deleted, notes and all, and this is a new one."


def _log_out_elsewhere(session: Session, _: str) -> str:
    if session.user is None:
        return "Log in first."
    return f"Other sessions that have ended: {session.logout_elsewhere()}"


def _add_note(session: Session, note: str) -> str:
    notes = session.setdefault("notes", [])
    if not 1 <= len(note) <= MAX_NOTE:
        return f"A note has 1 to {MAX_NOTE} characters."
    if len(notes) >= MAX_NOTES:
        return f"There is room for {MAX_NOTES} notes; clear them first."
    notes.append(note)
    return "Kept."


def _clear_notes(session: Session, _: str) -> str:
    session.pop("notes", None)
    return "The notes are gone."


def _text(message: str, status: int) -> Response:
    return Response(f"{message}\n", status=status, content_type="text/plain", charset="UTF-8")


_PAGES: dict[str, Callable[[Request], Response]] = {"/": _home, "/visits": _visits}
_ACTIONS: dict[str, Callable[[Session, str], str]] = {
    "/login": _log_in,
    "/logout": _log_out,
    "/logout-elsewhere": _log_out_elsewhere,
    "/notes": _add_note,
    "/notes/clear": _clear_notes,
}


def _page(session: Session, visits: int, *, has_pages: bool) -> str:
    token = session.get_csrf_token()
    flashes = "".join(f'<p class="flash" role="status">{escape(message)}</p>' for message in session.pop_flash())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>prism_wsgi demo</title>
<style>{_STYLE}</style>
{'<script src="time-left?file=time_left.js" defer></script>' if has_pages else ""}
</head>
<body>
<main>
<header><h1>prism_wsgi</h1><p>Everything on this page is kept in your session.</p></header>
{flashes}
<section class="visits"><strong>{visits}</strong> {"visit" if visits == 1 else "visits"} in this session</section>
<section><h2>Login</h2>{_login_form(session.user, token)}</section>
<section><h2>Notes</h2>{_notes_form(session.get("notes", []), token)}</section>
{_SHOWN if has_pages else _PAGES_ARE_AN_EXTRA}
<footer>
<dl>
<dt>Session id</dt><dd><code>{session.id}</code></dd>
<dt>Began</dt><dd>{session.created_at:%Y-%m-%d %H:%M:%S} UTC</dd>
<dt>Ends, if idle</dt><dd>{session.expires_at:%Y-%m-%d %H:%M:%S} UTC</dd>
</dl>
<p>The id is no secret: no cookie can be made from it.</p>
</footer>
</main>
</body>
</html>
"""


def _login_form(user: str | None, token: str) -> str:
    if user is not None:
        return (
            f"<p>You are <strong>{escape(user)}</strong>.</p>{_form('/logout', token, '', 'Log out')}"
            f"{_form('/logout-elsewhere', token, '', 'Log out elsewhere')}"
        )
    field = f'<input name="value" aria-label="Name" placeholder="Any name" maxlength="{MAX_NAME}" required>'
    return _form("/login", token, field, "Log in")


def _notes_form(notes: list[str], token: str) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    field = f'<input name="value" aria-label="Note" placeholder="A note" maxlength="{MAX_NOTE}" required>'
    adding = _form("/notes", token, field, "Keep")
    return f"<ul>{items}</ul>{adding}{_form('/notes/clear', token, '', 'Clear')}" if notes else adding


def _form(action: str, token: str, field: str, button: str) -> str:
    return (
        f'<form method="post" action="{action}"><input type="hidden" name="csrf_token" value="{escape(token)}">'
        f"{field}<button>{button}</button></form>"
    )


_SHOWN = """<section><h2>Try</h2>
<p>Log in with the same name in a second browser, and look at <a href="devices">your devices</a>.</p>
<pre>DevicesPage(login_url="/")</pre>
<p>Log out elsewhere, and reload the other browser: it is logged out.</p>
<pre>session.logout_elsewhere()</pre>
<p>Copy the cookie prism_demo in the developer tools, log out, and put it back: it opens nothing.</p>
<pre>session.logout()</pre>
<p>Open this page in two tabs at the same moment: both visits are counted.</p>
<pre>with session.atomic(): session["visits"] += 1</pre>
<p>Look at all sessions as <a href="admin">an administrator</a> does.</p>
<pre>AdminPage(store, allow=lambda environ: True)</pre>
<p>Ask <a href="time-left">how many seconds are left</a>, which does not count as use, and
<a href="health">whether the store works</a>.</p>
<pre>TimeLeft(), HealthCheck(store)</pre>
</section>"""
_PAGES_ARE_AN_EXTRA = """<section><h2>More</h2>
<p>Users' devices and a page for administrators: <code>pip install 'prism_wsgi[pages]'</code></p></section>"""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --accent: #5b4bd6; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 40rem; margin: 0 auto; padding: 2rem 1.25rem; display: grid; gap: 1rem; }
h1 { margin: 0; color: var(--accent); } h2 { margin: 0 0 .5rem; font-size: 1rem; }
header p, footer p { margin: 0; opacity: .75; }
section { border: 1px solid var(--line); border-radius: .75rem; padding: 1rem 1.25rem; }
section p, ul { margin: 0 0 .75rem; } ul { padding-left: 1.25rem; overflow-wrap: anywhere; }
.visits strong { font-size: 2rem; margin-right: .25rem; }
.flash { margin: 0; border-left: .25rem solid var(--accent); padding: .5rem 1rem; background: #5b4bd61a; }
form { display: flex; gap: .5rem; } form + form { margin-top: .5rem; }
input { flex: 1; min-width: 0; } input, button { font: inherit; padding: .4rem .75rem; border-radius: .5rem; }
input { border: 1px solid var(--line); }
button { border: 0; background: var(--accent); color: white; cursor: pointer; }
pre { margin: .1rem 0 .5rem; white-space: pre-wrap; opacity: .75; }
footer { font-size: .85rem; } dl { display: grid; grid-template-columns: auto 1fr; gap: 0 1rem; margin: 0 0 .5rem; }
dd { margin: 0; overflow-wrap: anywhere; }
"""
