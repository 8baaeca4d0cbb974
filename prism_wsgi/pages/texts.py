"""The sentences of the pages, in English, and how a site puts others in their place."""

from collections.abc import Callable, Mapping
from typing import Any

from prism_wsgi.errors import ConfigError

Text = str | Callable[..., str]
"""A sentence, with the names of what is put into it in braces; or a function of these that returns one."""


def plural(one: str, many: str) -> Callable[..., str]:
    """Return the text of a sentence that has another form where `count` is 1."""

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
    """The sentences of a page: the English ones, and those that the site gives in their place.

    Raises ConfigError for a sentence that no page has.
    """

    def __init__(self, given: Mapping[str, Text] | None) -> None:
        given = given or {}
        if unknown := given.keys() - ENGLISH.keys():
            raise ConfigError(
                f"texts has {', '.join(sorted(map(repr, unknown)))}, which no page shows; "
                "prism_wsgi.pages.texts.ENGLISH has the names there are"
            )
        self._texts = {**ENGLISH, **given}

    def pattern(self, name: str) -> Text:
        """Return a sentence as it was given."""
        return self._texts[name]

    def say(self, name: str, **values: Any) -> str:
        """Return a sentence with these values put into it; plain text."""
        text = self._texts[name]
        return text.format(**values) if isinstance(text, str) else text(**values)
