"""Feature sequences: sampling, hiding, labels, files, states, against slow loops."""

from __future__ import annotations

import builtins
import doctest
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import sequences as module
from has_dali.pipelines.policy_schedule import PolicySchedule
from has_dali.pipelines.sequence_batches import sample_indices
from has_dali.pipelines.sequences import SequenceLoader, sequence_loader

FRAMES = (30, 7, 52, 1, 18, 40, 25, 33, 12, 29)
POLICY = HideAndSeek((5, 8), seed=6)


def _arrays(channels: int = 6) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(n, 1, (frames, channels)).astype(np.float32) for n, frames in enumerate(FRAMES)]


def _loader(data: Any = None, batch_size: int = 3, **options: Any) -> SequenceLoader:
    settings: dict[str, Any] = {"train": True, "length": 20, "device": "cpu", **options}
    return sequence_loader(_arrays() if data is None else data, batch_size, **settings)


def _by_id(*loaders: SequenceLoader) -> dict[int, bytes]:
    return {
        int(sample_id): row.numpy().tobytes()
        for loader in loaders
        for batch in loader
        for row, sample_id in zip(batch["sequence"], batch["id"], strict=True)
        if sample_id >= 0
    }


def test_examples() -> None:
    assert doctest.testmod(module).failed == 0


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 400))
def test_sampled_steps(frames: int, length: int) -> None:
    indices = sample_indices(frames, length)
    assert len(indices) == length and (np.diff(indices) >= 0).all()
    if length > 1:
        assert indices[0] == 0 and indices[-1] == frames - 1
        exact = np.linspace(0, frames - 1, length)
        assert np.abs(indices - exact).max() <= 0.5 + 1e-9
    if length == frames:
        assert np.array_equal(indices, np.arange(frames))
    if frames <= length > 1:
        assert set(indices.tolist()) == set(range(frames))


def test_sampled_steps_by_hand() -> None:
    assert sample_indices(10, 4).tolist() == [0, 3, 6, 9]
    assert sample_indices(3, 5).tolist() == [0, 1, 1, 2, 2]  # 0, 0.5, 1, 1.5, 2: halves go up
    assert sample_indices(1, 3).tolist() == [0, 0, 0]
    assert sample_indices(9, 1).tolist() == [4]


