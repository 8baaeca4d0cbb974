"""The typed msgpack format: values come back with their types, and an error names the path of a bad value.

Pickle is never used, in either direction: reading a pickle runs stored code (CVE-2013-7489).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Protocol, TypeVar
from uuid import UUID

import msgpack

from prism_wsgi.errors import SerializationError

_MomentT = TypeVar("_MomentT", datetime, time)

MAX_DEPTH = 64
"""The largest number of containers nested in each other, the session itself included."""

# Sets, not comparisons with the names in this module: freezegun replaces `datetime` and `date` here.
_SCALARS = frozenset({type(None), bool, int, bytes, UUID, date, timedelta})
_NUMBERS = frozenset({float, Decimal})
_MOMENTS = frozenset({datetime, time})
_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})

_LAZY_TEXTS = frozenset(
    {
        ("babel.support", "LazyProxy"),
        ("django.utils.functional", "Promise"),
        ("flask_babel.speaklater", "LazyString"),
    }
)
"""Translations that are made when they are shown, by name: their packages need not be installed."""


class Serializer(Protocol):
    """A converter of a session's mapping into bytes and back.

    Two further methods are optional, as in TypedSerializer. `check(path, value)` refuses a value when it is assigned;
    unless it returns None, the session holds what it returns. `dumps_checked(value)` saves a mapping of checked
    values, none of which can have changed since.
    """

    def dumps(self, value: Mapping[str, Any]) -> bytes:
        """Return the bytes for a session, equal for equal sessions. Raises SerializationError."""
        ...

    def loads(self, data: bytes) -> dict[str, Any]:
        """Return what `dumps` was given. Raises SerializationError, and nothing else, for any other bytes."""
        ...


class TypedSerializer:
    """The msgpack serializer with extension types, so that values come back exactly as they were.

    It takes None, bool, int of any size, finite float, str, bytes, list, tuple, dict with str keys, set,
    frozenset, datetime (aware, as a fixed offset from UTC, and naive), date, time, timedelta, UUID and
    Decimal, nested up to MAX_DEPTH, and `markupsafe.Markup`, the HTML of Flask and Jinja.

    A value of a subclass of these comes back as its base: an OAuth token as a dict, a namedtuple as a tuple. An
    object with `__html__` comes back as Markup, or as text if markupsafe is not installed. A lazy translation comes
    back as text, in the language of the request that assigned it. Enums and dataclasses are refused, because they
    would lose their type.
    """

    def dumps(self, value: Mapping[str, Any]) -> bytes:
        """Return the bytes for a session. Raises SerializationError, which names the first value it cannot store."""
        self.check("session", value)
        return _pack(value)

    def dumps_checked(self, value: Mapping[str, Any]) -> bytes:
        """Return the same bytes as `dumps` in a third of the time; every value must have passed `check`."""
        try:
            return _pack(value)
        except (ValueError, TypeError, OverflowError):  # read from the store, and never written by `dumps`
            return self.dumps(value)

    def loads(self, data: bytes) -> dict[str, Any]:
        """Return the session that `data` holds. Raises SerializationError for any other bytes."""
        try:
            value = _unpack(data)
        except (ValueError, TypeError, ArithmeticError, RecursionError, msgpack.UnpackException) as error:
            raise SerializationError(f"Stored session data cannot be read: {type(error).__name__}") from None
        if type(value) is not dict:
            raise SerializationError(f"Stored session data holds no dict, but a {type(value).__name__}")
        return value

    def check(self, path: str, value: object) -> Any:
        """Return the value for the session to hold: `value`, or a copy in which lazy translations are texts.

        `path` is its place in the session. Raises SerializationError when the value cannot be stored.
        """
        try:
            is_lazy = _check(value, 0 if path == "session" else 1)
            # Later, outside the request, it would be translated into another language.
            return _unpack(_pack(value)) if is_lazy else value
        except _UnstorableError as error:
            where = path + "".join(reversed(error.steps))
            raise SerializationError(f"{where} {error}", where) from None


class _UnstorableError(TypeError):
    """A problem of a value; `steps` lead to the value, innermost first."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.steps: list[str] = []


