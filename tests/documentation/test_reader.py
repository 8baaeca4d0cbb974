"""The reader notices what is wrong with a page: each of these must fail."""

import configparser
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documentation.pages import blocks_of
from tests.documentation.reader import Reader, answers
from tests.documentation.shell import Shell


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.setenv("SESSION_SECRET", "D5Jv4Yq0mT1xw9rKcGz2Ns8uHb7PeLfA")
    directory = tmp_path / "page"
    directory.mkdir()
    shell = Shell(directory, None)
    yield Reader(directory, shell, {})
    shell.close()


def follow(reader: Reader, page: Path, text: str) -> None:
    page.write_text(text)
    for block in blocks_of(page):
        reader.follow(block)


def fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```\n"


WRONG = {
    "no language": fenced("", "1 + 1"),
    "an unknown language": fenced("ruby", "1 + 1"),
    "an unknown directive": fenced("{code-block} python", "1 + 1"),
    "a block that is indented": "- one\n\n  ```python\n  1 + 1\n  ```\n",
    "a block that does not end": "```python\n1 + 1\n",
    "code that raises": fenced("python", "1 / 0"),
    "a broken promise": fenced("python", "1 + 1  # 3"),
    "a name of another section": fenced("python", "one = 1") + "## Two\n" + fenced("python", "one"),
    "a program that is none": fenced("python", "# one.py\none ="),
    "a command that fails": fenced("console", "$ false"),
    "a server that ends at once": fenced("console", "$ false &"),
    "a command that is not there": fenced("console", "$ prism-wsgi swept"),
    "output that is not printed": fenced("console", "$ echo one\ntwo"),
    "output without a command": fenced("console", "one\n$ echo one"),
    "an extra that is not there": fenced("console", '$ pip install "prism_wsgi[mongodb]"'),
    "a package that nobody tried": fenced("console", "$ pip install left-pad"),
    "a task that is not there": fenced("console", "$ python3 dev.py deploy"),
    "an option that is not there": fenced("console", "$ python3 dev.py bench --quickly-or-not"),
    "a unit that is not copied": fenced("console", "# systemctl enable --now prism-wsgi-sweep.timer"),
    "a manifest that is not there": fenced("console", "$ kubectl apply -f sweep.yaml"),
    "an ini without a name": fenced("ini", "[app:main]\nuse = egg:shop"),
    "an ini that is none": fenced("ini", "# shop.ini\nuse = egg:shop"),
    "a toml that is none": fenced("toml", "# shop.toml\n[tool.alembic\n"),
    "a schedule that is none": fenced("cron", "*/10 * * *"),
}

NOTICED = (AssertionError, ArithmeticError, NameError, SyntaxError, configparser.Error, tomllib.TOMLDecodeError)


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_a_page_that_is_wrong_fails(reader: Reader, tmp_path: Path, text: str) -> None:
    with pytest.raises(NOTICED):
        follow(reader, tmp_path / "page.md", text)


def test_right_page_is_followed(reader: Reader, tmp_path: Path) -> None:
    program = fenced("python", "# one.py\nprint(1)")
    console = fenced("console", "$ one=1\n$ python one.py\n1\n$ echo $one \\\n> two\n1 two\n$ echo a b c\na ... c")
    code = fenced("python", "one = 1\none + one  # 2") + fenced("python", "one  # 1")
    follow(reader, tmp_path / "page.md", f"{program}{console}{code}")


def test_moments_and_speeds_may_differ_from_the_page_and_nothing_else() -> None:
    assert answers(
        "in 3 batches, 70 rows/s at 2026-11-23T14:20:00Z", "in 1 batches, 9 rows/s at 2027-01-01T00:00:00Z"
    )
    assert answers("one\n...\nfour", "one\ntwo\nthree\nfour\n")
    assert not answers("Visits: 1", "Visits: 2")
    assert not answers("Visits: 1", "Visits: 1\nVisits: 2")
