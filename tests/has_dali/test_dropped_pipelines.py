"""Pipelines that the collector frees while they work: in a process of its own, which would be ended."""

from __future__ import annotations

import subprocess
import sys
import threading

from has_dali import dropped_pipelines

DROPS = """
import gc
import numpy as np
from nvidia.dali import Pipeline, fn
import has_dali.fn as hfn
from has_dali import HideAndSeek, dropped_pipelines

gc.set_threshold(50, 1, 1)  # so that the collector runs in callbacks, too
images = [np.zeros((16, 16, 3), np.uint8)] * 8
for _ in range(150):
    pipeline = Pipeline(8, 2, None, prefetch_queue_depth=3)
    with pipeline:
        batch = fn.external_source(source=lambda: images, batch=True, layout="HWC")
        pipeline.set_outputs(hfn.resize_mirror_normalize_hide(batch, HideAndSeek((4,)), size=(16, 16)))
    pipeline.build()
    pipeline.schedule_run()
    pipeline.share_outputs()
    pipeline.release_outputs()
    for _ in range(2):
        pipeline.schedule_run()
    cycle = [pipeline]
    cycle.append(cycle)
    del pipeline, cycle
gc.collect()
dropped_pipelines.free()
print("alive", len(dropped_pipelines._ASIDE))
"""


def test_a_pipeline_is_not_freed_on_its_own_thread() -> None:
    done = subprocess.run([sys.executable, "-c", DROPS], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "alive 0\n"), done.stderr[-2000:]


def test_python_s_own_threads_free_at_once() -> None:
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(dropped_pipelines._foreign()))
    thread.start()
    thread.join()
    assert seen == [False] and not dropped_pipelines._foreign()
