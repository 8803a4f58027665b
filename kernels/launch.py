"""The launch plan of both CUDA kernels: pure functions from shapes and addresses to grid, block and arguments.

``gpu.py``, the host shim and the PTX tests all launch exactly what is planned here. Nothing here needs CuPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from has_dali.kernels.launch_hide import fill_kind, plan_hide
from has_dali.kernels.launch_keys import DeviceArray, PerSample, SampleKeys
from has_dali.kernels.launch_layout import Launch, Plan, Specialisation
from has_dali.kernels.launch_resize import OUTPUTS, SEGMENTS, Images, plan_resize

__all__ = ["OUTPUTS", "SEGMENTS", "DeviceArray", "Images", "Launch", "PerSample", "Plan", "SampleKeys"]
__all__ += ["Specialisation", "fill_kind", "plan_hide", "plan_launch", "plan_resize"]


def plan_launch(kernel: str, **arguments: Any) -> Plan | None:
    """``plan_hide`` or ``plan_resize`` by the name of the kernel."""
    planners: dict[str, Callable[..., Plan | None]] = {"hide": plan_hide, "resize_mirror_normalize_hide": plan_resize}
    if kernel not in planners:
        raise ValueError(f"kernel={kernel!r}: expected one of {', '.join(planners)}")
    return planners[kernel](**arguments)
