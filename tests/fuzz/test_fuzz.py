"""Every input that was worth keeping is read again: those that broke something once, and one of each kind."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz.fuzz import CORPUS, NAMES
from tests.fuzz.targets import (
    NAME,
    TARGETS,
    TOKEN_PLACE,
    cookie_reader,
    request,
    round_trip,
    serializer,
    token_decoder,
)

INPUTS = sorted(CORPUS.glob("*/*"))
PIECES = st.sampled_from(
    [NAME, "=", ";", "; ", " ", "\t", ",", '"', "\\", "%3D", "\x00", "\xa0", "\x85", "other", "==", TOKEN_PLACE, "\n"]
)


def test_what_can_be_fuzzed_is_what_the_command_offers() -> None:
    assert tuple(TARGETS) == NAMES
    assert {path.parent.name for path in INPUTS} == set(NAMES)


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_an_input_of_the_corpus_breaks_no_promise(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@given(st.lists(PIECES | st.text(st.characters(max_codepoint=255), max_size=3), max_size=25))
@settings(max_examples=300)
def test_two_independent_readers_agree_on_every_cookie_header(pieces: list[str]) -> None:
    data = "".join(pieces).encode("latin-1")
    cookie_reader(data)
    request(data)


@pytest.mark.parametrize("target", [token_decoder, serializer, round_trip], ids=lambda target: target.__name__)
def test_any_bytes_break_no_promise(target: Callable[[bytes], None]) -> None:
    @example(b"")
    @given(st.binary(max_size=300))
    @settings(max_examples=300)
    def attempt(data: bytes) -> None:
        target(data)

    attempt()


@pytest.mark.whole
def test_the_command_fuzzes_repeatably_and_counts_its_inputs() -> None:
    command = [sys.executable, "-m", "tests.fuzz.fuzz", "--engine=hypothesis", "--target=cookie_reader"]
    command += ["--minutes=0.01", "--seed=7"]
    run = subprocess.run(command, cwd=CORPUS.parents[2], capture_output=True, text=True, timeout=60, check=True)
    assert "cookie_reader: 1 s with hypothesis, seed 7" in run.stdout
    assert "stat::number_of_executed_units" in run.stdout
