"""What goes wrong while the stream works ahead harms no batch before it, and comes up when its turn has come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from has_dali.pipelines import FileSource, broken, image_loader, stream
from has_dali.pipelines.broken import Probe

PREFETCH = pytest.mark.parametrize("prefetch", [1, 2, 4])


class Shard(FileSource):
    """Files that cannot be fed as long as one of them is ``gone``."""

    gone: int | None = None

    def encoded_paths(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        if self.gone in ids.tolist():
            raise OSError("shard-0001.tar: changed while it was read")
        return super().encoded_paths(ids)


@pytest.fixture
def shard(image_folder: Path) -> Shard:
    return Shard(sorted(image_folder.rglob("*.jpg"))[:14])


def _open(source: FileSource, prefetch: int, **options: Any) -> Any:
    defaults = {"train": False, "size": 16, "device": "cpu", "threads": 1, "prefetch": prefetch}
    return image_loader(source, 2, **{**defaults, **options})


@PREFETCH
@pytest.mark.parametrize("gone", [0, 2, 9, 13])
def test_batches_before_a_failing_feed_are_handed_out(shard: Shard, prefetch: int, gone: int) -> None:
    whole = [batch["image"] for batch in _open(shard, prefetch)]
    loader = _open(shard, prefetch)
    shard.gone = gone
    done: list[torch.Tensor] = []
    for _ in range(2):  # asked again it fails again
        with pytest.raises(OSError, match=r"shard-0001\.tar: changed"):
            for batch in loader:
                done.append(batch["image"])
        assert len(done) == gone // 2 and loader.position() == (0, 2 * len(done))
        loader.load_state_dict(loader.state_dict())  # goes on at this batch
    shard.gone = None  # it is back
    done += [batch["image"] for batch in loader]
    assert all(torch.equal(a, b) for a, b in zip(done, whole, strict=True))


@PREFETCH
def test_too_many_broken_files_ahead_cost_no_batch(shard: Shard, tmp_path: Path, prefetch: int) -> None:
    """Found while another takes the place of one that is known, batches before its own are handed out."""
    files = [Path(shard.path(n)) for n in range(14)]
    for n in (6, 7):
        files[n] = tmp_path / f"{n}.jpg"
        files[n].write_bytes(b"no image" if n == 6 else Path(shard.path(n)).read_bytes())
    loader = _open(FileSource(files), prefetch, on_error="skip", error_budget=1 / 14)
    assert [batch["id"].tolist() for batch in loader][3] == [-1, 7]
    files[7].write_bytes(b"no image any more")
    done: list[int] = []
    with pytest.raises(RuntimeError, match="2 of 14 samples cannot be loaded, more than error_budget"):
        for batch in loader:
            done += batch["id"].tolist()
    assert done == [0, 1, 2, 3, 4, 5] and loader.position() == (1, 6)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA runtime API error cudaErrorMemoryAllocation (2):\nout of memory",
        "Error in CPU operator: std::bad_alloc",
        "CUDA driver API error CUDA_ERROR_ILLEGAL_ADDRESS (700)",
    ],
)
def test_a_failure_of_the_machine_is_no_broken_file(shard: Shard, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Raised as it is, and nothing is skipped for it."""

    class Failing:
        def run(self) -> None:
            raise RuntimeError(f"Critical error in pipeline: {text}")

    def fail(self: Any) -> Any:
        raise RuntimeError(f"Critical error in pipeline: {text}")

    monkeypatch.setattr(Probe, "_built", lambda self: Failing())
    monkeypatch.setattr(stream.BatchStream, "_pop_images", fail)
    loader = _open(shard, 2, on_error="skip", error_budget=1.0)
    with pytest.raises(RuntimeError, match="Critical error in pipeline"):
        next(iter(loader))
    assert loader.report()["broken"] == []


def test_a_file_that_goes_while_it_is_looked_at_has_a_reason(tmp_path: Path) -> None:
    assert broken.colourless(FileSource([tmp_path / "gone.jpg"]), 0) == "no such file or directory"
