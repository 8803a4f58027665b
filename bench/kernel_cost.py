"""What the CUDA kernels cost, from their machine code alone: ``python -m has_dali.bench.kernel_cost [--json FILE|-]``.

Nothing is run and no GPU is needed, so nothing here is a measurement. For each specialisation and architecture:
registers, shared memory and occupancy from the cubin; instructions per 16 bytes of output from the machine code; bytes
that an image moves; and two bounds in images/s, the memory's and the issue slots', of which the lower one binds.

How instructions are counted. ``hide``: the shortest way around its main loop for a vector that is stored whole
(out of place: read and stored); in place, vectors of which nothing is hidden take the shortest way without a store.
The fused kernel: all instructions of the loop over row segments, those of inner loops times the trips that they make
for the stated source (``_trips``), as if every pixel were visible. Drawing cells and building masks and tables, once
per tile, are left out, and so are vectors that the edge of a cell cuts. It is a model: good for comparing kernels and
for seeing which bound binds, no more.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from has_dali.bench import cubin
from has_dali.kernels.device_arrays import DTYPES
from has_dali.kernels.launch import SEGMENTS, Images, SampleKeys, plan_hide, plan_resize
from has_dali.kernels.launch_layout import BLOCK_THREADS, Plan
from has_dali.kernels.policy import HideAndSeek

WARP, VECTOR_BYTES = 32, 16
SIDE, CHANNELS, BATCH = 224, 3, 128
SOURCE_SIDE = 256  # of the decoded crop that the fused kernel resamples
ADDRESS = 2**20  # any aligned address
POLICIES = {name: HideAndSeek.preset(name) for name in ("wsol-mixed", "imagenet", "wsol-16", "wsol-56")}
TYPICAL_POLICY = "wsol-mixed"


@dataclass(frozen=True)
class Gpu:
    """Published figures: SMs, boost clock in Hz, bytes/s of memory, shared bytes and threads of an SM."""

    name: str
    sms: int
    clock: float
    bandwidth: float
    shared_bytes: int
    threads: int = 2048
    registers: int = 65_536
    schedulers: int = 4
    blocks: int = 32
    reserved_shared_bytes: int = 1024  # of each block


GPUS = {
    80: Gpu("A100", 108, 1.41e9, 2.0e12, 164 * 1024),
    90: Gpu("H100", 132, 1.755e9, 3.35e12, 228 * 1024),
    100: Gpu("B200", 148, 1.85e9, 8.0e12, 228 * 1024),
}


@dataclass(frozen=True)
class Row:
    """One specialisation on one architecture; bounds are in images/s, bytes are the mean over the policy's draws."""

    kernel: str
    dtype: str
    layout: str
    variant: str
    arch: str
    gpu: str
    registers: int
    shared_bytes: int
    local_bytes: int
    spill_bytes: int
    occupancy: float
    instructions_per_16_bytes: float
    bytes_per_image: dict[str, int]
    memory_bound: float
    issue_bound: float
    binds: str


def hidden_share(policy: HideAndSeek) -> float:
    """Mean share of hidden pixels."""
    return policy.p_apply * policy.p_hide * sum(size > 0 for size in policy.patch_sizes) / len(policy.patch_sizes)


# ---- the loops of the machine code -------------------------------------------------------------------------


@dataclass(frozen=True)
class Loop:
    """Lines ``first`` .. ``last`` of a listing, the latter a backward branch."""

    first: int
    last: int


def find_loops(listing: Sequence[str]) -> list[Loop]:
    """Loops of a listing, inner ones first; branches back to one label make one loop."""
    labels = {line[:-1]: i for i, line in enumerate(listing) if line.endswith(":")}
    ends: dict[int, int] = {}
    for i, line in enumerate(listing):
        match = re.search(r"\bBRA\b.*?\((\.L_\w+)\)", line)
        if match and labels.get(match.group(1), i) < i:
            ends[labels[match.group(1)]] = i
    return sorted((Loop(a, b) for a, b in ends.items()), key=lambda loop: loop.last - loop.first)


