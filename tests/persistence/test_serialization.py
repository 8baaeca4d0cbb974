"""What a session can hold, and what happens to stored bytes that nobody can read."""

import logging
import math
import pickle
import sys
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from functools import partial
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import freezegun
import msgpack
import pytest
from babel.support import LazyProxy
from flask_babel import lazy_gettext
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup
from translationstring import TranslationString

from prism_wsgi import SerializationError, Session, SessionTooLarge, StoredSession
from prism_wsgi.serializers import MAX_DEPTH, TypedSerializer
from tests.support.browsing import Browser, Site, ThreeVerbStore, read, write

pytest_plugins = ["tests.support.site_fixtures"]

SERIALIZER = TypedSerializer()

# Everything the serializer takes

OFFSETS = st.integers(-82_800, 82_800).map(lambda seconds: timezone(timedelta(seconds=seconds)))
HASHABLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**200), 2**200),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.binary(),
    st.datetimes(timezones=st.none() | OFFSETS),
    st.dates(),
    st.times(timezones=st.none() | OFFSETS),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.text().map(Markup),
)
HASHABLE_NESTED = st.recursive(
    HASHABLE,
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4),
    max_leaves=5,
)
VALUES = st.recursive(
    HASHABLE,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(), inner, max_size=4),
        st.sets(HASHABLE_NESTED, max_size=4),
        st.frozensets(HASHABLE_NESTED, max_size=4),
    ),
    max_leaves=12,
)


def exactly(value: object) -> object:
    """Return a form of a value in which 1, 1.0 and True differ, and so do 0.0 and -0.0."""
    if isinstance(value, dict):
        return dict, [(exactly(key), exactly(one)) for key, one in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [exactly(one) for one in value]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(exactly(one)) for one in value)
    if isinstance(value, (datetime, time)):
        return type(value), value.isoformat()
    return type(value), hex(value) if type(value) is int else repr(value)


@given(st.dictionaries(st.text(), VALUES, max_size=5))
@settings(max_examples=60)  # tests/fuzz draws hundreds more for the same round trip
def test_what_goes_in_comes_out_with_the_same_types(session: dict[str, Any]) -> None:
    data = SERIALIZER.dumps(session)
    assert exactly(SERIALIZER.loads(data)) == exactly(session)
    assert SERIALIZER.dumps(SERIALIZER.loads(data)) == data


# Bytes that look like the headers of what is refused
INNOCENT: dict[str, Any] = {
    "polish": {"ł": "ąęćł" * 100},
    "bytes as a value": {"b": b"\xc4\xcb\x7f" * 100},
    "large floats": {"f": [1.7e308, -1.7e308, 1e300]},
    "wide": {str(number): [number, {"n": [number]}] for number in range(300)},
    "wide and deep": {"a": [{"b": ({"c": [set()]},)} for _ in range(100)]},
    "greek": {"text": "αβγδ" * 200},
}


@pytest.mark.parametrize("session", INNOCENT.values(), ids=INNOCENT)
def test_what_only_looks_like_something_refused_is_read(session: dict[str, Any]) -> None:
    assert exactly(SERIALIZER.loads(SERIALIZER.dumps(session))) == exactly(session)


EXAMPLES: dict[str, Any] = {
    "none": None,
    "bools": [True, False],
    "numbers": [0, -1, 2**63, -(2**63) - 1, 10**5000, 0.1, -0.0, 1e308],
    "texts": ["", "\x00", "\U0001f600", "é", "\ud7ff", "\uffff"],
    "bytes": b"\x00\xff",
    "containers": [[], (), {}, set(), frozenset(), [()], ([],)],
    "nested": {"a": [({"b": {1, 2, 3}},)]},
    "instants": [
        datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001
        datetime(2026, 1, 2, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30, seconds=15))),
        date(9999, 12, 31),
        time(23, 59, 59, 999999),
        timedelta(days=-1, microseconds=1),
        timedelta.max,
    ],
    "uuid": UUID(int=5),
    "decimals": [Decimal("0.10"), Decimal("-0"), Decimal("1E+5000"), Decimal("1E-5000"), Decimal("1E+3")],
}


