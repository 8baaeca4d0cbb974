"""A primary of the tests' own with a standby that has all that was acknowledged, and can be promoted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url

from tests.support.own_servers import (
    POSTGRESQL_PROGRAMS,
    OwnServer,
    folder_for,
    mariadb_at,
    own_mariadb,
    own_postgresql,
    postgresql_at,
    programs,
    run,
    running,
    user_for,
)


@dataclass
class Pair:
    """`primary` takes writes, `standby` only reads; after `promote()` it takes writes as well."""

    primary: OwnServer
    standby: OwnServer
    promote: Callable[[], object]


@contextmanager
def own_postgresql_pair() -> Iterator[Pair]:
    """Yield a PostgreSQL primary whose commits wait for its standby's disk."""
    (install,) = programs("postgresql", "initdb", also=POSTGRESQL_PROGRAMS)
    copy = str(Path(install).with_name("pg_basebackup"))  # what Debian has in PATH is a wrapper
    user = user_for("postgresql", "postgres")
    with own_postgresql() as primary, folder_for(user) as folder:
        primary_url = make_url(primary.url)
        place = ["-h", "127.0.0.1", "-p", str(primary_url.port), "-U", "root", "-D", str(folder / "data")]
        run([copy, *place, "--write-recovery-conf", "--checkpoint=fast", "--no-sync"], user)
        with running(postgresql_at(folder, user)) as standby:
            primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
            yield Pair(primary, standby, lambda: standby.execute("SELECT pg_promote()"))


@contextmanager
def own_mariadb_pair() -> Iterator[Pair]:
    """Yield a MariaDB primary whose commits wait until its replica has heard of them."""
    user = user_for("mariadb", "mysql")
    with own_mariadb("--server-id=1", "--log-bin") as primary, folder_for(user) as folder:
        replica = mariadb_at(folder, user, "--server-id=2", "--read-only", "--rpl-semi-sync-slave-enabled")
        with running(replica) as standby:
            names = ("rpl_semi_sync_master_timeout = 60000", "rpl_semi_sync_master_enabled = 1")
            primary.execute(*(f"SET GLOBAL {name}" for name in names))
            place = f"master_host='127.0.0.1', master_port={make_url(primary.url).port}, master_user='root'"
            standby.execute(f"CHANGE MASTER TO {place}, master_use_gtid=slave_pos", "START SLAVE")
            yield Pair(primary, standby, lambda: _promote(standby))


def _promote(replica: OwnServer) -> None:
    # What it has heard of it has not necessarily done yet.
    heard = replica.execute("SHOW ALL SLAVES STATUS")
    position = next(column for column in heard[0] if str(column).startswith("0-1-"))
    replica.execute(f"SELECT MASTER_GTID_WAIT('{position}', 10)", "STOP SLAVE", "SET GLOBAL read_only = 0")
