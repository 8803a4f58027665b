"""A process that loads damaged files for ``fuzz`` and writes down what became of each.

``python -m has_dali.bench.soak.fuzz_reader LIST RESULT TRAIN THREADS``: LIST holds one path a line.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

BATCH_SIZE, SIZE = 10, 48
# Address space beyond what the process has after its imports: a header may claim an image of 12 GB.
MEMORY = 6 * 2**30


def main(argv: list[str]) -> None:
    """One epoch; every id ends in ``shown``, ``broken`` or, wrongly, in neither."""
    files, result = Path(argv[0]).read_text().splitlines(), Path(argv[1])
    train, threads = argv[2] == "train", int(argv[3])

    from has_dali.kernels.policy import HideAndSeek
    from has_dali.pipelines.loader import image_loader

    options: dict[str, Any] = {"policy": HideAndSeek((0, 8, 16))} if train else {"crop": "warp"}
    loader = image_loader(
        files, min(BATCH_SIZE, len(files)), train=train, size=SIZE, device="cpu", threads=threads, mean=0.0, std=1.0,
        on_error="skip", error_budget=1.0, **options,
    )  # fmt: skip
    _limit_memory()
    shown: set[int] = set()
    constant: list[int] = []
    try:
        for batch in loader:
            ids = batch["id"].tolist()
            shown.update(sample_id for sample_id in ids if sample_id >= 0)
            if not train:  # hidden cells and narrow crops would look alike
                flat = batch["image"].flatten(1)
                same = (flat.amax(dim=1) == flat.amin(dim=1)).tolist()
                constant += [i for i, alike in zip(ids, same, strict=True) if alike and i >= 0]
    except RuntimeError as error:
        if "none is left to show" not in str(error):  # a list of broken files alone
            raise
    broken = {entry["id"]: entry["reason"] for entry in loader.report()["broken"]}
    result.write_text(json.dumps({"shown": sorted(shown), "broken": broken, "constant": constant}))


def _limit_memory() -> None:
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, hard))


if __name__ == "__main__":
    main(sys.argv[1:])