def _trips(body: str, taps: int, columns: int, vectors: float) -> float:
    """How often a loop inside the work loop runs, told by what it holds (see the module's text)."""
    if "MUFU.RCP" in body:
        return 0  # taps beyond the table of weights
    if re.search(r"STG\.E.*\.128", body):
        return vectors
    if "STG" in body:
        return 0  # edges of unaligned rows
    if "LDG.E.U8" in body:
        inner = len(re.findall(r"LDG\.E\.U8", body))
        return math.ceil(columns / WARP) if re.search(r"REDUX|SHFL", body) else taps / inner
    if "FFMA" in body:
        return taps / max(1, len(re.findall("FFMA", body)) / CHANNELS)
    return 1


def _lines(listing: Sequence[str], loop: Loop) -> str:
    return "\n".join(listing[loop.first : loop.last + 1])


def resize_instructions(listing: Sequence[str], vectors: float) -> float:
    """Instructions that a lane issues for one segment; ``vectors``: trips of the loop that stores it."""
    loops = find_loops(listing)
    work = next((x for x in loops if re.search(r"STG\.E.*\.128", t := _lines(listing, x)) and "LDG.E.U8" in t), None)
    if work is None:
        raise RuntimeError("the machine code has no loop that reads bytes and stores 128 bits")
    scale = SOURCE_SIDE / SIDE
    taps, columns = math.ceil(2 * scale), math.ceil((SEGMENTS[2] + 2) * scale)
    inner = [x for x in loops if x != work and work.first <= x.first and x.last <= work.last]
    trips = {x: _trips(_lines(listing, x), taps, columns, vectors) for x in inner}
    total = 0.0
    for i in range(work.first, work.last + 1):
        if not listing[i].endswith(":"):
            total += math.prod(trips[x] for x in inner if x.first <= i <= x.last)
    return total


def _successors(listing: Sequence[str], i: int, labels: dict[str, int]) -> list[int]:
    """Lines that may follow line ``i``."""
    line = listing[i]
    target = re.search(r"\bBRA\b.*?\((\.L_\w+)\)", line)
    if target:
        where = labels[target.group(1)]
        return [where, i + 1] if line.startswith("@") or re.search(r"BRA(\.\w+)* (!?U?P\d|~)", line) else [where]
    joined = re.search(r"\bBSYNC\S* (?:`?\()?(B\d+)", line)
    if joined:  # threads meet again at the label that the matching BSSY names
        for k in range(i, -1, -1):
            entry = re.search(rf"\bBSSY\S* {joined.group(1)}, `?\((\.L_\w+)\)", listing[k])
            if entry:
                return [labels[entry.group(1)]]
    return [] if re.search(r"^(EXIT|RET)\b", line) else [i + 1]


def shortest_way(listing: Sequence[str], loop: Loop, start: int, end: int, avoid: str = "") -> int | None:
    """Fewest instructions from line ``start`` to line ``end`` inside a loop; None where there is no way."""
    labels = {line[:-1]: i for i, line in enumerate(listing) if line.endswith(":")}
    queue, seen = [(0, start)], set()
    while queue:
        steps, i = heapq.heappop(queue)
        if i == end:
            return steps
        if i in seen or not loop.first <= i <= loop.last or (avoid and re.search(avoid, listing[i])):
            continue
        seen.add(i)
        for following in _successors(listing, i, labels):
            heapq.heappush(queue, (steps + (not listing[i].endswith(":")), following))
    return None


