"""The schema takes what ``document`` makes, and nothing else."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import jsonschema
import pytest

from has_dali.bench import machine
from has_dali.bench.harness import Contender, Verdict, measure_table
from has_dali.bench.results import Result, document
from has_dali.bench.timing import Window
from has_dali.console import json_text

SCHEMA = json.loads(files("has_dali.bench").joinpath("result_schema.json").read_text())


def errors(record: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    return [error.message for error in validator.iter_errors(record)]


def test_the_schema_is_one_and_a_run_fits_it(documented: Callable[..., dict[str, Any]]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert errors(documented()) == []


def test_what_the_harness_measures_fits_it() -> None:
    from contextlib import nullcontext

    def opened() -> Any:
        return nullcontext(lambda: sum(range(100)))

    contenders = [
        Contender("ours", "ours", opened, lambda seen: Verdict(None, {"sum": seen[0]}), kind="ours"),
        Contender("lazy", "lazy", opened, lambda seen: Verdict("does nothing")),
        Contender("gone", "gone", opened, requires=("no_such_module",)),
    ]
    window = Window(seconds=0.0, batches=1, discarded=0, stride=1)
    table = measure_table("t", "T", contenders, baseline="ours", rounds=2, window=window)
    state = machine.state()
    record = document(
        Result("op", "T", "c", tables=[table]), ["x"], "2026-11-25T10:00:00Z", 0.1, machine.described(state)
    )
    assert errors(json.loads(json_text(record))) == []
    assert [row.status for row in table.rows] == ["measured", "void", "skipped"]


def broken(change: str) -> Callable[[dict[str, Any]], None]:
    return lambda record: exec(change, {"d": record, "row": record["tables"][0]["rows"][0]})


@pytest.mark.parametrize(
    "change",
    [
        "d['note'] = 1",
        "del d['argv']",
        "d['version'] = 2",
        "d['started'] = 'yesterday'",
        "d['machine']['folder'] = '/home'",
        "d['machine']['before']['load_average'] = [1]",
        "d['data'] = {'bytes': 3}",
        "d['tables'][0]['rows'] = []",
        "d['tables'][0]['better'] = 'faster'",
        "d['bars'][0]['met'] = None",
        "d['bars'][3]['met'] = True",
        "row['kind'] = 'other'",
        "row['value'] = None",
        "row['value']['values'] = []",
        "row['value']['values'][0] = None",
        "row['status'] = 'void'",
        "row['surplus'] = 1",
        "d['tables'][0]['rows'][-1]['reason'] = None",
        "row['latency_ms']['p99'] = -1",
        "row['latency_ms']['count'] = 0",
        "del row['latency_ms']['count']",
        "d['bars'][0]['interval'] = {'mean': 1.0, 'low': 0.5}",
        "del d['bars'][0]['resolved']",
    ],
)
def test_broken_documents_are_refused(change: str, documented: Callable[..., dict[str, Any]]) -> None:
    record = copy.deepcopy(documented())
    broken(change)(record)
    assert errors(record)


def test_json_is_strict(documented: Callable[..., dict[str, Any]]) -> None:
    record = documented()
    record["tables"][0]["rows"][0]["extra"] = {"speed": math.nan, "x": math.inf}
    text = json_text(record)
    assert "NaN" not in text and "Infinity" not in text
    read = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert read["tables"][0]["rows"][0]["extra"] == {"speed": None, "x": None} and errors(read) == []


def test_a_document_gives_its_result_again(documented: Callable[..., dict[str, Any]]) -> None:
    record = documented()
    again = Result.from_dict(record).to_dict()
    assert json.loads(json_text(again)) == {name: record[name] for name in again}


def test_every_committed_result_fits_it() -> None:
    folder = files("has_dali.bench").joinpath("results")
    records = {file.name: json.loads(file.read_text()) for file in folder.iterdir() if file.name.endswith(".json")}
    assert records
    for name, record in records.items():
        if isinstance(record, dict) and "scope" in record:
            assert errors(record) == [], name