@pytest.mark.parametrize("fill", ["mean", 2.5, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
def test_batches_against_loops(fill: Any) -> None:
    arrays = _arrays()
    loader = _loader(policy=POLICY, fill_value=fill)
    expected_fill = np.concatenate(arrays).astype(np.float64).mean(axis=0) if fill == "mean" else np.full(6, fill)
    for epoch in range(2):
        for batch in loader:
            assert batch["sequence"].shape == (3, 6, 20) and batch["sequence"].dtype == torch.float32
            mask = POLICY.mask(batch["id"].numpy(), epoch, 1, 20)[:, 0]
            for row, hidden, sample_id in zip(batch["sequence"].numpy(), mask, batch["id"].tolist(), strict=True):
                frames = len(arrays[sample_id])
                for step in range(20):
                    shown = arrays[sample_id][int(step * (frames - 1) / 19 + 0.5)]
                    wanted = expected_fill if hidden[step] else shown
                    assert np.allclose(row[:, step], wanted, rtol=0, atol=1e-5)
            assert batch["length"].tolist() == [FRAMES[i] for i in batch["id"].tolist()]


def test_nothing_is_computed_that_is_not_shown() -> None:
    assert _loader(train=False).fill_value is None
    np.testing.assert_allclose(_loader(policy=POLICY).fill_value, np.concatenate(_arrays()).mean(axis=0), atol=1e-5)


def test_ragged_batches_are_padded() -> None:
    arrays = _arrays()
    loader = _loader(train=False, length=None, batch_size=4, fill_value=-7.0)
    lengths = []
    for batch in loader:
        assert batch["sequence"].shape[2] == int(batch["length"].max())
        for row, length, sample_id in zip(batch["sequence"], batch["length"], batch["id"], strict=True):
            assert np.array_equal(row[:, :length].numpy().T, arrays[sample_id])
            assert (row[:, length:] == -7).all()
            lengths.append(int(length))
    assert tuple(lengths) == FRAMES


@pytest.mark.parametrize("options", [{}, {"policy": POLICY}, {"train": False}])
def test_one_sequence_looks_the_same_for_any_batches(options: dict[str, Any]) -> None:
    alone = _by_id(_loader(batch_size=1, threads=1, **options))
    assert sorted(alone) == list(range(10))
    assert _by_id(_loader(batch_size=10, threads=3, prefetch=1, **options)) == alone
    halves = [_loader(batch_size=5, rank=rank, world_size=2, **options) for rank in range(2)]
    assert _by_id(*halves) == alone


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("stop", range(5))
def test_resuming_gives_the_uninterrupted_run(stop: int, train: bool) -> None:
    options: dict[str, Any] = {"policy": POLICY} if train else {"train": False}
    whole = _loader(**options)
    steps = len(whole)
    expected = [*whole, *whole]
    interrupted = _loader(**options)
    batches = iter(interrupted)
    for _ in range(min(stop, steps)):
        next(batches)
    resumed = _loader(**options)
    resumed.load_state_dict(json.loads(json.dumps(interrupted.state_dict())))
    got = list(resumed)
    while len(got) + min(stop, steps) < 2 * steps:
        got += list(resumed)
    for a, b in zip(got, expected[min(stop, steps) :], strict=True):
        assert all(torch.equal(a[name], b[name]) for name in ("sequence", "label", "id", "length"))


def test_epochs_and_early_exits() -> None:
    loader = _loader()
    first = list(loader)
    next(iter(loader))
    assert (loader.epoch, loader.next_epoch) == (1, 2)
    loader.set_epoch(0)
    assert all(torch.equal(a["id"], b["id"]) for a, b in zip(loader, first, strict=True))
    older = iter(loader)
    next(older), next(iter(loader))
    with pytest.raises(RuntimeError, match="ended by a newer one"):
        next(older)
    assert loader.report() == {"batches": 9, "samples": 27}


def test_a_schedule_follows_the_epoch() -> None:
    loader = _loader(policy=PolicySchedule(POLICY, p_hide=[0.0, 1.0]), fill_value=99.0)
    assert not any((batch["sequence"] == 99).any() for batch in loader)
    assert all((batch["sequence"] == 99).all() for batch in loader)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 21}, "length is 20, this loader's is 21"),
        ({"policy": HideAndSeek((5,))}, "policy"),
        ({"seed": 1}, "seed is 0, this loader's is 1"),
        ({"fill_value": 0.0}, "fill_value"),
        ({"labels": list(range(10))}, "data is"),
        ({"data": _arrays()[::-1]}, "data is"),
        ({"batch_size": 2}, "global_batch is 3, this loader's is 2"),
    ],
)
def test_states_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    state = _loader(policy=POLICY).state_dict()
    with pytest.raises(ValueError, match=message):
        _loader(**{"policy": POLICY, **changes}).load_state_dict(state)


def test_kinds_of_labels() -> None:
    arrays = _arrays()
    frames = [np.arange(len(array)) for array in arrays]
    scores = [np.stack([index, -index], axis=1) for index in frames]
    hot = np.eye(10, 4)
    for labels, kind in (
        ([*range(10)], None),
        (hot, None),
        (hot.astype(int), "multi-hot"),
        (frames, None),
        (scores, None),
    ):
        for batch in _loader(labels=labels, label_kind=kind):
            for label, sample_id in zip(batch["label"], batch["id"].tolist(), strict=True):
                indices = sample_indices(FRAMES[sample_id], 20)
                if np.ndim(labels[0]) == 0:
                    assert int(label) == sample_id and label.dtype == torch.int64
                elif len(labels[0]) == 4:
                    assert label.tolist() == hot[sample_id].tolist() and label.dtype == torch.float32
                else:
                    assert np.array_equal(label.numpy(), labels[sample_id][indices])
    assert all((batch["label"] == -1).all() for batch in _loader())


