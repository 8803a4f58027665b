"""A few JPEGs in ImageFolder layout, a fabricated run, and the schema that every run must fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from has_dali.bench import machine
from has_dali.bench.results import Bar, Latency, Result, Row, Table, document
from has_dali.bench.timing import Summary
from has_dali.console import json_text


@pytest.fixture(scope="session")
def jpeg_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jpegs")
    rng = np.random.default_rng(0)
    for name in ("ant", "bee", "cat"):
        (folder / name).mkdir()
        for i in range(12):
            noise = Image.fromarray(rng.integers(0, 256, (12, 16, 3)).astype(np.uint8))
            noise.resize((160, 120), Image.Resampling.BICUBIC).save(folder / name / f"{i}.jpg", quality=90)
    return folder


@pytest.fixture
def fabricated() -> Callable[..., Result]:
    """Makes a run of the scope loader; ``speed`` multiplies our rows, ``machine`` all, ``noise`` is relative."""

    def made(seed: int = 0, speed: float = 1.0, noise: float = 0.02, machine: float = 1.0, rounds: int = 7) -> Result:
        rng = np.random.default_rng(seed)

        def summary(value: float) -> Summary:
            return Summary(tuple(float(v) for v in value * machine * (1 + rng.uniform(-noise, noise, rounds))))

        def rows(*given: tuple[str, str, str, float]) -> list[Row]:
            return [
                Row(key, label, kind, value=summary(value), latency=Latency(60.0, 70.0, 90.0, 120.0, 400))
                for key, label, kind, value in given
            ]

        loaders = rows(
            ("has_dali", "has_dali, with Hide-and-Seek", "ours", 1744 * speed),
            ("ceiling", "decode the crop box, nothing else", "bound", 1939),
            ("dali", "DALI's own operators", "peer", 1092),
            ("spdl", "SPDL, four threads", "peer", 1990),
            ("pil", "torchvision DataLoader, Pillow and the usual loop over patches", "peer", 312),
        )
        loaders.append(Row("ffcv", "FFCV", status="skipped", reason="does not import: No module named 'ffcv'"))
        loaders.append(Row("lazy", "a lazy peer", status="void", reason="hides 12.5% of the pixels, expected 50.0%"))
        table = Table("loader", "JPEG files to batches of 64", "images/s", "higher", "has_dali", {"batch": 64}, loaders)
        sweep = Table("threads", "Threads", "images/s", "higher", "ours-1", {"x": "threads"})
        for x in (1, 2, 4):
            for key, name, kind, value in (
                ("ours", "has_dali, with Hide-and-Seek", "ours", 900 * x * speed),
                ("dali", "DALI's own operators", "peer", 560 * x),
            ):
                extra = {"x": x, "series": name}
                sweep.rows.append(Row(f"{key}-{x}", name, kind, value=summary(value), extra=extra))
        for one in (table, sweep):
            one.fill_ratios()
        bars = [
            Bar("over the ceiling", table.speed_ratio("has_dali", "ceiling"), 0.85, aim=0.95),
            Bar("over DALI", table.speed_ratio("has_dali", "dali"), 1.5, aim=1.55),
            Bar("over SPDL", table.speed_ratio("has_dali", "spdl"), 1.0),
            Bar("over FFCV", None, 2.0, note="FFCV is not installed"),
            Bar("first batch, seconds", summary(0.8), at_most=3.0, aim=1.0),
        ]
        data = {"name": "corpus", "images": 300, "bytes": 34_000_000, "fingerprint": "0123456789abcdef"}
        settings = {"batch_size": 64, "rounds": rounds, "policy": {"patch_sizes": [16, 32], "p_hide": 0.5}}
        return Result("loader", "Loaders", "page cache warm; in turns", settings, data, [table, sweep], bars)

    return made


@pytest.fixture
def documented(fabricated: Callable[..., Result]) -> Callable[..., dict[str, Any]]:
    """``fabricated`` as the JSON document of a run on this machine, read back."""

    def made(*args: Any, **options: Any) -> dict[str, Any]:
        described = machine.described(machine.state())
        record = document(
            fabricated(*args, **options), ["has-dali", "bench", "loader"], "2026-11-25T10:00:00+00:00", 61.5, described
        )
        return dict(json.loads(json_text(record)))

    return made


@pytest.fixture(scope="session")
def schema_errors() -> Callable[[Any], list[str]]:
    """What the schema has against a document."""
    schema = json.loads(files("has_dali.bench").joinpath("result_schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    return lambda record: [f"{error.json_path}: {error.message}" for error in validator.iter_errors(record)]


@pytest.fixture
def assert_valid(schema_errors: Callable[[Any], list[str]]) -> Callable[[Result], None]:
    """Asserts that the document of a result fits the schema and gives the result again."""

    def check(result: Result) -> None:
        described = machine.described(machine.state())
        argv, started = ["has-dali", "bench", result.scope], "2026-11-25T10:00:00+00:00"
        text = json_text(document(result, argv, started, 1.0, described))
        record = json.loads(text)
        assert schema_errors(record) == []
        assert json_text(Result.from_dict(record).to_dict()) == json_text(result.to_dict())

    return check
