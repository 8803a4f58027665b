"""Ranks as processes of their own, run as a script: ``python process_support.py JOBS.json``.

One launcher imports everything once and forks the ranks of every job from itself, before it has used a thread: four
worlds cost the imports of one. Ranks meet over gloo, and meet again at every step, so that unequal steps would be
found (as an error after the time limit), not passed over.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from nvidia.dali import fn, types  # noqa: F401 (imported once, before the forks)
from torch.nn.parallel import DistributedDataParallel

from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines import PolicySchedule, image_loader, stream  # noqa: F401
from has_dali.pipelines.image_batches import ImageLoader
from has_dali.pipelines.rank_check import check_ranks

POLICY = HideAndSeek((3, 5), seed=4)
LIMIT = datetime.timedelta(seconds=30)
SCHEDULE = PolicySchedule(POLICY, p_hide=lambda epoch: 0.2 + 0.1 * (epoch % 6))
SIZE = 16


def loader_of(job: dict[str, Any], rank: int) -> ImageLoader:
    """The loader of one rank."""
    train = job.get("train", True)
    # "rich": everything at once that decides batches and is new in an epoch or a draw.
    rich: dict[str, Any] = {"sampling": "class-balanced", "multi_view": 2, "policy": SCHEDULE}
    options = rich if job.get("rich") else {"policy": POLICY if train else None}
    return image_loader(
        job.get("data_of", {}).get(str(rank), job["data"]), job["global_batch"] // job["world"], train=train, size=SIZE,
        device="cpu", threads=1, seed=6, rank=rank, world_size=job["world"], on_error=job.get("on_error", "raise"),
        error_budget=job.get("error_budget", 0.5), **options,
    )  # fmt: skip


def described(batch: dict[str, torch.Tensor]) -> list[tuple[int, int, str]]:
    """Id, label and digest of the pixels of each sample."""
    digests = [hashlib.sha1(image.numpy().tobytes()).hexdigest() for image in batch["image"]]
    return list(zip(batch["id"].tolist(), batch["label"].tolist(), digests, strict=True))


def run_rank(job: dict[str, Any], rank: int) -> None:
    """Some epochs of one rank; its batches go to a file."""
    out, world = Path(job["out"]), job["world"]
    dist.init_process_group(
        "gloo", init_method=f"file://{out / 'meeting'}", rank=rank, world_size=world, timeout=LIMIT
    )  # fmt: skip
    loader = loader_of(job, rank)
    check_ranks(loader)
    if "state" in job:
        loader.load_state_dict(json.loads(Path(job["state"]).read_text()))
    if "epoch_of" in job:
        loader.set_epoch(json.loads(Path(job["epoch_of"]).read_text())["epoch"])
    result: dict[str, Any] = {"epochs": [], "resumed_at": loader.position()}
    model = DistributedDataParallel(fresh_model()) if job.get("learn") else None
    for _ in range(job.get("epochs", 1)):
        batches = []
        for batch in loader:
            batches.append(described(batch))
            if model is not None:
                learn(model, batch)
            steps = torch.tensor([len(batches), -len(batches)])
            dist.all_reduce(steps, op=dist.ReduceOp.MAX)
            assert steps[0] == -steps[1] == len(batches), "ranks are not at the same step"
            if rank == 0:
                part = out / "state.part"
                part.write_text(json.dumps(loader.state_dict()))
                part.rename(out / "state.json")
        result["epochs"].append(batches)
    result["report"] = loader.report()
    if model is not None:
        result["weights"] = [parameter.flatten().tolist() for parameter in model.parameters()]
    (out / f"rank{rank}.json").write_text(json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


def fresh_model() -> torch.nn.Module:
    """A tiny network, the same in every process."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIZE * SIZE, 3))


def learn(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> None:
    """One step of plain gradient descent."""
    model.zero_grad()
    torch.nn.functional.cross_entropy(model(batch["image"]), batch["label"]).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter -= 0.01 * parameter.grad


def launch(job: dict[str, Any]) -> None:
    """Fork the ranks of a job and wait for them.

    ``kill_at``: kill -9 all once so many samples are in the state. ``fails``: each must end by an error of its own.
    """
    Path(job["out"]).mkdir()
    ranks = [forked(job, rank) for rank in range(job["world"])]
    if "kill_at" in job:
        state, begin = Path(job["out"], "state.json"), time.monotonic()
        while not (state.exists() and reached(json.loads(state.read_text()), job["kill_at"])):
            if time.monotonic() - begin > LIMIT.total_seconds():
                sys.exit("the state to kill at was never written")
            time.sleep(0.001)
        for pid in ranks:
            os.kill(pid, signal.SIGKILL)
    codes = [os.waitpid(pid, 0)[1] for pid in ranks]
    expected = signal.SIGKILL if "kill_at" in job else os.EX_SOFTWARE << 8 if "fails" in job else 0
    if any(code != expected for code in codes):
        sys.exit(f"job {job['out']}: ranks ended with {codes}")


def reached(state: dict[str, Any], place: list[int]) -> bool:
    """The state is at a position or behind it."""
    return [state["epoch"], state["samples"]] >= place


def forked(job: dict[str, Any], rank: int) -> int:
    """A child process that runs one rank, and nothing of its parent's afterwards."""
    pid = os.fork()
    if pid:
        return pid
    code = os.EX_SOFTWARE
    try:
        run_rank(job, rank)
        code = 0
    except BaseException as error:
        Path(job["out"], f"rank{rank}.txt").write_text(f"{type(error).__name__}: {error}")
        if "fails" not in job:
            sys.stderr.write(f"rank {rank}: {type(error).__name__}: {error}\n")
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for one in json.loads(Path(sys.argv[1]).read_text()):
        launch(one)
