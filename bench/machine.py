"""What a measurement ran on: processor, limits, memory, GPU, versions, code. Nothing names a folder.

``facts`` is what stays the same during a run, ``state`` what does not: taken before and after, it shows whether
something else used the machine. Everything is read from the system's files and from ``nvidia-smi``; what cannot be
found is None, never guessed.
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from has_dali.bench.data_facts import data_facts as data_facts  # scopes take all facts from here
from has_dali.bench.data_facts import no_folders
from has_dali.doctor import environment
from has_dali.kernels.threads import available_cores

_PACKAGES = {
    "kornia": ("kornia",),
    "timm": ("timm",),
    "albumentations": ("albumentations", "albumentationsx"),
    "spdl": ("spdl", "spdl-core"),
    "ffcv": ("ffcv",),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
    "torchcodec": ("torchcodec",),
    "pyturbojpeg": ("PyTurboJPEG",),
    "llvmlite": ("llvmlite",),
}
_VARIABLES = re.compile(
    r"(OMP|MALLOC|MKL|OPENBLAS|NUMBA|KMP|HAS_DALI|DALI)_\w+|CUDA_VISIBLE_DEVICES|LD_PRELOAD|GLIBC_TUNABLES"
)
_COMMAND_SECONDS = 20.0
_UNLIMITED = 1 << 60  # cgroup v1 says "no limit" with a number near 2^63

# Name here -> nvidia-smi's name; asked apart, since one unknown name makes it refuse the whole question.
_GPU_FACTS = {
    "name": "name",
    "driver": "driver_version",
    "memory_mebibytes": "memory.total",
    "power_limit_watts": "power.limit",
    "max_sm_megahertz": "clocks.max.sm",
    "max_memory_megahertz": "clocks.max.memory",
    "pcie_generation": "pcie.link.gen.max",
    "pcie_width": "pcie.link.width.max",
    "ecc": "ecc.mode.current",
    "mig": "mig.mode.current",
}
_GPU_STATE = {
    "sm_megahertz": "clocks.sm",
    "memory_megahertz": "clocks.mem",
    "power_watts": "power.draw",
    "celsius": "temperature.gpu",
    "pcie_generation": "pcie.link.gen.current",
    "pcie_width": "pcie.link.width.current",
}
_THROTTLE_NAMES = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")  # the newer name first
_THROTTLE_BITS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "hardware power brake",
    0x100: "display clocks",
}


def facts() -> dict[str, Any]:
    """The machine, its limits, the versions and the code; JSON-able, imports nothing heavy."""
    known = environment()
    packages = {**known["packages"], **{name: _installed(names) for name, names in _PACKAGES.items()}}
    return {
        "python": known["python"],
        "system": known["system"],
        "cpu": {
            "model": known["cpu"],
            "logical_cores": os.cpu_count(),
            "usable_cores": available_cores(),
            "affinity": _ranges(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else None,
            "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            "numa_nodes": len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or None,
            "hypervisor": "hypervisor" in (_text("/proc/cpuinfo") or ""),
        },
        "memory_bytes": _memory("MemTotal"),
        "container": container_limits(),
        "gpus": gpu_query(_GPU_FACTS),
        "packages": packages,
        "cuda_runtime": _cuda_runtime(packages),
        "variables": {
            name: no_folders(value) for name, value in sorted(os.environ.items()) if _VARIABLES.fullmatch(name)
        },
        "git": git_state(Path(__file__).resolve().parent),
    }


def state() -> dict[str, Any]:
    """What changes while something runs: load average, free memory, the GPUs' clocks, heat and throttling."""
    gpus = gpu_query(_GPU_STATE)
    for gpu, reasons in zip(gpus, _throttle_reasons(), strict=False):
        gpu["throttle_reasons"] = reasons
    return {"load_average": list(os.getloadavg()), "memory_available_bytes": _memory("MemAvailable"), "gpus": gpus}


def described(before: Mapping[str, Any]) -> dict[str, Any]:
    """The ``machine`` entry of a document, at the end of a run that found the machine in the state ``before``."""
    return {**facts(), "before": dict(before), "after": state()}


def in_words(machine: Mapping[str, Any]) -> str:
    """One line about the ``machine`` of a document."""
    cpu, limit = machine["cpu"], machine["container"]["cpus"]
    memory = machine["memory_bytes"]
    parts = [
        cpu["model"] or "unknown processor",
        f"{cpu['usable_cores']} usable cores" + (f", limited to {limit:g} by the container" if limit else ""),
        *([f"{memory / 2**30:.0f} GiB"] if memory else []),
        *(["a virtual machine"] if cpu["hypervisor"] else []),
        ", ".join(f"{gpu['name']} (driver {gpu['driver']})" for gpu in machine["gpus"]) or "no GPU",
    ]
    return ", ".join(parts)


