"""A fabricated regression is caught, noise alone is not, and runs of different jobs are refused."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from has_dali.bench.comparing import FLOOR, compare, moved
from has_dali.bench.documents import read_document
from has_dali.bench.timing import Summary
from has_dali.cli import main
from has_dali.console import write_json

Documented = Callable[..., dict[str, Any]]


def elsewhere(record: dict[str, Any]) -> dict[str, Any]:
    other = copy.deepcopy(record)
    other["machine"]["cpu"]["model"] = "another processor"
    return other


def test_noise_alone_is_no_regression(documented: Documented) -> None:
    runs = [documented(seed) for seed in range(12)]
    for before, after in itertools.pairwise(runs):
        found = compare(before, after)
        assert not found.failed and found.same_machine and len(found.changes) > 10


@pytest.mark.parametrize("slower", [0.9, 0.8, 0.5])
@pytest.mark.parametrize("move", [lambda record: record, elsewhere], ids=["same machine", "another machine"])
def test_a_regression_is_caught(slower: float, move: Callable[..., Any], documented: Documented) -> None:
    found = compare(documented(0), move(documented(1, speed=slower)))
    assert found.failed
    regressed = {(change.where, change.what) for change in found.regressions}
    assert ("loader/loader/dali", "ratio") in regressed
    assert found.same_machine == (("loader/loader/has_dali", "absolute") in regressed)
    change = next(one for one in found.regressions if one.where == "loader/loader/dali")
    assert change.gain == pytest.approx(slower - 1, abs=0.04)


def test_an_improvement_is_none(documented: Documented) -> None:
    found = compare(documented(0), documented(1, speed=1.2))
    assert not found.failed
    assert any(change.judgement == "improvement" for change in found.changes)


def test_a_slower_machine_is_no_regression(documented: Documented) -> None:
    """The peers, whose code did not change, slowed down as well."""
    found = compare(documented(0), documented(1, machine=0.6))
    assert found.same_machine
    absolute = [one.where for one in found.regressions if one.what != "bar"]
    assert absolute == []


def test_a_small_change_of_steady_runs_is_below_the_floor() -> None:
    steady = Summary((100.0,) * 5)
    assert not moved(steady, Summary((100 * (1 - 0.9 * FLOOR),) * 5))
    assert moved(steady, Summary((100 * (1 - 1.1 * FLOOR),) * 5))
    noisy = Summary((80.0, 90.0, 100.0, 110.0, 120.0))
    assert not moved(noisy, Summary(tuple(0.7 * value for value in noisy.values)))
    assert moved(noisy, Summary(tuple(0.5 * value for value in noisy.values)))


def test_a_row_of_ours_that_is_void_now_is_lost(documented: Documented) -> None:
    before, after = documented(0), documented(0)
    row = after["tables"][1]["rows"][2]
    assert row["kind"] == "ours"
    row |= {"status": "void", "reason": "hides nothing", "value": None, "ratio": None, "latency_ms": None}
    found = compare(before, after)
    assert found.failed and found.lost == ["loader/threads/ours-2: only in the first run (void: hides nothing)"]


def test_unmatched_rows_and_tables_are_listed(documented: Documented) -> None:
    before, after = documented(0), documented(0)
    del before["tables"][0]["rows"][3]
    del after["tables"][0]["rows"][2]
    del after["tables"][1]
    after["tables"][0]["rows"][-1] = {**before["tables"][0]["rows"][0], "key": "new", "kind": "peer"}
    found = compare(before, after)
    assert {text.partition(":")[0] for text in found.unmatched} == {
        "loader/threads",
        "loader/loader/dali",
        "loader/loader/spdl",
        "loader/loader/new",
    }
    assert not found.failed


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"settings": {"batch_size": 32, "policy": {"patch_sizes": [16, 32], "p_hide": 0.5}}},
            "batch_size 64 against 32",
        ),
        ({"data": {"images": 300, "fingerprint": "f" * 16}}, "data fingerprint 0123456789abcdef against ffff"),
        ({"data": None}, "data images 300 against nothing"),
        ({"settings": {"batch_size": 64, "policy": {"patch_sizes": [8], "p_hide": 0.5}}}, "patch_sizes"),
    ],
)
def test_other_jobs_are_refused_unless_forced(change: dict[str, Any], named: str, documented: Documented) -> None:
    before, after = documented(0), {**documented(1), **change}
    with pytest.raises(ValueError, match=named):
        compare(before, after)
    found = compare(before, after, force=True)
    assert any(named in text for text in found.differences) and found.changes


def test_other_tables_and_scopes_are_refused(documented: Documented) -> None:
    before, after = documented(0), documented(1)
    after["tables"][0]["baseline"] = "dali"
    with pytest.raises(ValueError, match="table loader: baseline has_dali against dali"):
        compare(before, after)
    with pytest.raises(ValueError, match="scopes loader and op"):
        compare(before, {**after, "scope": "op"}, force=True)


def test_fewer_rounds_are_the_same_job(documented: Documented) -> None:
    assert not compare(documented(0, rounds=5), documented(1, rounds=9)).failed


def test_the_command(documented: Documented, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = {name: tmp_path / f"{name}.json" for name in ("a", "b", "bad", "out")}
    write_json(paths["a"], documented(0))
    write_json(paths["b"], documented(1, speed=0.8))
    words = ["bench", "compare", str(paths["a"])]
    assert main([*words, str(paths["a"])]) == 0
    assert "no regression" in capsys.readouterr().out
    assert main([*words, str(paths["b"]), "--json", str(paths["out"])]) == 1
    out = capsys.readouterr().out
    assert "loader/loader/dali" in out and "regression" in out and "-2" in out
    record = json.loads(paths["out"].read_text())
    assert record["regressed"] is True and record["same_machine"] is True and "IQR" in record["rule"]
    for text, message in (("x", "is no JSON"), ("{}", "lacks 'version'"), ('{"version": 9}', "lacks 'argv'")):
        paths["bad"].write_text(text)
        assert main([*words, str(paths["bad"])]) == 2
        error = capsys.readouterr().err
        assert message in error and "bad.json" in error and error.count("\n") == 1
    assert main([*words, str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


def test_documents_of_another_form_are_refused(documented: Documented, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for change, message in (({"version": 2}, "version 2"), ({"tables": [{}]}, "result_schema.json")):
        write_json(path, {**documented(), **change})
        with pytest.raises(ValueError, match=message):
            read_document(path)
