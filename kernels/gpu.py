"""The CUDA kernels through CuPy: compile a specialisation once per device, launch it on the stream that is given.

On the hot path nothing is allocated but an output that the caller did not bring, nothing is copied to the device
(per-sample values travel as kernel arguments, see ``launch_layout.py``) and nothing waits for it. What the caller
must keep alive until the stream has done the work: the arrays.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali.kernels import contract
from has_dali.kernels.device_arrays import (
    DTYPES,
    Buffer,
    buffer_of,
    element_name,
    fill_bits,
    image_batch,
    is_device_array,
    sample_keys,
)
from has_dali.kernels.launch import (
    OUTPUTS,
    DeviceArray,
    Images,
    SampleKeys,
    fill_kind,
    plan_hide,
    plan_launch,
    plan_resize,
)
from has_dali.kernels.launch_layout import (
    CHANNEL_CAPACITY,
    CLASSIC_PARAMETER_BYTES,
    PARAMETER_BYTES,
    Plan,
    Specialisation,
)
from has_dali.kernels.policy import HideAndSeek

__all__ = ["CudaUnavailableError", "hide", "plan_launch", "resize_mirror_normalize_hide", "unavailable_reason"]
__all__ += ["warm_up_hide", "warm_up_resize"]

logger = logging.getLogger(__name__)
COMPILE_OPTIONS = ("--std=c++17",)
LARGE_PARAMETERS_SINCE = 12_010  # CUDA 12.1, of the driver
FILL_CACHE_ENTRIES = 64
ALIGNED_ADDRESS = 256  # what an allocator returns; stands in for addresses in a warm-up

_functions: dict[tuple[int, Specialisation], Any] = {}
_fills: OrderedDict[tuple[int, bytes], Any] = OrderedDict()
_lock = threading.Lock()


class CudaUnavailableError(RuntimeError):
    """CuPy, the driver, a device or NVRTC is missing; the message says which and what to do."""


@lru_cache(maxsize=1)
def kernel_source() -> str:
    """Text of ``hide_and_seek.cu``."""
    return resources.files("has_dali.kernels").joinpath("hide_and_seek.cu").read_text(encoding="utf-8")


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise CudaUnavailableError(
            f"CuPy cannot be imported ({error}): install the extra cuda13 (or cuda12), or use device='cpu'"
        ) from error
    return cupy


def unavailable_reason() -> str | None:
    """Why this implementation cannot run here, or None where it can. Creates no CUDA context."""
    try:
        cupy = _cupy()
    except CudaUnavailableError as error:
        return str(error)
    try:
        if cupy.cuda.runtime.getDeviceCount() > 0:
            return None
    except Exception as error:  # CuPy raises its own types, and OSError for a driver library that will not load
        return f"CuPy finds no usable CUDA driver ({error})"
    return "CuPy finds no CUDA device"


# ---- compiling and launching -------------------------------------------------------------------------------


def _compile(cupy: Any, specialisation: Specialisation) -> Any:
    """The compiled function on the current device."""
    try:
        module = cupy.RawModule(
            code=kernel_source(), options=(*COMPILE_OPTIONS, *specialisation.options()), backend="nvrtc"
        )
        return module.get_function(specialisation.kernel)
    except Exception as error:
        raise CudaUnavailableError(
            f"{specialisation.kernel}: CuPy could not compile or load the kernel ({type(error).__name__}: {error});"
            " check that the CUDA runtime's NVRTC is installed (`has-dali doctor`), or use device='cpu'"
        ) from error


def _function(cupy: Any, specialisation: Specialisation) -> Any:
    """The function for the current device, compiled when first asked for."""
    key = (int(cupy.cuda.runtime.getDevice()), specialisation)
    function = _functions.get(key)
    if function is None:
        with _lock:
            if key not in _functions:
                _functions[key] = _compile(cupy, specialisation)
                logger.debug("compiled %s on device %d: %s", specialisation.kernel, key[0], specialisation.defines)
            function = _functions[key]
    return function


class _StreamHandle:
    """A stream by its handle, in the protocol that CuPy asks for."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        """Protocol version and handle."""
        return (0, self.handle)


def _stream(cupy: Any, handle: int) -> Any:
    """CuPy's view of a stream that somebody else owns; made for each call, so that it never outlives its owner."""
    if handle == 0:
        return cupy.cuda.Stream.null
    if hasattr(cupy.cuda.Stream, "from_external"):
        return cupy.cuda.Stream.from_external(_StreamHandle(handle))
    return cupy.cuda.ExternalStream(handle)


