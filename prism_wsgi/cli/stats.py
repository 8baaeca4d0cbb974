"""`prism-wsgi stats`: the number, age and size of the stored sessions."""

from dataclasses import asdict
from json import dumps

import click

from prism_wsgi.cli.options import json_option, open_store, store_options
from prism_wsgi.cli.text import instant, size, span
from prism_wsgi.clock import system_clock
from prism_wsgi.stores.base import StoreStats

AGES = ("under_1_hour", "under_1_day", "under_7_days", "under_30_days", "older")
BAR_WIDTH = 30


@click.command
@store_options
@json_option
def stats(url: str, table_name: str | None, json: bool) -> None:
    """Count the sessions; reads all of them.

    "saved once" counts live sessions that were not changed after their first save. The age is the time since a
    session began. The lag is the time since the oldest of the expired sessions expired: the sweeper's delay.
    """
    with open_store(url, table_name) as store:
        counted = store.stats()
    lag_ms = None if counted.oldest_expired is None else max(0, system_clock() * 1000 - counted.oldest_expired)
    click.echo(_as_json(counted, lag_ms) if json else _as_text(counted, lag_ms))


def _as_json(counted: StoreStats, lag_ms: float | None) -> str:
    return dumps(
        asdict(counted)
        | {
            "anonymous": counted.live - counted.logged_in,
            "oldest_expired": None if counted.oldest_expired is None else instant(counted.oldest_expired),
            "lag_seconds": None if lag_ms is None else round(lag_ms / 1000),
            "ages": dict(zip(AGES, counted.ages, strict=True)),
        }
    )


def _as_text(counted: StoreStats, lag_ms: float | None) -> str:
    waiting = ""
    if counted.oldest_expired is not None and lag_ms is not None:
        waiting = f", the oldest at {instant(counted.oldest_expired)} (lag {span(lag_ms)})"
    counts = {
        "live": str(counted.live),
        "  logged in": str(counted.logged_in),
        "  anonymous": str(counted.live - counted.logged_in),
        "  saved once": str(counted.saved_once),
        "superseded": str(counted.superseded),
        "expired": f"{counted.expired}{waiting}",
        "data": size(counted.data_bytes),
        "  largest": size(counted.largest),
        "live, by age": "",
    }
    most = max(counted.ages)
    for age, count in zip(AGES, counted.ages, strict=True):
        bar = "#" * -(-BAR_WIDTH * count // most) if most else ""
        counts[f"  {age.replace('_', ' ')}"] = f"{count:<9} {bar}"
    return "\n".join(f"{name:<17}{count}".rstrip() for name, count in counts.items())
