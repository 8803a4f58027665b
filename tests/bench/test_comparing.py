"""A fabricated regression is caught, noise alone is not, and runs of different jobs are refused."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from has_dali.bench.comparing import compare
from has_dali.bench.documents import read_document
from has_dali.bench.results import Table
from has_dali.bench.timing import Summary
from has_dali.cli import main
from has_dali.console import json_text, write_json

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


def test_two_rounds_move_by_much_only_and_it_is_said(documented: Documented) -> None:
    few = compare(documented(0, rounds=2), documented(1, rounds=2, speed=0.9))
    assert not few.failed and {one.note for one in few.changes} == {"too few rounds"}
    assert compare(documented(0, rounds=2), documented(1, rounds=2, speed=0.7)).failed


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
    for row in before["tables"][1]["rows"]:
        row["kind"] = "peer"
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


def test_a_table_or_bar_of_ours_that_is_gone_is_lost(documented: Documented) -> None:
    before, after = documented(0), documented(0)
    del after["tables"][1]
    after["bars"][1] |= {"value": None, "met": None, "note": "void"}
    del after["bars"][2]
    found = compare(before, after)
    assert found.failed and not found.regressions
    assert found.lost == [
        "loader/threads: only in the first run",
        "loader/bar/over DALI: only in the first run (not measured: void)",
        "loader/bar/over SPDL: only in the first run (no such bar)",
    ]
    after["settings"]["batch_size"] = 32
    forced = compare(before, after, force=True)
    assert not forced.lost and len(forced.unmatched) == 3
    after["settings"]["batch_size"] = 64
    other_machine = compare(before, elsewhere(after))
    assert other_machine.lost == ["loader/threads: only in the first run"] and len(other_machine.unmatched) == 2


def test_places_of_a_sweep_are_compared_with_the_peer_at_the_same_place(documented: Documented) -> None:
    """Ours slows down at one place only; its ratio to our own first place would say nothing about us."""
    before, after = documented(0), documented(1)
    _slow_down(after, "ours-4", 0.8)
    found = compare(before, elsewhere(after))
    assert [one.where for one in found.regressions] == ["loader/threads/ours-4 over dali-4"]
    assert {one.where for one in found.changes if "threads" in one.where} == {
        f"loader/threads/ours-{x} over dali-{x}" for x in (1, 2, 4)
    }


@pytest.mark.parametrize(("axis", "regressed"), [("batch_size", True), ("threads", False)])
def test_a_sweep_of_ours_alone_can_regress(axis: str, regressed: bool, documented: Documented) -> None:
    before, after = documented(0), documented(1)
    _slow_down(after, "ours-4", 0.8)
    for record in (before, after):
        table = record["tables"][1]
        table["rows"] = [row for row in table["rows"] if row["kind"] == "ours"]
        table["parameters"]["x"] = axis
    found = compare(before, after)
    assert {(one.where, one.what) for one in found.regressions} == {
        ("loader/threads/ours-4", "ratio"), ("loader/threads/ours-4", "absolute"),
    }  # fmt: skip
    other_machine = compare(before, elsewhere(after))  # how it scales with threads is the machine's affair
    assert [one.where for one in other_machine.regressions] == (["loader/threads/ours-4"] if regressed else [])


def _slow_down(record: dict[str, Any], key: str, factor: float) -> None:
    table = Table.from_dict(record["tables"][1])
    row = table.row(key)
    assert row is not None and row.value is not None
    row.value = Summary(tuple(factor * value for value in row.value.values))
    table.fill_ratios()
    record["tables"][1] = json.loads(json_text(table.to_dict()))


def test_what_one_peer_moved_by_is_not_taken_off_ours(documented: Documented) -> None:
    """A table with a single row of others: it cannot say that the machine became slower."""
    before, after = documented(0), documented(0)
    for record, factor in ((before, 1.0), (after, 0.7)):
        table = Table.from_dict(record["tables"][0])
        table.rows = table.rows[:2]
        assert table.rows[1].value is not None
        table.rows[1].value = Summary(tuple(factor * value for value in table.rows[1].value.values))
        table.fill_ratios()
        record["tables"] = [json.loads(json_text(table.to_dict()))]
    found = compare(before, after)
    change = next(one for one in found.changes if one.what == "absolute")
    assert change.judgement == "same" and change.gain == 0


def test_bars_that_are_ratios_compare_on_any_machine(documented: Documented) -> None:
    before, after = documented(0), elsewhere(documented(1, speed=0.8))
    found = compare(before, after)
    bars = {one.where: one.judgement for one in found.changes if one.what == "bar"}
    assert bars == {"loader/bar/over the ceiling": "regression", "loader/bar/over DALI": "regression",
                    "loader/bar/over SPDL": "changed"}  # fmt: skip
    assert "loader/bar/first batch, seconds" in {one.where for one in compare(before, documented(1)).changes}


@pytest.mark.parametrize("given", [False, True])
def test_numbers_of_threads_follow_the_cores(given: bool, documented: Documented) -> None:
    before, after = documented(0), documented(1)
    for record, cores in ((before, 2), (after, 16)):
        record["machine"]["cpu"]["usable_cores"] = cores
        record["settings"] |= {"threads": [cores, 2 * cores], "sweeps": {"threads": [1, cores], "size": [224]}}
        record["tables"][0]["parameters"]["threads"] = cores
        record["argv"] += ["--threads", f"{cores}"] if given else []
    if given:
        with pytest.raises(ValueError, match="settings sweeps threads"):
            compare(before, after)
    else:
        assert not compare(before, after).failed
    after["settings"]["sweeps"]["size"] = [32]
    with pytest.raises(ValueError, match="settings sweeps"):
        compare(before, after)


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
    assert record["regressed"] is True and record["same_machine"] is True and "Welch" in record["rule"]
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
