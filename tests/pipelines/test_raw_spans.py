"""Raw shards give the batches that the same pixels in memory give, and never the end of the process."""

from __future__ import annotations

import gc
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import ArraySource, array_regions, image_loader
from has_dali.pipelines.data import open_data
from has_dali.pipelines.loader import Batch
from has_dali.pipelines.name_table import NameTable
from has_dali.pipelines.packing import pack
from has_dali.pipelines.raw_spans import RawSource, raw_source

SIZES = [(48, 40), (40, 48), (9, 70), (33, 33), (1, 1), (64, 64), (32, 60), (100, 32)]
POLICY = HideAndSeek(patch_sizes=(0, 4, 7, 16), seed=3)


@pytest.fixture(scope="module")
def arrays() -> ArraySource:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*SIZES[n % 8], 3)).astype(np.uint8) for n in range(32)]
    return ArraySource.from_images(images, np.arange(32) % 3, ("a", "b", "c"))


@pytest.fixture
def folder(arrays: ArraySource, tmp_path: Path) -> Path:
    pack(arrays, tmp_path / "raw", raw=True, short_side=0, shard_bytes=60_000)
    return tmp_path / "raw"


def _same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(torch.equal(x[name], y[name]) for x, y in zip(a, b, strict=True) for name in x)


@pytest.mark.parametrize(
    "options",
    [
        {"train": True, "policy": POLICY},
        {"train": True, "policy": POLICY, "crop": "short-side", "resize": 40, "channels_last": True},
        {"train": True, "policy": POLICY, "crop": "pad", "padding": 40, "dtype": "float16"},
        {"train": False, "resize": 40},  # all resampled
        {"train": False, "resize": 32},  # some are shown as they are
        {"train": False, "crop": "warp"},
    ],
)
def test_batches_are_those_of_the_same_pixels_in_memory(
    arrays: ArraySource, folder: Path, options: dict[str, object]
) -> None:
    form = {"size": 32, "seed": 5, "device": "cpu", **options}
    raw = raw_source(folder)
    for _ in range(2):
        assert _same(list(image_loader(raw, 7, **form)), list(image_loader(arrays, 7, **form)))  # type: ignore[arg-type]


