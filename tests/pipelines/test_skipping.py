"""on_error="skip": broken samples are replaced by a rule, counted, named once, and never too many."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import FileSource, ImageLoader, image_loader, loader
from has_dali.pipelines.image_batches import Batch

COUNT = 12
BROKEN = {2: "cut", 3: "text", 8: "empty", 11: "gone"}
POLICY = HideAndSeek((0, 5, 8), seed=2)


class Members:
    """The files' bytes, as a source of spans gives them: views that nobody else keeps."""

    def __init__(self, files: FileSource) -> None:
        self.labels, self.classes, self._files = files.labels, files.classes, files

    def __len__(self) -> int:
        return len(self._files)

    def contents(self, ids: npt.ArrayLike) -> list[npt.NDArray[np.uint8]]:
        found = []
        for sample_id in np.asarray(ids).tolist():
            path = Path(self._files.path(sample_id))
            content = np.frombuffer(path.read_bytes() if path.exists() else b"", np.uint8)
            content.flags.writeable = False
            found.append(content)
        return found

    def name(self, sample_id: int) -> str:
        return f"shard.tar: {Path(self._files.path(sample_id)).name}"

    def fingerprint(self) -> str:
        return self._files.fingerprint()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> list[Path]:
    """Twelve files, four of them broken; two of these follow one another, one is the last."""
    folder = tmp_path_factory.mktemp("broken")
    good = sorted(image_folder.rglob("*.jpg"))
    found = []
    for n in range(COUNT):
        file = folder / f"{n:02}.jpg"
        content = good[n].read_bytes()
        kind = BROKEN.get(n)
        if kind != "gone":
            file.write_bytes({None: content, "cut": content[:400], "text": b"no image", "empty": b""}[kind])
        found.append(file)
    return found


