"""Images in memory give the batches that their files give; crops with borders are torchvision's."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import ArraySource, ImageLoader, PadPlan, Sampler, decoded_source, image_loader, open_source
from has_dali.pipelines.array_stream import ArrayStream, Renderer
from has_dali.pipelines.loader import Batch
from has_dali.pipelines.spec import ImageSpec

CPU = torch.device("cpu")
POLICY = HideAndSeek(patch_sizes=(0, 4, 7, 16), seed=3)
SIZES = [(48, 40), (40, 48), (9, 70), (33, 33), (1, 1), (64, 64), (3, 2), (100, 30)]
TRAINING = [{"train": True, "policy": POLICY}, {"train": True, "policy": POLICY, "crop": "short-side", "resize": 40}]
EVALUATION = [
    {"train": False, "resize": 40},
    {"train": False, "crop": "warp"},
    {"train": False, "resize": 32, "antialias": False},
]


@pytest.fixture(scope="module")
def lossless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 PNG and BMP files of eight sizes in two class folders."""
    root = tmp_path_factory.mktemp("lossless")
    rng = np.random.default_rng(0)
    for n in range(24):
        folder = root / "ab"[n % 2]
        folder.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (*SIZES[n % len(SIZES)], 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{n:02}.{('png', 'bmp')[n % 3 == 0]}")
    return root


@pytest.fixture(scope="module")
def small() -> ArraySource:
    """50 images of 32 x 32 with labels 0 to 4, unevenly spread."""
    rng = np.random.default_rng(1)
    labels = np.minimum(np.arange(50) // 3, 4)
    return ArraySource.from_images(rng.integers(0, 256, (50, 32, 32, 3)).astype(np.uint8), labels)


def _cifar(source: ArraySource, batch_size: int = 8, **options: object) -> ImageLoader:
    defaults = {"train": True, "policy": HideAndSeek.preset("cifar"), "size": 32, "crop": "pad", "seed": 5}
    return image_loader(source, batch_size, **{**defaults, **options})  # type: ignore[arg-type]


def _same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(torch.equal(x[name], y[name]) for x, y in zip(a, b, strict=True) for name in x)


@pytest.mark.parametrize("options", [*TRAINING, *EVALUATION])
@pytest.mark.parametrize(("dtype", "channels_last"), [("float32", False), ("float16", True)])
def test_decoded_lossless_files_give_the_same_batches(
    lossless: Path, options: dict[str, object], dtype: str, channels_last: bool
) -> None:
    form = {"size": 32, "seed": 5, "device": "cpu", "dtype": dtype, "channels_last": channels_last, **options}
    files, arrays = (image_loader(lossless, 7, cache=cache, **form) for cache in (None, "decoded"))  # type: ignore[arg-type]
    assert isinstance(arrays.source, ArraySource) and not isinstance(files.source, ArraySource)
    for _ in range(2):
        batches = list(arrays)
        assert _same(list(files), batches) and batches[0]["image"].dtype == getattr(torch, dtype)
        memory = torch.channels_last if channels_last else torch.contiguous_format
        assert all(batch["image"].is_contiguous(memory_format=memory) for batch in batches)


@pytest.mark.parametrize("options", [*TRAINING, *EVALUATION])
def test_decoded_jpegs_give_the_same_batches(image_folder: Path, options: dict[str, object]) -> None:
    """Ids and masks exactly; visible values within two grey levels, what decoding a box alone may differ by."""
    form = {"size": 32, "seed": 5, "device": "cpu", "mean": (100.3, 110.7, 90.1), "std": 1.0, **options}
    files, arrays = (list(image_loader(image_folder, 8, cache=cache, **form)) for cache in (None, "decoded"))  # type: ignore[arg-type]
    assert len(files) == len(arrays) > 2
    for a, b in zip(files, arrays, strict=True):
        assert torch.equal(a["id"], b["id"]) and torch.equal(a["label"], b["label"])
        assert torch.equal(a["image"] == 0, b["image"] == 0)  # no whole number is a mean: only hidden pixels are 0
        assert (a["image"] - b["image"]).abs().max() <= 2


def test_cifar_crop_is_torchvisions(small: ArraySource, monkeypatch: pytest.MonkeyPatch) -> None:
    """RandomCrop(32, padding=4), flip, ToTensor, Normalize, with the offsets that the plan gives."""
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    loader = _cifar(small, mean=[255 * m for m in mean], std=[255 * s for s in std])
    after = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    crop, seen = transforms.RandomCrop(32, padding=4), set()
    for epoch in range(2):
        for batch in loader:
            ids = batch["id"].numpy()
            starts, _, flips = PadPlan(5, 32, 4)(small.shapes[ids], ids, np.full(len(ids), epoch))
            masks = HideAndSeek.preset("cifar").mask(ids, epoch, 32, 32)
            for n, (top, left) in enumerate((starts + 4).tolist()):
                seen.add((top, left))
                monkeypatch.setattr(crop, "get_params", lambda *_, at=(top, left): (*at, 32, 32))
                picture = crop(Image.fromarray(small.image(ids[n])))
                picture = transforms.functional.hflip(picture) if flips[n] else picture
                expected = after(picture).masked_fill(torch.from_numpy(masks[n]), 0.0)
                assert (batch["image"][n] - expected).abs().max() < 1e-5
    assert len(seen) > 40 and any(0 in at for at in seen) and any(8 in at for at in seen)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=4),
    size=st.integers(1, 20), seed=st.integers(0, 2**64 - 1), channels_last=st.booleans(),
)  # fmt: skip
def test_any_window_is_numpys_padding(sizes: list[tuple[int, int]], size: int, seed: int, channels_last: bool) -> None:
    rng = np.random.default_rng(seed % 1000)
    source = ArraySource.from_images([rng.integers(0, 256, (*sides, 3)).astype(np.uint8) for sides in sizes])
    plan = PadPlan(seed, size, size)  # every window fits; some lie outside the image altogether
    spec = ImageSpec(plan, None, size, (0.0,) * 3, (1.0,) * 3, None, "float32", channels_last, True)
    sampler = Sampler(len(source), len(source), train=True)
    ids, _, images = Renderer(spec, source, sampler, 1, CPU).render((0, 0))
    starts, _, flips = plan(source.shapes[ids], ids, np.zeros_like(ids))
    for n, sample_id in enumerate(ids):
        (top, left), bordered = starts[n] + size, np.pad(source.image(sample_id), ((size, size), (size, size), (0, 0)))
        window = bordered[top : top + size, left : left + size]
        expected = window[:, ::-1] if flips[n] else window
        assert np.array_equal(images[n].permute(1, 2, 0).numpy(), expected)


