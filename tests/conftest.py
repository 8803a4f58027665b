"""Settings for the whole suite."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _sources_hash() -> str:
    """Numba caches a function by its own file alone; a change in a file that it calls would go unseen."""
    digest = hashlib.sha256()
    for path in sorted([*ROOT.glob("kernels/*.py"), *ROOT.glob("pipelines/*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / "build" / "numba" / _sources_hash()))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of small real data sets, where HAS_DALI_DATA names one."""
    root = os.environ.get("HAS_DALI_DATA", "")
    if not root or not Path(root).is_dir():
        pytest.skip("HAS_DALI_DATA does not name a folder: the small real data sets are not here")
    return Path(root)