@pytest.fixture(params=["files", "spans"])
def source(request: pytest.FixtureRequest, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> Any:
    plain = FileSource(files, np.arange(COUNT) % 3)
    if request.param == "files":
        return plain
    members, opened = Members(plain), loader.open_data
    monkeypatch.setattr(loader, "open_data", lambda data, **kw: data if data is members else opened(data, **kw))
    return members


def _open(source: Any, batch_size: int = 3, **options: Any) -> ImageLoader:
    defaults = {"train": True, "policy": POLICY, "size": 16, "on_error": "skip", "error_budget": 0.5}
    return image_loader(source, batch_size, device="cpu", threads=2, **{**defaults, **options})


def _same(a: Sequence[Batch], b: Sequence[Batch]) -> bool:
    return len(a) == len(b) and all(torch.equal(x[name], y[name]) for x, y in zip(a, b, strict=True) for name in x)


def _next_whole(sample_id: int) -> int:
    while sample_id in BROKEN:
        sample_id = (sample_id + 1) % COUNT
    return sample_id


@pytest.mark.parametrize("prefetch", [1, 2, 4])
def test_the_next_sample_takes_the_place(source: Any, prefetch: int) -> None:
    """With its own label, crop and mask: those that it has where it comes by itself."""
    skipping = _open(source, prefetch=prefetch)
    for epoch in range(3):
        images: dict[int, torch.Tensor] = {}
        for index, batch in enumerate(skipping):
            drawn = skipping.sample_order.ids(epoch, index).tolist()
            assert batch["id"].tolist() == [_next_whole(sample_id) for sample_id in drawn]
            assert batch["label"].tolist() == [sample_id % 3 for sample_id in batch["id"].tolist()]
            for sample_id, image in zip(batch["id"].tolist(), batch["image"], strict=True):
                assert torch.equal(images.setdefault(sample_id, image), image)
    report = skipping.report()
    assert report == json.loads(json.dumps(report))
    assert (report["batches"], report["samples"], report["replaced"]) == (12, 36, 12)
    assert [file["id"] for file in report["broken"]] == sorted(BROKEN)
    assert all(file["name"] == source.name(file["id"]) and file["reason"] for file in report["broken"])
    assert report["broken"][1]["reason"] == "not an image of a supported format"


def test_resume_at_any_batch(source: Any) -> None:
    """A loader that has not met the broken files gives what one that knows them gives."""
    whole = _open(source, prefetch=4)
    epochs = [list(whole) for _ in range(2)]
    for stop in range(1, 5):
        first = _open(source, prefetch=3)
        for _, _batch in zip(range(stop), first, strict=False):
            pass
        resumed = _open(source)
        resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert _same(list(resumed), epochs[0][stop:] or epochs[1])


def test_ranks_and_world_sizes(source: Any) -> None:
    """Ranks that draw no broken sample know nothing of them; together they give the batches of a process alone."""
    alone = list(_open(source, 6))
    ranks = [_open(source, 2, rank=rank, world_size=3) for rank in range(3)]
    parts = [list(rank) for rank in ranks]
    for index, batch in enumerate(alone):
        assert all(torch.equal(batch[name], torch.cat([part[index][name] for part in parts])) for name in batch)
    for rank in ranks:
        own = {i for index in range(2) for i in rank.sample_order.ids(0, index).tolist()} & set(BROKEN)
        known = {file["id"] for file in rank.report()["broken"]}
        assert own <= known and rank.report()["replaced"] == len(own)
        assert all(sample_id in own or sample_id - 1 in own or (sample_id - 2) in own for sample_id in known)


def test_a_batch_of_broken_samples_only(files: list[Path]) -> None:
    broken = [files[i] for i in (2, 3, 8)]
    skipping = _open([*broken, *files[4:8]], 1, error_budget=0.5)
    ids = [batch["id"].item() for batch in skipping]
    drawn = skipping.sample_order.order(0).tolist()
    assert ids == [max(sample_id, 3) for sample_id in drawn]
    (batch,) = _open([*broken, files[4]], 4, error_budget=0.75)
    assert batch["id"].tolist() == [3] * 4


def test_all_samples_broken(files: list[Path]) -> None:
    broken = [files[i] for i in sorted(BROKEN)]
    for train in (True, False):
        skipping = _open(broken, 2, error_budget=1.0, train=train, policy=POLICY if train else None)
        with pytest.raises(RuntimeError, match="4 of 4 samples cannot be loaded, none is left to show") as caught:
            next(iter(skipping))
        assert all(file.name in str(caught.value) for file in broken)
        assert len(skipping.report()["broken"]) == 4 and skipping.report()["batches"] == 0


@pytest.mark.parametrize("prefetch", [1, 4])
def test_the_budget(source: Any, prefetch: int) -> None:
    """Four of twelve are broken: a third passes, less does not, and the position stays where it was."""
    assert len(list(_open(source, prefetch=prefetch, error_budget=1 / 3))) == 4
    skipping = _open(source, prefetch=prefetch, error_budget=0.3)
    done = []
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"4 of 12 samples cannot be loaded, more than error_budget=0\.3"):
            for batch in skipping:
                done.append(batch)
        state = skipping.state_dict()
        assert state["samples"] == 3 * len(done)
        skipping.load_state_dict(state)
    whole = list(_open(source))
    assert len(done) < 4 and _same(done, whole[: len(done)])


def test_named_once_in_the_log(files: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="has_dali"):
        skipping = _open(files)
        for _ in range(3):
            list(skipping)
    lines = [record.getMessage() for record in caplog.records]
    broken = skipping.report()["broken"]
    assert sorted(lines) == sorted(f"skipped sample {file['id']}: {file['name']}: {file['reason']}" for file in broken)
    assert len(broken) == len(BROKEN)


@pytest.mark.parametrize("world_size", [1, 5])
@pytest.mark.parametrize("crop", ["center", "warp"])
def test_evaluation_counts_no_image_for_another(source: Any, world_size: int, crop: str) -> None:
    """A broken one is padding: id and label -1; all others come once, as without it."""
    seen: dict[int, torch.Tensor] = {}
    replaced, samples = 0, 0
    for rank in range(world_size):
        options = {"train": False, "policy": None, "crop": crop, "rank": rank, "world_size": world_size}
        skipping = _open(source, 2, **options)
        for batch in skipping:
            assert torch.equal(batch["id"] < 0, batch["label"] < 0)
            for sample_id, image in zip(batch["id"].tolist(), batch["image"], strict=True):
                assert sample_id < 0 or sample_id not in seen
                seen[sample_id] = image
        replaced += skipping.report()["replaced"]
        samples += skipping.report()["samples"]
    assert seen.keys() == {*range(COUNT), -1} - BROKEN.keys()
    assert replaced == len(BROKEN) and samples == COUNT - len(BROKEN)
    kept = [i for i in range(COUNT) if i not in BROKEN]
    plain = image_loader(
        [Path(source._files.path(i) if isinstance(source, Members) else source.path(i)) for i in kept],
        1, train=False, size=16, device="cpu", crop=crop,
    )  # fmt: skip
    for sample_id, batch in zip(kept, plain, strict=True):
        assert torch.equal(seen[sample_id], batch["image"][0])


