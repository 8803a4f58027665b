"""Images and masks stay together to the pixel: pictures whose values say which source pixel they show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines.paired import PairedLoader, paired_loader
from has_dali.pipelines.policy_schedule import PolicySchedule
from has_dali.pipelines.scale_plan import ScalePlan

SIZES = ((60, 90), (90, 60), (75, 75), (50, 120), (128, 70))
INSIDE = 200  # blue, wherever there is image


def _telling(height: int, width: int) -> tuple[Image.Image, Image.Image]:
    """A picture with its column in red and its row in green, and a mask with another number in every pixel."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    picture = np.stack([columns, rows, np.full_like(rows, INSIDE)], axis=2)
    return Image.fromarray(picture), Image.fromarray(np.arange(height * width, dtype=np.uint16).reshape(height, width))


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("telling")
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for n in range(20):
        picture, mask = _telling(*SIZES[n % len(SIZES)])
        picture.save(root / "images" / f"{n:02}.png")
        mask.save(root / "masks" / f"{n:02}.png")
    return root


def _loader(root: Path, batch_size: int = 4, **options: Any) -> PairedLoader:
    settings: dict[str, Any] = {
        "train": True,
        "size": 48,
        "device": "cpu",
        "mean": 0.0,
        "std": 1.0,
        "antialias": False,
        **options,
    }
    settings |= options
    return paired_loader(root / "images", settings.pop("batch_size", batch_size), masks=root / "masks", **settings)


def _shown(image: npt.NDArray, width: int) -> tuple[npt.NDArray, npt.NDArray]:
    """The mask that the image itself calls for, and where that is beyond doubt: centres between two pixels are not."""
    columns, rows, blue = image
    sure = (np.abs(columns % 1 - 0.5) > 1e-3) & (np.abs(rows % 1 - 0.5) > 1e-3) & (blue == INSIDE)
    return np.rint(rows).astype(int) * width + np.rint(columns).astype(int), sure


@pytest.mark.parametrize(
    ("crop", "options"),
    [
        ("random-resized", {}),
        ("random-resized", {"cache": "decoded"}),
        ("short-side", {"resize": 60}),
        ("scale", {"scales": (0.7, 2.5)}),
        ("scale-pad", {"scales": (0.3, 2.5), "cache": "decoded"}),
        ("pad", {"padding": 9, "cache": "decoded"}),
    ],
)
def test_masks_show_the_pixels_that_images_show(telling: Path, crop: str, options: dict[str, Any]) -> None:
    loader = _loader(telling, crop=crop, ignore_index=-100, **options)
    flipped, shares = 0, []
    for _ in range(2):
        for batch in loader:
            assert batch["mask"].dtype == torch.int64 and batch["mask"].shape == (4, 48, 48)
            for image, mask, sample_id in zip(batch["image"].numpy(), batch["mask"].numpy(), batch["id"], strict=True):
                expected, sure = _shown(image, SIZES[int(sample_id) % len(SIZES)][1])
                assert np.array_equal(mask[sure], expected[sure])
                assert np.array_equal(mask[image[2] == 0], np.full((image[2] == 0).sum(), -100))
                assert (mask[image[2] == INSIDE] >= 0).all()
                shares.append(sure.mean())
                inner = image[0][:, (mask >= 0).any(axis=0)]
                flipped += bool(inner.max(axis=0)[0] > inner.max(axis=0)[-1])
    assert np.mean(shares) > 0.3  # of the pixels tell
    assert 0 < flipped < len(shares)


def test_padded_crops_reach_beyond_small_images(telling: Path) -> None:
    batch = next(iter(_loader(telling, crop="scale-pad", scales=(0.3, 0.3), cache="decoded")))
    outside = (batch["mask"] == 255) & (batch["image"][:, 2] == 0)
    assert outside.flatten(1).any(dim=1).all() and (~outside).flatten(1).any(dim=1).all()


def _resized_centre(mask: npt.NDArray, resize: int, size: int) -> npt.NDArray:
    """Short side to ``resize``, then the centre, pixel by pixel."""
    height, width = mask.shape
    short = min(height, width)
    sides = [resize if side == short else int(resize * side / short) for side in (height, width)]
    top, left = (round((side - size) / 2) for side in sides)
    out = np.empty((size, size), mask.dtype)
    for y in range(size):
        for x in range(size):
            out[y, x] = mask[int((y + top + 0.5) * height / sides[0]), int((x + left + 0.5) * width / sides[1])]
    return out


