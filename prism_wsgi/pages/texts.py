"""The sentences of the pages in English, which a site can replace."""

from collections.abc import Callable, Mapping
from typing import Any

from prism_wsgi.errors import ConfigError

Text = str | Callable[..., str]
"""A sentence with the names of its values in braces, or a function of these values that returns one."""


def plural(one: str, many: str) -> Callable[..., str]:
    """Return a sentence that has another form if `count` is 1."""

    def sentence(**values: Any) -> str:
        return (one if values["count"] == 1 else many).format(**values)

    return sentence


ENGLISH: Mapping[str, Text] = {
    "just_now": "just now",
    "minutes_ago": plural("{count} minute ago", "{count} minutes ago"),
    "hours_ago": plural("{count} hour ago", "{count} hours ago"),
    "days_ago": plural("{count} day ago", "{count} days ago"),
    "unknown": "unknown",
    "browser_on_system": "{browser} on {system}",
    "unknown_device": "Unknown device",
    "form_out_of_date": "Nothing was changed, because this form is out of date. Please try again.",
    # DevicesPage
    "devices_title": "Where you are logged in",
    "devices_lead": "These devices are logged in as {user}. Log out those that you do not know or no longer use.",
    "this_device": "This device",
    "an_administrator": "An administrator, who sees the site as you do",
    "as_another_user": "You, seeing the site as {user}",
    "address": "Address",
    "last_used": "Last used",
    "logged_in_at": "Logged in",
    "no_client_recorded": "This site does not record browsers and addresses.",
    "log_out_device": "Log out",
    "log_out_others": "Log out all other devices",
    "no_other_devices": "You are logged in nowhere else.",
    "more_devices": plural("{count} more device is not shown.", "{count} more devices are not shown."),
    "login_needed": "To log out other devices, log in again first.",
    "log_in_again": "Log in again",
    "is_impersonated": "You see this page as an administrator. Only the users themselves can log out their devices.",
    "device_ended": "The device is logged out.",
    "device_unknown": "That device was not logged in any more.",
    "devices_ended": plural("{count} other device is logged out.", "{count} other devices are logged out."),
    # AdminPage
    "admin_title": "Sessions",
    "store_works": "The store can be read and written to.",
    "store_is_read": "The store can be read. It cannot prove that it takes writes.",
    "store_fails": "The store does not answer ({error}). The log says more.",
    "search": "Search",
    "by_user": "Sessions of a user",
    "by_id": "One session, by its id",
    "show": "Show",
    "browse": "Browse all sessions, the oldest first",
    "overview": "Overview",
    "how_many": "How many",
    "live_sessions": "Live sessions",
    "exactly": "{count}, counted now",
    "about": "About {count}, as the store estimates; expired ones may be among them",
    "not_counted": "This store cannot count its sessions cheaply.",
    "oldest_session": "The oldest began",
    "by_age": "Live sessions by age",
    "age": "Age",
    "sessions": "Sessions",
    "under_an_hour": "Under an hour",
    "under_a_day": "Under a day",
    "under_a_week": "Under 7 days",
    "under_a_month": "Under 30 days",
    "older": "Older",
    "too_many_for_ages": "There are too many sessions to sort them by age here; prism-wsgi stats does it.",
    "logins_an_hour": "Logins an hour",
    "hour": "Hour (UTC)",
    "logins": "Logins",
    "logouts": "Logouts",
    "revocations": "Revocations",
    "no_logins": "The audit trail has no events of the last 24 hours. It needs an AuditTrail among the observers.",
    "no_trail": "This store keeps no audit trail.",
    "newest_only": "Only the newest {count} events are counted.",
    "sweeps": "The last sweeps",
    "began": "Began",
    "took": "Seconds",
    "deleted": "Deleted",
    "outcome": "Outcome",
    "host": "Host",
    "no_sweeps": "No sweep has been recorded. Without one, expired sessions stay in the database.",
    "no_sweeper": "This store forgets expired sessions by itself, or keeps no record of its sweeps.",
    "cannot_list": "This store cannot list these sessions cheaply.",
    "nothing_found": "No live session was found.",
    "found_for": "Sessions of {user}",
    "found_id": "Session {id}",
    "all_sessions": "All sessions, the oldest first",
    "user": "User",
    "nobody": "Nobody",
    "by_actor": "(by {actor})",
    "browser": "Browser",
    "began_at": "Began",
    "session_id": "Id",
    "end": "End",
    "this_is_yours": "Yours",
    "end_user": "End all of this user's sessions",
    "more": "More",
    "back": "Back to the overview",
    "end_everything": "End all sessions",
    "end_everything_lead": "Everybody but you is logged out, and what visitors have in their sessions is lost.",
    "end_everything_sure": "Yes, end all sessions but mine",
    "ended": plural("{count} session has ended.", "{count} sessions have ended."),
    "ended_in_part": "{count} sessions have ended, and there are more. Do it again for the others.",
    "not_live": "That session was not live any more.",
    "not_sure": "Nothing was ended, because you have not ticked the box.",
    # TimeLeft
    "time_is_short": plural(
        "You will be logged out in {count} minute, unless you go on.",
        "You will be logged out in {count} minutes, unless you go on.",
    ),
    "time_is_final": plural(
        "You will be logged out in {count} minute. Save your work.",
        "You will be logged out in {count} minutes. Save your work.",
    ),
    "time_is_over": "You are logged out.",
    "stay": "Stay logged in",
}


class Texts:
    """The sentences of a page: the English ones, and those with which the site replaces them.

    Raises ConfigError for a sentence that no page has.
    """

    def __init__(self, given: Mapping[str, Text] | None) -> None:
        given = given or {}
        if unknown := given.keys() - ENGLISH.keys():
            raise ConfigError(
                f"texts has {', '.join(sorted(map(repr, unknown)))}, which no page shows; "
                "prism_wsgi.pages.texts.ENGLISH has all names"
            )
        self._texts = {**ENGLISH, **given}

    def pattern(self, name: str) -> Text:
        """Return a sentence as it was given."""
        return self._texts[name]

    def say(self, name: str, **values: Any) -> str:
        """Return a sentence with these values put into it; plain text."""
        text = self._texts[name]
        return text.format(**values) if isinstance(text, str) else text(**values)
