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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kB on Linux
    found = {"shown": sorted(shown), "broken": broken, "constant": constant, "peak_mib": peak}
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
