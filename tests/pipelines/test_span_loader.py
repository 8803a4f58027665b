"""Byte ranges of larger files through the same pipeline as files: the same batches, bit for bit."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import FileSource, image_loader
from has_dali.pipelines.name_table import NameTable
from has_dali.pipelines.spans import SpanSource


@pytest.fixture(scope="module")
def sources(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[FileSource, SpanSource]:
    """The files, and the members of two tar files of them."""
    files = sorted(image_folder.rglob("*.jpg"))
    folder = tmp_path_factory.mktemp("shards")
    shards = [folder / f"{n}.tar" for n in range(2)]
    offsets, lengths = [], []
    for n, shard in enumerate(shards):
        with tarfile.open(shard, "w") as writer:
            for file in files[n * 15 : (n + 1) * 15]:
                writer.add(file, file.name)
        with tarfile.open(shard) as reader:
            offsets += [member.offset_data for member in reader]
            lengths += [member.size for member in reader]
    labels = np.arange(30) % 4
    spans = SpanSource(
        [str(shard) for shard in shards], [shard.stat().st_size for shard in shards], np.repeat([0, 1], 15), offsets,
        lengths, labels, names=NameTable.of(file.name for file in files),
    )  # fmt: skip
    return FileSource(files, labels), spans


@pytest.mark.parametrize(
    "options",
    [
        {"train": True, "policy": HideAndSeek((5, 8), seed=1), "prefetch": 1},
        {"train": True, "policy": HideAndSeek((5, 8)), "prefetch": 4, "multi_view": 2},
        {"train": True, "crop": "short-side", "sampling": "class-balanced", "steps": 6},
        {"train": False},
        {"train": False, "crop": "warp", "rank": 2, "world_size": 4},
    ],
)
def test_the_same_batches_as_of_files(sources: tuple[FileSource, SpanSource], options: dict[str, Any]) -> None:
    files, spans = (image_loader(source, 7, size=24, device="cpu", threads=2, **options) for source in sources)
    held = []
    for _ in range(3):
        for a, b in zip(files, spans, strict=True):
            assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
            held.append((b["image"], b["image"].clone()))
    assert all(torch.equal(image, copy) for image, copy in held)


def test_states_tell_shards_from_files(sources: tuple[FileSource, SpanSource]) -> None:
    files, spans = (image_loader(source, 7, train=True, size=24, device="cpu") for source in sources)
    spans.load_state_dict(spans.state_dict())
    with pytest.raises(ValueError, match=r"state: data is [0-9a-f]{16}, this loader's is"):
        spans.load_state_dict(files.state_dict())


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_broken_member_is_named(sources: tuple[FileSource, SpanSource], tmp_path: Path, on_error: str) -> None:
    _, spans = sources
    shard = tmp_path / "bad.tar"
    content = bytearray(Path(spans.files[0]).read_bytes())
    first = int(spans.offsets[3])
    content[first : first + 2] = b"no"  # a start marker no more
    shard.write_bytes(content)
    broken = SpanSource(
        [str(shard)], [len(content)], np.zeros(15, int), spans.offsets[:15], spans.lengths[:15],
        names=spans.names.select(np.arange(15)),
    )  # fmt: skip
    loader = image_loader(broken, 5, train=False, size=24, device="cpu", on_error=on_error, error_budget=0.1)
    if on_error == "raise":
        with pytest.raises(RuntimeError, match=r"cannot load sample 3: .*bad\.tar: .*\.jpg: not an image"):
            list(loader)
    else:
        assert [i for batch in loader for i in batch["id"].tolist()] == [0, 1, 2, -1, *range(4, 15)]
        (file,) = loader.report()["broken"]
        assert file["name"] == broken.name(3)


def test_a_shard_that_changes_under_the_loader_is_an_error(
    sources: tuple[FileSource, SpanSource], tmp_path: Path
) -> None:
    """Not a member that cannot be loaded: nothing is skipped for it."""
    shard = tmp_path / "grown.tar"
    shard.write_bytes(Path(sources[1].files[0]).read_bytes())
    spans = sources[1]
    grown = SpanSource(
        [str(shard)], [shard.stat().st_size - 1], np.zeros(15, int), spans.offsets[:15], spans.lengths[:15],
        names=spans.names.select(np.arange(15)),
    )  # fmt: skip
    loader = image_loader(grown, 5, train=False, size=24, device="cpu", on_error="skip", error_budget=1.0)
    with pytest.raises(OSError, match=r"grown\.tar"):
        list(loader)
    assert loader.report()["broken"] == []
