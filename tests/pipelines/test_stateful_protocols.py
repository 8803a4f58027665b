"""The loader in the hands of others that save and load states: torchdata, and pytorch-lightning in mid-epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import ImageLoader, image_loader


def _loader(folder: Path, batch_size: int = 4, **options: Any) -> ImageLoader:
    defaults = {"train": True, "policy": HideAndSeek((5,)), "size": 16, "device": "cpu", "threads": 1}
    return image_loader(folder, batch_size, **{**defaults, **options})


def _same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(torch.equal(x[name], y[name]) for x, y in zip(a, b, strict=True) for name in x)


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_torchdata_nodes(image_folder: Path, stop: int) -> None:
    """Wrapped as a node, behind a node that works ahead of its reader itself."""
    nodes = pytest.importorskip("torchdata.nodes")
    whole = _loader(image_folder)
    epochs = [list(whole) for _ in range(2)]

    def pipeline(prefetch: bool) -> Any:
        node = nodes.IterableWrapper(_loader(image_folder))
        return nodes.Loader(nodes.Prefetcher(node, prefetch_factor=2) if prefetch else node)

    for prefetch in (False, True):
        first = pipeline(prefetch)
        batches = iter(first)
        seen = [next(batches) for _ in range(stop)]
        state = json.loads(json.dumps(first.state_dict()))
        assert _same(seen, epochs[0][:stop])
        again = pipeline(prefetch)
        again.load_state_dict(state)
        assert _same(list(again), epochs[0][stop:])
        assert _same(list(again), epochs[1])


@pytest.mark.parametrize("stop", [1, 4])
def test_torchdata_stateful_data_loader(image_folder: Path, stop: int) -> None:
    """As the iterable data set of a StatefulDataLoader that leaves batches alone."""
    module = pytest.importorskip("torchdata.stateful_dataloader")
    whole = list(_loader(image_folder))

    class Images(torch.utils.data.IterableDataset):
        """What torch's loaders want to see; all else is the loader's."""

        def __init__(self) -> None:
            self.loader = _loader(image_folder)
            self.state_dict, self.load_state_dict = self.loader.state_dict, self.loader.load_state_dict

        def __iter__(self) -> Any:
            return iter(self.loader)

    first = module.StatefulDataLoader(Images(), batch_size=None, num_workers=0)
    batches = iter(first)
    seen = [next(batches) for _ in range(stop)]
    state = first.state_dict()
    again = module.StatefulDataLoader(Images(), batch_size=None, num_workers=0)
    again.load_state_dict(state)
    assert _same(seen, whole[:stop]) and _same(list(again), whole[stop:])


def test_lightning_resumes_in_the_middle_of_an_epoch(image_folder: Path, tmp_path: Path) -> None:
    """From a checkpoint after five of seven batches; and not with another loader, whose difference is named."""
    pl = pytest.importorskip("pytorch_lightning")

    class Seen(pl.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3 * 16 * 16, 3)
            self.seen: list[list[int]] = []

        def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
            self.seen.append(batch["id"].tolist())
            return torch.nn.functional.cross_entropy(self.layer(batch["image"].flatten(1)), batch["label"])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 1e-3)

    def fit(resume: Path | None = None, **options: Any) -> list[list[int]]:
        saving = pl.callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=5, save_top_k=-1)
        trainer = pl.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, max_epochs=2,
            default_root_dir=tmp_path, callbacks=[saving] if resume is None else None,
            enable_checkpointing=resume is None,
        )  # fmt: skip
        module = Seen()
        trainer.fit(module, _loader(image_folder, **options), ckpt_path=resume, weights_only=True)
        return module.seen

    whole = _loader(image_folder)
    expected = [batch["id"].tolist() for _ in range(2) for batch in whole]
    assert fit() == expected
    assert fit(tmp_path / "step=5.ckpt") == expected[5:]
    with pytest.raises(ValueError, match=r"state: mirror is 0\.5, this loader's is 0\.1"):
        fit(tmp_path / "step=5.ckpt", mirror=0.1)