def test_padding_of_ranks_and_of_time_has_no_labels() -> None:
    arrays = _arrays()
    frames = [np.ones(len(array), int) for array in arrays]
    for rank in range(4):
        for labels, none in ((frames, -1), (np.ones((10, 3)), 0), (np.ones(10, int), -1)):
            loader = _loader(
                batch_size=2, train=False, length=None, labels=labels, rank=rank, world_size=4, fill_value=0.0
            )
            for batch in loader:
                for label, sample_id, length in zip(batch["label"], batch["id"], batch["length"], strict=True):
                    per_frame = labels is frames
                    real = label[:length] if per_frame else label
                    assert (real == (1 if sample_id >= 0 else none)).all()
                    assert not per_frame or (label[length:] == -1).all()
    assert len(loader) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [1, 2]}, "labels: expected 10, one per sequence, got 2"),
        ({"labels": [[1], [2, 3]] * 5}, "are of no known kind; say which with label_kind="),
        ({"data": [np.ones((4, 2))] * 3, "labels": np.ones((3, 4), int)}, "could be multi-hot or one per time step"),
        ({"labels": np.ones(10)}, "labels: expected integers"),
        ({"labels": [1] * 10, "label_kind": "hot"}, "label_kind='hot'"),
        ({"labels": [[0, 1]] * 10, "label_kind": "frames"}, r"labels\[0\]: expected one label for each of the 30 time"),
        ({"label_kind": "frames"}, "there are no labels"),
        ({"length": 0}, "length=0"),
        ({"layout": "NCT"}, "layout='NCT': expected 'TC'"),
        ({"policy": POLICY, "train": False}, "evaluation hides nothing"),
        ({"policy": 0.5}, "policy=0.5: expected"),
        ({"policy": POLICY, "fill_value": "zero"}, "fill_value='zero'"),
        ({"policy": POLICY, "fill_value": [1.0, 2.0]}, "6 of them, one per feature, got shape"),
        ({"data": []}, "data is empty"),
        ({"data": [np.ones((4, 2)), np.ones((4, 3))]}, r"data\[1\]: expected 2 features .* got shape \(4, 3\)"),
        ({"data": [np.ones(4)]}, r"data\[0\]: expected \(time, features\) .* got shape \(4,\)"),
        ({"data": [np.ones((0, 4))]}, "at least 1 of each"),
        ({"data": [np.array([["a"]])]}, r"data\[0\]: expected numbers"),
        ({"data": 5}, "expected a folder, files or arrays, got int"),
        ({"batch_size": 11}, "does not fit into 10"),
    ],
)
def test_arguments_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        _loader(**options)


def _written(folder: Path, kind: str, arrays: list[np.ndarray]) -> list[Path]:
    files = []
    for n, array in enumerate(arrays):
        path = folder / f"{n:02}.{kind}"
        if kind == "npy":
            np.save(path, array)
        elif kind == "npz":
            np.savez(path, features=array)
        else:
            h5py = pytest.importorskip("h5py")
            with h5py.File(path, "w") as file:
                file["group/features"] = array
        files.append(path)
    return files


@pytest.mark.parametrize("kind", ["npy", "npz", "h5"])
@pytest.mark.parametrize("layout", ["TC", "CT"])
def test_files_hold_what_memory_holds(tmp_path: Path, kind: str, layout: str) -> None:
    arrays = _arrays()
    stored = [array.astype(np.float64) if layout == "TC" else np.ascontiguousarray(array.T) for array in arrays]
    files = _written(tmp_path, kind, stored)
    expected = _by_id(_loader(policy=POLICY))
    assert _by_id(_loader(tmp_path, policy=POLICY, layout=layout)) == expected
    assert _by_id(_loader(files, policy=POLICY, layout=layout)) == expected


@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_one_file_of_many_sequences(tmp_path: Path, kind: str) -> None:
    named = {f"video_{n:02}": array for n, array in enumerate(_arrays())}
    path = tmp_path / f"all.{kind}"
    if kind == "npz":
        np.savez_compressed(path, **named)
    else:
        with pytest.importorskip("h5py").File(path, "w") as file:
            for name, array in named.items():
                file[name] = array
    loader = _loader(path)
    assert _by_id(loader) == _by_id(_loader())
    assert loader.source.name(3) == f"{path}[video_03]"


def test_class_folders(tmp_path: Path) -> None:
    for n, name in enumerate(("run", "jump", "run", "walk")):
        (tmp_path / name).mkdir(exist_ok=True)
        np.save(tmp_path / name / f"{n}.npy", np.full((5, 2), n, np.float32))
    loader = _loader(tmp_path, batch_size=4, train=False)
    (batch,) = loader
    assert loader.source.classes == ("jump", "run", "walk") and batch["label"].tolist() == [0, 1, 1, 2]
    assert batch["sequence"][:, 0, 0].tolist() == [1, 0, 2, 3]
    with pytest.raises(ValueError, match="the class folders give them"):
        _loader(tmp_path, labels=[0, 1, 2, 3])


