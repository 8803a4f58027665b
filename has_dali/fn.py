"""Hide-and-Seek as DALI operators: ``import has_dali.fn as hfn`` inside a pipeline definition.

How the callbacks enter the graph was chosen by measurement; docs/dali.md has the table. ``hide_and_seek`` is one
zero-copy call per batch (``operators.BatchOperator``); ``resize_mirror_normalize_hide`` runs per sample on DALI's own
threads without the GIL (``operators.SampleOperator``), into memory that DALI allocates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from has_dali import arguments, sample_functions
from has_dali.callbacks import HideCallback, HideKeys, ResizeCallback, ResizeKeys
from has_dali.kernels import contract, cpu
from has_dali.kernels.policy import HideAndSeek
from has_dali.keys import check_key, keys_node
from has_dali.launchers import CpuLauncher, CudaLauncher, Launcher
from has_dali.operators import BatchOperator, SampleOperator, require_schemas

__all__ = ["hide_and_seek", "resize_mirror_normalize_hide"]

IMAGENET_MEAN, IMAGENET_STD = contract.IMAGENET_MEAN, contract.IMAGENET_STD
NUMPY_DTYPES = {types.FLOAT: np.float32, types.FLOAT16: np.float16}


def hide_and_seek(
    images: DataNode | Sequence[DataNode],
    policy: HideAndSeek,
    sample_ids: DataNode | int | None = None,
    epoch: DataNode | int | None = None,
    fill_value: float | Sequence[Any] = 0.0,
    p_hide: DataNode | float | None = None,
    inplace: bool = False,
    return_mask: bool = False,
    layout: str | Sequence[str] | None = None,
) -> DataNode | list[DataNode]:
    """Hide cells of images (paper, section 3.1): all channels of a hidden pixel become ``fill_value``.

    All samples of a batch have one shape. Layouts: HWC, CHW, HW, and FHWC or FCHW (all frames of a sequence share
    one mask). Layout and ``source_info`` are kept; several inputs get theirs joined by ";".

    Args:
        images: one batch, or several that share the mask, such as an image and its label map (same height and
            width). Any dtype on the CPU; uint8, float16 or float32 on a GPU.
        policy: what is hidden how often.
        sample_ids: integer per sample; with ``epoch`` it determines the mask. None: drawn from DALI's random operators.
        epoch: integer, one or per sample. None: 0 where ``sample_ids`` is None too, else drawn.
        fill_value: one number or one per channel, in the images' own units; with several batches, a list with
            one such entry per batch.
        p_hide: instead of the policy's: one number, or one per sample (schedules), in [0, 1].
        inplace: write into the input's memory, which is faster. Only where nothing else reads ``images``:
            ``fn.copy`` it otherwise.
        return_mask: append the masks, (H, W) uint8, 1 = hidden.
        layout: of the batch, or one for each; None: read from the batches. On a GPU give it: reading it makes the host
            wait for every batch.

    Returns:
        The batch, or a list of batches where several were given or the mask is returned.

    Raises:
        TypeError, ValueError: at graph definition, naming the argument; values that only exist at run time (shapes,
            keys) are checked there, inside DALI's RuntimeError.
    """
    name = "has_dali.fn.hide_and_seek"
    require_schemas()
    batches = list(images) if isinstance(images, (list, tuple)) else [images]
    if not batches:
        raise ValueError(f"{name}: images: expected one batch or several, got an empty list")
    for i, batch in enumerate(batches):
        arguments.check_node(name, f"images[{i}]" if len(batches) > 1 else "images", batch)
    arguments.check_policy(name, policy, optional=False)
    policy, p_node = _hide_probability(name, policy, p_hide)
    fills = arguments.check_fills(name, fill_value, len(batches), several=isinstance(images, (list, tuple)))
    check_key(name, "sample_ids", sample_ids)
    check_key(name, "epoch", epoch)
    device = arguments.common_device(name, batches)
    layouts = arguments.check_layouts(name, layout, len(batches))
    seen = {f"batch{i}": _described(*pair) for i, pair in enumerate(zip(batches, layouts, strict=True))}
    packer = HideKeys(name, len(batches), bool(return_mask))
    keys = keys_node(packer, 1 + bool(return_mask), sample_ids=sample_ids, epoch=epoch, p_hide=p_node, **seen)
    keys, *masks = keys if return_mask else [keys]
    # Hiding is done in place, on memory that DALI owns: see launchers.py. A copy of DALI's keeps the input as it is.
    hidden = batches if inplace else [fn.copy(batch) for batch in batches]
    callback = HideCallback(launcher_for(device), policy, fills, p_node is not None, packer, device)
    operator = BatchOperator(callback, name, num_outputs=len(batches) + len(masks), device=device)
    outputs = operator(*(_on(device, node) for node in (*hidden, *masks, keys)))
    outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    if return_mask:
        outputs[-1] = fn.reinterpret(outputs[-1], layout="HW")
    return outputs if len(outputs) > 1 or isinstance(images, (list, tuple)) else outputs[0]


def resize_mirror_normalize_hide(
    images: DataNode,
    policy: HideAndSeek | None,
    sample_ids: DataNode | int | None = None,
    epoch: DataNode | int | None = None,
    size: int | Sequence[int] | None = (224, 224),
    mirror: DataNode | bool | None = None,
    mean: float | Sequence[float] = IMAGENET_MEAN,
    std: float | Sequence[float] = IMAGENET_STD,
    fill_value: float | Sequence[float] | None = None,
    dtype: Any = types.FLOAT,
    output_layout: str = "CHW",
    antialias: bool = True,
    p_hide: DataNode | float | None = None,
) -> DataNode:
    """Resize, mirror, normalise, change layout and hide in one pass that does no work for hidden pixels.

    Visible values equal ``fn.resize(interp_type=INTERP_LINEAR, antialias=antialias)`` followed by
    ``fn.crop_mirror_normalize`` within one grey level: DALI rounds to uint8 in between, this operator does not.

    Args:
        images: uint8 HWC with 1 to 4 channels; shapes may differ within the batch. (Of another dtype DALI itself says
            that ``in_types`` does not match.)
        policy: what is hidden; None: nothing.
        sample_ids, epoch, p_hide: as for ``hide_and_seek``.
        size: (height, width) or one side for both, in pixels; None: no resampling.
        mirror: flip left-right: one flag or integer per sample. The mask is not flipped.
        mean, std: one number or one per channel, in pixel units (0..255).
        fill_value: hidden pixels, in pixel units; None: ``mean``, which gives exactly 0 after normalisation.
        dtype: ``types.FLOAT`` or ``types.FLOAT16``.
        output_layout: "CHW" or "HWC".
        antialias: triangular filter when shrinking, as DALI's ``resize``.

    Raises:
        TypeError, ValueError: at graph definition, naming the argument; values that only exist at run time (shapes,
            keys) are checked there, inside DALI's RuntimeError.
    """
    name = "has_dali.fn.resize_mirror_normalize_hide"
    require_schemas()
    arguments.check_node(name, "images", images)
    arguments.check_policy(name, policy, optional=True)
    extent = arguments.check_size(name, size)
    arguments.check_choice(name, "output_layout", output_layout, ("CHW", "HWC"))
    arguments.check_choice(name, "dtype", dtype, (types.FLOAT, types.FLOAT16))
    channels = arguments.check_constants(name, mean, std, fill_value)
    for argument, value in (("sample_ids", sample_ids), ("epoch", epoch), ("mirror", mirror)):
        check_key(name, argument, value)
    device = arguments.common_device(name, [images])
    p_node = None
    if policy is None:  # no mask to key
        _hide_probability(name, HideAndSeek(), p_hide)  # checks it all the same
        sample_ids, epoch = 0, 0
    else:
        policy, p_node = _hide_probability(name, policy, p_hide)
    seen = {"mirror": mirror, "p_hide": p_node, "shapes": images.shape()}
    keys = keys_node(ResizeKeys(name, channels), sample_ids=sample_ids, epoch=epoch, **seen)
    constants: dict[str, Any] = {"mean": mean, "std": std, "fill_value": fill_value}
    options: dict[str, Any] = {"size": extent, "antialias": bool(antialias), "output_layout": output_layout}
    if device == "gpu":
        options |= {**constants, "dtype": NUMPY_DTYPES[dtype]}
        callback = ResizeCallback(launcher_for(device), policy, p_node is not None, options, name)
        return fn.dl_tensor_python_function(
            images, keys.gpu(), function=callback, batch_processing=True, synchronize_stream=False,
            output_layouts=output_layout, device=device,
        )  # fmt: skip
    settings = cpu.pack_settings(
        policy, extent, **constants, half=dtype == types.FLOAT16, planar=output_layout == "CHW",
        antialias=bool(antialias), channels=channels[1], own_p=p_node is not None,
    )  # fmt: skip
    # The extent travels as the shape of an empty tensor, see sample_functions.py.
    shape = np.empty((0, *(extent or (0, 0)), int(output_layout == "CHW")), np.int32)
    operator = SampleOperator(
        sample_functions.resize_run,
        sample_functions.resize_setup,
        name,
        outputs=[(dtype, 3)],
        inputs=[(types.UINT8, 3), (types.INT64, 1), (types.INT32, 1), (types.INT32, 4)],
    )
    output = operator(images, keys, types.Constant(settings.view(np.int32)), types.Constant(shape))
    return fn.reinterpret(output, layout=output_layout)


def launcher_for(device: str) -> Launcher:
    """What launches kernels on ``device``, "cpu" or "gpu"."""
    return CpuLauncher() if device == "cpu" else CudaLauncher()


def _on(device: str, node: DataNode) -> DataNode:
    return node if node.device == device else node.gpu()


def _described(batch: DataNode, layout: str | None) -> DataNode:
    """(1, 5) float32 per sample on the CPU: code of the layout, and the shape.

    It enters ``coord_transform`` as an argument, because what passes as an input carries ``source_info`` along, which
    ``hide_and_seek`` would then join to that of the images.
    """
    if layout is None:
        letters = fn.get_property(batch, key="layout")
        letters = letters.cpu() if letters.device == "gpu" else letters
    else:
        letters = types.Constant(np.frombuffer(layout.encode(), np.uint8))
    operator = SampleOperator(
        sample_functions.describe_run,
        sample_functions.describe_setup,
        "has_dali.fn.hide_and_seek",
        outputs=[(types.FLOAT, 1)],
        inputs=[(types.UINT8, 1), (types.INT64, 1)],
    )
    described = operator(letters, batch.shape())
    return fn.coord_transform(types.Constant(np.zeros((1, sample_functions.DESCRIBED), np.float32)), T=described)


def _hide_probability(
    name: str, policy: HideAndSeek, p_hide: DataNode | float | None
) -> tuple[HideAndSeek, DataNode | None]:
    """The policy with a constant ``p_hide`` put in, and the node of a ``p_hide`` per sample."""
    if p_hide is None or isinstance(p_hide, DataNode):
        return policy, p_hide
    return arguments.with_p_hide(name, policy, p_hide), None