def _warped(mask: npt.NDArray, size: int) -> npt.NDArray:
    height, width = mask.shape
    return np.array([[mask[(2 * y + 1) * height // (2 * size), (2 * x + 1) * width // (2 * size)]
                      for x in range(size)] for y in range(size)])  # fmt: skip


@pytest.mark.parametrize("crop", ["center", "warp"])
def test_evaluation_against_slow_loops(telling: Path, crop: str) -> None:
    differing = 0
    for batch in _loader(telling, 5, train=False, crop=crop, **({"resize": 53} if crop == "center" else {})):
        for mask, sample_id in zip(batch["mask"].numpy(), batch["id"], strict=True):
            whole = np.asarray(Image.open(telling / "masks" / f"{int(sample_id):02}.png"))
            expected = _resized_centre(whole, 53, 48) if crop == "center" else _warped(whole, 48)
            differing += int((mask != expected).sum())
    # Edges of the centre's region are float32, as DALI takes them: a centre on a pixel's edge may fall to either side.
    assert differing == 0 if crop == "warp" else differing < 20 * 48 * 48 * 0.03


def test_whole_images_come_at_their_own_size(telling: Path) -> None:
    for number, batch in enumerate(_loader(telling, 1, train=False)):
        height, width = SIZES[number % len(SIZES)]
        assert batch["id"].tolist() == [number]
        assert batch["image"].shape == (1, 3, height, width)
        expected, _ = _shown(batch["image"][0].numpy(), width)
        assert np.array_equal(batch["mask"][0].numpy(), expected)
    assert number == 19


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_padding_of_whole_images_is_void(telling: Path, on_error: str) -> None:
    """Of the size of the image that stands in for it."""
    ids = []
    for rank in range(3):
        for batch in _loader(telling, 1, train=False, rank=rank, world_size=3, on_error=on_error, ignore_index=-7):
            ids += batch["id"].tolist()
            assert batch["mask"].shape[1:] == batch["image"].shape[2:]
            assert bool((batch["mask"] == -7).all()) == (ids[-1] < 0)
    assert sorted(ids) == [-1, *range(20)]


def test_whole_images_of_absurd_sizes_are_refused(tmp_path: Path) -> None:
    file, mask = tmp_path / "huge.jpg", tmp_path / "huge.png"
    Image.new("RGB", (30, 20)).save(file)
    Image.new("L", (30, 20)).save(mask)
    content = file.read_bytes()
    sides = content.index(b"\xff\xc0") + 5  # of the frame header
    file.write_bytes(content[:sides] + b"\x80\x00\x80\x00" + content[sides + 4 :])
    with pytest.raises(RuntimeError, match=r"sample 0: .*huge\.jpg: the header gives more than 178956970 pixels"):
        next(iter(paired_loader([file], 1, masks=[mask], train=False, device="cpu")))


@pytest.mark.parametrize("options", [{}, {"crop": "scale"}, {"train": False, "crop": "warp"}])
def test_one_sample_looks_the_same_for_any_batches(telling: Path, options: dict[str, Any]) -> None:
    def by_id(*loaders: PairedLoader) -> dict[int, tuple[bytes, bytes]]:
        return {
            int(sample_id): (image.numpy().tobytes(), mask.numpy().tobytes())
            for loader in loaders
            for batch in loader
            for image, mask, sample_id in zip(batch["image"], batch["mask"], batch["id"], strict=True)
            if sample_id >= 0
        }

    alone = by_id(_loader(telling, 1, threads=1, **options))
    assert sorted(alone) == list(range(20))
    assert by_id(_loader(telling, 10, threads=3, prefetch=1, **options)) == alone
    assert by_id(*(_loader(telling, 5, rank=rank, world_size=2, **options) for rank in range(2))) == alone


def test_masks_are_hidden_only_when_asked(telling: Path) -> None:
    policy = HideAndSeek((5, 12), seed=4)
    plain, shown, hidden = (
        next(iter(_loader(telling, policy=policy, hide_masks=hide)))
        if hide is not None
        else next(iter(_loader(telling)))
        for hide in (None, False, True)
    )
    assert torch.equal(shown["mask"], plain["mask"])
    cells = torch.from_numpy(policy.mask(shown["id"].numpy(), 0, 48, 48))
    assert torch.equal(hidden["image"], shown["image"])
    assert torch.equal(hidden["mask"], plain["mask"].masked_fill(cells, 255))
    assert 0.2 < cells.float().mean() < 0.8


@pytest.mark.parametrize("stop", range(6))
def test_resuming_gives_the_uninterrupted_run(telling: Path, stop: int) -> None:
    whole = _loader(telling)
    expected = [*whole, *whole]
    interrupted = _loader(telling)
    batches = iter(interrupted)
    for _ in range(min(stop, 5)):
        next(batches)
    resumed = _loader(telling)
    resumed.load_state_dict(json.loads(json.dumps(interrupted.state_dict())))
    got = list(resumed)
    got += list(resumed) if len(got) + stop < 10 else []
    assert len(got) == 10 - stop
    for a, b in zip(got, expected[stop:], strict=True):
        assert all(torch.equal(a[name], b[name]) for name in ("image", "mask", "id"))


def test_states_of_other_masks_are_refused(telling: Path, tmp_path: Path) -> None:
    state = _loader(telling).state_dict()
    with pytest.raises(ValueError, match="masks: ignore_index is 255, this loader's is 0"):
        _loader(telling, ignore_index=0).load_state_dict(state)
    with pytest.raises(ValueError, match="no 'masks'"):
        loader = _loader(telling)
        loader.load_state_dict(loader.images.state_dict())
    others = [tmp_path / f"other_{n}.png" for n in range(20)]
    lists = paired_loader(sorted((telling / "images").iterdir()), 4, masks=others, train=True, size=48, device="cpu")
    with pytest.raises(ValueError, match="masks: files is"):
        lists.load_state_dict(state)


def test_set_epoch_and_leaving_early(telling: Path) -> None:
    loader = _loader(telling)
    first, second = list(loader), list(loader)
    assert loader.epoch == loader.next_epoch == 2
    loader.set_epoch(1)
    next(iter(loader))
    assert loader.next_epoch == 2
    loader.set_epoch(1)
    assert all(torch.equal(a["mask"], b["mask"]) for a, b in zip(loader, second, strict=True))
    assert not torch.equal(first[0]["id"], second[0]["id"])


def _copy_with(telling: Path, tmp_path: Path, number: int, mask: Image.Image | bytes) -> Path:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for file in (telling / folder).iterdir():
            (tmp_path / folder / file.name).write_bytes(file.read_bytes())
    target = tmp_path / "masks" / f"{number:02}.png"
    target.write_bytes(mask) if isinstance(mask, bytes) else mask.save(target)
    return tmp_path


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Image.new("L", (30, 20)), r"images/13.png is 50 x 120 .*masks/13.png is 20 x 30; make them equal"),
        (Image.new("RGB", (120, 50)), r"masks/13.png: a mask holds one class index per pixel.*RGB"),
        (b"no image", r"masks/13.png: is no image"),
        (b"", r"masks/13.png: is no image"),
    ],
)
def test_broken_masks_are_named_and_the_batch_stays_next(
    telling: Path, tmp_path: Path, mask: Image.Image | bytes, message: str
) -> None:
    root = _copy_with(telling, tmp_path, 13, mask)
    loader = _loader(root, train=False, crop="warp")
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    with pytest.raises(RuntimeError, match=message):
        next(batches)
    assert loader.state_dict()["samples"] == 12
    (root / "masks" / "13.png").write_bytes((telling / "masks" / "13.png").read_bytes())
    assert [batch["id"].tolist() for batch in loader] == [[12, 13, 14, 15], [16, 17, 18, 19]]


