"""Mean and std: exact, independent of order and threads, every pixel of the same weight."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from has_dali.pipelines import image_loader, statistics


def png(path: Path, pixels: npt.NDArray[np.uint8]) -> str:
    Image.fromarray(pixels).save(path)
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Images of very different sizes and brightness, so that weighing images equally would show."""
    rng = np.random.default_rng(0)
    sizes = [(1, 1), (300, 240), (7, 90), (64, 64)] * 9
    return [
        png(tmp_path / f"{i:02d}.png", rng.integers(0, 256 if i % 4 == 1 else 90, (*size, 3)).astype(np.uint8))
        for i, size in enumerate(sizes)
    ]


def test_equals_numpy_over_all_pixels(files: list[str]) -> None:
    pixels = np.concatenate([np.asarray(Image.open(file)).reshape(-1, 3) for file in files]).astype(np.float64)
    done: list[int] = []
    result = statistics.pixel_statistics(files, done.append)
    assert result.images == len(files) == sum(done)
    assert result.pixels == len(pixels)
    np.testing.assert_allclose(result.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(result.std, pixels.std(0), rtol=1e-12)
    assert result.to_dict()["mean_0_1"][1] == pytest.approx(pixels.mean(0)[1] / 255)


def test_order_and_threads_do_not_matter(files: list[str]) -> None:
    assert statistics.pixel_statistics(files, threads=1) == statistics.pixel_statistics(files[::-1], threads=3)


def test_gray_counts_as_rgb(tmp_path: Path) -> None:
    result = statistics.pixel_statistics([png(tmp_path / "g.png", np.full((5, 4), 77, np.uint8))])
    assert result.mean == (77.0, 77.0, 77.0) and result.std == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_16_bit_images_count_as_the_loader_feeds_them(tmp_path: Path, extension: str) -> None:
    """DALI scales them to 8 bits; Pillow's conversion to RGB would clip them."""
    deep = np.random.default_rng(0).integers(0, 65536, (48, 48)).astype(np.uint16)
    file = tmp_path / f"deep.{extension}"
    Image.fromarray(deep).save(file)
    (batch,) = image_loader(
        [file], 1, train=False, size=48, resize=48, device="cpu", mean=0.0, std=1.0, antialias=False
    )
    result = statistics.pixel_statistics([str(file)])
    assert result.mean == pytest.approx(batch["image"].mean((0, 2, 3)).tolist(), rel=1e-6)
    assert result.mean[0] == np.rint(deep / 257).mean()


def test_cmyk_counts_as_the_loader_feeds_it(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (48, 48, 4)).astype(np.uint8)
    file = tmp_path / "print.jpg"
    Image.fromarray(pixels, "CMYK").save(file)
    (batch,) = image_loader([file], 1, train=False, size=48, resize=48, device="cpu", mean=0.0, std=1.0)
    expected = batch["image"].mean((0, 2, 3)).tolist()
    assert statistics.pixel_statistics([str(file)]).mean == pytest.approx(expected, rel=1e-6)


def test_sums_do_not_overflow() -> None:
    pixels = np.full((3 * 65536 + 5, 3), 255, np.uint8)
    totals = np.zeros(6, np.uint64)
    statistics.add_pixels(pixels, totals)
    assert totals.tolist() == [255 * len(pixels)] * 3 + [255 * 255 * len(pixels)] * 3


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_a_broken_file_is_named(content: bytes | None, files: list[str], tmp_path: Path) -> None:
    if content is None:  # cut short in the middle of the pixels
        content = Path(files[1]).read_bytes()[:5000]
    broken = tmp_path / "broken.png"
    broken.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.png: .*remove it or replace it"):
        statistics.pixel_statistics([*files, str(broken)])


def test_no_files() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        statistics.pixel_statistics([])


def test_describe_files(tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8))
    names = []
    for name, options in {"a": {"subsampling": 0}, "b": {"subsampling": 2}, "c": {"subsampling": 2}}.items():
        names.append(str(tmp_path / f"{name}.jpg"))
        picture.save(names[-1], **options)
    picture.convert("L").save(tmp_path / "d.jpg")
    data = statistics.describe_files([*names, str(tmp_path / "d.jpg")])
    assert data["chroma_percent"] == {"4:2:0": 50.0, "4:4:4": 25.0, "gray": 25.0}
    assert (data["median_width"], data["median_height"], data["images"]) == (40, 30, 4)
