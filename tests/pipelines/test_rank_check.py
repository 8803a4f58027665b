"""The comparison of ranks in one process: what differs, in words, and who asks for it. Real ranks: test_processes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import image_loader, timm_loader
from has_dali.pipelines.rank_check import check_ranks, rank_differences


def _facts(**changes: Any) -> dict[str, Any]:
    settings = {"size": 16, "policy": {"p_hide": 0.5}, **changes.pop("settings", {})}
    return {"batches per epoch": 3, "data": "ab", "seed": 0, "settings": settings, **changes}


def test_differences_in_words() -> None:
    assert rank_differences([_facts()] * 3) == []
    assert rank_differences([_facts(), _facts(), _facts(seed=2), _facts(seed=3)]) == [
        "seed is 2 on rank 2, 0 on rank 0"
    ]
    other = _facts(data="cd", settings={"policy": {"p_hide": 0.3}, "crop": "pad"})
    assert rank_differences([_facts(), other]) == [
        "data (fingerprint of files, labels and their order) is 'cd' on rank 1, 'ab' on rank 0",
        "policy.p_hide is 0.3 on rank 1, 0.5 on rank 0",
        "crop is 'pad' on rank 1, 'missing' on rank 0",
    ]


def test_all_facts_of_a_loader_are_compared(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = image_loader(image_folder, 8, train=True, size=16, device="cpu", policy=HideAndSeek((4,)))
    next(iter(loader))  # positions may differ
    others: dict[str, Any] = {}

    def gather(everyone: list[Any], facts: dict[str, Any]) -> None:
        everyone[:] = [facts, {**facts, **others}]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    check_ranks(loader)
    others |= {"batches per epoch": 4, "seed": 1, "data": "x", "settings": {**loader.settings, "size": 17}}
    with pytest.raises(
        ValueError, match=r"differ: batches per epoch is 4 on rank 1, 3 on rank 0; .*; and 1 more; give"
    ):
        check_ranks(loader)


def test_one_process_compares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    check_ranks(SimpleNamespace())  # no group: not even the loader's state is asked for
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    check_ranks(SimpleNamespace())


def test_the_data_module_asks(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datamodule = pytest.importorskip("has_dali.pipelines.datamodule")
    asked: list[Any] = []
    monkeypatch.setattr(datamodule, "check_ranks", asked.append)
    data = datamodule.ImageDataModule(image_folder, image_folder, batch_size=8, size=16)
    data.train_dataloader()
    assert not asked  # by hand, in one process perhaps
    data.trainer = SimpleNamespace(
        global_rank=1, world_size=2, num_devices=2, strategy=SimpleNamespace(root_device=torch.device("cpu"))
    )
    assert asked == [data.train_dataloader().loader] and data.val_dataloader() is asked[1]


def test_a_distributed_timm_loader_asks(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(timm_loader, "check_ranks", asked.append)
    options: dict[str, Any] = {"input_size": 16, "batch_size": 4, "device": "cpu"}
    timm_loader.create_loader(image_folder, **options)
    assert not asked
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    loader = timm_loader.create_loader(image_folder, distributed=True, **options)
    assert asked == [loader.loader] and asked[0].sample_order.rank == 1
