"""Sessions in SQLite, PostgreSQL, MariaDB or MySQL: everything that imports SQLAlchemy."""

from prism_wsgi.stores.sql.store import SQLAlchemyStore

__all__ = ["SQLAlchemyStore"]
