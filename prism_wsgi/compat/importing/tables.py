"""The rows of another package's table, a batch at a time."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from sqlalchemy import Engine, NullPool, column, select, table
from sqlalchemy.exc import SQLAlchemyError

from prism_wsgi.errors import ConfigError
from prism_wsgi.stores.sql.database import make_engine, parse_url, place
from prism_wsgi.stores.sql.failures import advice

BATCH = 500


def read_rows(url: str, table_name: str, columns: Sequence[str], order: str) -> Iterator[dict[str, Any]]:
    """Yield each row, in the order of a unique column; `table_name` may begin with a schema and a dot.

    Each batch is a short transaction, which begins where the one before ended, so sessions may come and go meanwhile.
    Raises ConfigError when the database or the table cannot be read.
    """
    address = parse_url(url)
    engine = make_engine(address, poolclass=NullPool)
    schema, _, name = table_name.rpartition(".")
    # Without types: a value that SQLAlchemy cannot read would end the import, and a PickleType would be unpickled.
    peers_table = table(name, *(column(one) for one in columns), schema=schema or None)
    key = peers_table.c[order]
    last: Any = None
    try:
        while True:
            query = select(peers_table).order_by(key).limit(BATCH)
            found = _fetch(engine, query if last is None else query.where(key > last))
            yield from found
            if len(found) < BATCH:
                return
            last = found[-1][order]
    except (SQLAlchemyError, RuntimeError) as error:  # PyMySQL raises the latter where cryptography is missing
        reason = getattr(error, "orig", None) or error
        raise ConfigError(
            f"The table {table_name} in {place(address)} cannot be read: {reason}; check --from and --table"
            f"{advice(reason)}"
        ) from error


def _fetch(engine: Engine, query: Any) -> list[dict[str, Any]]:
    with closing(engine.connect()) as connection:
        return [dict(zip(row._fields, row, strict=True)) for row in connection.execute(query)]
