"""The documentation, README.md and its like included, cut into its blocks of code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOOR = tuple(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY"))
PAGES = (*DOOR, *sorted((ROOT / "docs").rglob("*.md")))
SECRET = "D5Jv4Yq0mT1xw9rKcGz2Ns8uHb7PeLfA"  # a reader's, such as `prism-wsgi secret` prints

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>.*)$")
_NAME = re.compile(r"^# ([\w./-]+\.\w+)$")


@dataclass(frozen=True)
class Block:
    """What stands between two fences, and where."""

    page: Path
    line: int
    section: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file_name(self) -> str | None:
        """The name of the file that the block shows, which is a comment in its first line."""
        named = _NAME.match(self.text.partition("\n")[0])
        return named[1] if named else None


def blocks_of(page: Path) -> list[Block]:
    return list(_blocks(page))


def _blocks(page: Path) -> Iterator[Block]:
    section, fence, language, begin, text = "", "", "", 0, ""
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        found = _FENCE.match(line)
        if fence:
            if line.strip() == fence:
                yield Block(page, begin, section, language, text)
                fence = ""
            else:
                text += f"{line}\n"
        elif found:
            assert not found["indent"], f"{page}:{number}: a block that is indented"
            fence, language, begin, text = found["fence"], found["language"].split(" ")[0], number, ""
        elif line.startswith("## "):
            section = line.removeprefix("## ")
    assert not fence, f"{page}:{begin}: a block that does not end"


def section_of(page: Path, title: str) -> str:
    """Return the text of a section, without its heading."""
    _, found, rest = page.read_text().partition(f"\n## {title}\n")
    assert found, f"{page} has no section {title}"
    return re.split(r"^## ", rest, maxsplit=1, flags=re.M)[0]


def table_of(text: str) -> list[list[str]]:
    """Return the cells of the table in a text, without its head."""
    rows = [re.split(r" *(?<!\\)\| *", line.strip("| ")) for line in text.splitlines() if line.startswith("|")]
    return rows[2:]
