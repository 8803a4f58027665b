"""What ``has_dali.pipelines`` gives, whatever was imported before."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from types import ModuleType

import has_dali.pipelines as pipelines


def test_names_are_things_and_stay_so() -> None:
    """A module of the same name would take the place of the thing as soon as it is imported."""
    assert set(pipelines.__all__) == set(pipelines._HOMES) <= set(dir(pipelines))
    modules = {module.name for module in pkgutil.iter_modules(pipelines.__path__)}
    assert not modules & set(pipelines._HOMES)
    for name, home in pipelines._HOMES.items():
        if home != "datamodule":  # Lightning is optional
            assert getattr(importlib.import_module(f"has_dali.pipelines.{home}"), name) is getattr(pipelines, name)
            assert not isinstance(getattr(pipelines, name), ModuleType)


def test_the_package_alone_is_light() -> None:
    code = "import sys, has_dali.pipelines; sys.exit(bool({'torch', 'nvidia.dali', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
