"""CIFAR's pickles, .npz and .npy: read as they are published, and never executed."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from has_dali.pipelines import ArraySource, FileSource, cifar_source, npy_source, npz_source, open_data

RNG = np.random.default_rng(1)


def batch(count: int, names: tuple[str, ...] = ("labels",), classes: int = 10) -> dict[bytes, object]:
    content: dict[bytes, object] = {b"data": RNG.integers(0, 256, (count, 3072)).astype(np.uint8)}
    return content | {name.encode(): [n % classes for n in range(count)] for name in names}


def write(path: Path, content: object, protocol: int = 2) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol))


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar-10-batches-py"
    write(folder / "batches.meta", {b"label_names": [b"c%d" % n for n in range(10)]})
    for name, count in (("data_batch_1", 20), ("data_batch_3", 10), ("test_batch", 30)):
        write(folder / name, batch(count))
    return folder


@pytest.fixture
def cifar100(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar-100-python"
    write(folder / "meta", {"fine_label_names": [f"f{n}" for n in range(100)], "coarse_label_names": ["x"]}, 4)
    for name, count in (("train", 200), ("test", 100)):
        write(folder / name, batch(count, ("fine_labels", "coarse_labels"), 100), 4)
    return folder


def test_cifar_10(cifar10: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="has_dali"):
        train = cifar_source(cifar10, train=True)
    assert "2 of 5 training batches are here" in caplog.text
    assert len(train) == 30 and train.classes == tuple(f"c{n}" for n in range(10))
    raw = pickle.loads((cifar10 / "data_batch_3").read_bytes())  # written by this test
    planes = raw[b"data"][4].reshape(3, 32, 32)
    assert np.array_equal(train.image(24), planes.transpose(1, 2, 0)) and train.labels[24] == 4
    assert len(cifar_source(str(cifar10), train=False)) == 30


@pytest.mark.parametrize("protocol", range(6))
def test_every_pickle_protocol(cifar10: Path, protocol: int) -> None:
    content = batch(5)
    write(cifar10 / "test_batch", content, protocol)
    source = cifar_source(cifar10, train=False)
    assert np.array_equal(source.image(2).transpose(2, 0, 1).ravel(), np.asarray(content[b"data"])[2])


def test_pickles_of_numpy_1(cifar10: Path) -> None:
    """Published files name numpy.core, which NumPy 2 calls numpy._core."""
    old = pickle.dumps(batch(5), 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in old
    (cifar10 / "test_batch").write_bytes(old)
    assert len(cifar_source(cifar10, train=False)) == 5


def test_cifar_100_has_fine_labels(cifar100: Path) -> None:
    train, test = cifar_source(cifar100, train=True), cifar_source(cifar100, train=False)
    assert (len(train), len(test)) == (200, 100)
    assert train.labels.tolist() == [n % 100 for n in range(200)] and train.classes[99] == "f99"


def test_real_cifar_is_torchvisions(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)  # the set is a part of the original
    monkeypatch.setattr(CIFAR10, "_load_meta", lambda self: None)
    monkeypatch.setattr(CIFAR10, "train_list", CIFAR10.train_list[:1])
    for train in (True, False):
        theirs = CIFAR10(str(data_root), train=train)
        ours = open_data(data_root / "cifar-10-batches-py", train=train)
        assert isinstance(ours, ArraySource) and ours.labels.tolist() == theirs.targets
        assert np.array_equal(ours.pixels, theirs.data.ravel())


class Harmful:
    """Its pickle calls os.mkdir when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


def test_nothing_is_executed(cifar10: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    write(cifar10 / "test_batch", {**batch(5), b"more": Harmful(made)})
    with pytest.raises(
        ValueError, match=r"test_batch: no CIFAR batch \(it asks for posix.mkdir, and only NumPy arrays"
    ):
        cifar_source(cifar10, train=False)
    objects = np.array([None, Harmful(made)], object)
    np.save(tmp_path / "objects.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "objects.npz", images=objects)
    for file, source in (("objects.npy", npy_source), ("objects.npz", npz_source)):
        with pytest.raises(ValueError, match=rf"{file}'.*allow_pickle=False"):
            source(tmp_path / file)
    assert not made.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"no CIFAR batch \("),
        (b"no pickle", r"no CIFAR batch \("),
        (pickle.dumps(batch(5))[:-200], r"no CIFAR batch \("),
        (pickle.dumps([1, 2]), r"no CIFAR batch \(holds a list\)"),
        (pickle.dumps({b"labels": [1]}), "'data' is object"),
        (pickle.dumps({**batch(5), b"data": np.zeros((5, 3071), np.uint8)}), r"'data' is uint8 of shape \(5, 3071\)"),
        (pickle.dumps({**batch(5), b"data": np.zeros((5, 3072))}), "'data' is float64"),
        (pickle.dumps({**batch(5), b"labels": [0] * 4}), "'labels' are not 5 integers from 0 to 9"),
        (pickle.dumps({**batch(5), b"labels": [10] * 5}), "'labels' are not 5 integers from 0 to 9"),
        (pickle.dumps({**batch(5), b"labels": [0.5] * 5}), "'labels' are not 5 integers"),
    ],
)
def test_broken_cifar_batches(cifar10: Path, content: bytes, message: str) -> None:
    (cifar10 / "test_batch").write_bytes(content)
    with pytest.raises(ValueError, match=f"test_batch: {message}.*; download it again"):
        cifar_source(cifar10, train=False)


