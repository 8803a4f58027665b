"""Did an operator do the job? Hidden fraction, fill, dtype, shape and visible pixels of what it made of its input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from has_dali.bench.harness import Verdict
from has_dali.bench.peers.op_job import CHANNELS, FUSED, Buffers, OpJob
from has_dali.bench.same_job import hidden_moments
from has_dali.kernels.contract import IMAGENET_STD

_SIGMAS = 5.0
_IMAGES = 64  # of an output: enough for the bounds, and the check stays shorter than the measurement
_FRACTION_SLACK = 2e-3
"""One box of half the area has whole pixels for sides: 0.5 px of 158 px on each of two axes, 0.6 % at worst for one
image and without bias; boxes and holes are configured within 0.3 %."""
_GREY_LEVEL = 0.5  # hiding before normalising rounds the fill to a grey level
_ROUNDING = {"float32": 1e-3, "float16": 4e-3}
"""Of values up to 2.7: normalisation as (x - m) / s or as x * (1 / s) - m / s, in the output's type or in float32."""


def checker(
    job: OpJob, buffers: Buffers, layout: str, to_numpy: Callable[[Any], npt.NDArray] = np.asarray
) -> Callable[[Sequence[Any]], Verdict]:
    """The equality check of a contender.

    Args:
        buffers: what its steps got, in turn.
        layout: of its outputs, "NHWC" or "NCHW".
        to_numpy: one output as an array.
    """
    return lambda outputs: judge(job, buffers, [to_numpy(output) for output in outputs], layout)


def judge(job: OpJob, buffers: Buffers, outputs: Sequence[npt.NDArray], layout: str) -> Verdict:
    """Whether outputs of pristine batches are what the job asks for."""
    dtype = job.output_dtype if job.kind == FUSED else job.dtype
    shape = (job.batch, CHANNELS, job.size, job.size)
    if layout == "NHWC":
        shape = (job.batch, job.size, job.size, CHANNELS)
    hidden_of_images: list[npt.NDArray] = []
    facts: dict[str, Any] = {"images": min(job.batch, _IMAGES) * len(outputs), "dtype": str(outputs[0].dtype)}
    for output in outputs:
        if str(output.dtype) != dtype:
            return Verdict(f"gives {output.dtype}, expected {dtype}", facts)
        if output.shape != shape:
            return Verdict(f"gives shape {output.shape}, expected {shape}", facts)
        seen = output[:_IMAGES]
        hidden, reason = _hidden(job, buffers, seen if layout == "NHWC" else seen.transpose(0, 2, 3, 1))
        if reason is not None:
            return Verdict(reason, facts)
        if job.batch > 1 and 0 < hidden.mean() < 1 and (hidden == hidden[:1]).all():
            return Verdict("hides the same pixels of every image of a batch", facts)
        hidden_of_images.append(hidden.mean(axis=(1, 2)))
    mean, variance = hidden_moments(job.policy, job.size)
    share = float(np.mean(hidden_of_images))
    bound = _SIGMAS * math.sqrt(variance / facts["images"]) + _FRACTION_SLACK
    facts |= {"hidden": share, "expected": mean, "bound": bound}
    if abs(share - mean) > bound:
        return Verdict(f"hides {share:.1%} of the pixels, expected {mean:.1%} +- {bound:.1%}", facts)
    return Verdict(None, facts)


def _hidden(job: OpJob, buffers: Buffers, output: npt.NDArray) -> tuple[npt.NDArray[np.bool_], str | None]:
    """Where an (N, H, W, C) output holds the fill, and what is wrong with the rest or with the fill."""
    fused = job.kind == FUSED
    expected = buffers.normalized if fused else buffers.pristine
    hidden = np.ones(output.shape[:3], np.bool_)
    untouched = np.ones(output.shape[:3], np.bool_)
    for channel in range(CHANNELS):
        out, reference = output[..., channel], expected[: len(output), ..., channel]
        if fused:
            hidden &= np.abs(out) <= _GREY_LEVEL / IMAGENET_STD[channel] + 1e-6
            untouched &= np.abs(out - reference) <= _ROUNDING[job.output_dtype]
        else:
            hidden &= out == job.fill
            untouched &= out == reference
    wrong = ~(hidden | untouched)
    if not wrong.any():
        return hidden, None
    values = np.unique(output[wrong][:1000], axis=0)
    if len(values) == 1:
        return hidden, f"fills with {values[0].tolist()}, expected {job.fill:g}"
    return hidden, f"{wrong.mean():.1%} of the pixels are neither as they were nor hidden"
