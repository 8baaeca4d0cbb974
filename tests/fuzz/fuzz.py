"""Fuzz the readers of what strangers send and of what is stored.

With atheris (libFuzzer, guided by coverage), or with Hypothesis where atheris cannot be installed. An input that
breaks a promise is written to tests/fuzz/corpus, where every run of the tests reads it from then on.
"""

import argparse
import hashlib
import importlib.util
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
LONGEST_INPUT = 4096  # bytes
NAMES = ("cookie_reader", "request", "token_decoder", "serializer", "round_trip")


def fuzz_with_atheris(name: str, seconds: int, seed: int) -> None:
    """Fuzz one target; ends the process. libFuzzer reports how many inputs it tried."""
    import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

    with atheris.instrument_imports(include=["prism_wsgi"]):
        from tests.fuzz import targets
    with tempfile.TemporaryDirectory() as found:
        options = [
            f"-max_total_time={seconds}",
            f"-seed={seed}",
            f"-max_len={LONGEST_INPUT}",
            f"-artifact_prefix={CORPUS / name}/",
            "-print_final_stats=1",
            "-verbosity=0",
            "-timeout=100",
            "-rss_limit_mb=2048",
        ]
        # New inputs go to the first folder; the committed ones are where it starts.
        atheris.Setup([sys.argv[0], *options, found, str(CORPUS / name)], targets.TARGETS[name])
        atheris.Fuzz()


def fuzz_with_hypothesis(name: str, seconds: int, seed: int) -> None:
    """Fuzz one target; print how many inputs were tried."""
    import hypothesis
    from hypothesis import strategies as st

    from tests.fuzz.targets import TARGETS

    tried = 0
    last = b""

    @hypothesis.settings(max_examples=1000, deadline=None, database=None, derandomize=False)
    @hypothesis.given(st.binary(max_size=LONGEST_INPUT))
    def attempt(data: bytes) -> None:
        nonlocal tried, last
        tried, last = tried + 1, data
        TARGETS[name](data)

    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            hypothesis.seed(seed + tried)(attempt)()
    except BaseException:
        (CORPUS / name / f"crash-{hashlib.sha256(last).hexdigest()[:16]}").write_bytes(last)
        raise
    print(f"stat::number_of_executed_units: {tried}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=NAMES, action="append", help="what to fuzz; all unless given")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long, for each target (1)")
    parser.add_argument("--seed", type=int, default=None, help="to repeat a run; drawn unless given")
    parser.add_argument("--engine", choices=["atheris", "hypothesis"], help="atheris where it is installed")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    engine = options.engine or ("atheris" if importlib.util.find_spec("atheris") else "hypothesis")
    seed = secrets.randbelow(2**31 - 1) + 1 if options.seed is None else options.seed
    seconds = max(1, round(options.minutes * 60))
    if options.alone:
        fuzz = fuzz_with_atheris if engine == "atheris" else fuzz_with_hypothesis
        fuzz(options.target[0], seconds, seed)
        return 0
    failed = []
    for name in options.target or NAMES:
        print(f"{name}: {seconds} s with {engine}, seed {seed}", flush=True)
        # Each in a process of its own: libFuzzer ends its process, and an input may end it too.
        command = [sys.executable, "-m", "tests.fuzz.fuzz", "--alone", "--target", name, "--engine", engine]
        command += ["--seed", str(seed), "--minutes", str(options.minutes)]
        if subprocess.run(command, cwd=HERE.parents[1], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"A promise was broken: {', '.join(failed)}. The input is in tests/fuzz/corpus; run the tests to see.")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