def _parameter_bytes(cupy: Any) -> int:
    large = int(cupy.cuda.runtime.driverGetVersion()) >= LARGE_PARAMETERS_SINCE
    return PARAMETER_BYTES if large else CLASSIC_PARAMETER_BYTES


def _launch(cupy: Any, plan: Plan | None) -> None:
    """Queue a plan on CuPy's current stream."""
    if plan is None:
        return
    function = _function(cupy, plan.specialisation)
    for launch in plan.launches:
        function((launch.grid,), (launch.block,), (launch.arguments,), shared_mem=launch.shared_bytes)


def _check_device(cupy: Any, name: str, pointer: int) -> None:
    """The memory at ``pointer`` must belong to the current device: another one's faults in the kernel."""
    if pointer == 0:  # nothing is there
        return
    current, owner = int(cupy.cuda.runtime.getDevice()), int(cupy.cuda.runtime.pointerGetAttributes(pointer).device)
    if owner != current:
        raise ValueError(f"{name}: on CUDA device {owner}, but device {current} is current; move it, or switch device")


def _check_keys(cupy: Any, keys: SampleKeys) -> None:
    for name, value in (("sample_ids", keys.ids), ("epoch", keys.epochs), ("thresholds", keys.thresholds)):
        if isinstance(value, DeviceArray):
            _check_device(cupy, name, value.pointer)
    if isinstance(keys.mirrors, DeviceArray):
        _check_device(cupy, "mirror", keys.mirrors.pointer)


def _check_overlap(source: Buffer, target: Buffer, name: str) -> None:
    if target.pointer < source.pointer + source.nbytes and source.pointer < target.pointer + target.nbytes:
        raise ValueError(f"out: overlaps {name} without being the same array; give another array, or none")


# ---- hide --------------------------------------------------------------------------------------------------


def _device_fills(cupy: Any, bits: npt.NDArray, stream: Any) -> int:
    """Address of a long per-channel fill, uploaded once per device and kept."""
    key = (int(cupy.cuda.runtime.getDevice()), bits.tobytes())
    with _lock:
        if key not in _fills:
            _fills[key] = cupy.asarray(bits)
            stream.synchronize()  # once: later launches may come on another stream
            if len(_fills) > FILL_CACHE_ENTRIES:
                _fills.popitem(last=False)
        _fills.move_to_end(key)
        return int(_fills[key].data.ptr)