def _check(value: object, depth: int) -> bool:
    """Tell whether a value has a lazy translation in it. Raises _UnstorableError."""
    kind = type(value)
    if kind is str:
        _check_text(value)  # type: ignore[arg-type]
    elif kind in _CONTAINERS:
        if depth > MAX_DEPTH:
            raise _UnstorableError(f"is nested deeper than {MAX_DEPTH} levels, or contains itself")
        return _check_elements(value, depth)
    elif kind in _NUMBERS:
        # math.isfinite() would take 1E+400 for infinite, since no float is that large
        if not (value.is_finite() if kind is Decimal else math.isfinite(value)):  # type: ignore[attr-defined, arg-type]
            raise _UnstorableError("is not a finite number")
    elif kind in _MOMENTS:
        _check_offset(value)
    elif kind not in _SCALARS:
        return _check_by_base(value, depth)
    return False


def _check_by_base(value: object, depth: int) -> bool:
    kind, base = _as_base(value)
    is_lazy = not isinstance(value, _BASES)
    if kind in _MOMENTS:
        _check_offset(base)
    elif _is_markup(kind):
        _check_text(str(base))
    elif kind not in _SCALARS:
        return _check(base, depth) or is_lazy
    return is_lazy


def _check_offset(moment: Any) -> None:
    offset = moment.utcoffset()
    if offset is None and moment.tzinfo is not None:
        raise _UnstorableError("has a time zone without a fixed offset; use a datetime instead")
    # Python 3.11 reads an offset below a second as UTC
    if offset is not None and offset.microseconds:
        raise _UnstorableError("has an offset from UTC that is not whole seconds")


def _check_elements(container: Any, depth: int) -> bool:
    if type(container) is dict:
        _check_keys(container)
        elements: Iterable[tuple[Any, object]] = container.items()
    else:
        elements = enumerate(container)
    is_lazy = False
    step: Any = None
    try:
        for step, element in elements:  # noqa: B007, read where the error is caught
            kind = type(element)
            is_plain = kind in _SCALARS or (kind is str and element.isascii())  # type: ignore[attr-defined]
            if not is_plain and _check(element, depth + 1):
                is_lazy = True
    except _UnstorableError as error:
        error.steps.append(_step(container, step, depth))
        raise
    return is_lazy


def _step(container: object, step: Any, depth: int) -> str:
    """Write one step of a path the way a reader would: `session['cart'][2].owner`."""
    if isinstance(container, dict):
        return f".{step}" if depth and step.isidentifier() else f"[{step!r}]"
    return f"[{step}]" if isinstance(container, list | tuple) else "{...}"


def _check_keys(value: dict[Any, Any]) -> None:
    for key in value:
        if type(key) is not str and (not isinstance(key, str) or isinstance(key, Enum)):
            raise _UnstorableError(f"has a key of type {type(key).__name__}; keys must be str")
        _check_text(key)


def _check_text(text: str) -> None:
    # A lone surrogate has no UTF-8 encoding; isascii() settles most texts without encoding them.
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _UnstorableError("has text with a lone surrogate, which has no UTF-8 encoding") from None


def _pack(value: object) -> bytes:
    return msgpack.packb(value, default=_pack_extension, strict_types=True)  # type: ignore[no-any-return]


def _unpack(data: bytes, depth: int = 0) -> Any:
    # dumps() writes no msgpack timestamps; read as numbers, other writers' can at least be stored again.
    return msgpack.unpackb(data, ext_hook=_EXTENSION_HOOKS[depth], strict_map_key=True, timestamp=1)


def _pack_set(value: set[Any] | frozenset[Any]) -> bytes:
    # Sorted: the order of a set differs between processes, and equal sessions must give equal bytes.
    return _pack(sorted(_pack(element) for element in value))


def _unpack_set(data: bytes, depth: int) -> Iterator[Any]:
    return (_unpack(element, depth) for element in _unpack(data, depth))


