"""``python -m has_dali.bench.page``: docs/benchmarks.md and its pictures from the JSON of the runs.

The page says nothing that the documents do not: the same documents give the same page.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from has_dali.bench import machine, rendering
from has_dali.bench.documents import read_document
from has_dali.bench.plots import SWEEPS, plots
from has_dali.bench.rendering import escaped, is_sweep, times, verdict
from has_dali.bench.results import Result, Row, Table
from has_dali.bench.running import SCOPES
from has_dali.cli import run_guarded
from has_dali.console import Terminal, atomic_file, check_writable

_RESULTS, _OUT = Path("bench/results"), Path("docs/benchmarks.md")
_MOST_PICTURES = 4  # of one run; a scope of many jobs shows its first ones
_LONGEST_SETTING = 160
_INTRODUCTION = """\
# Benchmarks

Ratios are what counts: contenders were measured in turns on one machine, and a ratio is taken round by round between
neighbours in time. Every contender passed an equality check first (the same hidden fraction, fill and type) or is void;
what could not run is listed with the reason; losses stand where they fall. Figures of different scopes never share a
column. `has-dali bench SCOPE --json FILE` measures one on your machine, `has-dali bench compare A.json B.json` compares
two runs, `has-dali bench --suggest DATA` recommends settings, and `make bench` makes this page.
"""


def page(documents: Mapping[str, Mapping[str, Any]], images: str) -> tuple[str, dict[str, Any]]:
    """The page of some runs.

    Args:
        documents: by name, such as "loader"; names are also those of the pictures.
        images: the folder of the pictures, as the page names it.

    Returns:
        The Markdown, and the pictures to be drawn by file name.

    Raises:
        ValueError: there is no run.
    """
    if not documents:
        raise ValueError("no run to show: measure with has-dali bench all --out DIR first")
    names = sorted(documents, key=lambda name: (_rank(documents[name]["scope"]), name))
    found = [(name, documents[name], Result.from_dict(documents[name])) for name in names]
    lines = [_INTRODUCTION, *_machines(found), *_standing(found)]
    pictures: dict[str, Any] = {}
    for name, record, result in found:
        lines += _section(name, record, result, images, pictures)
    return "\n".join(lines).rstrip() + "\n", pictures


def write_page(results: Path, out: Path) -> list[Path]:
    """Write the page of all runs in a folder, and its pictures to ``images`` beside it; old pictures go.

    Raises:
        OSError: a folder is missing or cannot be written.
        ValueError: the folder holds no run, or a broken one.
    """
    documents = read_results(results)
    folder = out.parent / "images"
    text, pictures = page(documents, "images")
    check_writable(out)
    folder.mkdir(exist_ok=True)
    for name, plot in pictures.items():
        plot.draw(folder / name)
    with atomic_file(out) as file:
        file.write(text.encode())
    for old in folder.glob("bench_*.svg"):
        if old.name not in pictures:
            old.unlink()
    return [out, *(folder / name for name in pictures)]


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """The runs in a folder by file name; JSON without a scope, which other commands write, is passed over.

    Raises:
        OSError: there is no such folder, or a file cannot be read.
        ValueError: a file is broken, or of another version: a page without it would hide a run.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"--results {folder}: no such folder")
    found = {}
    for path in sorted(folder.glob("*.json")):
        if _is_run(path):
            found[path.stem] = read_document(path)
    return found


