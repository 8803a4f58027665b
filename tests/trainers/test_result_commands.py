"""Commands about finished runs: what compare, figure and occlusion give, and what they refuse."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from run_support import arrays, localise, one_thread, refused, report_of

from has_dali.cli import main


@pytest.fixture(scope="module", autouse=True)
def on_one_thread() -> Iterator[None]:
    with one_thread():
        yield


# compare


def test_compare_puts_runs_beside_one_another(
    runs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    markdown, found = tmp_path / "table.md", tmp_path / "found.json"
    assert main(["compare", *runs, "--markdown", str(markdown), "--json", str(found)]) == 0
    shown = capsys.readouterr().out
    for out, name in zip(runs, ("none", "has"), strict=True):
        value = report_of(Path(out))["metrics"]["last"]["gt_known"]
        lines = markdown.read_text().splitlines()
        rows = [line for line in lines if line.startswith(f"| small (hide.method={name}")]
        assert any(f"{value:.2f}" in row for row in rows)
    assert "Paired by seed" in shown and "centre box" in shown
    assert "cam_threshold" not in shown and "max_box_acc_v2@0.7" not in shown and "gt_known@0.3" in shown
    tables = json.loads(found.read_text())["tables"]
    assert len(tables) == 2 and tables[0]["columns"][1:] == ["paper", "ours", "ours - paper", "seeds"]
    assert main(["compare", str(Path(runs[0]).parent), "--metrics", "all", "--which", "best"]) == 0
    assert "cam_threshold" in capsys.readouterr().out
    assert main(["compare", *runs, "--metrics", "top1,max_box_acc_v2@0.7"]) == 0
    shown = capsys.readouterr().out
    assert "max_box_acc_v2@0.7" in shown and "gt_known" not in shown


def test_compare_refuses(runs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "metric 'map': no run has it" in refused(["compare", *runs, "--metrics", "map"], capsys)
    assert "nowhere" in refused(["compare", "nowhere"], capsys)
    assert "no report.json" in refused(["compare", str(tmp_path)], capsys)
    (tmp_path / "report.json").write_text("{")
    assert "not JSON" in refused(["compare", str(tmp_path)], capsys)
    (tmp_path / "report.json").write_text('{"version": 9}')
    assert "expected a report of version 1" in refused(["compare", str(tmp_path)], capsys)
    assert "does not exist" in refused(["compare", *runs, "--markdown", "no/folder/table.md"], capsys)
    assert "--which" in refused(["compare", *runs, "--which", "first"], capsys)


# figure


def picture(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


KINDS = ("filters", "cam", "failures", "occlusion", "strip", "curves")


@pytest.mark.parametrize("kind", KINDS)
def test_figures(
    kind: str, runs: tuple[str, str], squares_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, found = tmp_path / "figure.png", tmp_path / "found.json"
    shown = [runs[1]] if kind in ("cam", "failures") else list(runs)
    argv = ["figure", kind, *shown, "--out", str(out), "--json", str(found), "--device", "cpu", "--count", "3"]
    assert main([*argv, *(["--data", str(squares_folder)] if kind not in ("filters", "curves") else [])]) == 0
    assert capsys.readouterr().out == f"figure: {out}\n"
    assert json.loads(found.read_text()) == {"kind": kind, "runs": shown, "figure": str(out)}
    pixels = picture(out)
    height, width = pixels.shape[:2]
    assert 200 <= height <= 4000 and 300 <= width <= 4000
    assert (pixels[0] == 255).all() and (pixels != 255).any(2).mean() > 0.01  # a white border around something


def test_a_figure_of_what_one_run_locates_and_the_other_does_not(
    runs: tuple[str, str], squares_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from has_dali.trainers.figures import located as run_figures
    from has_dali.trainers.figures.located import _Located

    drawn = {}

    def figure(examples: list, names: list[str], **options: object) -> str:
        drawn.update(examples=examples, names=names, **options)
        return "figure"

    overlaps = {"plain": np.full(30, 0.2), "has": np.full(30, 0.3)}
    overlaps["has"][[4, 9]] = 0.6, 0.8
    overlaps["plain"][7] = 0.5
    monkeypatch.setattr(run_figures, "cam_figure", figure)
    monkeypatch.setattr(
        run_figures, "_located", lambda run, images: _Located(np.zeros((30, 4), np.int64), overlaps[run.folder.name])
    )
    from has_dali.trainers.results.runs import open_runs

    opened, images = open_runs([Path(run) for run in runs], squares_folder, "cpu")
    assert [run.name for run in opened] == ["nothing hidden", "Hide-and-Seek"]
    assert run_figures.localisation_figure(opened, images, 5, failures=False) == "figure"
    assert drawn["title"] == "Located by Hide-and-Seek, missed by nothing hidden (2 of 30 images)"
    val = arrays(squares_folder, "val")
    assert [np.array_equal(e.image, val["images"][i]) for e, i in zip(drawn["examples"], (9, 4), strict=True)] == [
        True
    ] * 2
    assert [found.right for found in drawn["examples"][0].found] == [False, True]
    heat = drawn["examples"][0].found[1].heat
    assert heat.shape == (24, 24) and heat.min() >= 0 and heat.max() == 1
    run_figures.localisation_figure(opened, images, 5, failures=True)
    assert len(drawn["examples"]) == 1 and np.array_equal(drawn["examples"][0].image, val["images"][7])
    overlaps["plain"][:] = overlaps["has"][:] = 0.1
    with pytest.raises(ValueError, match="no image is located by one run and missed by the other"):
        run_figures.localisation_figure(opened, images, 5, failures=False)


def test_runs_of_the_same_name_are_told_apart_by_their_folders(
    runs: tuple[str, str], squares_folder: Path, tmp_path: Path
) -> None:
    from has_dali.trainers.figures.draw import run_curves
    from has_dali.trainers.results.runs import names_of, unique_names

    copies = [tmp_path / name / "seed-0" for name in "ab"]
    for copy in copies:
        shutil.copytree(runs[1], copy)
    assert names_of(copies) == ["Hide-and-Seek (a/seed-0)", "Hide-and-Seek (b/seed-0)"]
    assert unique_names(["x", "y", "x"], [Path("a/b"), Path("c/b"), Path("d/e")]) == ["x (b)", "y", "x (e)"]
    with pytest.raises(ValueError, match="was given twice"):
        names_of([copies[0], copies[0]])
    out = tmp_path / "filters.png"
    assert main(["figure", "filters", *map(str, copies), "--out", str(out), "--quiet"]) == 0
    one = tmp_path / "one.png"
    assert main(["figure", "filters", str(copies[0]), "--out", str(one), "--quiet"]) == 0
    assert picture(out).shape[1] > 1.5 * picture(one).shape[1]
    argv = [
        "occlusion",
        *map(str, copies),
        "--data",
        str(squares_folder),
        "--json",
        str(tmp_path / "o.json"),
        "--quiet",
    ]
    assert main([*argv, "--device", "cpu"]) == 0
    rows = json.loads((tmp_path / "o.json").read_text())["rows"]
    assert {(row["first"], row["second"]) for row in rows} == {("Hide-and-Seek (a/seed-0)", "Hide-and-Seek (b/seed-0)")}
    assert all(row["difference"] == 0 for row in rows)
    # Seeds of one arm are one curve with a band, other settings another curve.
    report = report_of(copies[1])
    (copies[1] / "report.json").write_text(json.dumps({**report, "config_hash": "another"}))
    assert len(run_curves(copies, "top1").axes[0].lines) == 2
    (copies[1] / "report.json").write_text(json.dumps({**report, "seed": 1}))
    assert len(run_curves(copies, "train_loss").axes[0].lines) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["figure", "cam", "RUN"], "--data DIR is missing: the figure cam shows images"),
        (["figure", "filters", "nowhere"], "no such report; give the folder of a finished run"),
        (["figure", "curves", "RUN", "--metric", "map"], "--metric map:"),
        (["figure", "cam", "RUN", "--data", "DATA", "--count", "0"], "--count 0: expected a whole number from 1"),
        (["figure", "strip", "PLAIN", "--data", "DATA"], "none of the runs hides parts of the image"),
        (["figure", "cam", "CLASSIFIED", "--data", "DATA"], "the figure cam needs runs of localisation"),
        (
            ["figure", "cam", "RUN", "CLASSIFIED", "--data", "DATA"],
            "expected runs of one task, got classification, loc",
        ),
        (["figure", "occlusion", "CLASSIFIED", "--data", "DATA"], "covering parts of objects needs boxes"),
        (["figure", "filters", "RUN", "RUN"], "was given twice"),
        (["figure", "quux", "RUN"], "invalid choice: 'quux'"),
        (["figure", "filters", "RUN", "--out", "no/folder/a.png"], "does not exist; create it"),
        (["figure", "cam", "RUN", "--data", "nowhere"], "no such folder"),
        (["figure", "strip", "RUN", "OTHER", "--data", "DATA"], "expected runs that hide with one colour"),
        (["occlusion", "RUN", "--data", "DATA"], "expected at least two runs"),
        (
            ["occlusion", "RUN", "OTHER", "--data", "DATA"],
            "expected runs on the same images, got loader.size of [21, 24]",
        ),
        (["occlusion", "RUN", "PLAIN", "--data", "DATA", "--classes", "0"], "expected at least one of each"),
        (["occlusion", "RUN", "PLAIN", "--data", "DATA", "--image-list", "none.txt"], "none.txt: No such file"),
        (["occlusion", "RUN", "PLAIN"], "--data"),
    ],
)
def test_figures_and_occlusion_refuse(
    words: list[str], message: str, runs: tuple[str, str], classified: str, other: str, squares_folder: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    names = {"RUN": runs[1], "PLAIN": runs[0], "DATA": str(squares_folder), "CLASSIFIED": classified, "OTHER": other}
    error = refused([names.get(word, word) for word in words], capsys)
    assert message in error
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def other(squares_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run on images of another size, with another fill."""
    out = tmp_path_factory.mktemp("other") / "run"
    options = ["--loader.size", "24", "--loader.resize", "26", "--hide.patch_sizes", "[6]"]
    localise(squares_folder, out, 2, *options, "--hide.image_fill", "[0,0,0]")
    return str(out)


