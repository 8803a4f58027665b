"""The paper's numbers: spot checks, and that the tables agree where they repeat one another."""

from __future__ import annotations

import itertools

import pytest

from has_dali.trainers.results import paper


@pytest.mark.parametrize(
    ("task", "dataset", "method", "metric", "expected"),
    [
        ("localisation", "ilsvrc_val", "AlexNet-GAP", "gt_known", 54.90),
        ("wsol", "ilsvrc_val", "GoogLeNet-HaS-32", "top1_loc", 45.21),
        ("localisation", "ilsvrc_val", "AlexNet-HaS-conv1-11", "gt_known", 58.33),
        ("classification", "cifar10", "HaS", "resnet56_acc", 95.41),
        ("classification", "cifar100", "HaS", "resnet56_acc", 76.47),
        ("cls", "imagenet", "Full", "resnet50_top1", 76.15),
        ("wtal", "thumos14_val", "Video-HaS", "map@0.5", 6.84),
        ("age_gender", "appareal_valid+utkface", "WideRes+A+HaS", "mae_real", 5.423),
        ("reid", "dukemtmc", "IDE+CamStyle+RE", "map", 57.6),
    ],
)
def test_printed_values(task: str, dataset: str, method: str, metric: str, expected: float) -> None:
    assert paper.value(task, dataset, method, metric) == expected


def test_what_is_not_printed_is_none() -> None:
    assert paper.value("wsol", "ilsvrc_val", "Backprop-AlexNet", "gt_known") is None
    assert paper.value("wsol", "tiny-imagenet-20", "AlexNet-GAP", "gt_known") is None
    assert paper.value("emotion", "ckplus_10fold", "CNN", "top1") is None


def test_rows_of_a_table() -> None:
    assert [row.method for row in paper.rows("VI")] == [f"AlexNet-HaS-p{p}" for p in (25, 33, 50, 66, 75)]
    assert [row.dataset for row in paper.rows("VIII", "HaS")] == ["cifar10", "cifar100", "imagenet"]
    assert dict(paper.rows("II", "AlexNet-GAP")[0].metrics) == {"gt_known": 54.90, "top1_loc": 36.25}
    assert paper.rows("XX") == () and paper.rows("II", "no such row") == ()


def test_tables_that_repeat_a_row_agree() -> None:
    for a, b in itertools.combinations(paper.ROWS, 2):
        if (a.task, a.dataset, a.method) == (b.task, b.dataset, b.method) and a.task != "summary":
            assert a.metrics == b.metrics
    (mixed,), (ours,) = paper.rows("II", "AlexNet-HaS-Mixed"), paper.rows("III", "Ours-AlexNet(HaS-Mixed)")
    assert mixed.metrics == ours.metrics
    (half,), (fifty_six,) = paper.rows("VI", "AlexNet-HaS-p50"), paper.rows("II", "AlexNet-HaS-56")
    assert half.metrics == fifty_six.metrics


def test_the_summary_repeats_the_tables() -> None:
    summary = {row.method: {} for row in paper.rows("I")}
    for row in paper.rows("I"):
        summary[row.method] |= row.metrics
    sources = {
        "wsol_gt_known": ("wsol", "ilsvrc_val", ("AlexNet-GAP", "AlexNet-HaS-32"), "gt_known"),
        "wsss_miou": ("wsss", "voc12_val", ("DCSP", "DCSP+HaS"), "miou"),
        "wtal_map@0.1": ("wtal", "thumos14_val", ("Video-full", "Video-HaS"), "map@0.1"),
        "cls_top1": ("cls", "imagenet", ("Full", "HaS"), "resnet50_top1"),
        "seg_miou": ("seg", "voc11_seg11valid", ("FCN-AlexNet", "FCN-AlexNet-HaS-Mixed"), "mean_iu"),
        "emotion_acc": ("emotion", "ckplus_10fold", ("CNN+A", "CNN+A+HaS"), "acc"),
        "reid_market_map": ("reid", "market1501", ("IDE+CamStyle+RE", "IDE+CamStyle+HaS"), "map"),
    }
    assert set(summary["NoHaS"]) == set(summary["HaS"]) == set(sources)
    for name, (task, dataset, methods, metric) in sources.items():
        for arm, method in zip(("NoHaS", "HaS"), methods, strict=True):
            assert summary[arm][name] == paper.value(task, dataset, method, metric), name


def test_rows_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        paper.ROWS[0].metrics["gt_known"] = 100.0  # type: ignore[index]


def test_a_data_set_is_told_by_its_counts() -> None:
    cifar = {"name": "anything", "train_images": 50_000, "val_images": 10_000, "classes": 10}
    assert paper.is_dataset("cifar10", cifar)
    assert not paper.is_dataset("cifar100", cifar)
    assert not paper.is_dataset("cifar10", {**cifar, "name": "cifar10", "train_images": 10_000})
    imagenet = {"name": "in1k", "train_images": 1_281_167, "val_images": 50_000, "classes": 1000}
    assert paper.is_dataset("imagenet", imagenet) and paper.is_dataset("ilsvrc_val", imagenet)
    assert paper.is_dataset("market1501", {"name": "Market1501"}) and not paper.is_dataset("dukemtmc", {})
