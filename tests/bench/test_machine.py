"""Facts of the machine: plain data, no folders, limits as the system's files have them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from has_dali.bench import machine
from has_dali.bench.data_facts import cached_share, data_facts, no_folders
from has_dali.pipelines import ArraySource, open_source


def test_facts_are_plain_and_name_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/home/someone/cache")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    described = machine.described(machine.state())
    text = json.dumps(described)
    assert json.loads(text) == described and "/home/" not in text
    assert described["variables"]["NUMBA_CACHE_DIR"] == "cache" and described["variables"]["OMP_NUM_THREADS"] == "2"
    assert described["cpu"]["usable_cores"] == len(os.sched_getaffinity(0))
    peers = {"kornia", "timm", "albumentations", "spdl", "ffcv", "opencv", "torchcodec", "torch"}
    assert peers <= set(described["packages"])
    assert len(described["before"]["load_average"]) == len(described["after"]["load_average"]) == 3
    assert str(described["cpu"]["usable_cores"]) in machine.in_words(described)


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def test_container_limits_of_both_versions(tmp_path: Path) -> None:
    two, membership = tmp_path / "two", tmp_path / "cgroup"
    write(two / "pod", cpu__max="400000 100000", memory__max="max")
    write(two / "pod" / "job", cpu__max="150000 100000", memory__max="1073741824")
    membership.write_text("0::/pod/job\n")
    assert machine.container_limits(two, membership) == {"cpus": 1.5, "memory_bytes": 2**30}
    write(two / "pod" / "job", cpu__max="max 100000", memory__max="max")  # the limit above holds as well
    assert machine.container_limits(two, membership) == {"cpus": 4.0, "memory_bytes": None}
    one = tmp_path / "one"
    write(one / "cpu" / "job", cpu__cfs_quota_us="250000", cpu__cfs_period_us="100000")
    write(one / "memory" / "job", memory__limit_in_bytes="2147483648")
    membership.write_text("4:memory:/job\n1:cpu,cpuacct:/job\n")
    assert machine.container_limits(one, membership) == {"cpus": 2.5, "memory_bytes": 2**31}
    write(one / "cpu" / "job", cpu__cfs_quota_us="-1")
    write(one / "memory" / "job", memory__limit_in_bytes="9223372036854771712")
    assert machine.container_limits(one, membership) == {"cpus": None, "memory_bytes": None}
    assert machine.container_limits(tmp_path / "none", tmp_path / "none") == {"cpus": None, "memory_bytes": None}


def git(folder: Path, *words: str) -> None:
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", *author, *words], cwd=folder, check=True, capture_output=True)


def test_git_state(tmp_path: Path) -> None:
    package = tmp_path / "checkout" / "bench"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    assert machine.git_state(package) is None
    git(package.parent, "init")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-m", "first")
    state = machine.git_state(package)
    assert state is not None and len(state["commit"]) == 40 and state["dirty"] is False
    (package / "result.json").write_text("{}")  # what runs leave is no change of the code
    assert machine.git_state(package) == state
    (package / "new.py").write_text("1")
    assert machine.git_state(package) == {**state, "dirty": True}
    installed = package.parent / ".venv" / "bench"  # a wheel below a checkout belongs to no commit
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert machine.git_state(installed) is None


def nvidia_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(
        tmp_path,
        'case "$1" in *clocks_event_reasons*) exit 1;; *throttle*) echo 0x0000000000000044;;'
        ' *driver*) echo "NVIDIA H100, 580.1, 81559, 700.00, 1980, [N/A], 5, 16, Enabled, [N/A]";;'
        ' *) echo "1755, 2619, 98.50, 41, 5, 16";; esac',
        monkeypatch,
    )
    (gpu,) = machine.facts()["gpus"]
    assert gpu["name"] == "NVIDIA H100" and gpu["power_limit_watts"] == 700 and gpu["max_memory_megahertz"] is None
    (now,) = machine.state()["gpus"]
    assert now["sm_megahertz"] == 1755 and now["power_watts"] == 98.5
    assert now["throttle_reasons"] == ["power cap", "hardware thermal"]


def test_an_older_nvidia_smi_says_what_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, 'case "$1" in --query-gpu=name) echo "K80"; echo "K81";; *) exit 2;; esac', monkeypatch)
    found = machine.gpu_query({"name": "name", "driver": "driver_version"})
    assert found == [{"name": "K80", "driver": None}, {"name": "K81", "driver": None}]
    assert machine.reasons_in(None) == [] and machine.reasons_in("0x0") == []


def test_argv_without_folders() -> None:
    words = ["/usr/bin/has-dali", "bench", "loader", "/data/train/", "--json=/tmp/a.json", "--size", "224", "../x"]
    assert machine.tidy_argv(words) == ["has-dali", "bench", "loader", "train", "--json=a.json", "--size", "224", "x"]
    assert no_folders("/a/libjemalloc.so:/b/c.so") == "libjemalloc.so:c.so"


def test_fingerprint_of_files(jpeg_folder: Path) -> None:
    source = open_source(jpeg_folder)
    facts = data_facts(source, str(jpeg_folder))
    paths = [source.path(i) for i in range(len(source))]
    assert facts["images"] == 36 and facts["bytes"] == sum(map(os.path.getsize, paths))
    assert facts["name"] == jpeg_folder.name and (facts["median_width"], facts["median_height"]) == (160, 120)
    assert sum(facts["chroma_percent"].values()) == pytest.approx(100)
    assert data_facts(paths * 2)["fingerprint"] == facts["fingerprint"]  # listed again is the same set
    assert data_facts(paths[1:])["fingerprint"] != facts["fingerprint"]


def test_page_cache_share(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10000)
    (tmp_path / "b").write_bytes(b"")
    share = cached_share([str(tmp_path / "a"), str(tmp_path / "b")])
    assert share is None or share == 1.0  # just written


def test_images_in_memory() -> None:
    source = ArraySource.from_images(np.zeros((5, 8, 8, 3), np.uint8), np.arange(5))
    facts = data_facts(source, "set.npz")
    assert facts["images"] == 5 and facts["bytes"] == 5 * 8 * 8 * 3 and facts["name"] == "set.npz"
