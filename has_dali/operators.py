"""How Python code enters a DALI graph: two thin operator classes, one per C++ schema that they drive.

``BatchOperator`` drives ``_JaxFunction``: one call per batch, zero-copy DLPack tensors in and out, uniform
shapes, layout and source_info kept, no process-wide lock; the GIL is held for the call only.
``SampleOperator`` drives ``NumbaFuncImpl``: a compiled function per sample on DALI's own threads, no GIL, ragged
shapes, output memory owned by DALI. Handing the schema a function that Numba caches on disk spares the
compilation that ``nvidia.dali.plugin.numba`` repeats for every operator instance.

Both schemas ship with DALI but are not public API: ``require_schemas`` fails with one clear message where a
release lacks them, and a test runs both against the installed DALI.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt
from nvidia.dali import backend, ops

from has_dali import dlpack, dropped_pipelines


def require_schemas() -> None:
    """Raise ImportError when the installed DALI lacks a schema that this module drives."""
    schemas: Any = backend
    for schema in ("_JaxFunction", "NumbaFuncImpl"):
        if schemas.TryGetSchema(schema) is None:
            raise ImportError(f"DALI lacks the operator schema {schema}: install nvidia-dali-cuda130 2.4 or newer")


def _shown_as(name: str) -> dict[str, str]:
    """Where DALI's error messages look for an operator's name."""
    module, _, function = name.rpartition(".")
    return {"_module": module, "_display_name": function}


_ops: Any = ops  # DALI generates these names at run time
_BatchBase: Any = _ops.python_op_factory("hide_and_seek", "_JaxFunction", "_JaxFunction", generated=False)
_SampleBase: Any = _ops.python_op_factory("fused", "NumbaFunction", "NumbaFuncImpl", generated=False)


class BatchOperator(_BatchBase):
    """Call ``function`` once per batch with whole-batch DLPack tensors; it returns a tuple of DLPack capsules.

    On the GPU the call is ``function(stream, *tensors)``. All inputs are on one device and of uniform shape.
    """

    def __init__(
        self, function: Callable[..., tuple[Any, ...]], name: str, num_outputs: int = 1, device: str = "cpu"
    ) -> None:
        dropped_pipelines.guard()
        dropped_pipelines.free()
        self.function = function  # the C++ side borrows id(function), so it must live as long as this object
        super().__init__(function_id=id(function), num_outputs=num_outputs, device=device, **_shown_as(name))


class SampleOperator(_SampleBase):
    """Call a compiled ``numba.cfunc`` for every sample on DALI's CPU threads.

    Args:
        run: cfunc with signature ``RUN_SIGNATURE``.
        setup: cfunc with signature ``SETUP_SIGNATURE`` that writes the output shapes.
        name: what DALI's error messages call the operator, "module.function".
        outputs: (DALI type, ndim) of each output.
        inputs: (DALI type, ndim) of each input, at most six.
    """

    def __init__(
        self, run: Any, setup: Any, name: str, outputs: Sequence[tuple[Any, int]], inputs: Sequence[tuple[Any, int]]
    ) -> None:
        self._functions = (run, setup)  # compiled code lives as long as the objects
        super().__init__(
            run_fn=run.address,
            setup_fn=setup.address,
            out_types=[dtype for dtype, _ in outputs],
            outs_ndim=[ndim for _, ndim in outputs],
            in_types=[dtype for dtype, _ in inputs],
            ins_ndim=[ndim for _, ndim in inputs],
            batch_processing=False,
            device="cpu",
            **_shown_as(name),
        )


def as_numpy(tensor: Any) -> npt.NDArray:
    """A NumPy view of a CPU tensor that DALI handed to a ``BatchOperator`` function; it keeps DALI's buffer alive."""
    return dlpack.view(tensor.__dlpack__(stream=None)).numpy()
