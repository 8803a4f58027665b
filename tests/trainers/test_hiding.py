"""Pixel dropout and Random Erasing: functions of (seed, epoch, sample id), whatever the batch."""

from __future__ import annotations

import pytest
import torch

from has_dali.kernels.policy import HideAndSeek
from has_dali.trainers.hiding import BatchHiding, mixed_seed
from has_dali.trainers.settings import HideSettings

IDS = torch.tensor([5, 9, 2**40 + 3, 11])


def images(count: int = 4) -> torch.Tensor:
    return 1 + torch.rand(count, 3, 16, 20, generator=torch.Generator().manual_seed(0))


def test_pixel_dropout_is_hide_and_seek_with_cells_of_one_pixel() -> None:
    hiding = BatchHiding(HideSettings(method="pixel-dropout", p_hide=0.25), seed=3)
    dropped = hiding(images(), IDS, 2, training=True)
    mask = torch.from_numpy(HideAndSeek((1,), 0.25, seed=3).mask(IDS.numpy(), 2, 16, 20))[:, None]
    assert torch.equal(dropped, torch.where(mask, 0.0, images() / 0.75))


def test_pixel_dropout_without_rescaling() -> None:
    hiding = BatchHiding(HideSettings(method="pixel-dropout", rescale=False), seed=3)
    dropped = hiding(images(), IDS, 0, training=True)
    kept = dropped != 0
    assert torch.equal(dropped[kept], images()[kept])
    assert (kept.all(1) | ~kept.any(1)).all()  # a coin per pixel: channels go together


def test_pixel_dropout_with_a_coin_per_value() -> None:
    hiding = BatchHiding(HideSettings(method="pixel-dropout", per_channel=True), seed=3)
    kept = hiding(images(), IDS, 0, training=True) != 0
    together = (kept.all(1) | ~kept.any(1)).float().mean()
    assert 0.19 < together < 0.31  # 2 / 8, standard deviation .012
    assert 0.45 < kept.float().mean() < 0.55


def test_only_traintest_drops_while_testing() -> None:
    train = BatchHiding(HideSettings(method="pixel-dropout"), seed=0)
    assert torch.equal(train(images(), IDS, 0, training=False), images())
    both = BatchHiding(HideSettings(method="pixel-dropout", at="traintest"), seed=0)
    tested = both(images(), IDS, 0, training=False)
    assert (tested == 0).float().mean() > 0.4
    assert not torch.equal(tested, both(images(), IDS, 0, training=True))
    assert not torch.equal(tested, both(images(), IDS, 1, training=False))


def test_random_erasing_fills_a_rectangle_with_the_mean_and_follows_the_sample() -> None:
    hiding = BatchHiding(HideSettings(method="random-erasing", p_hide=1.0), seed=1)
    state = torch.get_rng_state()
    erased = hiding(images(), IDS, 4, training=True)
    assert torch.equal(torch.get_rng_state(), state)  # no draw is taken from the trainer's generator
    for n in range(4):
        hidden = (erased[n] == 0).all(0)
        rows, columns = torch.where(hidden)
        height, width = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
        assert hidden.sum() == height * width > 0
        assert 0.01 < height * width / 320 < 0.45
        alone = hiding(images()[n : n + 1].clone(), IDS[n : n + 1], 4, training=True)
        assert torch.equal(alone[0], erased[n])
    assert not torch.equal(hiding(images(), IDS, 5, training=True), erased)
    assert torch.equal(hiding(images(), IDS, 4, training=False), images())


def test_random_erasing_hits_the_share_of_images_asked_for() -> None:
    ids = torch.arange(400)
    hiding = BatchHiding(HideSettings(method="random-erasing"), seed=0)
    erased = hiding(torch.ones(400, 3, 32, 32), ids, 0, training=True)
    areas = (erased == 0).all(1).float().mean((1, 2))
    assert 0.4 < (areas > 0).float().mean() < 0.6  # standard deviation .025
    found = areas[areas > 0]
    assert 0.015 < found.min() < 0.06 and 0.32 < found.max() < 0.45  # .02 to .4, sides rounded
    assert 0.17 < found.mean() < 0.25  # .21, standard deviation .008


def test_random_erasing_by_hand() -> None:
    """The rectangles of some samples, drawn again word by word from the reference generator."""
    from has_dali.kernels import reference
    from has_dali.trainers.erasing import ERASE_BLOCK, RandomErasing

    erasing = RandomErasing(0.5, (0.02, 0.4), 0.3, (0.0, 0.0, 0.0), seed=9)
    boxes = erasing.boxes(IDS.numpy(), 3, 24, 30)
    for sample_id, box in zip(IDS.tolist(), boxes.tolist(), strict=True):
        words = reference.words(9, 3, sample_id, range(ERASE_BLOCK, ERASE_BLOCK + 101)).astype(float) / 2**32
        expected = [0, 0, 0, 0]
        for w0, w1, w2, w3 in words[1:] if words[0][0] < 0.5 else []:
            area, ratio = 24 * 30 * (0.02 + 0.38 * w0), 0.3 + (1 / 0.3 - 0.3) * w1
            tall, wide = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if 0 < tall < 24 and 0 < wide < 30:
                expected = [int(w2 * (24 - tall + 1)), int(w3 * (30 - wide + 1)), tall, wide]
                break
        assert box == expected


def test_the_legacy_fill_is_what_the_authors_code_writes() -> None:
    hiding = BatchHiding(HideSettings(method="random-erasing", p_hide=1.0, erase_fill="legacy"), seed=1)
    erased = hiding(torch.full((4, 3, 16, 20), 9.0), IDS, 0, training=True)
    for channel, value in enumerate((0.485, 0.456, 0.406)):
        values = erased[:, channel].unique()
        assert values.tolist() == pytest.approx([value, 9.0])


def test_other_methods_leave_batches_alone() -> None:
    for method in ("none", "has", "conv1"):
        hiding = BatchHiding(HideSettings(method=method, patch_sizes=[4]), seed=0)  # type: ignore[arg-type]
        batch = images()
        assert hiding(batch, IDS, 0, training=True) is batch and torch.equal(batch, images())


def test_mixed_seeds_differ() -> None:
    seeds = {mixed_seed(s, e, n) for s in (0, 1, -1) for e in (0, 1, 7) for n in (0, 1, 2**40)}
    assert len(seeds) == 27 and all(0 <= seed < 2**64 for seed in seeds)
