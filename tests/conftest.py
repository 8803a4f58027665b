"""Settings for the whole suite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _rooms_come_from_here() -> None:
    """An editable installation of another checkout would be tested instead of this one."""
    import has_dali
    import has_dali.bench
    import has_dali.kernels
    import has_dali.pipelines
    import has_dali.trainers

    for room in (has_dali, has_dali.kernels, has_dali.pipelines, has_dali.trainers, has_dali.bench):
        folder = Path(str(room.__file__)).resolve().parent
        assert ROOT in folder.parents, f"{room.__name__} comes from {folder}, not from {ROOT}: run `make test` there"


_rooms_come_from_here()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Indexes of test data stay out of the user's cache."""
    before = os.environ.get("HAS_DALI_CACHE")
    os.environ["HAS_DALI_CACHE"] = str(tmp_path_factory.mktemp("has_dali_cache"))
    yield
    if before is None:
        del os.environ["HAS_DALI_CACHE"]
    else:
        os.environ["HAS_DALI_CACHE"] = before


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of small real data sets, where HAS_DALI_DATA names one."""
    root = os.environ.get("HAS_DALI_DATA", "")
    if not root or not Path(root).is_dir():
        pytest.skip("HAS_DALI_DATA does not name a folder: the small real data sets are not here")
    return Path(root)