@pytest.mark.parametrize("options", [{}, {"train": False, "crop": "warp"}, {"train": False, "batch_size": 1}])
def test_masks_follow_images_that_stand_in_for_broken_ones(
    telling: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    root = _copy_with(telling, tmp_path, 0, Image.open(telling / "masks" / "00.png"))
    (root / "images" / "07.png").write_bytes(b"no image")
    loader = _loader(root, **{"batch_size": 4, "on_error": "skip", "error_budget": 0.1, **options})
    sound = {
        int(sample_id): mask
        for batch in _loader(telling, **{"batch_size": 4, **options})
        for mask, sample_id in zip(batch["mask"], batch["id"], strict=True)
    }
    seen = []
    for batch in loader:
        for image, mask, sample_id in zip(batch["image"], batch["mask"], batch["id"].tolist(), strict=True):
            seen.append(sample_id)
            assert mask.shape == image.shape[1:]
            assert torch.equal(mask, sound[sample_id] if sample_id >= 0 else torch.full_like(mask, 255))
    stand_in = -1 if options else 8
    assert sorted(seen) == sorted([stand_in, *(n for n in range(20) if n != 7)])
    assert [entry["id"] for entry in loader.report()["broken"]] == [7]


@pytest.mark.parametrize("world_size", [3, 7])
def test_padding_of_an_evaluation_is_void(telling: Path, world_size: int) -> None:
    ids = []
    for rank in range(world_size):
        for batch in _loader(telling, 2, train=False, crop="warp", rank=rank, world_size=world_size):
            void = (batch["mask"] == 255).flatten(1).all(dim=1)
            assert torch.equal(void, batch["id"] < 0)
            ids += batch["id"].tolist()
    assert sorted(i for i in ids if i >= 0) == list(range(20)) and len(ids) > 20


def test_a_schedule_reaches_hidden_masks(telling: Path) -> None:
    schedule = PolicySchedule(HideAndSeek((8,)), p_hide=[0.0, 1.0])
    loader = _loader(telling, policy=schedule, hide_masks=True, ignore_index=-1)
    assert not any((batch["mask"] == -1).any() for batch in loader)
    assert all((batch["mask"] == -1).all() for batch in loader)


def test_a_turned_image_needs_a_turned_mask(tmp_path: Path) -> None:
    picture, mask = _telling(40, 64)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    mask.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "turned.png")
    (batch,) = paired_loader(
        [tmp_path / "turned.jpg"], 1, masks=[tmp_path / "turned.png"], train=False, device="cpu", mean=0.0, std=1.0
    )
    assert batch["image"].shape[2:] == batch["mask"].shape[1:] == (64, 40)
    columns, rows = batch["mask"][0] % 64, batch["mask"][0] // 64
    assert (batch["image"][0, 0] - columns).abs().max() <= 6 and (batch["image"][0, 1] - rows).abs().max() <= 6
    mask.save(tmp_path / "turned.png")
    with pytest.raises(RuntimeError, match=r"turned\.jpg is 64 x 40"):
        list(paired_loader([tmp_path / "turned.jpg"], 1, masks=[tmp_path / "turned.png"], train=False, device="cpu"))


