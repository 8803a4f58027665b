"""``has-dali bench``: scopes, common options, files that appear whole, and a suite that goes on where it was."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from has_dali.bench import running, suite
from has_dali.bench.documents import read_document
from has_dali.bench.machine import tidy_argv
from has_dali.bench.results import Result
from has_dali.cli import main


@pytest.fixture
def scope(fabricated: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A scope that measures nothing, in place of ``op``."""
    module = ModuleType("fabricated_scope")
    seen: list[argparse.Namespace] = []

    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", metavar="N", help="in its own words")
        parser.add_argument("--size", type=int, default=224)

    def run(options: argparse.Namespace, terminal: Any) -> Result:
        seen.append(options)
        if options.size == 0:
            raise ValueError("--size 0: expected more")
        return fabricated()

    vars(module).update(NAME="op", add_options=add_options, run=run, seen=seen)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(running.SCOPES, "op", running.Scope(module.__name__, "", "a fabricated one"))
    return module


def test_a_scope_leaves_its_files(scope: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: tmp_path / f"op.{name}" for name in ("json", "md", "png")}
    words = ["--json", str(files["json"]), "--markdown", str(files["md"]), "--plot", str(files["png"])]
    assert main(["bench", "op", "--rounds", "3", "--quick", *words]) == 0
    assert "SPDL, four threads" in capsys.readouterr().out
    (options,) = vars(scope)["seen"]
    assert (options.rounds, options.quick, options.size) == ("3", True, 224)
    record = read_document(files["json"])
    assert record["argv"][:4] == ["has-dali", "bench", "op", "--rounds"] and "op.json" in record["argv"]
    assert str(tmp_path) not in files["json"].read_text()
    assert record["seconds"] >= 0 and record["machine"]["after"]["load_average"]
    assert "### JPEG files to batches of 64" in files["md"].read_text()
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["op.json", "op.md", "op_loader.png", "op_scaling.png"]
    Image.open(tmp_path / "op_loader.png").verify()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--json", "none/x.json"], "does not exist"),
        (["--markdown", "none/x.md"], "does not exist"),
        (["--plot", "x.jpg"], "ends in .png or .svg"),
        (["--rounds", "0"], "--rounds 0: expected a whole number from 1"),
        (["--rounds", "many"], "--rounds many"),
        (["--colour", "red"], "unrecognized arguments: --colour red"),
        (["--size", "0"], "--size 0: expected more"),
    ],
)
def test_bad_options_are_found_before_the_work(
    words: list[str], message: str, scope: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "op", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert len(vars(scope)["seen"]) == (words[0] == "--size")


def test_a_scope_may_read_its_own_command_line(scope: ModuleType) -> None:
    vars(scope)["parse"] = lambda argv: argparse.Namespace(words=argv, size=1, quiet=True, json=None)
    assert main(["bench", "op", "TASK", "--trainer.max_epochs", "3", "--quiet"]) == 0
    assert vars(scope)["seen"][0].words == ["TASK", "--trainer.max_epochs", "3", "--quiet"]


def test_help_and_unknown_scopes(scope: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 2
    assert main(["bench", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in running.SCOPES) and "--suggest DATA" in out and "compare A.json" in out
    assert main(["bench", "op", "--help"]) == 0
    assert "in its own words" in capsys.readouterr().out
    for name in ("lop", "--sugest"):
        assert main(["bench", name]) == 2
        error = capsys.readouterr().err
        assert f"bench {name}: expected one of op, loader" in error and error.count("\n") == 1


def test_scopes_have_what_the_command_needs() -> None:
    for name, one in running.SCOPES.items():
        module = importlib.import_module(one.module)
        assert name == module.NAME and callable(module.run)
        assert callable(getattr(module, "parse", None) or module.add_options)
        assert one.takes in ("", "images", "arrays")


class Runs:
    """In place of processes: notes the command lines and writes what the scopes would."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.record, self.code, self.words = record, 0, list[list[str]]()

    def run(self, words: list[str], check: bool) -> argparse.Namespace:
        own = words[words.index("bench") + 1 :]
        self.words.append(own)
        if self.code == 0:
            argv = tidy_argv(["has-dali", "bench", *own])
            file = Path(own[own.index("--json") + 1])
            file.write_text(json.dumps({**self.record, "scope": own[0], "argv": argv}))
        return argparse.Namespace(returncode=self.code)


@pytest.fixture
def runs(documented: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Runs:
    one = Runs(documented())
    one.record["machine"]["git"] = {"commit": "1" * 40, "dirty": False}
    monkeypatch.setattr(suite, "subprocess", one)
    monkeypatch.setattr(suite.machine, "facts", lambda: one.record["machine"])
    return one


def test_all_runs_each_scope_once(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "out"
    words = ["bench", "all", "--out", str(out), "--data", "photos", "--quick", "--rounds", "2"]
    assert main(words) == 0
    assert [own[0] for own in runs.words] == ["op", "loader", "train", "startup", "scale", "pack", "arrays"]
    assert runs.words[1][:5] == ["loader", "photos", "--rounds", "2", "--quick"]
    assert [own[0] for own in runs.words if "photos" in own] == ["loader", "train", "startup", "scale", "pack"]
    assert capsys.readouterr().out.count(": done") == 7
    assert sorted(path.name for path in out.iterdir()) == [
        "arrays.json", "loader.json", "op.json", "pack.json", "scale.json", "startup.json", "train.json",
    ]  # fmt: skip
    (out / "scale.json").write_text("{ half a fi")
    runs.words.clear()
    assert main(words) == 0
    assert [own[0] for own in runs.words] == ["scale"] and runs.words[0][1] == "photos"
    runs.words.clear()
    assert main([*words, "--arrays", "set.npz"]) == 0
    assert [own[:2] for own in runs.words] == [["arrays", "set.npz"]]
    runs.words.clear()
    assert main([*words, "--arrays", "set.npz", "--quiet"]) == 0 and not runs.words
    runs.words.clear()
    other = json.loads((out / "op.json").read_text())
    other["machine"]["git"] = {"commit": "0" * 40, "dirty": False}  # what a fresh checkout brings along
    (out / "op.json").write_text(json.dumps(other))
    assert main([*words, "--arrays", "set.npz"]) == 0
    assert [own[0] for own in runs.words] == ["op"]
    runs.words.clear()
    assert main([*words, "--scopes", "op,train", "--again"]) == 0
    assert [own[0] for own in runs.words] == ["op", "train"]


def test_what_was_measured_otherwise_is_measured_again(runs: Runs, tmp_path: Path) -> None:
    words = ["bench", "all", "--out", str(tmp_path / "out"), "--scopes", "op,loader"]
    for options, again in (
        (["--quick"], ["op", "loader"]),
        (["--quick"], []),
        ([], ["op", "loader"]),
        (["--rounds", "9"], ["op", "loader"]),
        (["--rounds", "9", "--data", "photos"], ["loader"]),
        (["--rounds", "9", "--data", "here/photos"], []),
        (["--rounds", "9", "--data", "paintings"], ["loader"]),
    ):
        runs.words.clear()
        assert main([*words, *options]) == 0
        assert [own[0] for own in runs.words] == again, options
    # A tree with changes may hold others than those that were measured, whichever side has them.
    for dirty in (True, True, False):
        runs.words.clear()
        runs.record["machine"] = {**runs.record["machine"], "git": {"commit": "1" * 40, "dirty": dirty}}
        assert main([*words, "--rounds", "9"]) == 0
        assert [own[0] for own in runs.words] == ["op", "loader"]
    for git in (None, None):
        runs.record["machine"] = {**runs.record["machine"], "git": git}
        runs.words.clear()
        main([*words, "--rounds", "9"])
    assert not runs.words


def test_all_goes_on_after_a_failure_and_stops_when_interrupted(runs: Runs, tmp_path: Path) -> None:
    runs.code = 1
    words = ["bench", "all", "--out", str(tmp_path / "out"), "--json", str(tmp_path / "all.json"), "--quiet"]
    assert main(words) == 1
    assert len(runs.words) == 7
    outcomes = json.loads((tmp_path / "all.json").read_text())
    assert outcomes["op"] == "failed with exit code 1"
    runs.code = -11  # a peer took the interpreter down
    runs.words.clear()
    assert main([*words, "--scopes", "op,loader"]) == 1
    assert len(runs.words) == 2
    assert json.loads((tmp_path / "all.json").read_text())["loader"] == "failed with signal 11"
    for stopped in (130, 143, -2, -15):
        runs.code = stopped
        runs.words.clear()
        assert main(["bench", "all", "--out", str(tmp_path / "new"), "--quiet"]) == 130
        assert len(runs.words) == 1 and not (tmp_path / "new").exists()


def test_bad_words_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for words, message in (
        (["--scopes", "op,kernel"], "--scopes kernel: expected some of op"),
        (["--out", str(tmp_path / "file")], "is a file; give the name of a folder"),
    ):
        assert main(["bench", "all", *words]) == 2
        assert message in capsys.readouterr().err
