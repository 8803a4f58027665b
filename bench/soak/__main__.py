"""``python -m has_dali.bench.soak {memory,kill,fuzz,all}``: long trials that CI runs only in short."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from has_dali.bench.soak import fuzz, kill, memory
from has_dali.bench.soak.verdict import Trial
from has_dali.console import Parser, Terminal, check_writable, write_json

TRIALS = {"memory": memory.run, "kill": kill.run, "fuzz": fuzz.run}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one trial, or all; exit code 0 where each of them passed, 1 where one failed."""
    parser = Parser("python -m has_dali.bench.soak", "Long trials of the loaders: memory, random kills, broken files.")
    parser.add_argument("trial", choices=[*TRIALS, "all"], help="which one")
    parser.add_argument("--short", action="store_true", help="a small version of each, for CI")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of kills and mutations (0)")
    parser.add_argument("--threads", type=int, metavar="N", help="decoding threads (the usable cores)")
    options = parser.parse_args(argv)
    if options.json is not None:
        check_writable(options.json)
    terminal = Terminal(options.quiet)
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="has_dali_soak_") as folder:
        for name in TRIALS if options.trial == "all" else (options.trial,):
            place = Path(folder) / name
            place.mkdir()
            started = time.monotonic()
            trial = TRIALS[name](place, options.short, options.seed, options.threads, terminal)
            trials.append(trial)
            verdict = "passed" if trial.passed else "FAILED"
            terminal.say(f"{name}: {verdict} in {time.monotonic() - started:.0f} s: {trial.summary}")
            for problem in trial.problems:
                terminal.say(f"  {problem}")
            if options.json is not None:  # after each: a long run that is interrupted leaves what was finished
                write_json(options.json, _document(trials, options))
    return 0 if all(trial.passed for trial in trials) else 1


def _document(trials: Sequence[Trial], options: Any) -> dict[str, Any]:
    settings = {"short": options.short, "seed": options.seed, "threads": options.threads}
    return {"settings": settings, "passed": all(trial.passed for trial in trials),
            "trials": {trial.name: trial.to_dict() for trial in trials}}  # fmt: skip


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError) as error:
        sys.exit(f"python -m has_dali.bench.soak: {error}")
