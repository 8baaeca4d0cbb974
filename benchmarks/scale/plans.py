"""The plans of a SQL engine: what was asked of it, and how it looks for the answer."""

import re
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.event import listen, remove

_EXPLAIN = {"sqlite": "EXPLAIN QUERY PLAN ", **dict.fromkeys(("mysql", "mariadb"), "EXPLAIN FORMAT=TRADITIONAL ")}
"""The words before a statement on engines that need more than EXPLAIN. MySQL 9 draws a tree unless told otherwise."""

Question = tuple[str, Any]
"""A statement and its parameters."""


def questions_of(engine: Engine, table: str, ask: Callable[[], object]) -> list[Question]:
    """Return the statements on a table that `ask` leads to, in their order."""
    asked: list[Question] = []

    def note(*event: Any) -> None:
        asked.append((event[2], event[3]))

    listen(engine, "before_cursor_execute", note)
    try:
        ask()
    finally:
        remove(engine, "before_cursor_execute", note)
    named = re.compile(rf"\b{table}\b")
    return [one for one in asked if named.search(one[0]) and not one[0].startswith("INSERT")]


def plan_of(engine: Engine, question: Question) -> list[str]:
    """Return how the engine means to answer a question, a line a step."""
    statement, parameters = question
    explained = _EXPLAIN.get(engine.dialect.name, "EXPLAIN ") + statement
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(explained, parameters).mappings().all()
    if engine.dialect.name == "postgresql":
        return [str(row["QUERY PLAN"]) for row in rows]
    if engine.dialect.name == "sqlite":
        return [str(row["detail"]) for row in rows]
    shown = ("table", "type", "key", "rows", "Extra")
    return [" ".join(f"{name}={row[name]}" for name in shown) for row in rows]


def scanned(engine: Engine, plan: list[str], table: str) -> list[str]:
    """Return the steps of a plan that go through a table without an index, and so read all of it."""

    def is_scan(step: str) -> bool:
        if engine.dialect.name == "postgresql":
            return f"Seq Scan on {table} " in step
        if engine.dialect.name == "sqlite":
            return step.split()[:2] == ["SCAN", table] and "INDEX" not in step
        return step.startswith(f"table={table} type=ALL ")

    return [step for step in plan if is_scan(step)]
