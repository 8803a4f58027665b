"""Recipes: each one that ships is whole, and files of one's own are read or refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from has_dali.cli import main
from has_dali.trainers.arguments import RunOptions, parse_run
from has_dali.trainers.recipe_files import Recipe, all_recipes, load_recipe
from has_dali.trainers.results import paper
from has_dali.trainers.schedule import Schedule
from has_dali.trainers.tasks import TASKS, task_kind

MINE = """
task: localisation
help: my own
model: {name: smallnet, width: 0.25}
loader: {size: 21, batch_size: 16, held_out: 4}
hide: {method: has, patch_sizes: [0, 6]}
cam: {threshold: held-out}
trainer: {max_epochs: 4}
paper: {table: II, method: AlexNet-HaS-Mixed, baseline: AlexNet-GAP, metric: mine}
"""
RECIPES = [pytest.param(recipe, id=f"{recipe.task}-{recipe.name}") for recipe in all_recipes()]


def parsed(task: str, recipe: str, *words: str) -> RunOptions:
    return parse_run("has-dali train", [task, "--recipe", recipe, *words], task, task_kind(task).settings)


def test_the_recipes_that_the_paper_and_the_toys_need() -> None:
    names = {(recipe.task, recipe.name) for recipe in all_recipes()}
    cifar = {f"{data}-resnet{depth}" for data in ("cifar10", "cifar100") for depth in (44, 56, 110)}
    wanted = {("classification", name) for name in cifar | {"imagenet-resnet50", "imagenet-resnet50-short", "folder"}}
    wanted |= {("localisation", name) for name in ("alexnet", "googlenet", "small")}
    assert names >= wanted | {(task, "toy") for task in TASKS}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_whole(recipe: Recipe) -> None:
    run = parsed(recipe.task, recipe.name)
    settings, epochs = run.settings, run.trainer["max_epochs"]
    given = dataclasses.asdict(settings)
    for group, values in recipe.settings.items():
        read = run.trainer if group == "trainer" else given[group]
        assert {name: read[name] for name in values} == values
    assert 0 < len(recipe.help) <= 80 and "\n" not in recipe.help
    assert run.out == Path("runs") / recipe.task / recipe.name

    schedule = Schedule(settings.optim, epochs)
    points = [schedule(epoch / 2) for epoch in range(2 * epochs)]
    assert max(lr for lr, _ in points) > points[-1][0] >= 0 and all(decay >= 0 for _, decay in points)
    for first, _ in settings.loader.sizes:
        assert first < epochs

    policy = settings.hide.policy(0)
    assert policy is not None and settings.hide.method == "has"
    assert max(policy.patch_sizes) <= min([size for _, size in settings.loader.sizes] or [settings.loader.size])

    row = settings.paper
    if row.table is not None:
        rows = paper.rows(row.table, row.method)
        assert rows and paper.rows(row.table, row.baseline)
        assert row.metric is None or any(row.metric in printed.metrics for printed in rows)
    for changes in recipe.arms.values():
        for name in changes:
            group, _, option = name.partition(".")
            assert hasattr(getattr(settings, group), option)
    assert (recipe.data == "toy") == bool(recipe.arms)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_network_of_a_recipe_takes_its_pictures(recipe: Recipe) -> None:
    settings = parsed(recipe.task, recipe.name).settings
    model = task_kind(recipe.task).build_model(settings, 5, 0).eval()
    side = settings.loader.eval_size or settings.loader.size
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, side, side)).shape == (1, 5)


def test_hyperparameters_of_the_paper() -> None:
    alexnet = parsed("localisation", "alexnet").settings
    schedule = Schedule(alexnet.optim, 55)
    rows = {0: (1e-2, 5e-4), 17: (1e-2, 5e-4), 18: (5e-3, 5e-4), 28: (5e-3, 5e-4), 29: (1e-3, 0), 42: (1e-3, 0)}
    rows |= {43: (5e-4, 0), 51: (5e-4, 0), 52: (1e-4, 0), 54: (1e-4, 0)}
    assert {epoch: schedule(epoch) for epoch in rows} == rows  # epochs 1-18, 19-29, 30-43, 44-52, 53-55
    assert (alexnet.loader.batch_size, alexnet.loader.steps, alexnet.cam.threshold) == (128, 10_000, 0.2)  # type: ignore[attr-defined]
    assert parsed("localisation", "googlenet").settings.cam.threshold == 0.3  # type: ignore[attr-defined]
    imagenet = Schedule(parsed("classification", "imagenet-resnet50").settings.optim, 160)
    assert [imagenet(epoch)[0] for epoch in (0, 39, 40, 80, 120, 159)] == [0.1, 0.1, 0.01, 1e-3, 1e-4, 1e-4]
    cifar = parsed("classification", "cifar10-resnet56")
    assert (cifar.trainer["max_epochs"], cifar.settings.model.block) == (300, "bottleneck_re")


def test_a_file_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, squares_folder: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    for name in ("mine.yaml", str(tmp_path / "mine.yaml")):
        run = parsed("localisation", name, "--optim.lr", "0.02")
        assert run.out == Path("runs/localisation/mine") and run.settings.model.width == 0.25
        assert run.settings.optim.lr == 0.02 and run.recipe.help == "my own"
    argv = ["train", "localisation", "--recipe", name, "--data", str(squares_folder), "--quiet", "--loader.threads=1"]
    assert main([*argv, "--trainer.max_epochs", "1", "--cam.wsol", "false"]) == 0
    report = json.loads((tmp_path / "runs/localisation/mine/report.json").read_text())
    assert report["recipe"] == name and report["settings"]["hide"]["patch_sizes"] == [0, 6]
    assert report["metrics"]["last"]["mine"] == report["metrics"]["last"]["top1"]


@pytest.mark.parametrize(
    ("words", "row"),
    [
        ([], ("II", "AlexNet-HaS-Mixed", "mine")),
        (["--optim.lr", "0.3", "--model.width", "0.5"], ("II", "AlexNet-HaS-Mixed", "mine")),
        (["--hide.method", "none"], ("II", "AlexNet-GAP", "mine")),
        (["--hide.p_hide", "0.3"], (None, None, "mine")),
        (["--hide.method=random-erasing"], (None, None, "mine")),
        (["--model.pool", "gmp"], (None, None, None)),
        (["--model.name", "resnet18", "--model.width", "1"], (None, None, None)),
        (["--hide.p_hide", "0.3", "--paper.method", "AlexNet-HaS-p33"], ("II", "AlexNet-HaS-p33", "mine")),
    ],
)
def test_a_changed_run_does_not_stand_for_the_recipes_row(
    words: list[str], row: tuple[str | None, ...], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(MINE)
    found = parsed("localisation", str(tmp_path / "mine.yaml"), *words).settings.paper
    assert (found.table, found.method, found.metric) == row


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: [", "not YAML"),
        ("help: no task", "expected a mapping with a task"),
        ("- task", "expected a mapping with a task"),
        ("task: classification\nmodel: {name: resnet18}", "it is for the task classification, not localisation"),
        ("task: localisation\nlodaer: {size: 3}", "'lodaer' is no group of localisation: cam, hide, loader"),
        ("task: localisation\nloader: {sise: 3}", "Group 'loader' does not accept option 'sise'"),
        ("task: localisation\ntrainer: {epochs: 3}", "Group 'trainer' does not accept option 'epochs'"),
        ("task: localisation\nmodel: smallnet", "model: expected settings by name, such as lr: 0.1, got 'smallnet'"),
        ("task: localisation\nloader:", "loader: expected settings by name, such as lr: 0.1, got None"),
        ("task: localisation\ndata: toy", "data: expected toy, together with arms, or neither; got 'toy'"),
        ("task: localisation\narms: {a: {hide.method: none}}", "data: expected toy, together with arms"),
        ("task: localisation\ndata: toy\narms: {a: none}", "a: expected settings by name"),
    ],
)
def test_malformed_files(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert main(["train", "localisation", "--recipe", str(file), "--data", str(tmp_path), "--out", "nowhere"]) == 2
    error = capsys.readouterr().err
    assert message in error and str(file) in error and len(error.splitlines()) == 1
    assert not Path("nowhere").exists()


@pytest.mark.parametrize(
    ("group", "message"),
    [("loader: {batch_size: many}", "loader.batch_size"), ("model: {pool: max}", "model.pool")],
)
def test_values_that_no_setting_takes(
    group: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"task: localisation\nhide: {{method: none}}\ntrainer: {{max_epochs: 1}}\n{group}\n")
    assert main(["train", "localisation", "--recipe", str(file), "--data", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and f"recipe {file}: " in error and len(error.splitlines()) == 1


def test_files_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00task")
    for file, message in ((binary, "not a text file"), (tmp_path / "none.yaml", "No such file")):
        assert main(["train", "localisation", "--recipe", str(file), "--data", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"--recipe alexnt: no such recipe for localisation: did you mean alexnet\?"):
        load_recipe("alexnt", "localisation")
    with pytest.raises(ValueError, match=r"choose one of alexnet, googlenet, small, toy, or a \.yaml file"):
        load_recipe("quux", "localisation")


def test_the_command_lists_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "localisation", "--json", str(tmp_path / "found.json")]) == 0
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())["recipes"]
    assert [row["name"] for row in found] == ["alexnet", "googlenet", "small", "toy"]
    assert all(row["help"].split(",")[0] in shown for row in found) and "cifar10" not in shown
    assert main(["recipes", "--models"]) == 0
    assert {"smallnet", "alexnet_gap", "cifar_resnet110", "resnet50"} <= set(capsys.readouterr().out.split())
    assert main(["recipes", "lokalisation"]) == 2
    assert "has-dali recipes lists all" in capsys.readouterr().err
