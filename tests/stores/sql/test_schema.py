"""`SQLAlchemyStore(url, schema=...)`: a table that the search path of PostgreSQL does not lead to."""

from sqlalchemy import make_url

from prism_wsgi import SQLAlchemyStore, migrate
from prism_wsgi.stores.base import StoredEvent
from prism_wsgi.testing import new_session


def test_each_table_of_the_store_is_found_in_the_schema(postgresql_url: str) -> None:
    migrate.upgrade(postgresql_url)
    url = make_url(postgresql_url)
    schema = str(url.query["options"]).partition("search_path=")[2]
    elsewhere = url.difference_update_query(["options"])
    store = SQLAlchemyStore(elsewhere, schema=schema)
    try:
        session = new_session()
        store.save(session)
        assert store.load(session.id) is not None
        store.add_event(StoredEvent(timestamp=1, kind="started", user="ada"))
        assert [event.kind for event in store.find_events(user="ada")] == ["started"]
        assert store.last_sweeps() == []
    finally:
        store.close()
