"""A reader who does what a page says, from top to bottom, in a directory of its own. What each kind of block means:

- A block whose first line is a comment with a name (`# hello.py`) is saved as that file.
- `python`, else: runs where the section's earlier blocks left off; a section begins with what READER_HAS.
  `expression  # literal` is a promise, and checked.
- `console`: each line after `$ ` (of root: `# `) is typed into the page's one shell and must succeed. Where output
  is shown, it is what was printed; `...` stands for anything. What a command runs on with `&` ends with the page.
- `ini` and `toml` are files, read by the commands that follow; `toml` must be valid by itself too.
- `jinja`: a template, which must be valid.
- `cron`: a line of a crontab; its command is run.
- `{...}` is a directive of Sphinx, which checks it when the site is built.

Any other language, none included, is an error.
"""

import ast
import configparser
import os
import re
import secrets
import tomllib
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import jinja2
from alembic.config import Config

from prism_wsgi import MemoryStore, Session, SessionMiddleware, SQLAlchemyStore, get_session
from tests.documentation.pages import ROOT, Block
from tests.documentation.shell import Shell, without_what_varies

DIRECTIVES = {"{toctree}", "{include}", "{literalinclude}", "{eval-rst}"}


class Reader:
    """Follows the blocks of one page in `directory`; `stand_ins` are texts, and what takes their place here."""

    def __init__(self, directory: Path, shell: Shell, stand_ins: Mapping[str, str]) -> None:
        self._directory = directory
        self._shell = shell
        self._stand_ins = stand_ins
        self._section = ""
        self._names: dict[str, Any] = {}
        for name in ("alembic.ini", "migrations", "examples"):  # what the checkout has that commands need
            (directory / name).symlink_to(ROOT / name)
        (directory / "dev.py").write_text(DEV)
        self._languages: Mapping[str, Callable[[Block, str], None]] = {
            "python": self._python,
            "console": self._console,
            "ini": self._ini,
            "toml": self._toml,
            "jinja": self._jinja,
            "cron": self._cron,
        }

    def follow(self, block: Block) -> None:
        """Do what a block says. Raises AssertionError, or what its code raises, where it cannot be done."""
        if block.language in DIRECTIVES:
            return
        assert block.language in self._languages, f"{block}: nobody knows how to run {block.language!r}"
        text = block.text
        for original, here in self._stand_ins.items():
            text = text.replace(original, here)
        self._languages[block.language](block, text)

    def close(self) -> None:
        """Close the stores that the page opened."""
        for value in self._names.values():
            if isinstance(value, SQLAlchemyStore):
                value.close()

    def _python(self, block: Block, text: str) -> None:
        if block.file_name:
            self._save(block.file_name, text)
            compile(text, str(block), "exec")
            return
        if block.section != self._section or not self._names:
            self.close()
            self._section, self._names = block.section, what_the_reader_has()
        # With the lines of the page, so that a traceback points at it.
        code = "\n" * block.line + with_promises_kept(text)
        exec(compile(code, str(block.page), "exec"), self._names)

    def _console(self, block: Block, text: str) -> None:
        for command, shown in commands_of(text):
            printed = self._shell.run(command)
            assert not shown or answers(shown, printed), f"{block}: {command}\nprinted\n{printed}\nnot\n{shown}"

    def _ini(self, block: Block, text: str) -> None:
        assert block.file_name, f"{block}: an ini block must name its file"
        configparser.ConfigParser(interpolation=None).read_string(text)
        self._save(block.file_name, text)

    def _toml(self, block: Block, text: str) -> None:
        assert block.file_name, f"{block}: a toml block must name its file"
        read = tomllib.loads(text)
        self._save(block.file_name, text)
        if "alembic" in read.get("tool", {}):  # to run it takes an installed wheel: tests/packaging/test_wheel.py
            alembic = Config(toml_file=self._directory / block.file_name)
            assert alembic.get_alembic_option("script_location") == "prism_wsgi:migrations"

    def _jinja(self, block: Block, text: str) -> None:
        jinja2.Environment(autoescape=True).parse(text)

    def _cron(self, block: Block, text: str) -> None:
        (line,) = text.splitlines()
        *schedule, command = line.split(maxsplit=5)
        assert len(schedule) == 5
        self._shell.run(command)

    def _save(self, name: str, text: str) -> None:
        path = self._directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


DEV = f"""# Stands in for dev.py, whose tasks take minutes: sees that there is such a task, and such options.
import runpy, sys
name, *options = sys.argv[1:]
assert name in [task.__name__ for task in runpy.run_path({str(ROOT / "dev.py")!r})["TASKS"]], name
if name == "bench":
    from benchmarks.__main__ import _parser
    _parser().parse_args(options)
else:
    assert not options, "nobody checks the options of this task"
"""


def what_the_reader_has() -> dict[str, Any]:
    """Return the names that the pages take for granted."""
    session = Session()
    return {
        "__name__": __name__,
        "SessionMiddleware": SessionMiddleware,
        "app": count_visits,
        "form": {"csrf_token": session.get_csrf_token()},
        "get_session": get_session,
        "os": os,
        "secret": os.environ["SESSION_SECRET"],
        "secrets": secrets,
        "session": session,
        "store": MemoryStore(),
        "timedelta": timedelta,
    }


def count_visits(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    session = get_session(environ)
    session["visits"] = session.get("visits", 0) + 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"Visits: {session['visits']}\n".encode()]


def with_promises_kept(code: str) -> str:
    """Turn each `expression  # literal` into an assertion."""

    def promise(line: re.Match[str]) -> str:
        try:
            ast.literal_eval(line[2])
        except (SyntaxError, ValueError):
            return line[0]
        return f"assert {line[1]} == {line[2]}, {line[1]}"

    return re.sub(r"^(\S.*?)  # (.+)$", promise, code, flags=re.M)


def commands_of(text: str) -> list[tuple[str, str]]:
    """Return each command of a console block with the output shown below it."""
    first, *rest = re.split(r"^[$#] ", text, flags=re.M)
    assert not first.strip(), f"Output without a command: {first}"
    assert rest, "A console block without a command"
    commands = []
    for one in rest:
        command, _, shown = one.partition("\n")
        while command.endswith("\\"):
            more, _, shown = shown.partition("\n")
            command = f"{command}\n{more.removeprefix('> ')}"
        commands.append((command, shown))
    return commands


def answers(shown: str, printed: str) -> bool:
    """Tell whether what is shown is what was printed, but for what varies and for what `...` stands for."""
    pattern = re.escape(without_what_varies(shown)).replace(re.escape("..."), "(?s:.*?)")
    return re.fullmatch(pattern, without_what_varies(printed)) is not None