def test_every_kind_of_value_survives_every_store(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(**EXAMPLES))
    assert exactly(browser.visit(lambda session: dict(session)).result) == exactly(EXAMPLES)


@given(text=st.text(max_size=50))
@settings(max_examples=50)
def test_any_text_is_a_key_and_a_value(text: str) -> None:
    browser = Site().browser()
    browser.visit(lambda session: session.update({text: text}))
    assert browser.visit(lambda session: dict(session)).result == {text: text}


def test_a_time_of_a_named_zone_comes_back_as_the_same_instant() -> None:
    moment = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Paris"))
    loaded = SERIALIZER.loads(SERIALIZER.dumps({"t": moment}))["t"]
    assert loaded == moment
    assert loaded.utcoffset() == timedelta(hours=2)


def test_equal_sessions_have_equal_bytes_whatever_the_order_of_sets() -> None:
    numbers = [1024 * number for number in range(50)]  # which share a hash bucket: they iterate as they came
    one, other = set(numbers), {-number for number in range(-50 * 1024 + 1024, 1024, 1024)}
    assert one == other
    assert list(one) != list(other)
    assert SERIALIZER.dumps({"s": one}) == SERIALIZER.dumps({"s": other})


# Everything else is refused, where it is assigned


class Custom:
    pass


class Color(IntEnum):
    RED = 1


class Role(StrEnum):
    ADMIN = "admin"


@dataclass
class Record:
    number: int


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Ratio(float):
    pass


class Moment(datetime):
    """As pandas.Timestamp, whose nanoseconds nobody else can read."""

    def isoformat(self, *_: Any) -> str:
        return "2026-01-02T03:04:05.000000006"


class Html:
    def __html__(self) -> str:
        return "<b>Saved</b>"


class Subclass(UUID):
    pass


Point = namedtuple("Point", "x y")

CYCLE: list[Any] = []
CYCLE.append(CYCLE)


def nested(depth: int, wrap: Callable[[Any], Any] = lambda inner: [inner]) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = wrap(value)
    return value


REFUSED: list[tuple[Any, str]] = [
    (Custom(), "session['key']"),
    ([1, {"owner": Custom()}], "session['key'][1].owner"),
    ({"a": {"b c": [Custom()]}}, "session['key'].a['b c'][0]"),
    ((1, Custom()), "session['key'][1]"),
    ({frozenset([Color.RED])}, "session['key']"),
    (Color.RED, "session['key']"),
    (Role.ADMIN, "session['key']"),
    (Record(1), "session['key']"),
    ({Role.ADMIN: 1}, "session['key']"),
    (OrderedDict(a=[Custom()]), "session['key'].a[0]"),
    (Text("\ud800"), "session['key']"),
    (Ratio("nan"), "session['key']"),
    (Html, "session['key']"),
    (float("nan"), "session['key']"),
    ([float("inf")], "session['key'][0]"),
    (-math.inf, "session['key']"),
    (Decimal("NaN"), "session['key']"),
    (Decimal("sNaN"), "session['key']"),
    (Decimal("Infinity"), "session['key']"),
    ("\ud800", "session['key']"),
    (["a\udfffb"], "session['key'][0]"),
    ({"\ud800": 1}, "session['key']"),
    ({1: 2}, "session['key']"),
    ({None: 2}, "session['key']"),
    ({b"a": 2}, "session['key']"),
    (bytearray(b"x"), "session['key']"),
    (memoryview(b"x"), "session['key']"),
    (1j, "session['key']"),
    (range(3), "session['key']"),
    (object, "session['key']"),
    (len, "session['key']"),
    (iter([]), "session['key']"),
    (CYCLE, "session['key']"),
    (nested(MAX_DEPTH + 1), "session['key']"),
    (nested(100_000), "session['key']"),
    (nested(MAX_DEPTH + 1, lambda inner: (inner,)), "session['key']"),
    (nested(MAX_DEPTH + 1, lambda inner: {"k": inner}), "session['key']"),
    (nested(MAX_DEPTH + 1, lambda inner: frozenset([inner])), "session['key']"),
    (time(1, tzinfo=ZoneInfo("Europe/Paris")), "session['key']"),
    (datetime(2000, 1, 1, tzinfo=timezone(timedelta(microseconds=1))), "session['key']"),
]


