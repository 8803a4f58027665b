"""``has-dali bench all``: the scopes that need no GPU, each in a process of its own, one JSON file per scope."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from has_dali.bench import machine
from has_dali.bench.documents import read_document
from has_dali.bench.running import SCOPES
from has_dali.console import Parser, Terminal, output_folder, write_json

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STOPPED = (*(-number for number in _SIGNALS), *(128 + number for number in _SIGNALS))
SUITE = ("op", "loader", "train", "startup", "scale", "pack", "arrays")


def main(argv: Sequence[str]) -> int:
    """Run what is not finished yet; exit code 1 when a scope failed.

    Raises:
        ValueError, OSError: an option is bad or the folder cannot be written.
    """
    parser = Parser("has-dali bench all", "The CPU suite; a scope that this code finished is not run again.")
    parser.add_argument("--out", type=Path, default=Path("bench_results"), metavar="DIR", help="(bench_results)")
    parser.add_argument("--data", metavar="DIR", help="one folder of images per class (an embedded corpus)")
    parser.add_argument("--arrays", metavar="DATA", help="decoded images for the scope arrays (noise)")
    parser.add_argument("--scopes", metavar="NAME,NAME", help=f"some of {','.join(SUITE)}")
    parser.add_argument("--rounds", metavar="N", help="measured turns of each contender")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns")
    parser.add_argument("--again", action="store_true", help="run finished scopes again")
    options = parser.parse_args(argv)
    chosen = tuple(options.scopes.split(",")) if options.scopes else SUITE
    for name in chosen:
        if name not in SUITE:
            raise ValueError(f"--scopes {name}: expected some of {', '.join(SUITE)}")
    shared = [*(["--rounds", options.rounds] if options.rounds else []), *(["--quick"] if options.quick else [])]
    given = {"images": options.data, "arrays": options.arrays, "": None}
    terminal = Terminal(options.quiet)
    outcomes: dict[str, str] = {}
    with output_folder(options.out):
        for name in chosen:
            data = given[SCOPES[name].takes]
            words = [*([data] if data else []), *shared]
            if not options.again and _finished(options.out / f"{name}.json", ["has-dali", "bench", name, *words]):
                outcomes[name] = "finished before"
            else:
                outcomes[name] = _run(name, words, options.out, options.quiet)
            terminal.say(f"{name}: {outcomes[name]}")
    if options.json is not None:
        write_json(options.json, outcomes)
    return 1 if any(text.startswith("failed") for text in outcomes.values()) else 0


def _finished(path: Path, words: Sequence[str]) -> bool:
    """Whether the file is whole and holds what ``words`` would measure now: same code, options and machine.

    A working tree with changes is never the same code: nothing tells which changes they were. Results that lie in a
    checkout are older than it: they were committed after they were measured.
    """
    try:
        record = read_document(path)
        found = record["machine"]
        now = machine.facts()
        same = (
            _measured_words(record["argv"]) == machine.tidy_argv(words),
            _code(found) == _code(now) != "changed",
            found["cpu"]["model"] == now["cpu"]["model"],
            found["packages"] == now["packages"],
        )
    except (OSError, ValueError, KeyError):
        return False
    return all(same)


def _measured_words(argv: Sequence[str]) -> list[str]:
    """A command line without ``--json FILE`` and ``--quiet``, which change nothing that is measured."""
    words, rest = [], iter(argv)
    for word in rest:
        if word == "--json":
            next(rest, None)
        elif word != "--quiet":
            words.append(word)
    return words


def _code(facts: Mapping[str, Any]) -> str:
    """The commit; "wheel" for an installed one, whose version is among the packages; or "changed"."""
    git = facts["git"]
    return "wheel" if git is None else "changed" if git["dirty"] else git["commit"]


def _run(name: str, words: Sequence[str], out: Path, quiet: bool) -> str:
    """Run one scope in a fresh process: no threads, caches or memory of another scope weigh on it.

    Raises:
        KeyboardInterrupt: somebody stopped it. A scope that died by itself is a failure, and the suite goes on.
    """
    files = ["--json", str(out / f"{name}.json"), *(["--quiet"] if quiet else [])]
    done = subprocess.run([sys.executable, "-m", "has_dali", "bench", name, *words, *files], check=False)
    if done.returncode in _STOPPED:
        raise KeyboardInterrupt
    if done.returncode < 0:
        return f"failed with signal {-done.returncode}"
    return "done" if done.returncode == 0 else f"failed with exit code {done.returncode}"
