"""The demonstration: data, contact sheet, loader speeds, a short training; pictures and a report are left behind."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from has_dali.bench import charts, rendering
from has_dali.bench.peers.loader_all import CEILING, DALI, LOADERS, OURS, PLAIN, TORCHVISION
from has_dali.bench.peers.loader_data import embedded_source
from has_dali.bench.peers.loader_job import job_for, some_of
from has_dali.bench.results import Result
from has_dali.bench.scopes import loader
from has_dali.bench.training import TrainingReport, train_resnet18
from has_dali.console import Terminal, write_json
from has_dali.doctor import environment
from has_dali.kernels.policy import HideAndSeek
from has_dali.kernels.threads import available_cores
from has_dali.pipelines import contact_sheet, corpus
from has_dali.pipelines.commands import column_records, evenly_spaced, show_hidden, source_files, write_sheet
from has_dali.pipelines.sources import FileSource
from has_dali.pipelines.statistics import PixelStatistics, describe_files, files_in_words, pixel_statistics

# Every image is hidden, half of it on average: the load that the paper's localisation training has.
POLICY = HideAndSeek()
LOADERS_SHOWN = (OURS, PLAIN, DALI, TORCHVISION, CEILING)
_SHEET_EPOCHS, _SHEET_ROWS = 3, 4


def run_demo(
    source: FileSource | None, out: Path, terminal: Terminal, rounds: int, steps: int, extra_json: Path | None
) -> None:
    """Run all parts.

    Args:
        source: the images, or None for the embedded corpus.
        out: existing folder for ``contact_sheet.png``, ``loader_speed.png`` and ``report.json``.
        terminal: where progress and results are shown.
        rounds: measured turns of each loader.
        steps: training steps.
        extra_json: a second place for the report.
    """
    embedded = source is None
    report: dict[str, Any] = {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "argv": sys.argv}
    report["environment"] = environment()
    source = _embedded_source(terminal) if source is None else some_of(source)
    files = source_files(source)
    pixels = _describe(terminal, report, source, files, embedded)
    rows = _sheet_rows(source, files) if embedded else evenly_spaced(source, _SHEET_ROWS)
    layout = contact_sheet.columns(POLICY, _SHEET_EPOCHS)
    hidden = write_sheet(out / "contact_sheet.png", rows, layout, pixels.mean)
    report["contact_sheet"] = column_records(layout, hidden)
    show_hidden(terminal, layout, hidden, out / "contact_sheet.png")
    report["loaders"] = _measure_loaders(terminal, source, out, rounds, report["data"])
    report["training"] = _train(terminal, source, pixels, steps).to_dict()
    for path in (out / "report.json", extra_json):
        if path is not None:
            write_json(path, report)
    terminal.say(f"all figures: {out / 'report.json'}")


def _embedded_source(terminal: Terminal) -> FileSource:
    source = embedded_source(terminal)
    terminal.say(f"embedded corpus: {Path(source.path(0)).parents[1]}")
    return source


def _describe(
    terminal: Terminal, report: dict[str, Any], source: FileSource, files: list[str], embedded: bool
) -> PixelStatistics:
    """What the data are like; the mean colour is what the contact sheet hides with."""
    with terminal.progress("mean colour", len(files)) as advance:
        pixels = pixel_statistics(files, advance)
    data = describe_files(files)
    report["data"] = {"embedded_corpus": embedded, "classes": len(source.classes), **data, "pixels": pixels.to_dict()}
    colour = ", ".join(f"{value:.1f}" for value in pixels.mean)
    terminal.say(f"data: {files_in_words(data)}; {len(source.classes)} classes; mean colour {colour}")
    return pixels


def _sheet_rows(source: FileSource, files: list[str]) -> list[tuple[int, str]]:
    ids = [next(i for i, file in enumerate(files) if file.endswith(name)) for name in corpus.SHEET_FILES]
    return [(sample_id, source.path(sample_id)) for sample_id in ids]


def _measure_loaders(
    terminal: Terminal, source: FileSource, out: Path, rounds: int, data: dict[str, Any]
) -> dict[str, Any]:
    cores = available_cores()
    job = job_for(source, POLICY, cores)
    peers = [LOADERS[key] for key in LOADERS_SHOWN]
    with terminal.progress("measuring loaders", loader.progress_steps(len(peers), rounds)) as advance:
        table = loader.measure(job, peers, [cores], rounds, loader.WINDOW, advance)
    settings = {"rounds": rounds, "threads": cores, **table.parameters}
    bars = loader.bars(table)
    result = Result(loader.NAME, "Loaders", loader.conditions(peers, [cores]), settings, None, [table], bars)
    rendering.show(terminal, result)
    subtitle = (
        f"{data['images']} JPEGs, median {data['median_width']}x{data['median_height']}, mean"
        f" {data['mean_kilobytes']:.0f} KB; batch {job.batch_size}, {job.threads} CPU threads, page cache warm;"
        f" median of {rounds} turns, line: IQR"
    )
    charts.bar_chart(table, out / "loader_speed.png", "Training images per second, CPU only", subtitle)
    terminal.say(f"chart: {out / 'loader_speed.png'}")
    return result.to_dict()


def _train(terminal: Terminal, source: FileSource, pixels: PixelStatistics, steps: int) -> TrainingReport:
    std = tuple(max(value, 1.0) for value in pixels.std)  # images of one colour have a std of 0
    with terminal.progress("training ResNet-18", steps - 1) as advance:
        report = train_resnet18(source, POLICY, available_cores(), pixels.mean, std, steps, advance=advance)
    terminal.say(
        f"ResNet-18 from scratch, {report.steps} steps of {report.batch_size} at {report.size} px on the CPU: loss"
        f" {report.first_loss:.2f} -> {report.last_loss:.2f} (chance {report.chance_loss:.2f}),"
        f" {report.images_per_second:.0f} images/s, input stall {report.input_stall:.1%}"
    )
    return report
