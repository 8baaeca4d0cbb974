"""The names that frameworks have for what a session already has."""

from prism_wsgi import Session


def test_a_session_is_new_until_something_was_stored_for_its_visitor() -> None:
    assert Session().new


def test_created_is_the_second_at_which_the_session_began() -> None:
    session = Session()
    assert session.created == int(session.created_at.timestamp())