def container_limits(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> dict[str, Any]:
    """What the process's control groups (version 2, else 1) and those above them allow: the tightest of each.

    Args:
        root: where the control groups are mounted.
        membership: the file that says which ones this process is in.

    Returns:
        ``cpus`` (cores' worth of time per second), ``memory_bytes``; None where there is no limit.
    """
    groups: dict[str, str] = {}
    for line in (_text(membership) or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        groups |= dict.fromkeys(controllers.split(","), group)
    unified = groups.get("", "/")
    cpus, memory = [], []
    for folder in _upwards(root, unified):
        quota, _, period = (_text(folder / "cpu.max") or "").partition(" ")
        cpus.append(_quotient(quota, period))
        memory.append(_number(_text(folder / "memory.max")))
    for controller in ("cpu", "cpu,cpuacct"):
        for folder in _upwards(root / controller, groups.get("cpu", "/")):
            cpus.append(_quotient(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")))
    for folder in _upwards(root / "memory", groups.get("memory", "/")):
        memory.append(_number(_text(folder / "memory.limit_in_bytes")))
    limits = [int(value) for value in memory if value is not None and 0 < value < _UNLIMITED]
    return {
        "cpus": min((value for value in cpus if value is not None), default=None),
        "memory_bytes": min(limits, default=None),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the checkout that holds the package's files in ``folder``; None for an installed wheel.

    ``dirty``: code differs from that commit. Results and pages that a run rewrites do not count.
    """
    if _run("git", "-C", str(folder), "ls-files", "--error-unmatch", "__init__.py") is None:
        return None  # no git, no checkout, or a wheel installed somewhere below one
    commit = _run("git", "-C", str(folder), "rev-parse", "HEAD")
    top = _run("git", "-C", str(folder), "rev-parse", "--show-toplevel")
    if commit is None or top is None:
        return None
    changed = _run("git", "-C", top.strip(), "status", "--porcelain", "--", "*.py", "*.cu", "*.yaml", "*.toml")
    return {"commit": commit.strip(), "dirty": None if changed is None else bool(changed.strip())}


def gpu_query(fields: Mapping[str, str]) -> list[dict[str, Any]]:
    """One record per GPU of what ``nvidia-smi`` says; numbers as numbers, what it does not know as None."""
    text = _run("nvidia-smi", f"--query-gpu={','.join(fields.values())}", "--format=csv,noheader,nounits")
    if text is None and len(fields) > 1:  # an older one does not know every field: ask for each alone
        columns = [gpu_query({name: field}) for name, field in fields.items()]
        count = max(map(len, columns))
        blank = dict.fromkeys(fields)
        return [
            blank | {k: v for column in columns if i < len(column) for k, v in column[i].items()} for i in range(count)
        ]
    rows = csv.reader((text or "").splitlines(), skipinitialspace=True)
    return [dict(zip(fields, map(_value, row), strict=True)) for row in rows if len(row) == len(fields)]


def tidy_argv(argv: Sequence[str]) -> list[str]:
    """A command line without folders: of every path, also behind ``--option=``, the last component only."""
    words = []
    for word in argv:
        option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
        words.append(f"{option}{equals}{no_folders(value)}")
    return words


def _throttle_reasons() -> list[list[str]]:
    for name in _THROTTLE_NAMES:
        rows = gpu_query({"reasons": name})
        if rows:
            return [reasons_in(row["reasons"]) for row in rows]
    return []


def reasons_in(mask: Any) -> list[str]:
    """The names of the bits of nvidia-smi's throttle mask, such as ``0x0000000000000004``."""
    try:
        bits = int(str(mask), 16)
    except ValueError:
        return []
    return [name for bit, name in _THROTTLE_BITS.items() if bits & bit]


def _cuda_runtime(packages: Mapping[str, str | None]) -> str | None:
    """The CUDA version that torch was built for; from torch itself where it is loaded, else from its version."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return getattr(getattr(torch, "version", None), "cuda", None)
    found = re.search(r"\+cu(\d+)(\d)$", packages.get("torch") or "")
    return f"{found[1]}.{found[2]}" if found else None


def _run(*words: str) -> str | None:
    """Standard output of a command, or None where it is missing, fails or hangs."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=_COMMAND_SECONDS).stdout
    return None


def _text(path: str | Path) -> str | None:
    with contextlib.suppress(OSError, ValueError):
        return Path(path).read_text().strip()
    return None


def _upwards(mount: Path, group: str) -> list[Path]:
    """The folder of a control group and of all above it; a container may see only the mount itself."""
    inner = mount / group.strip("/")
    return [folder for folder in (inner, *inner.parents) if folder == mount or mount in folder.parents]


def _number(text: str | None) -> float | None:
    with contextlib.suppress(TypeError, ValueError):
        return float(text)  # type: ignore[arg-type]
    return None


def _quotient(quota: str | None, period: str | None) -> float | None:
    above, below = _number(quota), _number(period)
    return above / below if above is not None and above > 0 and below else None


def _memory(name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB", _text("/proc/meminfo") or "", re.MULTILINE)
    return 1024 * int(found[1]) if found else None


def _value(text: str) -> str | float | None:
    text = text.strip()
    if not text or text.startswith("[") or text in ("N/A", "Not Supported"):
        return None
    number = _number(text)
    return text if number is None else int(number) if number.is_integer() else number


def _ranges(cores: Sequence[int]) -> str:
    """Core numbers as "0-3,8"."""
    parts: list[list[int]] = []
    for core in cores:
        if parts and core == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], core]
        else:
            parts.append([core])
    return ",".join("-".join(map(str, part)) for part in parts)


def _installed(names: Sequence[str]) -> str | None:
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    return None
