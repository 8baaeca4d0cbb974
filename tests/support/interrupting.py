"""Exceptions from outside, such as a worker's timeout raises, at each place of a call in turn."""

import itertools
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Literal


class Interrupted(BaseException):
    """What a worker's timeout raises out of its signal handler."""


def interruptions(
    call: Callable[[], object], within: str, at_each: Literal["line", "opcode"] = "line"
) -> Iterator[int]:
    """Interrupt `call` at each line or instruction of the files of `within` in turn; yield after each.

    Those inside an `except` are left out: interrupted there by a trace function, CPython itself leaks the frame.
    """
    for number in itertools.count(1):
        passed = itertools.count(1)

        def trace(frame: FrameType, event: str, _: object, number: int = number, passed: Any = passed) -> Any:
            if within not in frame.f_code.co_filename:
                return None
            frame.f_trace_opcodes = at_each == "opcode"
            is_in_except = sys.exc_info()[0] is not None or frame.f_lineno is None
            if event == at_each and not is_in_except and next(passed) == number:
                sys.settrace(None)
                raise Interrupted
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            call()
        except Interrupted:
            pass
        else:
            return
        finally:
            sys.settrace(before)
        yield number
