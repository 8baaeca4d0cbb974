"""The parts of the documentation that come from the code: references of settings and commands, readable docstrings.

A setting's type and default are the signature's, its meaning is the docstring's, and its rule is the sentence that
SessionMiddleware answers a wrong value with. A setting that lacks one of them fails the build.
"""

import inspect
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import click

from prism_wsgi import ConfigError, SessionMiddleware, settings
from prism_wsgi.cli import commands
from prism_wsgi.setting_types import SessionOptions

SECRET = "D5Jv4Yq0mT1xw9rKcGz2Ns8uHb7PeLfA"

GROUPS = {
    "Store and secret": ("store", "secret"),
    "How long sessions last": ("ttl", "max_lifetime", "touch_interval"),
    "The cookie": (
        "cookie_name",
        "path",
        "domain",
        "secure",
        "httponly",
        "samesite",
        "partitioned",
        "persistent",
        "cookie_on",
    ),
    "When the cookie changes": ("cookie_fallbacks", "keep_fallbacks"),
    "Logins": ("user_id_key", "max_sessions_per_user"),
    "Activity and devices": ("is_passive", "record_client", "client_address"),
    "What is stored": ("max_size", "serializer"),
    "Encryption": ("encryption_key", "encryption", "read_unencrypted"),
    "When something fails": ("on_store_error", "save_on_error"),
    "Observing": ("observers",),
    "The environ and the clock": ("environ_key", "clock"),
}

WRONG: dict[str, tuple[dict[str, Any], ...]] = {
    "store": ({"store": dict}, {"store": {}}),
    "secret": ({"secret": ""}, {"secret": []}, {"secret": "change-me"}, {"secret": "too short"}),
    "cookie_name": (
        {"cookie_name": "my session"},
        {"cookie_name": "__Host-session", "path": "/shop"},
        {"cookie_name": "__Secure-session", "secure": False},
    ),
    "ttl": ({"ttl": 0}, {"ttl": 1.5}),
    "max_lifetime": ({"max_lifetime": 0},),
    "touch_interval": ({"touch_interval": 3600},),
    "path": ({"path": "shop"},),
    "domain": ({"domain": "example.com:8000"},),
    "secure": ({"secure": "yes"},),
    "httponly": ({"httponly": 1},),
    "samesite": ({"samesite": "loose"}, {"samesite": "none", "secure": False}),
    "partitioned": ({"partitioned": True, "secure": False},),
    "persistent": ({"persistent": "no"},),
    "cookie_on": ({"cookie_on": "login"},),
    "max_size": ({"max_size": 0},),
    "on_store_error": ({"on_store_error": "ignore"},),
    "save_on_error": ({"save_on_error": None},),
    "serializer": ({"serializer": repr},),
    "encryption_key": ({"encryption_key": "too short"},),
    "encryption": ({"encryption": "both"}, {"encryption": "cookie"}),
    "read_unencrypted": ({"read_unencrypted": True},),
    "record_client": ({"record_client": "yes"}, {"record_client": True, "encryption_key": SECRET[::-1]}),
    "client_address": ({"client_address": "REMOTE_ADDR"},),
    "is_passive": ({"is_passive": True},),
    "user_id_key": ({"user_id_key": ""},),
    "max_sessions_per_user": ({"max_sessions_per_user": 0},),
    "cookie_fallbacks": ({"cookie_fallbacks": "old_name"}, {"cookie_fallbacks": ["prism_session"]}),
    "keep_fallbacks": ({"keep_fallbacks": 1},),
    "observers": ({"observers": print}, {"observers": [print]}),
    "environ_key": ({"environ_key": "session"},),
    "clock": ({"clock": 5},),
}
"""For each setting, values that break its rule."""


def settings_reference() -> str:
    """Return the settings of SessionMiddleware as Markdown: all of them, or an error."""
    parameters = {name: one for name, one in inspect.signature(SessionMiddleware).parameters.items() if name != "app"}
    # The middleware names the cookie's attributes together; what each is for stands where they are checked.
    described = {**_described(SessionMiddleware), **_described(settings.session_cookie)}
    grouped = [name for names in GROUPS.values() for name in names]
    for place, found in (("GROUPS", set(grouped)), ("the docstring", set(described)), ("WRONG", set(WRONG))):
        if found != set(parameters):
            raise LookupError(f"Not the settings of SessionMiddleware in {place}: {found ^ set(parameters)}")
    parts = ["## All settings\n", "| setting | default | what it does |", "| --- | --- | --- |"]
    parts.extend(_overview(parameters[name], described[name]) for name in grouped)
    for title, names in GROUPS.items():
        parts.append(f"\n## {title}\n")
        parts.extend(_setting(parameters[name], described[name]) for name in names)
    return "\n".join(parts)


