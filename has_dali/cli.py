"""``has-dali``: a table from a command's name to the function that runs it, imported when it is called.

A command is a function ``run(argv) -> exit code``. Bad input is exit code 2 with one or two lines on stderr;
``HAS_DALI_DEBUG=1`` shows the traceback as well.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn


class Command(NamedTuple):
    """Where a command lives, as ``module:function``, and what it does in one line."""

    target: str
    help: str


COMMANDS = {
    "demo": Command(
        "has_dali.bench.commands:demo", "contact sheet, loader speeds and a short training, from one command"
    ),
    "show": Command("has_dali.pipelines.commands:show", "contact sheet of any images with any policy"),
    "mean": Command("has_dali.pipelines.commands:mean", "per-channel mean and std of a training set"),
    "pack": Command("has_dali.pipelines.data_commands:pack", "images to resized shards, to be read much faster"),
    "check": Command("has_dali.pipelines.data_commands:check", "broken, suspicious and duplicate files of a data set"),
    "bench": Command("has_dali.bench.commands:bench", "images/s and seconds per step against the alternatives"),
    "train": Command("has_dali.trainers.commands:train", "train a task of the paper with a recipe"),
    "eval": Command("has_dali.trainers.commands:evaluate", "metrics of a checkpoint"),
    "recipes": Command("has_dali.trainers.commands:recipes", "the recipes that train knows"),
    "sweep": Command("has_dali.trainers.result_commands:sweep", "the paper's ablation tables, several seeds each"),
    "compare": Command("has_dali.trainers.result_commands:compare", "finished runs beside the paper's numbers"),
    "figure": Command("has_dali.trainers.result_commands:figure", "the paper's figures from finished runs"),
    "occlusion": Command("has_dali.trainers.result_commands:occlusion", "accuracy on occluded images, paired"),
    "doctor": Command(
        "has_dali.doctor:doctor", "versions, devices, the backend in use, and what is wrong if anything is"
    ),
}

BAD_INPUT, FAILURE, INTERRUPTED = 2, 1, 130
_MAX_ERROR_LINES = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(_help())
        return 0 if arguments else BAD_INPUT
    name, *rest = arguments
    if name == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"has-dali {version('has-dali')}\n")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(COMMANDS)}"
        sys.stderr.write(f"has-dali: {name!r} is not a command: {hint}\n")
        return BAD_INPUT
    return run_guarded(f"has-dali {name}", lambda: _load(COMMANDS[name].target)(rest))


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: has-dali COMMAND ...",
            "",
            "Hide-and-Seek augmentation for DALI and PyTorch.",
            "",
            *lines,
            "",
            "has-dali COMMAND --help explains one; has-dali --version prints the version.",
            "",
        ]
    )


def run_guarded(name: str, command: Callable[[], int]) -> int:
    """Run ``command()``; errors become at most two lines on stderr and an exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # odd metadata in users' images
    try:
        with _orderly_termination():
            return command()
    except SystemExit as stop:  # argparse: --help and bad options; SIGTERM
        return stop.code if isinstance(stop.code, int) else FAILURE
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:  # `has-dali mean DATA | head`: the reader left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except Exception as error:
        if os.environ.get("HAS_DALI_DEBUG", "0") not in ("", "0"):
            raise
        sys.stderr.write(f"{name}: {describe_error(error)}\n")
        return BAD_INPUT if isinstance(error, (ValueError, TypeError, OSError, ImportError)) else FAILURE


@contextmanager
def _orderly_termination() -> Iterator[None]:
    """SIGTERM ends the command as an exception does, so that temporary files and worker processes go with it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def stop(number: int, _: Any) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _load(target: str) -> Callable[[Sequence[str]], int]:
    module, _, function = target.partition(":")
    command: Callable[[Sequence[str]], int] = getattr(importlib.import_module(module), function)
    return command


def describe_error(error: BaseException) -> str:
    """An error in at most two lines; the native stack that DALI appends is left out."""
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("has_dali"):
        package = error.name.partition(".")[0]
        return f"the Python package {package} is missing: pip install 'has-dali[cuda13,train,bench]'"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, KeyError):
        return f"unexpected KeyError: {error}; HAS_DALI_DEBUG=1 shows where"
    text = str(error).partition("Stacktrace")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[:_MAX_ERROR_LINES]) or f"{type(error).__name__}; HAS_DALI_DEBUG=1 shows where"
