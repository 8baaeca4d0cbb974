"""Every part by name.

Each runs in a fresh process, so that none finds the settings, patches or memory of another.
"""

import logging
import multiprocessing
import warnings
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module

from benchmarks.machine.databases import Places
from benchmarks.parts.plan import Plan
from benchmarks.report.figures import Figures

PARTS = ("requests", "messages", "threads", "footprint", "touches", "rows", "http")
"""Modules below `benchmarks.parts`, each with a function `measure(places, plan)`."""
SHORT_PARTS = ("requests", "messages", "threads", "footprint", "touches")


def run(part: str, places: Places, plan: Plan) -> Figures:
    """Run one part in a fresh process; return its figures."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=_be_quiet) as pool:
        return pool.submit(_measure, part, places, plan).result()


def _measure(part: str, places: Places, plan: Plan) -> Figures:
    figures: Figures = import_module(f"benchmarks.parts.{part}").measure(places, plan)
    return figures


def _be_quiet() -> None:
    warnings.simplefilter("ignore")
    # Events are logged as in production, to a handler, but forged cookies are no news here.
    logging.getLogger().addHandler(logging.NullHandler())
