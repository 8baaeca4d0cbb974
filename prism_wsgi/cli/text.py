"""The text of the command line: instants, spans of time, sizes, errors, and safe text from other sources."""

from datetime import UTC, datetime, timedelta

from prism_wsgi.errors import ClocksDiffer, PrismError, SchemaMissing, StoreError


def instant(milliseconds: int) -> str:
    """Return a moment, given in Unix milliseconds, in UTC to the second (RFC 3339).

    A moment outside the years 1 to 9999, which another program may have stored, is returned in Unix seconds.
    """
    try:
        moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{milliseconds // 1000} s since 1970"
    return moment.isoformat().replace("+00:00", "Z")


def span(milliseconds: float) -> str:
    """Return a length of time to the second: `1 day, 2:03:04`."""
    return str(timedelta(seconds=int(milliseconds / 1000)))


def size(count: int) -> str:
    """Return a number of bytes in the largest unit that leaves it at 1 or more."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def batches(count: int) -> str:
    """Return a number of batches."""
    return f"{count} batch" if count == 1 else f"{count} batches"


def one_line(text: str) -> str:
    """Return text on one line and without control characters, which a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(text.split()))


def explain(error: PrismError) -> str:
    """Return an error as one line that ends with advice."""
    line = one_line(str(error))
    if isinstance(error, StoreError) and not isinstance(error, SchemaMissing | ClocksDiffer):
        return f"{line}; check --url, and that the database is up: `prism-wsgi doctor`"
    return line
