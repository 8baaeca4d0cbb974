"""The servers that the URL of a RedisStore names, and opening a connection to one of them."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from prism_wsgi.errors import ConfigError

Address = tuple[str, int]

SENTINEL_PORT, SERVER_PORT = 26379, 6379

_SEVERAL = re.compile(
    r"(?P<scheme>rediss?)\+(?P<kind>sentinel|cluster)://(?:(?P<user>.*)@)?(?P<hosts>[^/@]*)/?(?P<path>.*)"
)
_HOST = re.compile(r"(\[[^]]+\]|[^:\[\]]+)(?::(\d{1,5}))?")
_OF_THE_SERVER_ONLY = ("db", "username", "password", "client_name")
_RULE = (
    "url_or_client must be a URL such as redis://localhost:6379/0, rediss://..., unix://..., "
    "redis+sentinel://host,host2/service or redis+cluster://host,host2; percent-encode special characters in the "
    "password"
)


class Kind(Enum):
    """The arrangement of the servers that a URL names."""

    ONE = "one server"
    SENTINEL = "a master with replicas, watched by sentinels"
    CLUSTER = "masters that share the keys"


class Dial:
    """The settings of a URL for connecting; the address may come from elsewhere."""

    def __init__(self, url: str, timeout: float) -> None:
        try:
            pool = redis.ConnectionPool.from_url(
                url,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 0),  # after a blind retry, our save would look like another request's
                protocol=2,
                decode_responses=False,
            )
            self.settings: dict[str, Any] = pool.connection_kwargs
            self._connection_class: Any = pool.connection_class
            self._connection_class(**self.settings)
        except (ValueError, TypeError):
            # Not chained: the message may quote the password in the URL.
            raise ConfigError(_RULE) from None

    def connect(self, address: Address | None = None, seconds: float | None = None) -> Any:
        """Return a redis-py connection to this address; each of its waits takes at most `seconds`."""
        settings = self.settings
        if address is not None:
            settings = {**settings, "host": address[0], "port": address[1]}
        if seconds is not None:
            settings = {**settings, "socket_timeout": seconds, "socket_connect_timeout": seconds}
        connection = self._connection_class(**settings)
        connection.connect()
        return connection


def ask(connection: Any, *words: str) -> Any:
    """Return the answer to one command, on a connection that serves only this purpose."""
    connection.send_packed_command(connection.pack_commands([words]))
    return connection.read_response()


@dataclass(frozen=True)
class Target:
    """The servers that a URL names. `addresses` are those of the sentinels, or of some nodes of the cluster."""

    kind: Kind
    dial: Dial
    place: str
    addresses: tuple[Address, ...] = ()
    service: str = ""
    sentinel_dial: Dial | None = None


def target_of(url: str, timeout: float) -> Target:
    """Return the servers that the URL names. Raises ConfigError for a wrong URL, without showing its password."""
    url = re.sub(r"^valkey(?=s?(\+\w+)?://)", "redis", url)
    place, _, query = url.rpartition("?") if "?" in url else (url, "", "")
    several = _SEVERAL.fullmatch(place)
    if several is None:
        dial = Dial(url, timeout)
        return Target(Kind.ONE, dial, place_of(dial.settings))
    kind, scheme = Kind[several["kind"].upper()], several["scheme"]
    addresses = _addresses(several["hosts"], SENTINEL_PORT if kind is Kind.SENTINEL else SERVER_PORT)
    service, database = "", several["path"]
    if kind is Kind.SENTINEL:
        service, _, database = several["path"].partition("/")
        if not service:
            raise ConfigError(
                "the URL of a Sentinel must name the service that the sentinels watch, as in "
                "redis+sentinel://host,host2/service"
            )
    if database and not database.isdecimal():
        raise ConfigError(_RULE)
    options = parse_qsl(query, keep_blank_values=True)
    own = [(name, value) for name, value in options if not name.startswith("sentinel_")]
    user = "" if several["user"] is None else f"{several['user']}@"
    dial = Dial(f"{scheme}://{user}localhost/{database or 0}?{urlencode(own)}", timeout)
    names = ", ".join(f"{host}:{port}" for host, port in addresses)
    if kind is Kind.CLUSTER:
        return Target(kind, dial, f"cluster {names}", addresses)
    shared = [(name, value) for name, value in own if name not in _OF_THE_SERVER_ONLY]
    theirs = [(name.removeprefix("sentinel_"), value) for name, value in options if name.startswith("sentinel_")]
    sentinel_dial = Dial(f"{scheme}://localhost?{urlencode(shared + theirs)}", timeout)
    return Target(kind, dial, f"{service} of sentinel {names}", addresses, unquote(service), sentinel_dial)


def place_of(settings: dict[str, Any], service: str | None = None) -> str:
    """Return the address of a server, without the password."""
    address = service or settings.get("path") or f"{settings.get('host', 'localhost')}:{settings.get('port', 6379)}"
    return f"{address}/{settings.get('db', 0)}"


def _addresses(hosts: str, port: int) -> tuple[Address, ...]:
    found = [_HOST.fullmatch(one) for one in hosts.split(",")]
    addresses = [(one[1].strip("[]"), int(one[2] or port)) for one in found if one is not None]
    if len(addresses) < len(found) or not all(0 < number < 2**16 for _, number in addresses):
        raise ConfigError(_RULE)
    return tuple(addresses)
