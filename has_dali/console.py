"""What a command shows and leaves behind: options that all commands share, progress, tables, files.

Progress goes to a terminal only (stderr), results to stdout, and ``--quiet`` silences both; files are replaced
in one step, so an interrupted command leaves the old file or none, never half of one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

NON_TERMINAL_WIDTH = 110


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors, exact option names and the options every command has."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)
        self.add_argument("--quiet", action="store_true", help="print errors only")
        self.add_argument("--json", type=Path, metavar="FILE", help="write the result to FILE as JSON")

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and the message alone; the usage is one ``--help`` away."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


class Terminal:
    """The user's terminal: results on stdout, progress on stderr.

    Args:
        quiet: show nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console

        self.quiet = quiet
        self._out = Console(quiet=quiet, highlight=False)
        if not self._out.is_terminal:
            self._out.width = NON_TERMINAL_WIDTH
        self._err = Console(stderr=True, quiet=quiet)

    def say(self, text: str, style: str | None = None) -> None:
        """One line of prose; it is shown as it is, brackets included."""
        self._out.print(text, style=style, markup=False, soft_wrap=True)

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = "", left: bool = False
    ) -> None:
        """A table whose first column is text; the others are right-aligned numbers, or text with ``left``."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(title), box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
        table.caption = Text(note) if note else None
        for i, column in enumerate(columns):
            table.add_column(Text(column), justify="right" if i and not left else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._out.print(table)

    @contextlib.contextmanager
    def progress(self, description: str, total: int) -> Iterator[Callable[..., None]]:
        """A progress bar while the block runs; calls ``advance(steps=1, note="")`` move it."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", markup=False),
        )
        hidden = self.quiet or not self._err.is_terminal
        with Progress(*columns, console=self._err, disable=hidden, transient=True) as bar:
            task = bar.add_task(description, total=total, note="")

            def advance(steps: int = 1, note: str | None = None) -> None:
                fields: dict[str, Any] = {} if note is None else {"note": note}
                bar.update(task, advance=steps, **fields)

            yield advance


def check_writable(path: Path) -> None:
    """Raise OSError unless a file can be created at ``path``: asked before the work, not after it."""
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; give the name of a file")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{path}: the folder {folder} does not exist; create it or choose another path")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{path}: the folder {folder} is not writable; choose another path")
    descriptor, trial = _temporary(path)  # some folders, such as /proc, take no files whatever their mode says
    os.close(descriptor)
    os.unlink(trial)


@contextlib.contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """``path`` as a writable folder, made with its parents if missing; what stays empty after an error goes again."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        below = "is a file" if path.exists() else "lies below a file"
        raise NotADirectoryError(f"{path}: {below}; give the name of a folder") from None
    try:
        if not os.access(path, os.W_OK):
            raise PermissionError(f"{path}: the folder is not writable; choose another one")
        yield path
    except BaseException:
        with contextlib.suppress(OSError):  # not empty: what was finished before the error is kept
            for folder in made:
                folder.rmdir()
        raise


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears at ``path``, whole, when the block ends without an error.

    Its bytes are on the disk before its name is, so that not even a power cut leaves half of it.
    """
    check_writable(path)
    descriptor, temporary = _temporary(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # some milliseconds on a disk; without it a crash may leave zeros under the name
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _temporary(path: Path) -> tuple[int, str]:
    """An open descriptor and the name of a new file beside ``path``; errors name ``path``."""
    try:
        return tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise type(error)(f"{path}: cannot be written ({error.strerror}); choose another path") from None


def json_text(value: Any) -> str:
    """Strict, indented JSON: NaN and infinities become null, NumPy numbers and paths plain values."""
    return json.dumps(_plain(value), indent=2, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` to ``path`` in one step."""
    with atomic_file(path) as file:
        file.write(f"{json_text(value)}\n".encode())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
