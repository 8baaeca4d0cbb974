"""Beaker: sessions in memory and, through SQLAlchemy, in a table.

Its best documented settings: the access time is not saved (it would be written by every read), JSON instead of
pickle, saved by hand where something changed.
"""

import tempfile
from typing import Any

from beaker.ext.sqla import SqlaNamespaceManager, make_cache_table
from beaker.middleware import SessionMiddleware
from sqlalchemy import MetaData, create_engine, event

from benchmarks.machine.databases import Places, set_sqlite_pragmas
from benchmarks.subjects.scenarios import (
    ACTIONS,
    Action,
    bare_application,
    fill,
    fill_large,
    plain_application,
    write,
)
from benchmarks.subjects.subject import SECRET, Subject


def subjects(places: Places) -> list[Subject]:
    """Return Beaker on memory and on each SQL engine."""
    found = []
    for engine in ("memory", "sqlite", "postgresql", "mariadb"):
        if engine in places:
            application = SessionMiddleware(
                plain_application("beaker.session", ACTIONS_OF_BEAKER),
                secret=SECRET,
                save_accessed_time=False,
                data_serializer="json",
                **({"type": "memory"} if engine == "memory" else _table(places[engine])),
            )
            found.append(Subject("Beaker", engine, application, bare_application))
    return found


def _table(place: str) -> dict[str, Any]:
    engine = create_engine(place)
    event.listen(engine, "connect", set_sqlite_pragmas)
    SqlaNamespaceManager._init_dependencies()
    table = make_cache_table(MetaData(), "beaker_sessions")
    table.create(engine, checkfirst=True)
    return {"type": "ext:sqla", "bind": engine, "table": table, "lock_dir": tempfile.gettempdir()}


def _saved(action: Action) -> Action:
    def act(session: Any) -> bytes:
        body = action(session)
        session.save()
        return body

    return act


def _login(session: Any) -> bytes:
    session.regenerate_id()
    session["user"] = "alice"
    session.save()
    return b"ok"


ACTIONS_OF_BEAKER = {
    **ACTIONS,
    "/write": _saved(write),
    "/fill": _saved(fill),
    "/fill_large": _saved(fill_large),
    "/login": _login,
}
