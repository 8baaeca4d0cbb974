"""The transaction around a batch of a sweep."""

from typing import Any, cast

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError, PendingRollbackError

from prism_wsgi.stores.sql.sweeping import _transaction


class ConnectionLostAtCommit:
    """A connection that breaks at COMMIT, and for which SQLAlchemy then refuses every statement."""

    def execute(self, statement: Any) -> None:
        if str(statement) == "COMMIT":
            raise OperationalError("COMMIT", {}, ConnectionError("lost"))
        if str(statement) == "ROLLBACK":
            raise PendingRollbackError("Can't reconnect until invalid transaction is rolled back")


def test_a_connection_that_is_lost_at_the_commit_raises_the_error_of_the_driver() -> None:
    with pytest.raises(OperationalError), _transaction(cast(Connection, ConnectionLostAtCommit())):
        pass