def _described(documented: object) -> dict[str, str]:
    """Return what a docstring says of each parameter: the sentences behind `name`: or `name`, `name`: ."""
    docstring = inspect.getdoc(documented) or ""
    found = re.findall(r"^((?:`\w+`(?:, )?)+): (.*?)(?=^`\w+`[:,]|^$|\Z)", docstring, flags=re.M | re.S)
    return {name: " ".join(meaning.split()) for names, meaning in found for name in re.findall(r"\w+", names)}


def _overview(parameter: inspect.Parameter, meaning: str) -> str:
    """Return a row of the table: the setting, its default, and the first sentence of what it does."""
    sentence = re.split(r"(?<=[.;]) ", meaning, maxsplit=1)[0].rstrip(".;")
    return f"| [{parameter.name}](#{parameter.name}) | `{_shown(parameter.default)}` | {_capitalised(sentence)} |"


def _setting(parameter: inspect.Parameter, meaning: str) -> str:
    lines = [
        f"### {parameter.name}\n",
        f"`{_type(parameter.annotation)} = {_shown(parameter.default)}`\n",
        f"{_capitalised(meaning)}\n",
    ]
    if parameter.name not in SessionOptions.__annotations__:
        lines.append("In Flask, the configuration sets it: see [](frameworks/flask.md).\n")
    for wrong in WRONG[parameter.name]:
        given = ", ".join(f"{name}={_shown(value)}" for name, value in wrong.items())
        lines.append(f"- `{given}` gives {_answer(wrong)}")
    return "\n".join([*lines, ""])


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def _type(annotation: Any) -> str:
    text = inspect.formatannotation(annotation)
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z])", "", text)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return value.__name__ if callable(value) else repr(value)


def _answer(wrong: dict[str, Any]) -> str:
    """Return what the middleware says to a wrong value."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            SessionMiddleware(_application, **{"secret": SECRET, **wrong})
        except ConfigError as error:
            return f"`ConfigError`: {_quoted(error)}"
    if not caught:
        raise AssertionError(f"SessionMiddleware takes {wrong}")
    return f"`{type(caught[0].message).__name__}`: {_quoted(caught[0].message)}"


def _quoted(said: object) -> str:
    return f"`` {said} ``"


def _application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return []


def commands_reference() -> str:
    """Return what each command of `prism-wsgi` says to `--help`, as Markdown."""
    return "\n".join(_command(commands, "prism-wsgi", None))


def _command(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    # Resilient: an option that is required may be missing.
    context = command.make_context(name.split()[-1], [], parent, resilient_parsing=True, terminal_width=90)
    yield f"## {name}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from _command(found, f"{name} {child}", context)


def suites_reference(declared: Mapping[str, Any]) -> str:
    """Return what `tests/peers/suites.toml` declares, as Markdown: the counts, then the reason of each difference."""
    table, reasons = ["| suite | release | pass | differ |", "| --- | --- | --- | --- |"], [""]
    for name, suite in declared.items():
        differences = suite.get("differences", ())
        differ = sum(len(one["tests"]) for one in differences)
        table.append(f"| {name} | {suite['release'].replace('==', ' ')} | {suite['passes']} | {differ} |")
        for one in differences:
            tests = ", ".join(f"`{re.split('::|[.]', test)[-1]}`" for test in one["tests"])
            reasons.append(f"- {name}, {tests}: {one['reason']}.")
    return "\n".join(table + reasons)


def as_restructured_text(lines: list[str]) -> list[str]:
    """Return a docstring whose code (indented) and whose parameters (`name`: ...) are such for Sphinx too."""
    return [*_with_lists_marked(_with_code_marked(lines))]


def _with_code_marked(lines: Iterable[str]) -> Iterator[str]:
    in_code = False
    for line in lines:
        if line.strip():
            indented = line.startswith("    ")
            if indented and not in_code:
                yield from (".. code-block:: python", "")
            in_code = indented
        yield line


def _with_lists_marked(lines: Iterable[str]) -> Iterator[str]:
    in_list = False
    for line in lines:
        if re.match(r"(`\w+`(, )?)+: ", line):
            if not in_list:
                yield ""
            in_list = True
            yield f"- {line}"
        else:
            in_list = in_list and bool(line.strip())
            yield f"  {line}" if in_list else line