def hide(
    batch: Any,
    policy: HideAndSeek | None,
    sample_ids: Any,
    epoch: Any,
    *,
    fill: float | Sequence[float] = 0.0,
    layout: str = "NCHW",
    out: Any = None,
    p_hide: Any = None,
    thresholds: Any = None,
    dtype: str | None = None,
    stream: int = 0,
) -> Any:
    """Hide pixels of a batch on the current device.

    Args:
        batch: dense uint8, float16, bfloat16 or float32 array with ``__cuda_array_interface__``.
        policy: what to hide; None copies (or, in place, does nothing).
        sample_ids: (N,) integers on the host, or int64/uint64 on the device.
        epoch: one integer, or (N,) as ``sample_ids``.
        fill: one value or one per channel.
        layout: NCHW, NHWC or NCT. A channels-last NCHW batch is taken as it lies in memory.
        out: array for the result; ``batch`` itself works in place; None allocates.
        p_hide: probability instead of the policy's, one or (N,), on the host.
        thresholds: the same as 64-bit thresholds, which may be on the device.
        dtype: "bfloat16" for a batch that carries bfloat16 as 16-bit integers.
        stream: handle of the stream to launch on.

    Returns:
        ``out``, or a new CuPy array of the shape, order and dtype of ``batch``.

    Raises:
        CudaUnavailableError: CuPy, NVRTC or the driver is missing.
        TypeError, ValueError: an argument is wrong; the message names it.
    """
    cupy = _cupy()
    source = buffer_of("batch", batch)
    shape, interleaved = image_batch("batch", source, layout)
    bits = fill_bits(element_name("batch", source, dtype), fill, shape[1])
    keys = sample_keys(policy, shape[0], sample_ids, epoch, p_hide, thresholds)
    if 0 in shape:
        return _like(cupy, source, batch) if out is None else out
    _check_device(cupy, "batch", source.pointer)
    _check_keys(cupy, keys)
    with _stream(cupy, stream) as current:
        result = _like(cupy, source, batch) if out is None else out
        target = source if out is batch else buffer_of("out", result)
        if out is not None and target != source:
            _check_target(cupy, target, source)
        many = fill_kind(bits, shape[1]) == 2
        plan = plan_hide(
            input_pointer=source.pointer,
            output_pointer=target.pointer,
            shape=shape,
            interleaved=interleaved,
            fills=bits,
            policy=policy,
            keys=keys,
            fills_pointer=_device_fills(cupy, bits, current) if many else 0,
            parameter_bytes=_parameter_bytes(cupy),
        )
        _launch(cupy, plan)
    return result


def _like(cupy: Any, source: Buffer, batch: Any) -> Any:
    """A new array that lies in memory as ``source`` does."""
    if source.contiguous:
        return cupy.empty(source.shape, source.dtype)
    order = sorted(range(len(source.shape)), key=lambda axis: -source.strides[axis])
    dense = cupy.empty([source.shape[axis] for axis in order], source.dtype)
    return dense.transpose([order.index(axis) for axis in range(len(order))])


def _check_target(cupy: Any, target: Buffer, source: Buffer) -> None:
    if (target.shape, target.dtype, target.strides) != (source.shape, source.dtype, source.strides):
        raise ValueError(
            f"out: expected shape {source.shape}, dtype {source.dtype} and the batch's strides {source.strides},"
            f" got {target.shape}, {target.dtype}, {target.strides}"
        )
    _check_device(cupy, "out", target.pointer)
    if target.pointer != source.pointer:
        _check_overlap(source, target, "batch")


# ---- resize_mirror_normalize_hide --------------------------------------------------------------------------