def test_a_sample_drawn_with_keys(source: Any) -> None:
    """Class-balanced: the replacement is keyed by the draw in whose place it stands."""
    hidden_value = {"mean": 0.5, "std": 1.0, "fill_value": 0.5}
    skipping = _open(source, 6, sampling="class-balanced", steps=8, **hidden_value)
    for index, batch in enumerate(skipping):
        drawn = skipping.sample_order.ids(0, index)
        assert batch["id"].tolist() == [_next_whole(i) for i in drawn.tolist()]
        keys = skipping.sample_order.keys(0, index) - drawn + batch["id"].numpy()
        assert batch["key"].tolist() == keys.tolist()
        hidden = torch.from_numpy(POLICY.mask(keys, 0, 16, 16))
        assert torch.equal((batch["image"] == 0).all(dim=1), hidden)
    assert skipping.report()["replaced"] > 0


def test_without_skip_a_span_is_named(source: Any) -> None:
    raising = _open(source, 3, on_error="raise", train=False, policy=None)
    with pytest.raises(RuntimeError, match="cannot load sample 2: ") as caught:
        list(raising)
    assert source.name(2) in str(caught.value)
    assert raising.report()["broken"] == []


def test_a_file_that_fails_now_and_then_is_an_error(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not an endless loop: it was whole when it was tried by itself, and broken within its batch."""
    from has_dali.pipelines.skipping import Replacements

    monkeypatch.setattr(Replacements, "resolve", lambda self, draws: draws)
    with pytest.raises(RuntimeError, match=r"cannot load sample 2: .*02\.jpg"):
        list(_open(files, train=False, policy=None))


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JPEG without its last fifth: crops of the rest can be decoded."""
    file = tmp_path_factory.mktemp("cut") / "cut.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    Image.fromarray(noise).save(file, quality=90)
    file.write_bytes(file.read_bytes()[: int(0.8 * file.stat().st_size)])
    return file


def test_a_crop_that_misses_the_damage_is_used(files: list[Path], cut: Path) -> None:
    """A cut file is tried anew for every crop: whether it is replaced depends on the crop, not on what came before."""
    good = files[0]
    options: dict[str, Any] = {"batch_size": 2, "scale": (0.1, 0.3)}
    through = _open([cut, good], **options)
    epochs = [sorted(next(iter(through))["id"].tolist()) for _ in range(12)]
    assert [0, 1] in epochs and [1, 1] in epochs
    for epoch in range(12):
        fresh = _open([cut, good], **options)
        fresh.set_epoch(epoch)
        assert sorted(next(iter(fresh))["id"].tolist()) == epochs[epoch]


@pytest.mark.parametrize("seed", [1, 4])  # in these the cut file is drawn first, and the other right behind it
def test_what_is_learnt_while_working_ahead(files: list[Path], cut: Path, seed: int) -> None:
    """A cut file under way, found broken as it was tried for another's place: that is no failure for ever."""
    data = [files[3], cut, files[0], files[1]]
    options: dict[str, Any] = {"batch_size": 1, "scale": (0.02, 0.1), "prefetch": 4, "error_budget": 1.0, "seed": seed}
    through = _open(data, **options)
    for epoch in range(8):
        fresh = _open(data, **{**options, "prefetch": 1})
        fresh.set_epoch(epoch)
        assert _same(list(through), list(fresh))
    assert [file["id"] for file in through.report()["broken"]] == [0, 1]
