"""What docs/generated.py makes of the code: every setting and every command, or an error."""

import importlib.util
import inspect
import re
from pathlib import Path

import pytest

from prism_wsgi import SessionMiddleware
from tests.documentation.pages import ROOT

SPECIFICATION = importlib.util.spec_from_file_location("generated", ROOT / "docs" / "generated.py")
assert SPECIFICATION is not None
assert SPECIFICATION.loader is not None
generated = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(generated)


def section_of(reference: str, name: str) -> str:
    found = re.search(rf"^### {name}\n(.*?)(?=^##|\Z)", reference, flags=re.M | re.S)
    assert found, name
    return found[1]


def test_reference_has_type_default_meaning_and_rule_of_every_setting() -> None:
    reference = generated.settings_reference()
    parameters = [name for name in inspect.signature(SessionMiddleware).parameters if name != "app"]
    assert sorted(re.findall(r"^### (\w+)$", reference, flags=re.M)) == sorted(parameters)
    assert sorted(re.findall(r"^\| \[(\w+)\]", reference, flags=re.M)) == sorted(parameters)
    assert "| [ttl](#ttl) | `3600` | Idle lifetime" in reference
    lifetime = section_of(reference, "max_lifetime")
    assert lifetime.startswith("\n`int | timedelta | None = None`\n\nAbsolute lifetime, in seconds or as a timedelta")
    assert "- `max_lifetime=0` gives `ConfigError`: `` max_lifetime must be from 1 to 34560000 seconds" in lifetime
    assert "`clock` gives" not in section_of(reference, "clock")


@pytest.mark.parametrize("table", ["GROUPS", "WRONG"])
def test_setting_that_is_left_out_is_an_error(monkeypatch: pytest.MonkeyPatch, table: str) -> None:
    complete = getattr(generated, table)
    monkeypatch.setattr(generated, table, dict(list(complete.items())[1:]))
    with pytest.raises(LookupError, match=f"Not the settings of SessionMiddleware in {table}: .*'store'"):
        generated.settings_reference()


def test_value_that_breaks_no_rule_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(generated.WRONG, "ttl", ({"ttl": 60},))
    with pytest.raises(AssertionError, match="SessionMiddleware takes"):
        generated.settings_reference()


def test_reference_has_the_counts_of_each_suite_and_the_reason_of_each_difference() -> None:
    difference = {
        "reason": "It costs money",
        "tests": ["tests/test_shop.py::test_pay", "tests/test_shop.py::test_owe"],
    }
    reference = generated.suites_reference(
        {
            "Shop": {"release": "shop==1.0", "passes": 7, "differences": [difference]},
            "Cart": {"release": "cart==2.1", "passes": 5},
        }
    )
    assert "| Shop | shop 1.0 | 7 | 2 |\n| Cart | cart 2.1 | 5 | 0 |\n" in reference
    assert "- Shop, `test_pay`, `test_owe`: It costs money." in reference


def test_reference_has_every_command_with_its_options() -> None:
    reference = generated.commands_reference()
    headings = re.findall(r"^## (.+)$", reference, flags=re.M)
    assert headings[0] == "prism-wsgi"
    assert {"prism-wsgi sweep", "prism-wsgi db upgrade", "prism-wsgi sessions revoke"} <= set(headings)
    assert reference.count("--help") == len(headings)
    assert "PRISM_SWEEP_TARGET_MS" in reference


def test_docstrings_keep_their_code_and_their_parameters() -> None:
    lines = ["Begin.", "", "    import this", "", "`one`: the first", "or so.", "`two`, `three`: more.", "", "End."]
    assert generated.as_restructured_text(lines) == [
        *("Begin.", "", ".. code-block:: python", "", "    import this", ""),
        *("", "- `one`: the first", "  or so.", "- `two`, `three`: more.", "", "End."),
    ]


def test_page_of_the_settings_has_the_place_for_them() -> None:
    for page in ("settings", "commands"):
        assert f"\n<!-- {page} -->\n" in Path(ROOT, "docs", f"{page}.md").read_text()
