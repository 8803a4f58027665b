"""HideCollate: a batch hidden where it is put together, in worker processes too."""

from __future__ import annotations

import doctest
import pickle
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import collate
from has_dali.pipelines.collate import HideCollate
from has_dali.pipelines.policy_schedule import PolicySchedule
from has_dali.random_keys import LARGEST_KEY

POLICY = HideAndSeek((4, 7), seed=2)
Pair = namedtuple("Pair", ["image", "label"])


def _stacked(samples: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(samples)


def _first(samples: list[Any]) -> Any:
    return samples[0]


def _dicts(count: int = 8) -> list[dict[str, Any]]:
    return [{"image": torch.ones(3, 12, 16), "id": n, "label": n % 3} for n in range(count)]


def test_examples() -> None:
    assert doctest.testmod(collate).failed == 0


def _cells(images: torch.Tensor) -> np.ndarray:
    return (images == 0).all(dim=1).numpy()


def test_ids_decide_the_masks() -> None:
    hide = HideCollate(POLICY, ids="id")
    hide.set_epoch(6)
    batch = hide(_dicts())
    assert np.array_equal(_cells(batch["image"]), POLICY.mask(np.arange(8), 6, 12, 16))
    assert batch["label"].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    one = hide(_dicts()[5:6])
    assert torch.equal(one["image"][0], batch["image"][5])


def test_keys_are_torchs_without_ids() -> None:
    hide = HideCollate(POLICY, fill=[4.0, 5.0, 6.0])
    torch.manual_seed(3)
    images = hide(_dicts())["image"]
    torch.manual_seed(3)
    mask = torch.from_numpy(POLICY.mask(torch.randint(LARGEST_KEY, (8,)).numpy(), 0, 12, 16))
    for channel, fill in enumerate((4.0, 5.0, 6.0)):
        assert torch.equal(images[:, channel], torch.ones(8, 12, 16).masked_fill(mask, fill))
    assert not torch.equal(hide(_dicts())["image"], images)


@pytest.mark.parametrize("kind", [tuple, list, Pair._make])
def test_kinds_of_samples(kind: Any) -> None:
    samples = [kind([torch.ones(3, 12, 12), n]) for n in range(4)]
    batch = HideCollate(HideAndSeek((4,), p_hide=1.0))(samples)
    assert type(batch) is type(default_collate(samples))
    assert not batch[0].any() and batch[1].tolist() == [0, 1, 2, 3]
    last = HideCollate(HideAndSeek((4,), p_hide=1.0), image=-1)([(n, torch.ones(3, 8, 8)) for n in range(4)])
    assert not last[1].any() and last[0].tolist() == [0, 1, 2, 3]


def test_own_collate_functions_keep_their_memory() -> None:
    data = torch.ones(4, 3, 8, 8)
    policy = HideAndSeek((4,), p_hide=1.0)
    assert not HideCollate(policy, _first)([data]).any()
    for batch in ({"image": data, "id": 1}, [data, 1], (data, 1), Pair(data, 1)):
        hidden = HideCollate(policy, _first)([batch])
        images = hidden["image"] if isinstance(hidden, dict) else hidden[0]
        assert type(hidden) is type(batch) and not images.any()
        assert (batch["image"] if isinstance(batch, dict) else batch[0]) is data
    assert data.all()


def test_layouts_and_dtypes() -> None:
    policy = HideAndSeek((4,), p_hide=1.0)
    hidden = HideCollate(policy, fill=(1, 2, 3), layout="NHWC")([torch.zeros(8, 8, 3, dtype=torch.uint8)])
    assert hidden.dtype == torch.uint8 and torch.equal(hidden, torch.tensor([1, 2, 3]).expand(1, 8, 8, 3))
    assert not HideCollate(policy, layout="NCT")([(torch.ones(5, 30), 0)])[0].any()


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_that_live_on_see_the_epoch(context: str) -> None:
    hide = HideCollate(POLICY, ids="id")
    workers = 1 if context == "spawn" else 2  # a process that is spawned imports torch again
    loader = DataLoader(
        _dicts(),
        batch_size=3,
        collate_fn=hide,
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context=context,
    )
    for epoch in range(3):
        hide.set_epoch(epoch)
        cells = np.concatenate([_cells(batch["image"]) for batch in loader])
        assert np.array_equal(cells, POLICY.mask(np.arange(8), epoch, 12, 16))


def test_worker_seeding_without_ids() -> None:
    loader = DataLoader(_dicts(), batch_size=2, collate_fn=HideCollate(POLICY), num_workers=2)

    def cells() -> np.ndarray:
        return np.concatenate([_cells(batch["image"]) for batch in loader])

    torch.manual_seed(1)
    first, second = cells(), cells()
    torch.manual_seed(1)
    assert np.array_equal(cells(), first) and not np.array_equal(first, second)
    assert not np.array_equal(first[:2], first[2:4])  # the first batches of two workers


def test_schedules_and_pickling() -> None:
    hide = pickle.loads(pickle.dumps(HideCollate(PolicySchedule(POLICY, p_hide=[0.0, 1.0]), _stacked)))
    samples = [torch.ones(3, 8, 8)] * 2
    assert hide(samples).all()
    hide.set_epoch(1)
    assert hide.epoch == 1 and not hide(samples).any()


def test_batches_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="image='picture': the batch has no such entry, it is keys image, id, label"):
        HideCollate(POLICY, image="picture")(_dicts())
    with pytest.raises(ValueError, match="ids=2: the batch has no such entry, it is a list"):
        HideCollate(POLICY, ids=2)([(torch.ones(3, 4, 4), 1)])
    with pytest.raises(ValueError, match="the batch is a tensor alone"):
        HideCollate(POLICY, ids=1)([torch.ones(3, 4, 4)])
    with pytest.raises(TypeError, match="expected a tensor of images, got tuple; set image="):
        HideCollate(POLICY, image=1)([(torch.ones(3, 4, 4), "name")])
    with pytest.raises(TypeError, match="policy=None: expected a HideAndSeek"):
        HideCollate(None)  # type: ignore[arg-type]