def test_palette_gray_and_two_colours_are_indices(tmp_path: Path) -> None:
    indices = np.arange(12, dtype=np.uint8).reshape(3, 4)
    palette = Image.fromarray(indices)
    palette.putpalette(list(range(255, -1, -1)) * 3)
    pictures = {"palette": palette, "gray": Image.fromarray(indices), "two": Image.fromarray(indices > 5)}
    files = []
    for name, picture in pictures.items():
        files.append(tmp_path / f"{name}.png")
        picture.save(files[-1])
    Image.new("RGB", (4, 3)).save(tmp_path / "image.jpg")
    loader = paired_loader([tmp_path / "image.jpg"] * 3, 1, masks=files, train=False, device="cpu")
    masks = [batch["mask"][0].tolist() for batch in loader]
    assert masks == [indices.tolist(), indices.tolist(), (indices > 5).astype(int).tolist()]


def test_camvid_against_pillow(data_root: Path) -> None:
    """The VOC layout: crops of real masks by Pillow's own nearest sampling."""
    root = data_root / "camvid-voc"
    names = (root / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
    loader = paired_loader(root, 16, split="train", train=True, size=120, crop="scale", device="cpu")
    plan = loader.images.spec.plan
    assert isinstance(plan, ScalePlan) and len(loader) == 5
    for batch in loader:
        for mask, sample_id in zip(batch["mask"].numpy(), batch["id"].tolist(), strict=True):
            whole = Image.open(root / "SegmentationClass" / f"{names[sample_id]}.png")
            (start,), (shape,), (flip,) = plan(np.array([[whole.height, whole.width]]), [sample_id], [0])
            box = whole.crop((start[1], start[0], start[1] + shape[1], start[0] + shape[0]))
            expected = np.asarray(box.resize((120, 120), Image.Resampling.NEAREST))[:, :: -1 if flip else 1]
            # Pillow adds up steps in floating point: a centre on the edge of two pixels may fall to either.
            sure = ((2 * np.arange(120) + 1) * int(shape[0])) % 240 != 0
            sure = np.outer(sure, sure[:: -1 if flip else 1])
            assert np.array_equal(mask[sure], expected[sure]) and sure.mean() > 0.4
    assert [len(paired_loader(root, 1, split=name, train=False)) for name in ("train", "val")] == [80, 40]


def _voc(root: Path) -> Path:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (4, 4)).save(root / "JPEGImages" / f"{name}.jpg")
    Image.new("L", (4, 4)).save(root / "SegmentationClass" / "a.png")
    lists = root / "ImageSets" / "Segmentation"
    (lists / "good.txt").write_text("a\n\n")
    (lists / "lacking.txt").write_text("a\nb\n")
    (lists / "twice.txt").write_text("a\na\n")
    (lists / "empty.txt").write_text("\n")
    return root


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("val", "split='val': expected one of empty, good, lacking, twice"),
        (None, "split=None: expected one of"),
        ("lacking", "'b' has no mask in"),
        ("twice", "'a' stands in the list more than once"),
        ("empty", "is empty"),
    ],
)
def test_voc_folders_that_do_not_fit(tmp_path: Path, split: str | None, message: str) -> None:
    root = _voc(tmp_path)
    assert len(paired_loader(root, 1, split="good", train=True)) == 1
    with pytest.raises((ValueError, OSError), match=message):
        paired_loader(root, 1, split=split, train=True)


