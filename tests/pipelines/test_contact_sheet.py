"""The contact sheet shows the very masks of the contract, in the fill colour, in the right place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import contact_sheet

FILL = (12, 200, 99)
SIZE = 96


@pytest.fixture
def images(tmp_path: Path) -> list[tuple[int, str]]:
    rng = np.random.default_rng(0)
    rows = []
    for sample_id in (3, 8):
        path = tmp_path / f"{sample_id}.png"
        Image.fromarray(rng.integers(220, 256, (150, 130, 3)).astype(np.uint8)).save(path)
        rows.append((sample_id, str(path)))
    return rows


def test_columns_of_a_mixed_and_of_a_fixed_policy() -> None:
    mixed = contact_sheet.columns(HideAndSeek((0, 16, 32), p_apply=0.5), 2)
    assert [column.title for column in mixed] == ["original", "S = 16", "S = 32", "epoch 0", "epoch 1"]
    assert mixed[1].policy == HideAndSeek((16,), p_apply=1.0)
    assert [column.title for column in contact_sheet.columns(HideAndSeek((8,)), 1)] == ["original", "epoch 0"]


def test_pixels_are_hidden_where_the_policy_says(images: list[tuple[int, str]]) -> None:
    policy = HideAndSeek((8, 24), seed=5)
    layout = contact_sheet.columns(policy, 2)
    sheet, hidden = contact_sheet.render(images, layout, FILL, SIZE)
    pixels = np.asarray(sheet)
    lefts = list(contact_sheet._lefts(layout, SIZE))
    pitch = SIZE + contact_sheet._CAPTION + contact_sheet._GAP
    fractions = np.zeros(len(layout))
    for row, (sample_id, _) in enumerate(images):
        for i, column in enumerate(layout):
            top = contact_sheet._HEADER + row * pitch
            cell = pixels[top : top + SIZE, lefts[i] : lefts[i] + SIZE]
            shown = (cell == FILL).all(axis=-1)
            mask = np.zeros_like(shown)
            if column.policy is not None:
                mask = column.policy.mask([sample_id], column.epoch, SIZE, SIZE)[0]
            np.testing.assert_array_equal(shown, mask)
            fractions[i] += mask.mean() / len(images)
    np.testing.assert_allclose(hidden, fractions)
    assert hidden[0] == 0 and min(hidden[1:]) > 0


def test_drawn_patch_size_is_the_mask_s() -> None:
    policy = HideAndSeek((0, 7, 30), p_hide=1.0, p_apply=0.6, seed=2)
    sizes = {sample: contact_sheet.drawn_patch_size(policy, sample, 4) for sample in range(60)}
    assert set(sizes.values()) == {0, 7, 30}
    for sample, size in sizes.items():
        assert policy.mask([sample], 4, 20, 20).any() == (size != 0)


def test_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.jpg"
    path.write_text("no image")
    with pytest.raises(ValueError, match=r"text\.jpg: is no image"):
        contact_sheet.render([(0, str(path))], contact_sheet.columns(HideAndSeek(), 1), FILL, SIZE)


def test_16_bit_images_are_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 20), 100 * 257, np.uint16)).save(tmp_path / "deep.png")
    assert (contact_sheet._centre_crop(str(tmp_path / "deep.png"), 16) == 100).all()