def _pack_int(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _unpack_decimal(data: bytes) -> Decimal:
    value = Decimal(data.decode())
    if not value.is_finite():
        raise ValueError("a number that is not finite")
    return value


def _moment_packer(isoformat: Callable[[Any], str]) -> Callable[[Any], bytes]:
    # The base class's method, since a subclass may write text that cannot be read back (nanoseconds, say).
    return lambda value: isoformat(value).encode()


def _read_moment(kind: type[_MomentT], data: bytes) -> _MomentT:
    value = kind.fromisoformat(data.decode())
    offset = value.utcoffset()
    if offset is not None and offset.microseconds:
        raise ValueError("an offset from UTC that is not whole seconds")
    return value


def _pack_timedelta(value: timedelta) -> bytes:
    return _pack([value.days, value.seconds, value.microseconds])


def _as_base(value: object) -> tuple[type, Any]:
    """Return the type as which a value is stored, and the value in that type. Raises _UnstorableError."""
    kind = type(value)
    if _is_markup(kind):
        return kind, value
    if not issubclass(kind, Enum) and not is_dataclass(kind):
        if hasattr(kind, "__html__"):
            return _html(value.__html__())  # type: ignore[attr-defined]
        if (kind.__module__, kind.__name__) == ("translationstring", "TranslationString"):
            value = value.interpolate()  # type: ignore[attr-defined]
        for one in kind.__mro__:
            if one in _STORABLE:
                return one, _CONVERSIONS[one](value) if one in _CONVERSIONS else value
            if (one.__module__, one.__name__) in _LAZY_TEXTS:
                return str, str(value)
    raise _UnstorableError(
        f"is of type {kind.__module__}.{kind.__qualname__}, which a session cannot store; "
        "store its parts as plain values instead"
    )


def _html(text: Any) -> tuple[type, Any]:
    try:
        from markupsafe import Markup
    except ImportError:
        return str, str.__str__(text)
    return Markup, Markup(str.__str__(text))  # noqa: S704, which it is


def _is_markup(kind: type) -> bool:
    # By name: the package need not be installed.
    return kind.__name__ == "Markup" and kind.__module__ == "markupsafe"


def _unpack_markup(data: bytes) -> Any:
    try:
        from markupsafe import Markup
    except ImportError:
        raise ValueError("HTML that needs the package markupsafe") from None
    return Markup(data.decode())  # noqa: S704, which it was when it was stored


_Unpack = Callable[[bytes, int], Any]

# Each type's code in the stored bytes: never reuse or change one.
_EXTENSIONS: dict[int, tuple[type, Callable[[Any], bytes], _Unpack]] = {
    1: (tuple, lambda value: _pack(list(value)), lambda data, depth: tuple(_unpack(data, depth))),
    2: (set, _pack_set, lambda data, depth: set(_unpack_set(data, depth))),
    3: (frozenset, _pack_set, lambda data, depth: frozenset(_unpack_set(data, depth))),
    4: (int, _pack_int, lambda data, _: int.from_bytes(data, "big", signed=True)),
    5: (datetime, _moment_packer(datetime.isoformat), lambda data, _: _read_moment(datetime, data)),
    6: (date, _moment_packer(date.isoformat), lambda data, _: date.fromisoformat(data.decode())),
    7: (time, _moment_packer(time.isoformat), lambda data, _: _read_moment(time, data)),
    8: (timedelta, _pack_timedelta, lambda data, depth: timedelta(*_unpack(data, depth))),
    9: (UUID, lambda value: value.bytes, lambda data, _: UUID(bytes=data)),
    10: (Decimal, lambda value: str(value).encode(), lambda data, _: _unpack_decimal(data)),
}
_MARKUP = 11
_PACKERS = {kind: (code, pack) for code, (kind, pack, _) in _EXTENSIONS.items()}

_STORABLE = _SCALARS | _NUMBERS | _MOMENTS | _CONTAINERS | {str}
_BASES = tuple(_STORABLE)

# Conversions of a subclass's value to its base, for types that the msgpack library knows only as the base. They use
# the base's methods, since a subclass may override `__str__` and the like; containers are copied item by item.
_CONVERSIONS: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: lambda value: bytes(memoryview(value)),
    Decimal: Decimal,
    **{kind: kind for kind in _CONTAINERS},
}
_MSGPACK_INTEGERS = range(-(2**63), 2**64)


def _pack_extension(value: object) -> Any:
    """Return a value that the msgpack library can write, for one that it does not know."""
    kind = type(value)
    if kind not in _PACKERS:
        kind, value = _as_base(value)
        if _is_markup(kind):
            return msgpack.ExtType(_MARKUP, str(value).encode())
        if kind not in _PACKERS or (kind is int and value in _MSGPACK_INTEGERS):
            return value
    code, pack = _PACKERS[kind]
    return msgpack.ExtType(code, pack(value))


def _extension_hook(depth: int) -> Callable[[int, bytes], Any]:
    def unpack_extension(code: int, data: bytes) -> Any:
        if code == _MARKUP:
            return _unpack_markup(data)
        if code not in _EXTENSIONS or depth > MAX_DEPTH:
            raise ValueError("unknown extension type, or extensions nested too deep")
        return _EXTENSIONS[code][2](data, depth + 1)

    return unpack_extension


# One hook for each depth. Without a bound, tuples nested 5,000 deep in planted bytes overflow the C stack and
# end the process with a segmentation fault before Python counts to its recursion limit.
_EXTENSION_HOOKS = [_extension_hook(depth) for depth in range(MAX_DEPTH + 2)]
