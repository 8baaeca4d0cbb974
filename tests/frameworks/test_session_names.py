"""The names that frameworks have for what a session already has."""

from collections.abc import Callable

import pytest

from prism_wsgi.flask import FlaskSession
from prism_wsgi.pyramid import PyramidSession


@pytest.mark.parametrize("kind", [FlaskSession, PyramidSession])
def test_a_session_is_new_until_something_was_stored_for_its_visitor(
    kind: type[FlaskSession | PyramidSession],
) -> None:
    assert kind().new


def test_created_is_the_second_at_which_the_session_began() -> None:
    session = PyramidSession()
    assert session.created == int(session.created_at.timestamp())


@pytest.mark.parametrize("end", [PyramidSession.invalidate, PyramidSession.delete])
def test_pyramids_and_pyramid_beakers_names_end_a_session(end: Callable[[PyramidSession], None]) -> None:
    session = PyramidSession()
    session["seen"] = 1
    before = session.id
    end(session)
    assert (dict(session), session.id != before) == ({}, True)


def test_pyramid_beakers_save_may_be_called() -> None:
    session = PyramidSession()
    session["seen"] = 1
    session.save()
    assert session["seen"] == 1