def test_missing_cifar_files(cifar10: Path, cifar100: Path, tmp_path: Path) -> None:
    (cifar10 / "test_batch").unlink()
    with pytest.raises(FileNotFoundError, match="test_batch is missing; complete the download"):
        open_data(cifar10, train=False)
    (cifar100 / "train").unlink()
    with pytest.raises(FileNotFoundError, match="train is missing"):
        open_data(cifar100, train=True)
    with pytest.raises(FileNotFoundError, match=r"no CIFAR batches; expected batches\.meta with"):
        cifar_source(tmp_path, train=True)
    write(cifar10 / "batches.meta", {b"num_vis": 3072})
    with pytest.raises(ValueError, match=r"batches\.meta: 'label_names' is missing"):
        cifar_source(cifar10, train=True)


def test_folders_are_no_cifar_files(tmp_path: Path) -> None:
    """A class folder named as CIFAR-100's files are."""
    for name in ("train", "test", "meta"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(b"x")
    source = open_data(tmp_path, train=True)
    assert isinstance(source, FileSource) and source.classes == ("meta", "test", "train")


def test_npz_and_npy(tmp_path: Path) -> None:
    images, labels = RNG.integers(0, 256, (6, 5, 4, 3)).astype(np.uint8), np.arange(6, dtype=np.uint16)
    np.savez_compressed(tmp_path / "set.NPZ", images=images, labels=labels, classes=["a", "bé"])
    os.rename(tmp_path / "set.NPZ.npz", tmp_path / "set.NPZ")
    np.savez(tmp_path / "bare.npz", images=images[..., 0])
    np.save(tmp_path / "set.npy", images)
    np.save(tmp_path / "set_labels.npy", labels)
    np.save(tmp_path / "bare.npy", images[..., 0])
    for name in ("set.NPZ", "set.npy"):
        source = open_data(tmp_path / name, train=True)
        assert isinstance(source, ArraySource) and np.array_equal(source.pixels, images.ravel())
        assert source.labels.tolist() == list(range(6))
        assert source.classes == (("a", "bé") if name == "set.NPZ" else ())
    for name in ("bare.npz", "bare.npy"):
        source = open_data(str(tmp_path / name), train=False)
        assert isinstance(source, ArraySource) and set(source.labels.tolist()) == {-1}
        assert np.array_equal(source.image(3)[..., 1], images[3, ..., 0])


def test_bad_npz_and_npy(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (6, 5, 4, 3)).astype(np.uint8)
    np.savez(tmp_path / "other.npz", x=images, y=images)
    np.savez(tmp_path / "float.npz", images=images / 255)
    np.savez(tmp_path / "bytes.npz", images=images, classes=[b"a"])
    np.savez(tmp_path / "few.npz", images=images, labels=[1, 2])
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "a_labels.npz", images)
    os.rename(tmp_path / "a_labels.npz", tmp_path / "a_labels.npy")
    os.rename(tmp_path / "a.npy", tmp_path / "plain.npz")
    np.save(tmp_path / "a.npy", images)
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:300])
    for name, kind, message in (
        ("other.npz", ValueError, "holds x, y; expected 'images'"),
        ("float.npz", TypeError, "expected uint8 from 0 to 255, got float64"),
        ("bytes.npz", TypeError, r"'classes' is \|S1 of shape \(1,\); expected \(N,\) strings"),
        ("few.npz", ValueError, "labels: expected 6 integers"),
        ("a.npy", ValueError, "a_labels.npy': holds several arrays"),
        ("plain.npz", ValueError, "holds a single array"),
        ("text.npy", ValueError, "no NumPy file"),
        ("cut.npz", ValueError, "no NumPy file"),
        ("gone.npz", FileNotFoundError, "no such file"),
        ("gone.npy", FileNotFoundError, "no such file"),
    ):
        with pytest.raises(kind, match=rf"data='.*{message}"):
            open_data(tmp_path / name, train=True)


def test_what_data_may_be(tmp_path: Path) -> None:
    source = ArraySource.from_images(np.zeros((2, 4, 4, 3), np.uint8))
    assert open_data(source, train=True) is source and open_data(source, train=True, cache="decoded") is source
    with pytest.raises(ValueError, match="labels: only a list of files takes labels; images in memory"):
        open_data(source, train=True, labels=[0, 1])
    with pytest.raises(TypeError, match=r"wrap images as ArraySource\.from_images"):
        open_data(np.zeros((2, 4, 4, 3), np.uint8), train=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cache='ram': expected None or 'decoded'"):
        open_data(source, train=True, cache="ram")
