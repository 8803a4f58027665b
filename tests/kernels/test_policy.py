from __future__ import annotations

import dataclasses
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from has_dali.kernels.policy import HideAndSeek

policies = st.builds(
    HideAndSeek,
    patch_sizes=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=6),
    p_hide=st.floats(0, 1),
    p_apply=st.floats(0, 1),
    seed=st.integers(-(2**63), 2**64 - 1),
    random_offset=st.booleans(),
)


@given(policies)
def test_a_policy_survives_dict_json_and_pickle(policy: HideAndSeek) -> None:
    assert HideAndSeek.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert hash(HideAndSeek.from_dict(policy.to_dict())) == hash(policy)
    assert eval(repr(policy)) == policy


def test_a_policy_is_frozen_and_with_changes_a_copy() -> None:
    policy = HideAndSeek()
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.p_hide = 0.1  # type: ignore[misc]
    assert policy.with_(p_hide=0.3).p_hide == 0.3
    assert policy.p_hide == 0.5


@pytest.mark.parametrize("sizes", [(16, 32), [16, 32], np.array([16, 32]), (s for s in (16, 32))])
def test_patch_sizes_come_as_any_sequence(sizes: object) -> None:
    assert HideAndSeek(sizes).patch_sizes == (16, 32)  # type: ignore[arg-type]


def test_one_patch_size_may_be_a_plain_number() -> None:
    assert HideAndSeek(16).patch_sizes == (16,)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"p_hide": 1.5}, ValueError, ["p_hide=1.5", "0 to 1"]),
        ({"p_hide": float("nan")}, ValueError, ["p_hide", "0 to 1"]),
        ({"p_apply": -0.1}, ValueError, ["p_apply=-0.1", "0 to 1"]),
        ({"p_hide": "half"}, TypeError, ["p_hide='half'"]),
        ({"patch_sizes": ()}, ValueError, ["patch_sizes is empty"]),
        ({"patch_sizes": (16, -1)}, ValueError, ["patch_sizes[1]=-1"]),
        ({"patch_sizes": (16, 32, 0.5)}, ValueError, ["patch_sizes[2]=0.5", "whole pixels"]),
        ({"patch_sizes": "16"}, TypeError, ["patch_sizes='16'"]),
        ({"patch_sizes": (2**31,)}, ValueError, ["patch_sizes[0]"]),
        ({"seed": 2**64}, ValueError, ["seed", "64-bit"]),
        ({"seed": 0.5}, TypeError, ["seed=0.5"]),
        ({"random_offset": 1}, TypeError, ["random_offset=1"]),
    ],
)
def test_values_out_of_range_are_named(fields: dict, error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        HideAndSeek(**fields)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert len(message.splitlines()) <= 2


# Hide-and-Seek, arXiv 1811.02545: patch sizes, p_hide, p_apply.
PAPER = {
    "wsol-16": ((16,), 0.5, 1.0),
    "wsol-32": ((32,), 0.5, 1.0),
    "wsol-44": ((44,), 0.5, 1.0),
    "wsol-56": ((56,), 0.5, 1.0),
    "wsol-mixed": ((0, 16, 32, 44, 56), 0.5, 1.0),
    "imagenet": ((16, 32, 44, 56), 0.5, 0.5),
    "cifar": ((8,), 0.5, 0.5),
    "dcsp": ((0, 16, 32, 44, 56), 0.5, 1.0),
    "fcn-pretrain": ((0, 16, 32, 44, 56), 0.5, 1.0),
    "ckplus": ((0, 12, 16, 32, 48), 0.5, 1.0),
    "face64": ((0, 8, 16, 32), 0.5, 1.0),
    "reid-market": ((64,), 0.33, 1.0),
    "reid-duke": ((64,), 0.5, 1.0),
    "thumos": ((100,), 0.5, 1.0),
    "conv1-5": ((5,), 0.5, 1.0),
    "conv1-11": ((11,), 0.5, 1.0),
}


def test_presets_are_the_papers() -> None:
    assert set(HideAndSeek.presets()) == set(PAPER)
    for name, (sizes, p_hide, p_apply) in PAPER.items():
        assert HideAndSeek.preset(name) == HideAndSeek(sizes, p_hide, p_apply)


def test_presets_take_changes_and_unknown_names_list_the_known() -> None:
    assert HideAndSeek.preset("cifar", seed=3) == HideAndSeek((8,), p_apply=0.5, seed=3)
    with pytest.raises(ValueError, match=r"'imagnet' is unknown.*imagenet"):
        HideAndSeek.preset("imagnet")
    with pytest.raises(ValueError, match="field 'p' is unknown"):
        HideAndSeek.from_dict({"p": 0.5})