def test_threads_and_world_size_make_no_difference(small: ArraySource) -> None:
    """160 x 160 outputs are large enough for several threads."""
    options = {"size": 160, "crop": "short-side", "resize": 180}
    alone = list(_cifar(small, 12, threads=1, **options))
    assert _same(alone, list(_cifar(small, 12, threads=3, prefetch=4, **options)))
    halves = [list(_cifar(small, 6, rank=rank, world_size=2, **options)) for rank in range(2)]
    for index, batch in enumerate(alone):
        assert torch.equal(batch["image"], torch.cat([half[index]["image"] for half in halves]))


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("resize", [32, 40])
def test_evaluation_covers_each_image_once(small: ArraySource, world_size: int, resize: int) -> None:
    seen = []
    for rank in range(world_size):
        options = {"train": False, "policy": None, "crop": None, "resize": resize, "mean": 0.0, "std": 1.0}
        loader = _cifar(small, 7, rank=rank, world_size=world_size, **options)
        first, second = list(loader), list(loader)
        assert _same(first, second)
        seen += [i for batch in first for i in batch["id"].tolist()]
        for batch in first:
            assert torch.equal(batch["label"] < 0, batch["id"] < 0)
            if resize == 32:
                pixels = np.stack([small.image(max(i, 0)) for i in batch["id"].tolist()]).transpose(0, 3, 1, 2)
                assert np.array_equal(batch["image"].numpy(), pixels)
    assert sorted(seen) == [-1] * (world_size == 3) + list(range(50))


def test_decoded_real_images(data_root: Path) -> None:
    files = sorted((data_root / "tiny-imagenet-20" / "val" / "images").glob("*.JPEG"))[:64]
    source = decoded_source(open_source(files))
    for options in (*TRAINING, *EVALUATION):
        form = {"size": 40 if options["train"] else 32, "device": "cpu", "mean": 0.3, "std": 1.0, **options}
        form |= {"resize": 56} if options.get("crop") == "short-side" else {}
        for a, b in zip(image_loader(files, 32, **form), image_loader(source, 32, **form), strict=True):  # type: ignore[arg-type]
            assert torch.equal(a["id"], b["id"]) and (a["image"] - b["image"]).abs().max() <= 2


