"""The pooler between the store and PostgreSQL, if there is one: PgBouncer, PgCat, RDS Proxy and the like."""

import logging
import re

_logger = logging.getLogger("prism_wsgi")

_REFUSED_PARAMETER = re.compile(r"unsupported startup parameter|command-line options", re.I)


class Pooling:
    """The knowledge whether a pooler gives each transaction another connection of the server.

    If it does, connections have no start-up options, and nothing is prepared on the server. The setting
    `transaction_pooling` says so, or the store finds out.
    """

    def __init__(self, is_transactional: bool) -> None:
        self.is_transactional = is_transactional
        self._untold = [] if is_transactional else [True]

    def find_out(self, what: str) -> None:
        """Work without options and prepared statements from now on; log the reason once."""
        self.is_transactional = True
        try:
            self._untold.pop()  # one thread gets it
        except IndexError:
            return
        _logger.warning(
            "%s: there seems to be a pooler that shares connections by the transaction. The store works without "
            "start-up options and prepared statements from now on; set transaction_pooling=True to begin so",
            what,
        )


def refuses_parameters(error: Exception) -> bool:
    """Tell whether an error at connecting says that a pooler refuses start-up options."""
    return _REFUSED_PARAMETER.search(str(error)) is not None