def _is_run(path: Path) -> bool:
    """Whether it has a scope; what is no JSON may have had one, and reading it says what is wrong."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return True
    return isinstance(record, dict) and "scope" in record


def _rank(scope: str) -> int:
    return list(SCOPES).index(scope) if scope in SCOPES else len(SCOPES)


def _machines(found: Sequence[tuple[str, Mapping[str, Any], Result]]) -> Iterator[str]:
    """Each machine once, with the runs that it made."""
    runs: dict[str, list[str]] = {}
    for name, record, _ in found:
        facts = record["machine"]
        packages = ", ".join(f"{key} {value}" for key, value in facts["packages"].items() if value)
        variables = ", ".join(f"{key}={value}" for key, value in facts["variables"].items())
        text = f"{machine.in_words(facts)}; {facts['system']}, Python {facts['python']}; {packages}"
        runs.setdefault(text + (f"; {variables}" if variables else ""), []).append(name)
    yield from ("## Machine", "")
    for text, names in runs.items():
        yield f"- {', '.join(names)}: {escaped(text)}."
    yield ""


def _standing(found: Sequence[tuple[str, Mapping[str, Any], Result]]) -> Iterator[str]:
    """All bars in one place, then all losses."""
    bars = [(name, bar) for name, _, result in found for bar in result.bars]
    if bars:
        yield from ("## Bars", "")
        rows = [[name, *rendering.bar_cells(bar)] for name, bar in bars]
        yield from rendering.markdown_table(["scope", *rendering.BAR_COLUMNS], rows, texts=2)
        notes = list(dict.fromkeys(rendering.bar_notes([bar for _, bar in bars])))
        yield from ["", *(f"- {escaped(note)}" for note in notes)] if notes else []
        yield ""
    yield from ("## Losses", "")
    lines = [
        f"- {escaped(f'{name}, {table.title}: {text}')}"
        for name, _, result in found
        for table in result.tables
        for text in losses(table)
    ]
    yield from lines or ["No contender was faster than ours at the same job."]
    yield ""


def losses(table: Table) -> list[str]:
    """The comparisons of a table that ours did not win."""
    baseline = table.row(table.baseline)
    return [
        f"{_faster(row, baseline)} ({times(row.ratio)})"
        for row in table.rows
        if baseline is not None and row.ratio is not None and verdict(table, row) == "loss"
    ]


def _faster(row: Row, baseline: Row) -> str:
    fast, slow = (baseline, row) if row.kind == "ours" else (row, baseline)
    return f"{fast.label} is faster than {slow.label}"


def _section(
    name: str, record: Mapping[str, Any], result: Result, images: str, pictures: dict[str, Any]
) -> Iterator[str]:
    yield from (f"## {escaped(result.title)}", "", f"`{shlex.join(record['argv'])}`", "")
    yield from (f"{_conditions(record, result)}", "")
    drawn = plots(result, result.title)[:_MOST_PICTURES]
    by_key = {}
    for plot in drawn:
        file = f"bench_{name}_{_safe(plot.key)}.svg"
        pictures[file] = plot
        by_key[plot.key] = f"![{escaped(plot.title)}]({images}/{file})"
    if SWEEPS in by_key:
        yield from (by_key[SWEEPS], "")
    for table in result.tables:
        yield from (f"### {escaped(table.title)}", "")
        if not is_sweep(table) and table.key in by_key:
            yield from (by_key[table.key], "")
        yield from (*rendering.table_markdown(table), "")


def _conditions(record: Mapping[str, Any], result: Result) -> str:
    git = record["machine"]["git"]
    load = record["machine"]["before"]["load_average"][0], record["machine"]["after"]["load_average"][0]
    parts = [
        result.conditions.rstrip("."),
        f"settings: {_settings(result.settings)}" if result.settings else "",
        f"data: {_data(result.data)}" if result.data else "",
        f"{record['started'][:10]}, {record['seconds']:.0f} s, load average {load[0]:.1f} before, {load[1]:.1f} after",
        f"commit {git['commit'][:12]}{', with changes' if git['dirty'] else ''}" if git else "an installed wheel",
    ]
    return escaped(". ".join(part[:1].upper() + part[1:] for part in parts if part)) + "."


def _settings(settings: Mapping[str, Any]) -> str:
    """Settings in words; what is as long as a recipe stays in the document."""
    words = {name: rendering.settings_in_words({name: value}) for name, value in settings.items()}
    short = [text if len(text) <= _LONGEST_SETTING else f"{name} as in the document" for name, text in words.items()]
    return ", ".join(short)


def _data(data: Mapping[str, Any]) -> str:
    parts = [f"{data.get('name') or 'images'}, {data['images']} images"]
    if data.get("median_width"):
        parts.append(f"median {data['median_width']}x{data['median_height']}, mean {data['mean_kilobytes']:.0f} KB")
        parts.append(", ".join(f"{share:.0f} % {kind}" for kind, share in data["chroma_percent"].items()))
    if data.get("page_cache") is not None:
        parts.append(f"{data['page_cache']:.0%} of it in the page cache")
    if data.get("fingerprint"):
        parts.append(f"fingerprint {data['fingerprint']}")
    return ", ".join(parts)


def _safe(key: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in key)


def main(argv: Sequence[str]) -> int:
    """Make the page; prints what it wrote."""
    parser = argparse.ArgumentParser("python -m has_dali.bench.page", description=__doc__, allow_abbrev=False)
    parser.add_argument("--results", type=Path, default=_RESULTS, metavar="DIR", help=f"JSON of the runs ({_RESULTS})")
    parser.add_argument("--out", type=Path, default=_OUT, metavar="FILE", help=f"the page ({_OUT})")
    options = parser.parse_args(argv)
    for path in write_page(options.results, options.out):
        Terminal().say(str(path))
    return 0


if __name__ == "__main__":
    sys.exit(run_guarded("has_dali.bench.page", lambda: main(sys.argv[1:])))
