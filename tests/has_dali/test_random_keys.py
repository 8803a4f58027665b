"""Keys without ids: the generator's own alone, others on every rank, also in workers that are sent there."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines.collate import HideCollate
from has_dali.pipelines.transforms import RandomHideAndSeek
from has_dali.random_keys import LARGEST_KEY, RandomKeys, process_rank

POLICY = HideAndSeek((4,), seed=2)


def _keys(rank: str | None, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    torch.manual_seed(3)
    return RandomKeys()(50)


def test_ranks_differ_and_rank_0_is_a_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    own = torch.randint(LARGEST_KEY, (50,))
    assert torch.equal(_keys(None, monkeypatch), own) and torch.equal(_keys("0", monkeypatch), own)
    assert torch.equal(_keys("unset", monkeypatch), own)
    others = [_keys(str(rank), monkeypatch) for rank in range(8)]
    together = torch.cat(others)
    assert len(together.unique()) == 400 and together.min() >= 0 and together.max() < LARGEST_KEY
    assert torch.equal(_keys("5", monkeypatch), others[5])


@pytest.mark.parametrize("kind", ["collate", "transform"])
def test_masks_of_two_ranks(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def hidden(rank: int) -> torch.Tensor:
        monkeypatch.setenv("RANK", str(rank))
        torch.manual_seed(7)
        if kind == "collate":
            masked: torch.Tensor = HideCollate(POLICY)([torch.ones(3, 16, 16)] * 4)
        else:
            masked = RandomHideAndSeek(POLICY)(torch.ones(4, 3, 16, 16))
        return masked

    assert torch.equal(hidden(0), hidden(0)) and torch.equal(hidden(1), hidden(1))
    assert not torch.equal(hidden(0), hidden(1))


def test_a_worker_that_is_spawned_keeps_the_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    sent = pickle.dumps(HideCollate(POLICY))
    monkeypatch.delenv("RANK")
    assert pickle.loads(sent)._random_keys.rank == 2 and RandomKeys().rank == 0


def test_the_rank_of_torch_distributed_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANK", "3")
    assert process_rank() == 3
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        assert process_rank() == 0 and os.environ["RANK"] == "3"
    finally:
        dist.destroy_process_group()