def _damaged(path: Path, how: str) -> None:
    array = np.load(path)
    if how in ("nan", "inf", "large"):
        array = array.astype(np.float64)
        array[4, 2] = {"nan": np.nan, "inf": np.inf, "large": 1e39}[how]
        np.save(path, array)
    elif how == "features":
        np.save(path, array[:, :5])
    elif how == "text":
        np.save(path, array.astype(str))
    elif how == "object":
        np.save(path, array.astype(object), allow_pickle=True)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("nan", "02.npy: nan at time step 4, feature 2 .* no finite float32"),
        ("inf", "02.npy: inf at time step 4"),
        ("large", r"02.npy: 1e\+39 at time step 4"),
        ("features", r"02.npy: expected 6 features as in the first sequence, got shape \(52, 5\)"),
        ("text", "02.npy: expected numbers, got dtype"),
        ("object", "02.npy: is no .npy file that can be read"),
        ("cut", "02.npy: is no .npy file that can be read"),
        ("empty", "02.npy: is no .npy file that can be read"),
        ("gone", "02.npy: no such file"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, how: str, message: str) -> None:
    files = _written(tmp_path, "npy", _arrays())
    _damaged(files[2], how)
    loader = _loader(files, train=False, length=None, fill_value=0.0, batch_size=2)
    batches = iter(loader)
    next(batches)
    with pytest.raises(RuntimeError, match=f"cannot load sequence 2: .*{message}"):
        next(batches)
    assert loader.state_dict()["samples"] == 2
    with pytest.raises(RuntimeError, match="cannot load sequence 2"):
        _loader(files, policy=POLICY)
    np.save(files[2], _arrays()[2])
    loader.load_state_dict(loader.state_dict())
    assert sum(len(batch["id"]) for batch in loader) == 8  # the batch that failed is the next


def test_files_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="holds no feature files"):
        _loader(tmp_path)
    np.savez(tmp_path / "two.npz", a=np.ones((3, 2)), b=np.ones(3))
    with pytest.raises(ValueError, match=r"two.npz: holds 2 arrays \(a, b\); say which with key="):
        _loader([tmp_path / "two.npz"])
    assert len(_loader([tmp_path / "two.npz"], batch_size=1, key="a")) == 1
    with pytest.raises(ValueError, match=r"two.npz\[c\]: no array of this name, there are a, b"):
        _loader([tmp_path / "two.npz"], key="c")
    (tmp_path / "bad.npz").write_bytes(b"PK no")
    (tmp_path / "bad.h5").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"bad.npz: is no .npz file that can be read"):
        _loader([tmp_path / "bad.npz"])
    with pytest.raises(ValueError, match=r"data=.*expected a folder, a list of files"):
        _loader(tmp_path / "x.npy")
    pytest.importorskip("h5py")
    with pytest.raises(ValueError, match=r"bad.h5: is no HDF5 file"):
        _loader([tmp_path / "bad.h5"])
    real = builtins.__import__

    def without_h5py(name: str, *rest: Any, **options: Any) -> Any:
        if name == "h5py":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without_h5py)
    with pytest.raises(ImportError, match=r"bad.h5: reading HDF5 needs h5py; install it"):
        _loader([tmp_path / "bad.h5"])


def test_gesture_recordings(data_root: Path) -> None:
    """Two real recordings: one of each, and pieces of one with labels per time step."""
    root = data_root / "actrectut"
    files = [root / f"subject{n}_features.npz" for n in (1, 2)]
    features = [np.load(file)["features"] for file in files]
    loader = _loader(files, batch_size=1, key="features", length=2000, policy=HideAndSeek((100,), seed=1))
    np.testing.assert_allclose(
        loader.fill_value, np.concatenate(features).astype(np.float64).mean(axis=0), rtol=1e-5, atol=1e-4
    )
    for batch in loader:
        (sample_id,) = batch["id"].tolist()
        hidden = HideAndSeek((100,), seed=1).mask([sample_id], 0, 1, 2000)[0, 0]
        assert batch["sequence"].shape == (1, 60, 2000) and 0.2 < hidden.mean() < 0.8
        shown = features[sample_id][sample_indices(len(features[sample_id]), 2000)]
        assert np.array_equal(batch["sequence"][0].numpy().T[~hidden], shown[~hidden])
        assert np.array_equal(
            batch["sequence"][0].numpy().T[hidden], np.broadcast_to(loader.fill_value, (hidden.sum(), 60))
        )
    times = np.arange(len(features[0])) * 0.5
    frames = np.zeros(len(times), np.int64)
    for start, end, gesture in np.loadtxt(root / "subject1_segments.csv", delimiter=",", skiprows=1):
        frames[(times >= start) & (times < end)] = int(gesture)
    pieces, labels = np.array_split(features[0], 40), np.array_split(frames, 40)
    for batch in _loader(pieces, batch_size=8, labels=labels, length=None):
        for label, length, sample_id in zip(batch["label"], batch["length"], batch["id"], strict=True):
            assert np.array_equal(label[:length].numpy(), labels[sample_id]) and (label[length:] == -1).all()
