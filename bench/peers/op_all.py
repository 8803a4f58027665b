"""All contenders of the operator benchmark."""

from __future__ import annotations

from collections.abc import Sequence

from has_dali.bench.harness import Contender
from has_dali.bench.peers import op_bounds, op_dali, op_has_dali, op_libraries, op_torch
from has_dali.bench.peers.op_job import Buffers, OpJob

PEERS = (
    "python_loop",
    "torch_eager",
    "torch_compile",
    "torchvision_erasing",
    "timm_erasing",
    "kornia_erasing",
    "grid_dropout",
    "coarse_dropout",
    "dali_erase",
    "dali_grid",
)


def contenders(job: OpJob, buffers: Buffers, peers: Sequence[str] = PEERS) -> list[Contender]:
    """Ours and the bounds, always, and the named peers."""
    modules = (op_has_dali, op_bounds, op_torch, op_libraries, op_dali)
    everyone = [one for module in modules for one in module.contenders(job, buffers)]
    return [one for one in everyone if one.kind != "peer" or one.key in peers]