def test_evaluation_resamples_what_it_must(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Images that are as large as ``resize`` are shown where they lie: 3 of the 8 sizes have a short side of 32."""
    raw = raw_source(folder)
    exact = raw.shapes.min(axis=1) == 32
    with caplog.at_level("INFO"):
        list(image_loader(raw, 8, train=False, size=32, resize=32, device="cpu"))
    assert f"resampling {int((~exact).sum())} images once" in caplog.text and 0 < exact.sum() < 32


def test_an_evaluation_too_large_for_memory_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_regions, "available_memory", lambda: 1000)
    loader = image_loader(raw_source(folder), 8, train=False, size=32, resize=40, device="cpu")
    with pytest.raises(MemoryError, match=r"resampling 24 images .*--short-side"):
        next(iter(loader))


def test_threads_that_map_at_once_share_the_maps(folder: Path) -> None:
    for _ in range(20):
        raw = raw_source(folder)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _, raw=raw: raw.addresses.copy(), range(16)))
        assert all(np.array_equal(addresses, raw.addresses) for addresses in found)


@pytest.mark.parametrize("world_size", [2, 3])
def test_evaluation_over_several_ranks(arrays: ArraySource, folder: Path, world_size: int) -> None:
    for rank in range(world_size):
        form = {"train": False, "size": 32, "resize": 32, "device": "cpu", "rank": rank, "world_size": world_size}
        both = [list(image_loader(source, 5, **form)) for source in (raw_source(folder), arrays)]  # type: ignore[arg-type]
        assert _same(*both)


def test_a_loader_opens_the_folder(arrays: ArraySource, folder: Path) -> None:
    form = {"train": True, "size": 16, "device": "cpu"}
    opened, given = image_loader(folder, 8, **form), image_loader(arrays, 8, **form)  # type: ignore[arg-type]
    assert isinstance(opened.source, RawSource) and _same(list(opened), list(given))


def test_images_labels_and_names(arrays: ArraySource, folder: Path) -> None:
    raw = raw_source(folder)
    assert len(raw) == 32 and raw.classes == ("a", "b", "c") and np.array_equal(raw.labels, arrays.labels)
    assert len(raw.files) > 3
    for n in range(32):
        assert np.array_equal(raw.image(n), arrays.image(n)) and not raw.image(n).flags.writeable
        assert raw.name(n) == f"{raw.files[raw.file_of[n]]}: {n:08}"
    part = raw.select([30, 2, 2])
    assert np.array_equal(part.image(0), arrays.image(30)) and np.array_equal(part.image(2), arrays.image(2))
    assert part.labels.tolist() == [0, 2, 2] and part.name(1) == raw.name(2)
    again = pickle.loads(pickle.dumps(raw))
    assert np.array_equal(again.image(5), arrays.image(5)) and again.fingerprint() == raw.fingerprint()


def test_the_fingerprint_changes_with_pixels_labels_and_order(arrays: ArraySource, tmp_path: Path) -> None:
    prints = []
    for number, change in enumerate(("nothing", "nothing", "pixel", "label", "order")):
        images, labels = [arrays.image(n).copy() for n in range(32)], arrays.labels.copy()
        if change == "pixel":
            images[7][0, 0, 0] ^= 1
        elif change == "label":
            labels[7] += 1
        elif change == "order":
            images.reverse()
        pack(ArraySource.from_images(images, labels), tmp_path / str(number), raw=True, short_side=0)
        prints.append(raw_source(tmp_path / str(number)).fingerprint())
    assert prints[0] == prints[1] and len(set(prints)) == 4


def test_no_descriptor_stays_open(folder: Path) -> None:
    raw = raw_source(folder)
    before = len(os.listdir("/proc/self/fd"))
    assert raw.addresses.all() and len(os.listdir("/proc/self/fd")) == before


def test_memory_is_given_back(folder: Path) -> None:
    raw = raw_source(folder)
    assert raw.addresses.all()
    name = Path(raw.files[0]).parent.as_posix()
    assert name in Path("/proc/self/maps").read_text()
    del raw
    assert name not in Path("/proc/self/maps").read_text()


def test_a_view_outlives_its_source(arrays: ArraySource, folder: Path) -> None:
    """Reading a view of a file that is no longer mapped would end the process."""
    views = [raw_source(folder).image(n)[:, ::2] for n in range(32)]
    gc.collect()
    assert all(np.array_equal(view, arrays.image(n)[:, ::2]) for n, view in enumerate(views))
    del views
    gc.collect()
    assert folder.as_posix() not in Path("/proc/self/maps").read_text()


def test_a_batch_is_asked_for_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, asked = raw_source(folder), list[tuple[int, int, int]]()
    monkeypatch.setattr(raw.maps, "will_need", lambda *span: asked.append(span))
    raw.check(np.array([30, 2]))
    lengths = raw.shapes.prod(axis=1) * 3
    assert asked == [(raw.file_of[n], raw.offsets[n], lengths[n]) for n in (30, 2)]


def test_shards_of_another_run_are_no_fit(arrays: ArraySource, folder: Path, tmp_path: Path) -> None:
    """Raw images of equal sizes give shards of equal sizes, whatever they show."""
    backwards = [np.ascontiguousarray(arrays.image(n)[::-1]) for n in range(32)]
    pack(ArraySource.from_images(backwards, arrays.labels), tmp_path / "b", raw=True, short_side=0, shard_bytes=60_000)
    path = sorted(folder.glob("*.tar"))[1]
    stranger = tmp_path / "b" / path.name
    assert stranger.stat().st_size == path.stat().st_size
    path.write_bytes(stranger.read_bytes())
    with pytest.raises(OSError, match=f"{path.name}: the shard has other bytes than when its index was written"):
        raw_source(folder)
    for data in (folder, path):
        with pytest.raises(ValueError, match=rf"{path.name}: the shard is not as index\.npz beside it says"):
            open_data(data, train=True)
    assert len(open_data(min(folder.glob("*.tar")), train=True)) > 0  # the others are as they were


def test_a_shard_that_was_cut_short_is_an_error(folder: Path) -> None:
    path = sorted(folder.glob("*.tar"))[1]
    content = path.read_bytes()
    raw, loaded = raw_source(folder), raw_source(folder)
    loader = image_loader(loaded, 8, train=False, size=16, resize=16, device="cpu", prefetch=1)
    batches = iter(loader)
    next(batches)
    os.truncate(path, 4096)
    with pytest.raises(OSError, match=f"{path.name}: .*4096 bytes"):
        raw_source(folder)
    with pytest.raises(OSError, match=f"{path.name}: has 4096 bytes, {len(content)} when it was indexed"):
        _ = raw.addresses
    with pytest.raises(OSError, match=path.name):  # while it is mapped
        list(batches)
    path.unlink()
    with pytest.raises(OSError, match=f"{path.name}: .*missing"):
        raw_source(folder)


def test_encoded_shards_are_no_raw_ones(arrays: ArraySource, tmp_path: Path) -> None:
    pack(arrays, tmp_path)
    with pytest.raises(ValueError, match="--raw"):
        raw_source(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"index\.npz"):
        raw_source(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"file_of": []}, "empty"),
        ({"file_of": [1]}, "file_of"),
        ({"offsets": [-1]}, "outside its file"),
        ({"offsets": [53]}, "outside its file"),
        ({"shapes": [[4, 0]]}, "outside its file"),
        ({"shapes": [[4, 4], [4, 4]]}, "shapes"),
        ({"sizes": [100, 100]}, "sizes"),
        ({"labels": [1, 2]}, "labels"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], named: str) -> None:
    right = {"files": ["f"], "sizes": [100], "file_of": [0], "offsets": [52], "shapes": [[4, 4]], "labels": [0]}
    RawSource(**right, names=NameTable.of(["x"]))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=named):
        RawSource(**{**right, **change}, names=NameTable.of(["x"]))  # type: ignore[arg-type]
