"""The variants that the paper's tables compare, as changes of a recipe; patch sizes follow the size of the pictures."""

from __future__ import annotations

from dataclasses import dataclass

FULL_SIZE, FULL_CONV1 = 224, 55  # side of the paper's images and of its first maps


@dataclass(frozen=True)
class Scale:
    """How large the pictures are, and the first convolution's maps.

    The paper's patch sizes are for images of 224 pixels (maps of 55); smaller pictures get proportionally smaller
    patches, at least one pixel.
    """

    image: int
    conv1: int

    def image_patches(self, *sizes: int) -> str:
        """Patch sizes of the paper at this image size, as an option's value; 0 stays 0."""
        return _scaled(sizes, self.image / FULL_SIZE)

    def conv1_patches(self, *sizes: int) -> str:
        """Patch sizes on the first maps."""
        return _scaled(sizes, self.conv1 / FULL_CONV1)


def _scaled(sizes: tuple[int, ...], factor: float) -> str:
    return f"[{','.join(str(max(round(size * factor), 1) if size else 0) for size in sizes)}]"


@dataclass(frozen=True)
class Arm:
    """A variant of a recipe.

    Args:
        name: name of its folder.
        rows: the rows of the paper's tables that it stands for: (table, method).
        options: what it changes on the command line of ``train``.
    """

    name: str
    rows: tuple[tuple[str, str], ...]
    options: tuple[str, ...]


def _has(patches: str, *more: str) -> tuple[str, ...]:
    return ("--hide.method", "has", "--hide.preset", "null", "--hide.patch_sizes", patches, *more)


def localisation_arms(scale: Scale, network: str) -> list[Arm]:
    """Tables II to VI, and the peers that the paper names.

    Args:
        scale: of the pictures.
        network: "AlexNet" or "GoogLeNet": whose rows stand beside ours; the tables after II have few of the latter's.
    """
    none = ("--hide.method", "none")
    sizes = {size: scale.image_patches(size) for size in (16, 32, 44, 56)}
    alexnet = network == "AlexNet"
    arms = [Arm("gap", (("II", f"{network}-GAP"), *((("IV", "AlexNet-GAP"),) if alexnet else ())), none)]
    for size in (16, 32, 44, 56):
        rows = [("II", f"{network}-HaS-{size}")]
        if size == 56 and alexnet:
            rows += [("IV", "AlexNet-Avg-HaS(56)"), ("VI", "AlexNet-HaS-p50")]
        if size == 32 and not alexnet:
            rows += [("III", "Ours-GoogLeNet(HaS-32)")]
        arms.append(Arm(f"has-{size}", tuple(rows), _has(sizes[size])))
    if alexnet:
        arms += _alexnet_arms(scale, sizes[56], none)
    arms.append(Arm("random-erasing", (("peer", "Random Erasing"),), ("--hide.method", "random-erasing")))
    return arms


def _alexnet_arms(scale: Scale, size56: str, none: tuple[str, ...]) -> list[Arm]:
    """What the paper has for AlexNet alone."""
    mixed = (("II", "AlexNet-HaS-Mixed"), ("III", "Ours-AlexNet(HaS-Mixed)"))
    arms = [Arm("has-mixed", mixed, _has(scale.image_patches(0, 16, 32, 44, 56)))]
    for at in ("train", "traintest"):
        row = f"AlexNet-dropout-{'trainonly' if at == 'train' else at}"
        dropout = ("--hide.method", "pixel-dropout", "--hide.preset", "null", "--hide.p_hide", "0.5", "--hide.at", at)
        arms.append(Arm(f"dropout-{at}", (("III", row),), dropout))
    arms.append(Arm("gmp", (("IV", "AlexNet-GMP"),), (*none, "--model.pool", "gmp")))
    arms.append(Arm("gmp-has-56", (("IV", "AlexNet-Max-HaS(56)"),), (*_has(size56), "--model.pool", "gmp")))
    for cells in (5, 11):
        patches = scale.conv1_patches(cells)
        conv1 = ("--hide.method", "conv1", "--hide.preset", "null", "--hide.patch_sizes", patches)
        arms.append(Arm(f"conv1-{cells}", (("V", f"AlexNet-HaS-conv1-{cells}"),), conv1))
    for percent in (25, 33, 66, 75):
        row = f"AlexNet-HaS-p{percent}"
        arms.append(Arm(f"p{percent}", (("VI", row),), _has(size56, "--hide.p_hide", f"0.{percent}")))
    return arms


def classification_arms(scale: Scale, network: str) -> list[Arm]:
    """Table VIII, and Random Erasing beside it."""
    return [
        Arm("full", (("VIII", "Full"),), ("--hide.method", "none")),
        Arm("has", (("VIII", "HaS"),), ("--hide.method", "has")),
        Arm("random-erasing", (("peer", "Random Erasing"),), ("--hide.method", "random-erasing")),
    ]


ARMS = {"localisation": localisation_arms, "classification": classification_arms}
