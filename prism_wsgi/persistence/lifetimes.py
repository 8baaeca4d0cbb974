"""The arithmetic of lifetimes: when a session expires, idle or absolute, and when its use is recorded."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """The configured lifetimes, in seconds. Moments are Unix milliseconds.

    `ttl` is the idle lifetime, `max_lifetime` the absolute one (None for no end), `touch_interval` how often the use
    of a session is recorded. A session may have chosen a `ttl` or `max_lifetime` for itself.
    """

    ttl: int
    max_lifetime: int | None
    touch_interval: float

    def expiry(self, now: int, began: int, ttl: int, max_lifetime: int | None) -> int:
        """Return when a session that is used `now` expires; never past the end of its absolute lifetime."""
        return self.capped(now + ttl * 1000, began, max_lifetime)

    def capped(self, expires_at: int, began: int, max_lifetime: int | None = None) -> int:
        """Return an expiry, brought forward to the end of the absolute lifetime where that is sooner.

        `began` is when the absolute lifetime began: at the last proof of who the user is, or with the session.
        """
        longest = self.max_lifetime if max_lifetime is None else max_lifetime
        return expires_at if longest is None else min(expires_at, began + longest * 1000)

    def is_touch_due(self, now: int, refreshed: int, ttl: int) -> bool:
        """Tell whether use last recorded at the Unix second `refreshed` should be recorded again."""
        return now - refreshed * 1000 >= self._interval_ms(ttl)

    def touched(self, expires_at: int, moved: int, ttl: int) -> int | None:
        """Return the expiry to record where use moves it from `expires_at` to `moved`, None if it is too early.

        The expiry is rounded down to a whole step, so that requests racing to record the same use write it once.
        """
        interval = self._interval_ms(ttl)
        moved -= moved % max(1, min(1000, int(interval)))
        return None if moved - expires_at < interval else moved

    def _interval_ms(self, ttl: int) -> float:
        # A session with a shorter ttl must be touched more often, or it would end while it is used.
        interval = self.touch_interval * 1000
        return interval if ttl >= self.ttl else interval * ttl / self.ttl
