"""The embedded corpus: the same pictures everywhere, like ImageNet in what decoding costs, never half built."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from has_dali.pipelines import corpus
from has_dali.pipelines.sources import folder_source
from has_dali.pipelines.statistics import describe_files

pytest.importorskip("skimage")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus.ensure_corpus(tmp_path_factory.mktemp("cache") / "corpus")


def test_layout_and_size(folder: Path) -> None:
    source = folder_source(folder)
    assert len(source) == corpus.corpus_size() >= 300
    assert set(source.classes) == set(corpus.PHOTOGRAPHS)
    assert all((folder / name).is_file() for name in corpus.SHEET_FILES)


def test_files_are_like_imagenet(folder: Path) -> None:
    data = describe_files([str(path) for path in sorted(folder.glob("*/*.jpg"))])
    assert (data["median_width"], data["median_height"]) == (500, 375)
    assert 95 < data["mean_kilobytes"] < 125
    assert 0.18 < data["mean_megapixels"] < 0.22
    assert 60 < data["chroma_percent"]["4:4:4"] < 80 and data["chroma_percent"]["4:2:0"] > 15


def test_built_once_and_in_one_step(folder: Path) -> None:
    made: list[None] = []
    assert corpus.ensure_corpus(folder, lambda: made.append(None)) == folder
    assert not made
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_same_key_same_picture(tmp_path: Path, folder: Path) -> None:
    photograph = corpus._photographs()["coffee"][0]
    number = list(corpus.PHOTOGRAPHS).index("coffee")
    corpus._render(photograph, (number, 3), tmp_path / "again.jpg")
    corpus._render(photograph, (number, 4), tmp_path / "other.jpg")
    again = (tmp_path / "again.jpg").read_bytes()
    assert again == (folder / "coffee" / "coffee_003.jpg").read_bytes()
    assert again != (tmp_path / "other.jpg").read_bytes()


def test_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corpus.ensure_corpus(tmp_path / "corpus", stop)
    assert list(tmp_path.iterdir()) == []


def test_cache_is_outside_the_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert corpus.default_folder() == tmp_path / "has_dali" / f"corpus-v{corpus.VERSION}"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert corpus.default_folder().is_relative_to(Path.home())


def test_crop_boxes_stay_inside() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        aspect = rng.uniform(0.5, 2)
        left, top, right, bottom = corpus._crop_box(rng, (451, 300), aspect)
        assert 0 <= left < right <= 451 + 1e-9 and 0 <= top < bottom <= 300 + 1e-9
        assert np.isclose((right - left) / (bottom - top), aspect)
