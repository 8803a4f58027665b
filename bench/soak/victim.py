"""A training-like process for ``kill``: loads its state, takes batches, and writes its state after each of them.

``python -m has_dali.bench.soak.victim IMAGES FOLDER BATCHES SEED THREADS PAUSE_MS``
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

BATCH_SIZE, SIZE = 8, 48
LOG, STATE = "digests.txt", "state.json"


def main(argv: list[str]) -> None:
    """Go on from the state in the folder, if there is one, up to the given number of batches."""
    images, folder = Path(argv[0]), Path(argv[1])
    batches, seed, threads, pause = int(argv[2]), int(argv[3]), int(argv[4]), float(argv[5]) / 1000

    from has_dali.kernels.policy import HideAndSeek
    from has_dali.pipelines.loader import image_loader
    from has_dali.pipelines.policy_schedule import PolicySchedule

    # Another policy in each epoch, and broken files: what is replaced must not depend on what was found before a kill.
    policy = PolicySchedule(HideAndSeek((0, 8, 16), seed=seed), p_hide=lambda epoch: 0.1 + epoch % 7 / 10)
    loader = image_loader(
        images, BATCH_SIZE, train=True, policy=policy, size=SIZE, seed=seed, device="cpu", threads=threads,
        on_error="skip", error_budget=0.05,
    )  # fmt: skip
    # "weights": a chain over all batches so far, as weights are, so an order that differs would show for good
    state: dict[str, Any] = {"done": 0, "written": 0, "replaced": 0, "weights": ""}
    counted = 0  # of the replaced samples in the state those that this process met
    if (folder / STATE).exists():
        state = json.loads((folder / STATE).read_bytes())
        loader.load_state_dict(state["loader"])
    with open(folder / LOG, "ab") as log:
        log.truncate(state["written"])  # what was written after the state is done again
        while state["done"] < batches:
            for batch in loader:
                digest = hashlib.sha256(state["weights"].encode())
                for name in sorted(batch):
                    digest.update(batch[name].numpy().tobytes())
                time.sleep(pause)
                line = f"{state['done']} {digest.hexdigest()}\n".encode()
                log.write(line)
                log.flush()
                state = {
                    "done": state["done"] + 1,
                    "written": state["written"] + len(line),
                    "weights": digest.hexdigest(),
                    "replaced": state["replaced"] + loader.report()["replaced"] - counted,
                    "loader": loader.state_dict(),
                }
                counted = loader.report()["replaced"]
                partial = folder / f"{STATE}.part"
                partial.write_text(json.dumps(state))
                os.replace(partial, folder / STATE)
                if state["done"] >= batches:
                    break


if __name__ == "__main__":
    main(sys.argv[1:])
