"""The command table: light, complete, and clear about errors."""

from __future__ import annotations

import subprocess
import sys

import pytest

from has_dali import cli


def run_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def command(argv: object) -> int:
        raise error

    monkeypatch.setattr(cli, "_load", lambda target: command)
    return cli.main(["mean"])


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from has_dali.cli import main; code = main(['--help']);"
        "heavy = {'torch', 'nvidia', 'numba', 'numpy', 'rich', 'matplotlib', 'PIL'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, command in cli.COMMANDS.items():
        assert f"  {name} " in done.stdout and command.help in done.stdout


def test_every_target_can_be_loaded_and_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for name in cli.COMMANDS:
        assert cli.main([name, "--help"]) == 0
        out = capsys.readouterr().out
        assert f"usage: has-dali {name}" in out and "--json" in out and "--quiet" in out


def test_module_form_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "has_dali", "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("has-dali ")


@pytest.mark.parametrize(("name", "hint"), [("sho", "did you mean show?"), ("xyzzy", "choose one of demo, show")])
def test_unknown_command(name: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name]) == 2
    captured = capsys.readouterr()
    assert hint in captured.err and repr(name) in captured.err
    assert captured.err.count("\n") == 1 and not captured.out


def test_no_command_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "usage: has-dali" in capsys.readouterr().out


def test_bad_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["mean"]) == 2
    err = capsys.readouterr().err
    assert "DATA" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("p_hide=1.5: expected a probability"), 2, "p_hide=1.5: expected a probability"),
        (FileNotFoundError(2, "No such file or directory", "/x/y"), 2, "/x/y: No such file or directory"),
        (
            ModuleNotFoundError("No module named 'nvidia.dali'", name="nvidia.dali"),
            2,
            "package nvidia is missing: pip install",
        ),
        (RuntimeError("first\nsecond\nthird"), 1, "first\nsecond"),
        (RuntimeError("decoder failed\nStacktrace (9 entries):\n[frame 0]: x"), 1, "decoder failed"),
        (RuntimeError(), 1, "RuntimeError"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_are_short_and_set_the_exit_code(
    error: BaseException,
    code: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("HAS_DALI_DEBUG", raising=False)
    assert run_with(monkeypatch, error) == code
    err = capsys.readouterr().err
    assert text in err and err.startswith("has-dali mean: ")
    assert err.count("\n") <= 2 and "Traceback" not in err and "frame" not in err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAS_DALI_DEBUG", "1")
    with pytest.raises(ValueError, match="no"):
        run_with(monkeypatch, ValueError("no"))
