"""Settings: the policies that they describe, their hash, and what may differ when a run is resumed."""

from __future__ import annotations

import pytest

from has_dali.kernels.policy import HideAndSeek
from has_dali.trainers.settings import (
    ClassificationSettings,
    HideSettings,
    LocalisationSettings,
    config_hash,
    differences,
    from_dict,
)


def test_policies() -> None:
    preset = HideSettings(preset="wsol-56", p_hide=0.25).policy(7)
    assert preset == HideAndSeek.preset("wsol-56", p_hide=0.25, seed=7)
    assert HideSettings(patch_sizes=[0, 8], p_apply=0.5).policy(0) == HideAndSeek((0, 8), p_apply=0.5)
    assert HideSettings(method="pixel-dropout", p_hide=0.3).policy(1) == HideAndSeek((1,), 0.3, seed=1)
    assert HideSettings(method="conv1", preset="conv1-5").policy(0) == HideAndSeek.preset("conv1-5")
    assert HideSettings(method="none", preset="cifar").policy(0) is None
    assert HideSettings(method="random-erasing").policy(0) is None


def test_a_policy_needs_sizes() -> None:
    with pytest.raises(ValueError, match=r"hide.method=has: give hide.preset or hide.patch_sizes"):
        HideSettings().policy(0)
    with pytest.raises(ValueError, match="preset 'imagnet' is unknown"):
        HideSettings(preset="imagnet").policy(0)


def test_the_hash_tells_settings_apart() -> None:
    one, other = ClassificationSettings(), ClassificationSettings()
    assert config_hash(one.to_dict()) == config_hash(other.to_dict())
    other.hide.p_hide = 0.4
    assert config_hash(one.to_dict()) != config_hash(other.to_dict())
    assert differences(one.to_dict(), other.to_dict()) == ["hide.p_hide: None, 0.4"]


def test_round_trip_through_a_dict() -> None:
    settings = LocalisationSettings()
    settings.cam.threshold = "held-out"
    settings.loader.sizes = [[0, 32], [2, 64]]
    again = from_dict(LocalisationSettings, settings.to_dict())
    assert again == settings and isinstance(again, LocalisationSettings)


def test_fields_that_an_older_checkpoint_lacks_take_their_defaults() -> None:
    values = ClassificationSettings().to_dict()
    del values["optim"]["ema"], values["paper"]
    assert from_dict(ClassificationSettings, values) == ClassificationSettings()