def resize_mirror_normalize_hide(
    images: Any,
    policy: HideAndSeek | None,
    sample_ids: Any,
    epoch: Any,
    *,
    size: tuple[int, int] | None = (224, 224),
    mirror: Any = None,
    mean: float | Sequence[float] = contract.IMAGENET_MEAN,
    std: float | Sequence[float] = contract.IMAGENET_STD,
    fill_value: float | Sequence[float] | None = None,
    dtype: str = "float32",
    output_layout: str = "CHW",
    antialias: bool = True,
    p_hide: Any = None,
    thresholds: Any = None,
    out: Any = None,
    stream: int = 0,
) -> Any:
    """The fused operator on the current device.

    Args:
        images: list of (H, W, C) uint8 device arrays, or one (N, H, W, C); C from 1 to 4.
        policy: what to hide; None hides nothing.
        sample_ids: (N,) integers on the host, or int64/uint64 on the device.
        epoch: one integer, or (N,) as ``sample_ids``.
        size: (height, width) of the outputs; None resamples nothing.
        mirror: (N,) flags, on the host, or as int64/uint64 on the device; None mirrors nothing.
        mean: in pixel units (0..255), one number or one per channel.
        std: as ``mean``.
        fill_value: of hidden pixels, in pixel units; None is the mean, which comes out as exactly 0.
        dtype: float32, float16 or bfloat16 (which CuPy holds as uint16).
        output_layout: CHW or HWC.
        antialias: whether the filter grows with the scale when an axis shrinks.
        p_hide: probability instead of the policy's, one or (N,), on the host.
        thresholds: the same as 64-bit thresholds, which may be on the device.
        out: dense (N, ...) array, or a list of arrays where ``size`` is None; None allocates.
        stream: handle of the stream to launch on.

    Returns:
        ``out``, or a new CuPy array (N, C, H, W) or (N, H, W, C); where ``size`` is None and ``images`` is a list,
        a list of arrays.

    Raises:
        CudaUnavailableError: CuPy, NVRTC or the driver is missing.
        TypeError, ValueError: an argument is wrong; the message names it.
    """
    cupy = _cupy()
    if output_layout not in ("CHW", "HWC"):
        raise ValueError(f"output_layout={output_layout!r}: expected CHW or HWC")
    if dtype not in OUTPUTS:
        raise ValueError(f"dtype={dtype!r}: expected one of {', '.join(OUTPUTS)}")
    source, shapes = _images(cupy, images)
    if not 1 <= source.channels <= CHANNEL_CAPACITY:
        raise ValueError(f"images: {source.channels} channels, expected 1 to {CHANNEL_CAPACITY}")
    scale, shift, fill = contract.normalization(mean, std, fill_value, source.channels)
    keys = sample_keys(policy, source.count, sample_ids, epoch, p_hide, thresholds, mirror)
    _check_keys(cupy, keys)
    wanted = [_output_shape(size or shape[:2], source.channels, output_layout) for shape in shapes]
    with _stream(cupy, stream):
        result, outputs = _outputs(cupy, out, wanted, dtype, as_list=size is None and not source.uniform())
        plan = plan_resize(
            images=source,
            outputs=outputs,
            size=size,
            scale=scale,
            shift=shift,
            fill=fill,
            policy=policy,
            keys=keys,
            dtype=dtype,
            interleaved=output_layout == "HWC",
            antialias=antialias,
            parameter_bytes=_parameter_bytes(cupy),
        )
        _launch(cupy, plan)
    return result


def _images(cupy: Any, images: Any) -> tuple[Images, list[tuple[int, ...]]]:
    """The inputs as the plan takes them, and their shapes."""
    if is_device_array(images):
        batch = buffer_of("images", images)
        _check_image("images", batch, 4)
        count, height, width, channels = batch.shape
        if count:
            _check_device(cupy, "images", batch.pointer)
        return Images(batch.pointer, height, width, count, channels, height * width * channels), [
            batch.shape[1:]
        ] * count
    buffers = [buffer_of(f"images[{i}]", image) for i, image in enumerate(images)]
    for i, buffer in enumerate(buffers):
        _check_image(f"images[{i}]", buffer, 3)
        _check_device(cupy, f"images[{i}]", buffer.pointer)
        if buffer.shape[2] != buffers[0].shape[2]:
            raise ValueError(f"images[{i}]: {buffer.shape[2]} channels, but images[0] has {buffers[0].shape[2]}")
    shapes = [buffer.shape for buffer in buffers]
    table = np.array([(b.pointer, b.shape[0], b.shape[1]) for b in buffers], np.uint64).reshape(-1, 3)
    channels = shapes[0][2] if shapes else 3
    return Images(table[:, 0].copy(), table[:, 1].copy(), table[:, 2].copy(), len(buffers), channels), shapes


def _check_image(name: str, buffer: Buffer, axes: int) -> None:
    if buffer.dtype != np.uint8 or len(buffer.shape) != axes:
        raise TypeError(f"{name}: expected uint8 with {axes} axes, got {buffer.dtype} with shape {buffer.shape}")
    if not buffer.contiguous:
        raise ValueError(f"{name}: expected a dense array, got strides {buffer.strides} in bytes; copy it first")


def _output_shape(size: Sequence[int], channels: int, layout: str) -> tuple[int, ...]:
    return (channels, *size) if layout == "CHW" else (*size, channels)


