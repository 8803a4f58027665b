"""What ``has-dali figure`` draws, by kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from has_dali.trainers.figures.curves import Curve, curves_figure
from has_dali.trainers.figures.filters import filters_figure
from has_dali.trainers.figures.occlusion import occlusion_figure
from has_dali.trainers.figures.strip import strip_figure
from has_dali.trainers.occlude import occlusion_examples
from has_dali.trainers.report import read_report
from has_dali.trainers.run_figures import localisation_figure
from has_dali.trainers.runs import conv1_filters, open_runs, run_name, shown_image
from has_dali.trainers.settings import HideSettings

_STRIP_EPOCHS = 6


def draw(options: Any) -> Figure:
    """The figure that the options of ``has-dali figure`` ask for."""
    if options.kind == "filters":
        return filters_figure({run_name(read_report(run), run): conv1_filters(run) for run in options.runs})
    if options.kind == "curves":
        return run_curves(options.runs, options.metric)
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
    policies = {}
    for run in runs:
        hide = HideSettings(**run.report["settings"]["hide"])
        policy = hide.policy(run.report["seed"]) if hide.method == "has" else None
        if policy is not None:
            policies[f"{run.name}, one of {', '.join(map(str, policy.patch_sizes))} px"] = policy
            for size in policy.patch_sizes if len(policy.patch_sizes) > 1 else ():
                if size:
                    policies[f"{size} px"] = policy.with_(patch_sizes=(size,), p_apply=1.0)
    if not policies:
        raise ValueError("RUN: none of the runs hides parts of the image (hide.method=has): there is nothing to show")
    loader = runs[0].task.settings.loader
    image = shown_image(images.train, 0, loader.size)
    return strip_figure(image, policies, range(_STRIP_EPOCHS), loader.mean, title="One image over the epochs")


def run_curves(runs: Sequence[Path], metric: str) -> Figure:
    """A curve of the reports, such as top1 over epochs, with the seeds of an arm as one band.

    Raises:
        ValueError: a report lacks the curve.
    """
    by_name: dict[str, list[dict[float, float]]] = {}
    for run in runs:
        report = read_report(run)
        if metric not in report["curves"]:
            raise ValueError(f"--metric {metric}: {run} has {', '.join(report['curves'])}")
        points = {point[0]: point[1] for point in report["curves"][metric]}
        by_name.setdefault(run_name(report, run), []).append(points)
    curves = []
    for name, tables in by_name.items():
        places = sorted(set.intersection(*map(set, tables)))
        values = [[table[x] for x in places] for table in tables]
        curves.append(Curve(name, places, np.array(values, float)))
    threshold = metric.endswith("_by_threshold")
    return curves_figure(
        curves,
        title=metric.removesuffix("_by_threshold").replace("_", " "),
        x_label="threshold, share of the map's maximum" if threshold else "epoch",
        y_label="%" if "loss" not in metric else "loss",
        percent="loss" not in metric,
    )
