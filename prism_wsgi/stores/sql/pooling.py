"""What is known of a pooler between the store and PostgreSQL: PgBouncer, PgCat, RDS Proxy and their like."""

import logging
import re

_logger = logging.getLogger("prism_wsgi")

_REFUSED_PARAMETER = re.compile(r"unsupported startup parameter|command-line options", re.I)


class Pooling:
    """Whether a pooler gives each transaction to a server's connection of its choice.

    Then no connection has options, and nothing is prepared on the server. The setting says so, or it is found out.
    """

    def __init__(self, is_transactional: bool) -> None:
        self.is_transactional = is_transactional
        self._untold = [] if is_transactional else [True]

    def find_out(self, what: str) -> None:
        """Work without options and prepared statements from now on; say once why."""
        self.is_transactional = True
        try:
            self._untold.pop()  # one thread gets it
        except IndexError:
            return
        _logger.warning(
            "%s, as behind a pooler that shares connections by the transaction; sessions go on without start-up "
            "options and prepared statements. Set transaction_pooling=True to begin like that",
            what,
        )


def refuses_parameters(error: Exception) -> bool:
    """Tell whether an error at connecting says that a pooler does not take start-up options."""
    return _REFUSED_PARAMETER.search(str(error)) is not None