@pytest.mark.parametrize(("value", "path"), REFUSED, ids=range(len(REFUSED)))
def test_a_value_that_cannot_be_stored_is_refused_where_it_is_assigned(value: Any, path: str) -> None:
    session = Session()
    session["before"] = 1
    with pytest.raises(SerializationError) as caught:
        session["key"] = value
    assert caught.value.path.startswith(path)
    assert str(caught.value).startswith(path)
    assert dict(session) == {"before": 1}


BY_BASE: dict[str, tuple[Any, Any]] = {
    "str": (Text("Saved."), "Saved."),
    "int": (type("Number", (int,), {})(7), 7),
    "large int": (type("Number", (int,), {})(10**40), 10**40),
    "float": (Ratio("0.5"), 0.5),
    "bytes": (type("Bytes", (bytes,), {})(b"x"), b"x"),
    "Decimal": (type("Money", (Decimal,), {})("1.20"), Decimal("1.20")),
    "UUID": (Subclass(int=5), UUID(int=5)),
    "timedelta": (type("Delay", (timedelta,), {})(1), timedelta(1)),
    "datetime": (Moment(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
    "dict": (defaultdict(list, a=[1]), {"a": [1]}),
    "the order of an OrderedDict": (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    "tuple": (Point(1, [Text("x")]), (1, ["x"])),
    "frozenset": (type("Names", (frozenset,), {})({Text("x")}), frozenset({"x"})),
    "a key": ({Text("a"): 1}, {"a": 1}),
    "Markup": (type("Safe", (Markup,), {})("<b>"), Markup("<b>")),
    "an object with __html__": ([Html()], [Markup("<b>Saved</b>")]),
    "a translation": ((lazy_gettext("Saved"),), (Markup("Saved"),)),
    "a lazy proxy": (LazyProxy(lambda: "Saved"), "Saved"),
    "a TranslationString": (TranslationString("m", default="${n} saved", mapping={"n": 3}), "3 saved"),
}


@pytest.mark.parametrize(("given", "stored"), BY_BASE.values(), ids=BY_BASE)
def test_a_value_of_a_subclass_comes_back_as_its_base_from_every_store(site: Site, given: Any, stored: Any) -> None:
    browser = site.browser()
    browser.visit(lambda session: session.update(value=given))
    browser.visit(lambda session: session["value"])  # a look saves nothing
    assert exactly(browser.visit(lambda session: session["value"]).result) == exactly(stored)
    data = SERIALIZER.dumps({"value": given})
    assert SERIALIZER.dumps_checked(SERIALIZER.loads(data)) == data


def test_a_lazy_translation_is_kept_in_the_language_of_the_request_that_assigned_it() -> None:
    language = ["de"]
    message = LazyProxy(lambda: {"de": "Gespeichert", "en": "Saved"}[language[0]], enable_cache=False)
    session, messages = Session(), [("info", message)]
    session["plain"], session["_flashes"] = message, messages
    language[0] = "en"
    assert (session["plain"], session["_flashes"]) == ("Gespeichert", [("info", "Gespeichert")])


def test_a_list_without_translations_stays_the_one_that_was_assigned() -> None:
    session, cart = Session(), [Text("apple"), {"n": Ratio(1)}]
    session["cart"] = cart
    assert session["cart"] is cart


def test_html_comes_back_as_text_where_markupsafe_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "markupsafe", None)
    assert SERIALIZER.loads(SERIALIZER.dumps({"a": Html()})) == {"a": "<b>Saved</b>"}


def test_moments_are_stored_and_read_while_freezegun_holds_the_clock() -> None:
    before = {"then": datetime(2026, 1, 2, tzinfo=UTC), "day": date(2026, 1, 2)}
    with freezegun.freeze_time("2026-11-27 12:00:00"):
        values = {**before, "now": datetime.now(UTC), "today": date.today(), "at": time(12)}  # noqa: DTZ011
        data = SERIALIZER.dumps(values)
        assert SERIALIZER.loads(data) == values
    assert SERIALIZER.loads(data)["now"] == datetime(2026, 11, 27, 12, tzinfo=UTC)


def flash_by_flask(session: Session, msg: str) -> None:
    session["_flashes"] = [*session.get("_flashes", []), ("message", msg)]


FLASHES: dict[str, Callable[..., None]] = {
    "flash": Session.flash,
    "another queue": partial(Session.flash, queue="errors"),
    "flask": flash_by_flask,
}


@pytest.mark.parametrize("flash", FLASHES.values(), ids=FLASHES)
def test_of_flash_messages_that_nobody_shows_the_oldest_are_dropped(site: Site, flash: Callable[..., None]) -> None:
    browser = site.browser()
    browser.visit(write(basket="b" * 50_000))
    for number in range(40):
        browser.visit(partial(flash, msg=f"{number} {'Saved. ' * 150}"))
    values = browser.visit(dict).result
    [queue] = [key for key in values if key != "basket"]
    assert len(values["basket"]) == 50_000
    assert 1 < len(values[queue]) < 20
    assert "39 Saved" in str(values[queue][-1])


def test_a_session_that_is_too_large_without_its_flash_messages_is_still_refused(site: Site) -> None:
    browser = site.browser()
    browser.visit(lambda session: session.flash("Saved"))
    with pytest.raises(SessionTooLarge):
        browser.visit(lambda session: session.update(basket="b" * 70_000))
    with pytest.raises(SessionTooLarge):
        browser.visit(lambda session: session.flash("b" * 70_000))
    assert browser.visit(lambda session: session.pop_flash()).result == ["Saved"]


@pytest.mark.parametrize("key", [1, None, b"key", ("a",), Role.ADMIN, Color.RED])
def test_a_key_that_is_not_text_is_refused(key: Any) -> None:
    session = Session()
    with pytest.raises(SerializationError, match="keys must be str"):
        session[key] = 1
    with pytest.raises(SerializationError, match="lone surrogate"):
        session["\ud800"] = 1
    assert dict(session) == {}


def test_a_bad_value_put_inside_a_good_one_is_refused_at_the_end_and_nothing_is_saved(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(cart=[1]))

    def spoil(session: Session) -> None:
        session["cart"].append(Custom())
        session["other"] = 1

    with pytest.raises(SerializationError, match=r"session\['cart'\]\[1\]"):
        browser.visit(spoil)
    assert browser.visit(lambda session: dict(session)).result == {"cart": [1]}


def test_the_deepest_nesting_that_is_taken_comes_back() -> None:
    for wrap in (lambda inner: [inner], lambda inner: (inner,), lambda inner: {"k": inner}):
        value = nested(MAX_DEPTH - 1, wrap)
        session = Session()
        session["key"] = value
        data = SERIALIZER.dumps({"key": value})
        assert SERIALIZER.loads(data) == {"key": value}


# Stored bytes that cannot be read


def packed(code: int, data: bytes) -> Any:
    return msgpack.ExtType(code, data)


def pack(value: Any) -> bytes:
    data: bytes = msgpack.packb(value)
    return data


def ext_bomb(depth: int, code: int = 1) -> bytes:
    data = pack([])
    for _ in range(depth):
        data = pack([packed(code, data)])
    return pack({"k": packed(code, data)})


GOOD = pack({"n": 1})
EVIL = b"cos\nsystem\n(S'touch /tmp/prism_wsgi_was_here'\ntR."

UNREADABLE: dict[str, bytes] = {
    "empty": b"",
    "truncated": GOOD[:-1],
    "trailing": GOOD + b"\x00",
    "noise": b"\xff\xfe\xfd",
    "pickle": EVIL,
    "pickle, protocol 5": pickle.dumps({"n": 1}),
    "not a mapping": pack([1]),
    "a number": pack(5),
    "int key": pack({1: 2}),
    "lone surrogate": b"\x81\xa1a\xa3\xed\xa0\x80",
    "bad utf-8": b"\x81\xa1a\xa1\xff",
    "unknown extension": pack({"a": packed(99, b"")}),
    "bad date": pack({"a": packed(6, b"2026-13-01")}),
    "bad uuid": pack({"a": packed(9, b"short")}),
    "bad decimal": pack({"a": packed(10, b"one")}),
    "decimal nan": pack({"a": packed(10, b"NaN")}),
    "signalling nan": pack({"a": packed(10, b"sNaN")}),
    "bad timedelta": pack({"a": packed(8, pack([10**12, 0, 0]))}),
    "timedelta of texts": pack({"a": packed(8, pack(["x", 0, 0]))}),
    "set of lists": pack({"a": packed(2, pack([pack([])]))}),
    "deep lists": b"\x81\xa1a" + b"\x91" * 5000 + b"\x00",
    "deep maps": b"\x81\xa1a" + b"\x81\xa1a" * 100_000 + b"\x00",
    "deep tuples": ext_bomb(500),
    "deep frozensets": ext_bomb(500, 3),
    "promises 4 billion items": b"\x81\xa1a\xdd\xff\xff\xff\xff",
    "promises 4 billion bytes": b"\x81\xa1a\xc6\xff\xff\xff\xff",
    "promises 4 billion keys": b"\xdf\xff\xff\xff\xff",
}


# Planted, since nobody writes them: reading takes no time to look for them.
ODD: dict[str, bytes] = {
    "repeated key": b"\x82" + pack("a") + pack(1) + pack("a") + pack(2),
    "overlong int": b"\x81" + pack("a") + b"\xcd\x00\x01",
    "overlong text": b"\x81" + pack("a") + b"\xd9\x01b",
    "set that repeats": pack({"a": packed(2, pack([pack(1), pack(1)]))}),
    "small int as big": pack({"a": packed(4, b"\x01")}),
    "timestamp extension": b"\x81\xa1a\xd6\xff\x00\x00\x00\x05",
    "longer timestamp": b"\x81\xa1a\xd7\xff\x00\x00\x00\x05\x00\x00\x00\x05",
    "longest timestamp": b"\x81\xa1a\xc7\x0c\xff" + bytes(3) + b"\x01" + bytes(7) + b"\x05",
}
UNSTORABLE: dict[str, bytes] = {
    "bytes key": pack({b"a": 2}),
    "bytes key inside": pack({"a": [{b"b" * 300: 1}]}),
    "nan": pack({"a": float("nan")}),
    "nested infinity": pack({"a": [float("inf")]}),
    "infinity in a set": pack({"a": packed(2, pack([pack(float("-inf"))]))}),
    "a little too deep in tuples": b"\x81\xa1a" + b"\x91" * 50 + ext_bomb(15)[3:],
    "a little too deep": b"\x81\xa1a" + b"\x91" * (MAX_DEPTH + 1) + b"\x00",
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
def test_bytes_that_dumps_never_wrote_are_refused(data: bytes) -> None:
    with pytest.raises(SerializationError):
        SERIALIZER.loads(data)


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_an_odd_spelling_is_read_and_written_as_dumps_does(data: bytes) -> None:
    value = SERIALIZER.loads(data)
    written = SERIALIZER.dumps(value)
    assert written != data
    assert SERIALIZER.loads(written) == value


@pytest.mark.parametrize("data", UNSTORABLE.values(), ids=UNSTORABLE)
def test_a_planted_value_that_cannot_be_stored_is_not_stored_again(data: bytes) -> None:
    with pytest.raises(SerializationError):
        SERIALIZER.dumps(SERIALIZER.loads(data))


@given(st.binary(max_size=60))
@settings(max_examples=500)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(SerializationError):
        stored = SERIALIZER.dumps(SERIALIZER.loads(data))
        assert SERIALIZER.dumps(SERIALIZER.loads(stored)) == stored


@given(st.dictionaries(st.text(max_size=5), VALUES, min_size=1, max_size=3), st.data())
@settings(max_examples=80)
def test_a_flipped_bit_is_read_or_refused(session: dict[str, Any], data: st.DataObject) -> None:
    stored = bytearray(SERIALIZER.dumps(session))
    position = data.draw(st.integers(0, len(stored) - 1))
    stored[position] ^= 1 << data.draw(st.integers(0, 7))
    with suppress(SerializationError):
        written = SERIALIZER.dumps(SERIALIZER.loads(bytes(stored)))
        assert SERIALIZER.dumps(SERIALIZER.loads(written)) == written


def plant(browser: Browser, data: bytes) -> StoredSession:
    """Replace what is stored for the browser's session."""
    store = browser.site.store
    assert isinstance(store, ThreeVerbStore)
    row = store.store.load(browser.visit(lambda session: session.id).result)
    assert isinstance(row, StoredSession)
    row.data = data
    store.store.save(row)
    planted = store.store.load(row.id)
    assert isinstance(planted, StoredSession)
    return planted


PLANTED = {
    "empty": b"",
    "a later format": b"\x7f" + GOOD,
    "format zero": b"\x00" + GOOD,
    "cut properties": b"\x02\x00\x00",
    "pickle": EVIL,
    **{
        name: b"\x01" + UNREADABLE[name]
        for name in ("truncated", "pickle", "decimal nan", "deep lists", "deep tuples")
    },
}


@pytest.mark.parametrize("data", PLANTED.values(), ids=PLANTED)
def test_a_session_that_cannot_be_read_counts_as_absent_with_one_event(
    site: Site, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    row = plant(browser, data)
    header = browser.cookie_header
    caplog.set_level(logging.INFO, "prism_wsgi")
    page = browser.visit(lambda session: (session.is_new, dict(session), session.id != row.id))
    assert page.status == 200
    assert page.result == (True, {}, True)
    assert [record.reason for record in caplog.records] == ["unreadable_data"]  # type: ignore[attr-defined]
    assert "system" not in caplog.text
    assert isinstance(site.store, ThreeVerbStore)
    # left alone, for the version of the code that can read it
    assert site.store.store.load(row.id) == row
    site.browser().visit(write(n=2), HTTP_COOKIE=header)
    assert site.store.store.load(row.id) == row


def test_the_visitor_of_an_unreadable_session_can_go_on(site: Site) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    plant(browser, b"\x7fnews")
    assert browser.visit(write(n=2)).status == 200
    assert browser.visit(read("n")).result == 2


def look_and_leave(session: Session) -> None:
    assert dict(session) == {}
    session.logout()


def leave(session: Session) -> None:
    session.logout()


@pytest.mark.parametrize("handler", [leave, look_and_leave])
def test_logout_ends_an_unreadable_session_too(site: Site, handler: Callable[[Session], None]) -> None:
    browser = site.browser()
    browser.visit(write(n=1))
    row = plant(browser, b"\x7fnews")
    assert browser.visit(handler).attributes()["max-age"] == "0"
    assert isinstance(site.store, ThreeVerbStore)
    assert site.store.store.load(row.id) is None


@pytest.mark.parametrize("stored", [b"{bad", b"[1]", b"\xff"])
def test_what_a_serializer_of_ones_own_cannot_read_counts_as_absent_too(store: ThreeVerbStore, stored: bytes) -> None:
    import json

    class Json:
        def dumps(self, value: Any) -> bytes:
            return json.dumps(value).encode()

        def loads(self, data: bytes) -> Any:
            return json.loads(data)  # raises errors of its own, and returns whatever it finds

    browser = Site(store, serializer=Json()).browser()
    browser.visit(write(n=1))
    plant(browser, b"\x01" + stored)
    assert browser.visit(read("n")).result is None


def test_a_serializer_of_ones_own_is_used(store: ThreeVerbStore) -> None:
    import json

    class Json:
        def dumps(self, value: Any) -> bytes:
            return json.dumps(value, sort_keys=True).encode()

        def loads(self, data: bytes) -> Any:
            try:
                return json.loads(data)
            except ValueError as error:
                raise SerializationError("not JSON") from error

    browser = Site(store, serializer=Json()).browser()
    browser.visit(write(cart=[1]))
    browser.visit(lambda session: session["cart"].append(2))
    row = store.store.load(browser.visit(lambda session: session.id).result)
    assert row.data == b'\x01{"cart": [1, 2]}'
