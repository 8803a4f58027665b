"""What ``has-dali figure`` draws, by kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from has_dali.trainers.figures.arms import Bars, Level, arms_figure
from has_dali.trainers.figures.curves import Curve, curves_figure
from has_dali.trainers.figures.filters import filters_figure
from has_dali.trainers.figures.located import localisation_figure
from has_dali.trainers.figures.occlusion import occlusion_figure
from has_dali.trainers.figures.strip import strip_figure
from has_dali.trainers.occlusion.answers import occlusion_examples
from has_dali.trainers.results.report import read_report
from has_dali.trainers.results.runs import conv1_filters, names_of, open_runs, run_name, shown_image, unique_names

_STRIP_EPOCHS = 6
_BARS = {
    "top1": "top-1",
    "top1_loc": "Top-1 Loc",
    "gt_known@0.3": "GT-known, IoU .3",
    "gt_known@0.5": "GT-known, IoU .5",
    "gt_known@0.7": "GT-known, IoU .7",
    "pxap": "PxAP",
}


def draw(options: Any) -> Figure:
    """The figure that the options of ``has-dali figure`` ask for."""
    if options.kind == "filters":
        names = names_of(options.runs)
        return filters_figure({name: conv1_filters(run) for name, run in zip(names, options.runs, strict=True)})
    if options.kind == "curves":
        return run_curves(options.runs, options.metric)
    if options.kind == "arms":
        return run_bars(options.runs)
    runs, images = open_runs(options.runs, options.data, options.device)
    if options.kind in ("cam", "failures"):
        if not hasattr(images, "val_boxes"):
            raise ValueError(f"RUN: the figure {options.kind} needs runs of localisation, on data with boxes")
        return localisation_figure(runs, images, options.count, options.kind == "failures")
    if options.kind == "occlusion":
        return occlusion_figure(
            occlusion_examples(runs, images, options.count), title="Half of the object covered: what each network says"
        )
    return _strip(runs, images)


def _strip(runs: Sequence[Any], images: Any) -> Figure:
    """The first training image as each run saw it in its first epochs."""
    policies, fills = {}, []
    for run in runs:
        settings = run.task.settings
        policy = settings.hide.policy(run.report["seed"]) if settings.hide.method == "has" else None
        if policy is not None:
            fills.append(settings.hide.image_fill or settings.loader.mean)
            sizes = ", ".join(map(str, policy.patch_sizes))
            policies[f"{run.name}, {'one of ' if len(policy.patch_sizes) > 1 else ''}{sizes} px"] = policy
            for size in policy.patch_sizes if len(policy.patch_sizes) > 1 else ():
                if size:
                    policies[f"{size} px"] = policy.with_(patch_sizes=(size,), p_apply=1.0)
    if not policies:
        raise ValueError("RUN: none of the runs hides parts of the image (hide.method=has): there is nothing to show")
    if any(fill != fills[0] for fill in fills):
        raise ValueError(f"RUN: expected runs that hide with one colour, got {fills}")
    image = shown_image(images.train, 0, runs[0].task.settings.loader.size)
    return strip_figure(image, policies, range(_STRIP_EPOCHS), fills[0], title="One image over the epochs")


def run_bars(runs: Sequence[Path]) -> Figure:
    """The main metrics of some arms as bars with a dot per seed, trivial predictors as lines.

    Raises:
        ValueError: the runs share none of the metrics.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    firsts: dict[str, tuple[str, Path]] = {}
    for run in runs:
        report = read_report(run)
        found.setdefault(report["config_hash"], []).append(report)
        firsts.setdefault(report["config_hash"], (run_name(report, run), run))
    names = unique_names(*zip(*firsts.values(), strict=True))
    arms: list[Bars] = []
    metrics: dict[str, str] = {}
    for name, reports in zip(names, found.values(), strict=True):
        last = [report["metrics"]["last"] for report in reports]
        values = {key: [row[key] for row in last] for key in _BARS if all(key in row for row in last)}
        metrics |= {key: _BARS[key] for key in values}
        arms.append(Bars(name, values))
    first = next(iter(found.values()))[0]
    levels = [
        Level(metric, name, value)
        for name, values in first["baselines"].items()
        for metric, value in values.items()
        if metric in metrics
    ]
    ordered = {key: title for key, title in _BARS.items() if key in metrics}
    return arms_figure(arms, ordered, title=f"{first['task']}, {first['recipe']}", levels=levels)


def run_curves(runs: Sequence[Path], metric: str) -> Figure:
    """A curve of the reports, such as top1 over epochs, with the seeds of an arm as one band.

    Raises:
        ValueError: a report lacks the curve.
    """
    arms: dict[str, list[dict[float, float]]] = {}  # by what runs of different seeds share
    firsts: dict[str, tuple[str, Path]] = {}
    for run in runs:
        report = read_report(run)
        if metric not in report["curves"]:
            raise ValueError(f"--metric {metric}: {run} has {', '.join(report['curves'])}")
        arms.setdefault(report["config_hash"], []).append(dict(report["curves"][metric]))
        firsts.setdefault(report["config_hash"], (run_name(report, run), run))
    names = unique_names(*zip(*firsts.values(), strict=True))
    curves = []
    for name, tables in zip(names, arms.values(), strict=True):
        places = sorted(set.intersection(*map(set, tables)))
        values = [[table[x] for x in places] for table in tables]
        curves.append(Curve(name, places, np.array(values, float)))
    threshold = metric.endswith("_by_threshold")
    return curves_figure(
        curves,
        title=metric.removesuffix("_by_threshold").replace("gt_known", "GT-known Loc").replace("_", " "),
        x_label="threshold, share of the map's maximum" if threshold else "epoch",
        y_label="%" if "loss" not in metric else "loss",
        percent="loss" not in metric,
    )
