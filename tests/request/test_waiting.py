"""Requests that wait for the lock of one session inside `atomic()`."""

import threading

import pytest

from prism_wsgi import MemoryStore, Session, SessionMiddleware
from prism_wsgi.request import atomic
from tests.support.keys import SECRET
from tests.support.visitors import Browser, application, put


def test_of_many_requests_that_wait_for_one_session_only_a_few_wait_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "HOLD_SECONDS", 600.0)  # nobody takes the holder for dead
    site = SessionMiddleware(application, store=MemoryStore(), secret=SECRET, secure=False)
    browser = Browser(site)
    browser.do(put("n", 0))
    inside, leave = threading.Event(), threading.Event()
    waits: list[float] = []
    wait = atomic.Lock._wait

    def hold(session: Session) -> None:
        with session.atomic():
            inside.set()
            leave.wait(60)

    def count(session: Session) -> None:
        with session.atomic():
            session["n"] += 1

    def note_and_wait(self: atomic.Lock) -> None:
        waits.append(len(atomic._waiting.get(self._state.identity.id, ())))
        wait(self)

    holder = threading.Thread(target=browser.visit, args=(hold,))
    holder.start()
    assert inside.wait(60)
    monkeypatch.setattr(atomic, "IMPATIENT_SECONDS", 0.0)
    monkeypatch.setattr(atomic.Lock, "_is_abandoned", lambda self, number: False)
    monkeypatch.setattr(atomic.Lock, "_wait", note_and_wait)
    visits = []
    patient = [threading.Thread(target=lambda: visits.append(browser.visit(count))) for _ in range(4)]
    for one in patient:
        one.start()
    while len(next(iter(atomic._waiting.values()), ())) < atomic.PATIENT_WAITERS:
        leave.wait(0.01)
    refused = Browser(site)
    refused.cookies = dict(browser.cookies)
    assert refused.visit(count).status.startswith("503")
    leave.set()
    for one in [holder, *patient]:
        one.join(60)
    assert [visit.status for visit in visits] == ["200 OK"] * 4
    assert browser.read()["n"] == 4
    assert atomic._waiting == {}
