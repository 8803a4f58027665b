"""``doctor`` really runs the CPU path, and says what to do when a part of it is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from has_dali import cli, doctor


def test_doctor_passes_outside_the_checkout(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "has_dali", "doctor", "--json", "d.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "d.json").read_text())
    states = {finding["what"]: finding["state"] for finding in result["findings"]}
    assert result["cpu_path_works"] is True
    assert states["hide (CPU)"] == states["DALI pipeline (CPU)"] == states["numba cache"] == "ok"
    assert result["environment"]["packages"]["numpy"] is not None


@pytest.mark.parametrize(
    ("module", "code", "text"),
    [
        ("torch", 0, "pip install 'has-dali[train]'"),
        ("nvidia.dali", 1, "pip install 'has-dali[cuda13]'"),
    ],
)
def test_doctor_without_a_package(module: str, code: int, text: str) -> None:
    program = f"import sys; sys.modules[{module!r}] = None;from has_dali.cli import main; sys.exit(main(['doctor']))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert text in done.stdout and "Traceback" not in done.stderr


def test_a_wrong_kernel_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    functional = pytest.importorskip("has_dali.functional")
    monkeypatch.setattr(functional, "hide", lambda batch, *args, **kwargs: batch)
    assert cli.main(["doctor"]) == 1
    assert "masks differ" in capsys.readouterr().out


def test_environment_is_plain_data() -> None:
    facts = doctor.environment()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["cores"] >= 1