def test_held_batches_are_never_overwritten(small: ArraySource) -> None:
    held, copies = [], []
    loader = _cifar(small)
    for _ in range(3):
        for batch in loader:
            held.append(batch["image"])
            copies.append(batch["image"].clone())
    assert len({image.data_ptr() for image in held}) == len(held) == 18
    assert all(torch.equal(image, copy) for image, copy in zip(held, copies, strict=True))


def test_memory_is_handed_out_again_only_when_nothing_looks_at_it(small: ArraySource) -> None:
    loader = _cifar(small)
    views, copies, pointers = [], [], set()
    for epoch in range(6):
        for n, batch in enumerate(loader):
            pointers.add(batch["image"].data_ptr())
            if epoch == 0 and n == 1:  # views of every kind outlive their batch
                views = [batch["image"][1:, 0], batch["image"].numpy(), batch["image"].detach().flatten()]
                copies = [torch.as_tensor(view).clone() for view in views]
    assert len(pointers) <= 2 + 4 + 1  # computed ahead, kept more, and the one that the views hold
    assert all(torch.equal(torch.as_tensor(view), copy) for view, copy in zip(views, copies, strict=True))


def _threads(before: set[threading.Thread]) -> int:
    """Threads of array streams that were not there before."""
    return sum(thread.name.startswith("has_dali_arrays") for thread in set(threading.enumerate()) - before)


def _threads_left(before: set[threading.Thread]) -> int:
    """How many there are when those whose pool was freed have had time to end."""
    deadline = time.monotonic() + 5
    while _threads(before) and time.monotonic() < deadline:
        time.sleep(0.01)
    return _threads(before)


@pytest.mark.parametrize("left_early", [True, False])
def test_no_thread_is_left_behind(small: ArraySource, left_early: bool) -> None:
    before = set(threading.enumerate())  # loaders that other tests hold on to have theirs
    loader = _cifar(small)
    for _ in loader:
        assert 0 < _threads(before) <= 2  # one for each batch computed ahead, as far as they are needed
        if left_early:
            break
    renderer = weakref.ref(loader._stream._renderer)  # type: ignore[attr-defined]
    del loader
    gc.collect()
    assert _threads_left(before) == 0 and renderer() is None


@pytest.mark.parametrize("prefetch", [1, 3])
def test_errors_are_raised_in_the_reader(small: ArraySource, prefetch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(_cifar(small))
    render, ill = Renderer.render, [True]

    def failing(self: Renderer, position: tuple[int, int]) -> object:
        if position == (0, 2) and ill:
            raise MemoryError("no room for the batch")
        return render(self, position)

    monkeypatch.setattr(Renderer, "render", failing)
    loader = _cifar(small, prefetch=prefetch)
    done = []
    with pytest.raises(MemoryError, match="no room for the batch"):
        for batch in loader:
            done.append(batch)
    assert _same(done, whole[:2])
    ill.clear()
    state = loader.state_dict()
    loader.load_state_dict(state)
    assert _same(list(loader), whole[2:])  # the loader goes on at the batch that failed


def test_work_ahead_stops_with_an_evaluation(small: ArraySource) -> None:
    spec = ImageSpec(PadPlan(), None, 32, (0.0,) * 3, (1.0,) * 3, None, "float32", False, True)
    for train, waiting in ((True, 2), (False, 0)):
        stream = ArrayStream(spec, small, Sampler(50, 25, train=train), 1, 2, CPU)
        for index in range(2):
            stream.batch((0, index))
        assert len(stream._scheduled) == waiting
        stream.close()
        assert not stream._scheduled and stream.batch((0, 1))[0].shape == (25,)


def test_without_dali_and_in_use_at_exit(tmp_path: Path) -> None:
    """Arrays of the right size load on a machine without DALI, and a loop that is not over does not hinder the exit."""
    np.savez(tmp_path / "set.npz", images=np.zeros((8, 32, 32, 3), np.uint8), labels=np.arange(8))
    script = f"""
import sys
sys.modules["nvidia.dali"] = None  # importing it fails
from has_dali.pipelines import image_loader
for options in ({{"train": False, "resize": 32}}, {{"train": True, "crop": "pad"}}):
    batches = iter(image_loader({str(tmp_path / "set.npz")!r}, 4, size=32, device="cpu", **options))
    assert next(batches)["image"].shape == (4, 3, 32, 32)
print("done")
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


def test_one_side_limit_for_files_and_arrays() -> None:
    from has_dali import arguments
    from has_dali.pipelines import spec

    assert spec.MAX_SIDE == arguments.MAX_SIDE
