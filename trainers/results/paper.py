"""The numbers of the paper's tables (arXiv 1811.02545), as data: what our runs are put beside.

Only what the paper prints. It gives no seeds, run counts or intervals except the folds' standard deviation on CK+.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

# table | task | data set | method | metric:value ...; "text" stands for numbers in the running text.
_PRINTED = """
II|wsol|ilsvrc_val|AlexNet-GAP|gt_known:54.90|top1_loc:36.25
II|wsol|ilsvrc_val|AlexNet-HaS-16|gt_known:57.86|top1_loc:36.77
II|wsol|ilsvrc_val|AlexNet-HaS-32|gt_known:58.75|top1_loc:37.33
II|wsol|ilsvrc_val|AlexNet-HaS-44|gt_known:58.55|top1_loc:37.54
II|wsol|ilsvrc_val|AlexNet-HaS-56|gt_known:58.43|top1_loc:37.34
II|wsol|ilsvrc_val|AlexNet-HaS-Mixed|gt_known:58.68|top1_loc:37.65
II|wsol|ilsvrc_val|GoogLeNet-GAP|gt_known:58.41|top1_loc:43.60
II|wsol|ilsvrc_val|GoogLeNet-HaS-16|gt_known:59.83|top1_loc:44.62
II|wsol|ilsvrc_val|GoogLeNet-HaS-32|gt_known:60.29|top1_loc:45.21
II|wsol|ilsvrc_val|GoogLeNet-HaS-44|gt_known:60.11|top1_loc:44.75
II|wsol|ilsvrc_val|GoogLeNet-HaS-56|gt_known:59.93|top1_loc:44.78
III|wsol|ilsvrc_val|Backprop-AlexNet|top1_loc:34.83
III|wsol|ilsvrc_val|AlexNet-dropout-trainonly|gt_known:42.17|top1_loc:7.65
III|wsol|ilsvrc_val|AlexNet-dropout-traintest|gt_known:53.48|top1_loc:31.68
III|wsol|ilsvrc_val|Ours-AlexNet(HaS-Mixed)|gt_known:58.68|top1_loc:37.65
III|wsol|ilsvrc_val|Backprop-GoogLeNet|top1_loc:38.69
III|wsol|ilsvrc_val|Ours-GoogLeNet(HaS-32)|gt_known:60.29|top1_loc:45.21
IV|wsol|ilsvrc_val|AlexNet-GAP|gt_known:54.90|top1_loc:36.25
IV|wsol|ilsvrc_val|AlexNet-Avg-HaS(56)|gt_known:58.43|top1_loc:37.34
IV|wsol|ilsvrc_val|AlexNet-GMP|gt_known:50.40|top1_loc:32.52
IV|wsol|ilsvrc_val|AlexNet-Max-HaS(56)|gt_known:59.27|top1_loc:37.57
V|wsol|ilsvrc_val|AlexNet-HaS-conv1-5|gt_known:57.36|top1_loc:36.91
V|wsol|ilsvrc_val|AlexNet-HaS-conv1-11|gt_known:58.33|top1_loc:37.38
VI|wsol|ilsvrc_val|AlexNet-HaS-p25|gt_known:57.49|top1_loc:37.77
VI|wsol|ilsvrc_val|AlexNet-HaS-p33|gt_known:58.12|top1_loc:38.05
VI|wsol|ilsvrc_val|AlexNet-HaS-p50|gt_known:58.43|top1_loc:37.34
VI|wsol|ilsvrc_val|AlexNet-HaS-p66|gt_known:58.52|top1_loc:35.72
VI|wsol|ilsvrc_val|AlexNet-HaS-p75|gt_known:58.28|top1_loc:34.21
VII|wtal|thumos14_val|Video-full|map@0.1:34.23|map@0.2:25.68|map@0.3:17.72|map@0.4:11.00|map@0.5:6.11
VII|wtal|thumos14_val|Video-HaS|map@0.1:36.44|map@0.2:27.84|map@0.3:19.49|map@0.4:12.66|map@0.5:6.84
text|wsss|voc12_val|DCSP|miou:60.80
text|wsss|voc12_val|DCSP+HaS|miou:61.45
VIII|cls|cifar10|Full|resnet44_acc:94.19|resnet56_acc:94.66|resnet110_acc:94.87
VIII|cls|cifar10|HaS|resnet44_acc:94.97|resnet56_acc:95.41|resnet110_acc:95.53
VIII|cls|cifar100|Full|resnet44_acc:74.37|resnet56_acc:75.24|resnet110_acc:77.44
VIII|cls|cifar100|HaS|resnet44_acc:75.82|resnet56_acc:76.47|resnet110_acc:78.13
VIII|cls|imagenet|Full|resnet50_top1:76.15
VIII|cls|imagenet|HaS|resnet50_top1:77.20
text|occlusion|imagenet_val_200img|AlexNet-HaS minus AlexNet-GAP|top1_gain_points:3
IX|seg|voc11_seg11valid|FCN-AlexNet|pixel_acc:85.58|mean_acc:63.01|mean_iu:48.00|fw_iu:76.26
IX|seg|voc11_seg11valid|FCN-AlexNet-HaS-Mixed|pixel_acc:86.24|mean_acc:63.58|mean_iu:49.31|fw_iu:77.11
X|emotion|ckplus_10fold|CNN|acc:82.98|std:5.41
X|emotion|ckplus_10fold|CNN+HaS|acc:87.83|std:3.73
X|emotion|ckplus_10fold|CNN+A|acc:93.65|std:2.75
X|emotion|ckplus_10fold|CNN+A+HaS|acc:94.88|std:1.81
XI|age_gender|appareal_valid+utkface|WideRes|mae_apparent:5.289|mae_real:6.817|gender_acc:91.04
XI|age_gender|appareal_valid+utkface|WideRes+HaS|mae_apparent:4.538|mae_real:6.065|gender_acc:92.24
XI|age_gender|appareal_valid+utkface|WideRes+A|mae_apparent:4.393|mae_real:5.745|gender_acc:92.38
XI|age_gender|appareal_valid+utkface|WideRes+A+HaS|mae_apparent:3.989|mae_real:5.423|gender_acc:92.75
XII|reid|market1501|IDE+CamStyle|rank1:88.1|map:68.7
XII|reid|market1501|IDE+CamStyle+RE|rank1:89.5|map:71.6
XII|reid|market1501|IDE+CamStyle+HaS|rank1:90.2|map:72.8
XII|reid|dukemtmc|IDE+CamStyle|rank1:75.3|map:53.5
XII|reid|dukemtmc|IDE+CamStyle+RE|rank1:78.3|map:57.6
XII|reid|dukemtmc|IDE+CamStyle+HaS|rank1:79.9|map:57.2
I|summary|all tasks|NoHaS|wsol_gt_known:54.90|wsss_miou:60.80|wtal_map@0.1:34.23|cls_top1:76.15|seg_miou:48.00
I|summary|all tasks|HaS|wsol_gt_known:58.75|wsss_miou:61.45|wtal_map@0.1:36.44|cls_top1:77.20|seg_miou:49.31
I|summary|all tasks|NoHaS|emotion_acc:93.65|reid_market_map:71.60
I|summary|all tasks|HaS|emotion_acc:94.88|reid_market_map:72.80
"""

# Our tasks' names where the table above has a shorter one.
_TASKS = {"localisation": "wsol", "classification": "cls"}


@dataclass(frozen=True)
class Row:
    """One printed row: percentages from 0 to 100, ages in years."""

    table: str
    task: str
    dataset: str
    method: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Size:
    """Size of a data set: images to train on and to evaluate on, and classes."""

    train_images: int
    val_images: int
    classes: int


# How the data set of a run is told to be the paper's: by what was counted, since a folder's name says nothing.
# A 64-pixel version of ImageNet counts the same; its settings show the difference.
SIZES: Mapping[str, tuple[Size, ...]] = MappingProxyType(
    {
        "ilsvrc_val": (Size(1_281_167, 50_000, 1000),),
        "imagenet": (Size(1_281_167, 50_000, 1000),),
        "cifar10": (Size(50_000, 10_000, 10),),
        "cifar100": (Size(50_000, 10_000, 100),),
    }
)


def _parsed(line: str) -> Row:
    table, task, dataset, method, *cells = line.split("|")
    pairs = (cell.rsplit(":", 1) for cell in cells)
    return Row(table, task, dataset, method, MappingProxyType({name: float(value) for name, value in pairs}))


ROWS: tuple[Row, ...] = tuple(_parsed(line) for line in _PRINTED.split("\n") if line)


def rows(table: str, method: str | None = None) -> tuple[Row, ...]:
    """Rows of a table ("II", "VIII", ..., or "text") in printed order; of one method, if given; empty if there is none.

    A method may have several rows: Table VIII has one per data set.
    """
    return tuple(row for row in ROWS if row.table == table and method in (None, row.method))


def value(task: str, dataset: str, method: str, metric: str) -> float | None:
    """One printed number, or None where the paper prints none; our names of tasks are understood too."""
    task = _TASKS.get(task, task)
    for row in ROWS:
        if (row.task, row.dataset, row.method) == (task, dataset, method) and metric in row.metrics:
            return row.metrics[metric]
    return None


def is_dataset(name: str, dataset: Mapping[str, Any]) -> bool:
    """Whether a run's data set is the paper's data set ``name``.

    Args:
        name: as in ``Row.dataset``.
        dataset: the entry "dataset" of a report: name, train_images, val_images, classes.
    """
    if name not in SIZES:
        return str(dataset.get("name", "")).lower() == name
    counted = tuple(dataset.get(key) for key in ("train_images", "val_images", "classes"))
    return any(counted == (size.train_images, size.val_images, size.classes) for size in SIZES[name])
