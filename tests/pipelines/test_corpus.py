"""The embedded corpus: the same choices everywhere, like ImageNet in what decoding costs, never half built."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
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


def test_missing_images_are_made_again(tmp_path: Path, folder: Path) -> None:
    damaged = tmp_path / "corpus"
    shutil.copytree(folder, damaged)
    shutil.rmtree(damaged / "coffee")
    (damaged / "retina" / "retina_005.jpg").write_bytes(b"")
    (damaged / "notes.txt").write_text("mine")
    made: list[None] = []
    assert corpus.ensure_corpus(damaged, lambda: made.append(None)) == damaged
    assert len(made) == corpus.IMAGES_PER_CLASS + 1
    assert len(folder_source(damaged)) == corpus.corpus_size()
    name = Path("retina") / "retina_005.jpg"
    assert (damaged / name).read_bytes() == (folder / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus"] and (damaged / "notes.txt").exists()


def test_an_emptied_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    assert len(folder_source(corpus.ensure_corpus(tmp_path / "corpus"))) == corpus.corpus_size()


def test_abandoned_temporaries_are_removed(tmp_path: Path, folder: Path) -> None:
    whole = tmp_path / "corpus"
    shutil.copytree(folder, whole)
    old, young, other = (tmp_path / name for name in (".corpus.aaa", ".corpus.bbb", ".else.ccc"))
    for path in (old, young, other):
        (path / "coffee").mkdir(parents=True)
    for path in (old, other):
        os.utime(path, (0, 0))
    corpus.ensure_corpus(whole)
    assert not old.exists() and young.exists() and other.exists()


def test_sigterm_leaves_nothing(tmp_path: Path) -> None:
    program = (
        "import sys, time; from has_dali.cli import run_guarded; from has_dali.pipelines import corpus;"
        "from pathlib import Path; started = lambda: (print('started', flush=True), time.sleep(60));"
        "sys.exit(run_guarded('x', lambda: corpus.ensure_corpus(Path(sys.argv[1]), started)))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "corpus")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "started\n"
        assert len(list(tmp_path.iterdir())) == 1
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
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