def test_a_checkpoint_that_is_gone(
    runs: tuple[str, str], squares_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(Path(runs[0]) / "report.json", tmp_path)
    error = refused(["figure", "filters", str(tmp_path), "--out", str(tmp_path / "a.png")], capsys)
    assert "last.ckpt: no such checkpoint" in error
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"half")
    error = refused(["occlusion", str(tmp_path), runs[1], "--data", str(squares_folder)], capsys)
    assert "not a checkpoint, or a damaged one" in error


# occlusion


def test_occlusion_with_covered_boxes(
    runs: tuple[str, str], squares_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "found.json"
    argv = ["occlusion", *runs, "--data", str(squares_folder), "--device", "cpu", "--json", str(found)]
    assert main([*argv, "--per-class", "5"]) == 0
    shown = capsys.readouterr().out
    assert "Top-1 under occlusion, 15 images: Hide-and-Seek against nothing hidden" in shown and "cells 70 %" in shown
    content = json.loads(found.read_text())
    assert [(row["cover"], row["level"]) for row in content["rows"]] == [
        ("none", 0.0), *((cover, level) for cover in ("mean", "texture", "cells") for level in (0.3, 0.5, 0.7)),
    ]  # fmt: skip
    for row in content["rows"]:
        assert row["images"] == 15 and row["interval"][0] <= row["difference"] <= row["interval"][1]
        assert row["difference"] == pytest.approx(100 * (row["only_second"] - row["only_first"]) / 15)
    assert main([*argv, "--per-class", "5"]) == 0 and json.loads(found.read_text()) == content
    assert main([*argv, "--per-class", "5", "--seed", "1"]) == 0 and json.loads(found.read_text()) != content


def test_occlusion_of_listed_images(
    runs: tuple[str, str], squares_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    val = arrays(squares_folder, "val")
    for i in range(6):
        Image.fromarray(val["images"][i]).save(tmp_path / f"{i}.png")
    lines = [f"{i}.png,{val['labels'][i]}" for i in range(6)]
    (tmp_path / "list.txt").write_text("\n".join(["# occluded", *lines]))
    found = tmp_path / "found.json"
    argv = ["occlusion", *runs, "--data", str(squares_folder), "--device", "cpu", "--image-list"]
    assert main([*argv, str(tmp_path / "list.txt"), "--json", str(found)]) == 0
    assert "6 images" in capsys.readouterr().out
    (row,) = json.loads(found.read_text())["rows"]
    assert row["images"] == 6 and row["first_top1"] > 60 and row["second_top1"] > 60  # chance is 33
    (tmp_path / "list.txt").write_text("0.png,7")
    assert "label '7' is no class of the models" in refused([*argv, str(tmp_path / "list.txt")], capsys)
    (tmp_path / "list.txt").write_text("9.png,1")
    assert "list.txt, line 1: the image" in refused([*argv, str(tmp_path / "list.txt")], capsys)