def hide_instructions(listing: Sequence[str]) -> tuple[int, int]:
    """Instructions per vector of ``hide``'s main loop: for one that is stored whole, and for one that is not."""
    store = next(i for i, line in enumerate(listing) if re.search(r"STG\.E.*\.128", line))
    loop = next(loop for loop in find_loops(listing) if loop.first < store < loop.last)
    load = [i for i in range(loop.first, loop.last) if re.search(r"LDG\.E.*\.128", listing[i])]
    stops = [loop.first, *load[:1], store, loop.last]
    legs = [shortest_way(listing, loop, a, b) for a, b in itertools.pairwise(stops)]
    if None in legs:
        raise RuntimeError("the main loop of hide is not understood")
    skipped = shortest_way(listing, loop, loop.first, loop.last, avoid=r"STG")
    stored = sum(leg for leg in legs if leg is not None) + 1
    return stored, stored if skipped is None else skipped + 1


# ---- rows --------------------------------------------------------------------------------------------------


def occupancy(gpu: Gpu, registers: int, shared_bytes: int) -> float:
    """Resident threads over the most that an SM holds."""
    by_registers = gpu.registers // (math.ceil(registers / 8) * 8 * BLOCK_THREADS)
    by_shared = gpu.shared_bytes // (shared_bytes + gpu.reserved_shared_bytes)
    return min(gpu.threads // BLOCK_THREADS, by_registers, by_shared, gpu.blocks) * BLOCK_THREADS / gpu.threads


def _row(kernel: str, variant: str, dtype: str, layout: str, arch: int, plan: Plan, output_bytes: int) -> Row:
    gpu = GPUS[arch]
    code = cubin.compile_cubin(plan.specialisation, arch)
    used, listing = cubin.resources(code), cubin.disassemble(code)
    resample = dict(plan.specialisation.defines).get("RESAMPLE")
    moved = {name: _bytes(kernel, variant, output_bytes, hidden_share(p)) for name, p in POLICIES.items()}
    all_vectors = output_bytes / VECTOR_BYTES
    if resample is None:
        stored_whole, skipped = hide_instructions(listing)
        per_vector = float(stored_whole)
        stored = hidden_share(POLICIES[TYPICAL_POLICY]) if variant == "in place" else 1.0
        issued = all_vectors * (stored * per_vector + (1 - stored) * skipped)
    else:
        vectors = SEGMENTS[resample] * CHANNELS * DTYPES[dtype] / VECTOR_BYTES / WARP  # of a lane, in one segment
        per_vector = resize_instructions(listing, math.ceil(vectors)) / vectors
        issued = per_vector * all_vectors
    memory = gpu.bandwidth / moved[TYPICAL_POLICY]
    issue = gpu.sms * gpu.schedulers * gpu.clock / (issued / WARP)
    shared = plan.launches[0].shared_bytes + used.shared_bytes
    return Row(
        kernel, dtype, layout, variant, f"sm_{arch}", gpu.name, used.registers, shared, used.local_bytes,
        used.stack_bytes, occupancy(gpu, used.registers, plan.launches[0].shared_bytes),
        round(per_vector, 1), moved, memory, issue, "memory" if memory < issue else "issue",
    )  # fmt: skip


def _bytes(kernel: str, variant: str, output_bytes: int, hidden: float) -> int:
    """Bytes that an image moves: what is read, which is never hidden, and what is written."""
    if kernel == "hide":
        return round(output_bytes * (hidden if variant == "in place" else 2 - hidden))
    side = SIDE if variant == "no resampling" else SOURCE_SIDE
    return round(side * side * CHANNELS * (1 - hidden) + output_bytes)


def _hide_plan(dtype: str, layout: str, in_place: bool) -> Plan:
    plan = plan_hide(
        input_pointer=ADDRESS,
        output_pointer=ADDRESS * (1 if in_place else 2),
        shape=(BATCH, CHANNELS, SIDE, SIDE),
        interleaved=layout == "NHWC",
        fills=np.zeros(CHANNELS, f"u{DTYPES[dtype]}"),
        policy=POLICIES[TYPICAL_POLICY],
        keys=SampleKeys(np.zeros(BATCH, np.uint64)),
    )
    assert plan is not None
    return plan


def _resize_plan(dtype: str, layout: str, variant: str) -> Plan:
    many, ones = np.full(BATCH, ADDRESS, np.uint64), np.ones(CHANNELS, np.float32)
    side = SIDE if variant == "no resampling" else SOURCE_SIDE
    plan = plan_resize(
        images=Images(many, side, side, BATCH, CHANNELS),
        outputs=many,
        size=None if variant == "no resampling" else (SIDE, SIDE),
        scale=ones,
        shift=ones,
        fill=ones,
        policy=POLICIES[TYPICAL_POLICY],
        keys=SampleKeys(np.zeros(BATCH, np.uint64)),
        dtype=dtype,
        interleaved=layout == "HWC",
        antialias=variant == "antialias",
    )
    assert plan is not None
    return plan


def cost_rows(architectures: Sequence[int] = tuple(GPUS)) -> list[Row]:
    """All rows: both kernels, each in the forms that batches of 224 x 224 images take."""
    pixels = SIDE * SIDE * CHANNELS
    rows = []
    for arch in architectures:
        for dtype in ("uint8", "float16", "bfloat16", "float32"):
            for layout in ("NCHW", "NHWC"):
                for variant in ("out of place", "in place"):
                    plan = _hide_plan(dtype, layout, variant == "in place")
                    rows.append(_row("hide", variant, dtype, layout, arch, plan, pixels * DTYPES[dtype]))
        for dtype in ("float16", "bfloat16", "float32"):
            for layout in ("CHW", "HWC"):
                for variant in ("no resampling", "linear", "antialias"):
                    plan = _resize_plan(dtype, layout, variant)
                    name = "resize_mirror_normalize_hide"
                    rows.append(_row(name, variant, dtype, layout, arch, plan, pixels * DTYPES[dtype]))
    return rows


def as_table(rows: Sequence[Row]) -> Table:
    """The rows for a terminal; bytes are those of the policy ``wsol-mixed``."""
    title = (
        f"From machine code, not measured: {SIDE} x {SIDE} x {CHANNELS}, {TYPICAL_POLICY}, source side {SOURCE_SIDE}"
    )
    table = Table(title=title)
    for name in ("kernel", "type", "GPU", "regs", "shared", "spill", "occupancy", "instr/16 B", "bytes/image"):
        table.add_column(name)
    for name in ("memory bound", "issue bound", "binds"):
        table.add_column(name)
    for row in rows:
        name = "hide" if row.kernel == "hide" else "fused"
        table.add_row(
            f"{name}, {row.variant}", f"{row.dtype} {row.layout}", f"{row.gpu} {row.arch}", str(row.registers),
            f"{row.shared_bytes:,}", str(row.spill_bytes), f"{row.occupancy:.0%}",
            f"{row.instructions_per_16_bytes:.0f}", f"{row.bytes_per_image[TYPICAL_POLICY]:,}",
            f"{row.memory_bound / 1e6:.1f} M/s", f"{row.issue_bound / 1e6:.1f} M/s", row.binds,
        )  # fmt: skip
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; with ``--json`` write ``{"rows": [...]}`` to a file, or to standard output for ``-``."""
    parser = argparse.ArgumentParser(prog="python -m has_dali.bench.kernel_cost", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write {'rows': [...]} here; - is standard output")
    options = parser.parse_args(arguments)
    try:
        rows = cost_rows()
    except cubin.ToolMissingError as error:
        sys.stderr.write(f"kernel_cost: {error}\n")
        return 1
    if options.json:
        text = json.dumps({"rows": [asdict(row) for row in rows]}, indent=1) + "\n"
        if options.json == "-":
            sys.stdout.write(text)
            return 0
        Path(options.json).write_text(text, encoding="utf-8")
    Console(width=190 if not sys.stdout.isatty() else None).print(as_table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