def _outputs(
    cupy: Any, out: Any, wanted: list[tuple[int, ...]], dtype: str, *, as_list: bool
) -> tuple[Any, int | npt.NDArray[np.uint64]]:
    """The result, allocated or checked, and its address or addresses."""
    storage = np.dtype("uint16" if dtype == "bfloat16" else dtype)
    if as_list:
        result = [cupy.empty(shape, storage) for shape in wanted] if out is None else out
        if len(result) != len(wanted):
            raise ValueError(f"out: expected {len(wanted)} arrays, one per image, got {len(result)}")
        buffers = [buffer_of(f"out[{i}]", array) for i, array in enumerate(result)]
        for i, (buffer, shape) in enumerate(zip(buffers, wanted, strict=True)):
            _check_output(cupy, f"out[{i}]", buffer, shape, storage)
        return result, np.array([buffer.pointer for buffer in buffers], np.uint64)
    shape = (len(wanted), *(wanted[0] if wanted else (0, 0, 0)))
    result = cupy.empty(shape, storage) if out is None else out
    buffer = buffer_of("out", result)
    if wanted:
        _check_output(cupy, "out", buffer, shape, storage)
    return result, buffer.pointer


def _check_output(cupy: Any, name: str, buffer: Buffer, shape: tuple[int, ...], storage: np.dtype) -> None:
    if buffer.shape != shape or buffer.dtype.itemsize != storage.itemsize or not buffer.contiguous:
        raise ValueError(f"{name}: expected dense {storage} of shape {shape}, got {buffer.dtype} of {buffer.shape}")
    _check_device(cupy, name, buffer.pointer)


# ---- before the first batch --------------------------------------------------------------------------------


def warm_up_hide(
    policy: HideAndSeek,
    shape: Sequence[int],
    *,
    dtype: str = "float32",
    layout: str = "NCHW",
    in_place: bool = False,
    fill: float | Sequence[float] = 0.0,
    keys_on_device: bool = False,
) -> None:
    """Compile what ``hide`` will launch for aligned batches of this ``shape``, on the current device."""
    cupy = _cupy()
    stand_in = Buffer(ALIGNED_ADDRESS, tuple(shape), np.dtype(f"u{DTYPES[dtype]}"), ())
    size = dict(zip(layout, shape, strict=True))
    channels = size["C"]
    plan = plan_hide(
        input_pointer=stand_in.pointer,
        output_pointer=stand_in.pointer * (1 if in_place else 2),
        shape=(size["N"], channels, size.get("H", 1), size["W"] if "W" in size else size["T"]),
        interleaved=layout == "NHWC",
        fills=fill_bits(dtype, fill, channels),
        policy=policy,
        keys=_stand_in_keys(size["N"], keys_on_device),
        parameter_bytes=_parameter_bytes(cupy),
    )
    if plan is not None:
        _function(cupy, plan.specialisation)


def warm_up_resize(
    policy: HideAndSeek | None,
    batch_size: int,
    *,
    size: tuple[int, int] | None = (224, 224),
    channels: int = 3,
    dtype: str = "float32",
    output_layout: str = "CHW",
    antialias: bool = True,
    ragged: bool = True,
    keys_on_device: bool = False,
    source: tuple[int, int] = (256, 256),
) -> None:
    """Compile what ``resize_mirror_normalize_hide`` will launch for such batches, on the current device.

    ``source`` is the images' (height, width); it matters where ``size`` is None, since alignment follows from it.
    """
    cupy = _cupy()
    many = np.full(batch_size, ALIGNED_ADDRESS, np.uint64)
    ones = np.ones(channels, np.float32)
    plan = plan_resize(
        images=Images(many if ragged else ALIGNED_ADDRESS, *source, batch_size, channels),
        outputs=many if ragged and size is None else ALIGNED_ADDRESS,
        size=size,
        scale=ones,
        shift=ones,
        fill=ones,
        policy=policy,
        keys=_stand_in_keys(batch_size, keys_on_device),
        dtype=dtype,
        interleaved=output_layout == "HWC",
        antialias=antialias,
        parameter_bytes=_parameter_bytes(cupy),
    )
    if plan is not None:
        _function(cupy, plan.specialisation)


def _stand_in_keys(count: int, on_device: bool) -> SampleKeys:
    return SampleKeys(DeviceArray(ALIGNED_ADDRESS) if on_device else np.zeros(count, np.uint64))