def test_other_masks_of_a_voc_folder(tmp_path: Path) -> None:
    root = _voc(tmp_path / "voc")
    other = tmp_path / "SegmentationClassAug"
    other.mkdir()
    for value, name in enumerate("ab"):
        Image.new("L", (4, 4), value + 5).save(other / f"{name}.png")
    loader = paired_loader(root, 1, masks=other, split="lacking", train=False, device="cpu")
    assert [int(batch["mask"].unique()) for batch in loader] == [5, 6]
    with pytest.raises(ValueError, match="split='train': only a VOC folder has splits, got a list"):
        paired_loader([root / "JPEGImages/a.jpg"], 1, masks=[other / "a.png"], split="train", train=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": "whole"}, "training takes one of 'random-resized'"),
        ({"crop": "scale-pad"}, "add cache='decoded'"),
        ({"crop": "pad"}, "add cache='decoded'"),
        ({"crop": "scale", "scales": (2, 1)}, "scales"),
        ({"train": False}, "batch_size=4: whole images differ in size"),
        ({"hide_masks": True}, "nothing is hidden without a policy"),
        ({"train": False, "crop": "warp", "policy": HideAndSeek()}, "evaluation hides nothing"),
        ({"split": "train"}, "no folder .*JPEGImages; expected JPEGImages, SegmentationClass"),
        ({"batch_size": 21}, "does not fit into 20"),
    ],
)
def test_arguments_that_do_not_fit(telling: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError, OSError), match=message):
        _loader(telling, **options)


def test_files_that_cannot_be_paired(telling: Path, tmp_path: Path) -> None:
    images = sorted((telling / "images").iterdir())
    with pytest.raises(ValueError, match="masks: expected 20 files, one per image, got 1"):
        paired_loader(images, 4, masks=images[:1], train=True)
    with pytest.raises(TypeError, match="masks: data is a list"):
        paired_loader(images, 4, masks=telling / "masks", train=True)
    with pytest.raises(FileNotFoundError, match=r"20 of 20 images have no mask, the first is .*00\.png"):
        paired_loader(telling / "images", 4, masks=tmp_path, train=True)
    with pytest.raises(FileNotFoundError, match="no folder"):
        paired_loader(tmp_path, 4, split="train", train=True)
