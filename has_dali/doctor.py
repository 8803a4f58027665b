"""``has-dali doctor``: what is installed, which backend would run, and whether the CPU path really works."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from has_dali.console import Parser, Terminal, check_writable, write_json
from has_dali.kernels.threads import available_cores

# What is shown -> how the distribution may be called.
_PACKAGES = {
    "has-dali": ("has-dali",),
    "numpy": ("numpy",),
    "numba": ("numba",),
    "DALI": ("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
    "cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
    "numba-cuda": ("numba-cuda",),
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "pytorch-lightning": ("pytorch-lightning",),
    "pillow": ("pillow",),
    "scikit-image": ("scikit-image",),
    "matplotlib": ("matplotlib",),
}
_IMAGE_EDGE = 64
# 8 x 8 gray pixels: a real JPEG, with no package needed to make one.
_JPEG = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb004300100b0c0e0c0a100e0d0e1211101318281a181616183123251d283a333d3c"
    "3933383740485c4e404457453738506d51575f626768673e4d71797064785c656763ffc0000b080008000801011100ffc4001400010000"
    "0000000000000000000000000006ffc40014100100000000000000000000000000000000ffda0008010100003f0026ffd9"
)


class Finding(NamedTuple):
    """One line of the examination."""

    what: str
    state: str
    """"ok", "missing" (something optional) or "broken" (the CPU path does not work)."""
    detail: str
    remedy: str = ""


def doctor(argv: Sequence[str]) -> int:
    """``has-dali doctor``: exit code 0 where the CPU path works, else 1 with what is wrong and the remedy."""
    parser = Parser("has-dali doctor", "Versions, devices, the backend in use, and whether the CPU path works.")
    options = parser.parse_args(argv)
    if options.json is not None:
        check_writable(options.json)
    facts = environment()
    findings = examine()
    works = all(finding.state != "broken" for finding in findings)
    terminal = Terminal(options.quiet)
    _show(terminal, facts, findings, works)
    if options.json is not None:
        result = {
            "environment": facts,
            "findings": [finding._asdict() for finding in findings],
            "cpu_path_works": works,
        }
        write_json(options.json, result)
    return 0 if works else 1


def environment() -> dict[str, Any]:
    """Machine and versions, for reports; imports nothing heavy."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": _cpu_model(),
        "cores": available_cores(),
        "load_average": list(os.getloadavg()),
        "gpu_driver": _driver_version(),
        "packages": {name: _installed(names) for name, names in _PACKAGES.items()},
        "variables": {
            name: os.environ[name]
            for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMBA_CACHE_DIR", "LD_PRELOAD")
            if name in os.environ
        },
    }


def examine() -> list[Finding]:
    """Try every part of the CPU path, and say which backend ``device="auto"`` takes."""
    return [
        _tried("numba cache", _check_numba_cache, "set NUMBA_CACHE_DIR to a folder that you can write to"),
        _tried("hide (CPU)", _check_hide, "reinstall has-dali and numba"),
        _tried(
            "DALI pipeline (CPU)",
            _check_pipeline,
            "install DALI: pip install 'has-dali[cuda13]' (it runs without a GPU too)",
        ),
        _optional("backend", _check_backend),
        _optional("torch", _check_torch, "loaders and trainers need it: pip install 'has-dali[train]'"),
        _optional("decoder", _check_decoder),
    ]


def _tried(what: str, check: Callable[[], str], remedy: str) -> Finding:
    try:
        return Finding(what, "ok", check())
    except Exception as error:
        return Finding(what, "broken", _first_line(error), remedy)


def _optional(what: str, check: Callable[[], str], remedy: str = "") -> Finding:
    try:
        return Finding(what, "ok", check())
    except Exception as error:
        return Finding(what, "missing", _first_line(error), remedy)


def _first_line(error: Exception) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _check_numba_cache() -> str:
    """Where compiled kernels are kept; without a writable place each process would compile them again."""
    import numba

    from has_dali.kernels import cpu_hide

    kernels = (value for value in vars(cpu_hide).values() if isinstance(value, numba.core.dispatcher.Dispatcher))
    folder = next(kernels).stats.cache_path
    if folder is None or not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder or 'no folder'} is not writable")
    return str(folder)


def _check_hide() -> str:
    import numpy as np

    from has_dali.functional import hide
    from has_dali.kernels.policy import HideAndSeek

    policy = HideAndSeek(patch_sizes=(8,), seed=1)
    batch = np.full((4, 3, _IMAGE_EDGE, _IMAGE_EDGE), 200, np.uint8)
    ids = np.arange(4)
    hidden = hide(batch, policy, ids, 0, fill=0.0)
    expected = np.where(policy.mask(ids, 0, _IMAGE_EDGE, _IMAGE_EDGE)[:, None], 0, batch)
    if not np.array_equal(hidden, expected):
        raise RuntimeError("masks differ from the reference implementation")
    return "masks equal the reference"


def _check_pipeline() -> str:
    """Decode, crop, normalise and hide one small JPEG with DALI on the CPU."""
    import numpy as np
    from nvidia.dali import Pipeline, fn, types

    import has_dali.fn as hfn
    from has_dali.kernels.policy import HideAndSeek

    policy = HideAndSeek(patch_sizes=(8,), seed=1)
    jpeg = np.frombuffer(_JPEG, np.uint8)
    pipeline = Pipeline(1, 1, None)
    with pipeline:
        encoded, ids = fn.external_source(
            source=lambda: ([jpeg], np.array([7])),
            num_outputs=2,
            batch=True,
            dtype=[types.UINT8, types.INT64],
            ndim=[1, 0],
        )
        images = fn.decoders.image(encoded, output_type=types.RGB)
        size = (_IMAGE_EDGE, _IMAGE_EDGE)
        pipeline.set_outputs(hfn.resize_mirror_normalize_hide(images, policy, sample_ids=ids, epoch=0, size=size))
    (output,) = pipeline.run()
    mask = policy.mask([7], 0, *size)[0]
    if not np.array_equal((np.asarray(output.as_array())[0] == 0).all(axis=0), mask):
        raise RuntimeError("the pipeline's masks differ from the reference implementation")
    return f"a JPEG went through decode, resize, normalise and hide; {mask.mean():.0%} hidden, as the reference says"


def _check_backend() -> str:
    from has_dali.kernels.dispatch import choose_backend

    name, reason = choose_backend(device="auto")
    return f"{name}: {reason}"


def _check_torch() -> str:
    import torch

    if not torch.cuda.is_available():
        return "no CUDA device: loaders deliver to the CPU, whatever the backend"
    count = torch.cuda.device_count()
    return ", ".join(torch.cuda.get_device_name(i) for i in range(count))


def _check_decoder() -> str:
    """Where JPEGs are decoded: nvImageCodec inside DALI, on the CPU by libjpeg-turbo."""
    from nvidia.dali import fn

    for name in ("image_slice", "image_random_crop"):
        if not hasattr(fn.decoders, name):
            raise ImportError(f"DALI lacks fn.decoders.{name}")
    return "DALI decodes the crop box only; on the CPU" + (" and the GPU" if _driver_version() else "")


def _cpu_model() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _driver_version() -> str | None:
    """The CUDA driver's own version, such as "13.0"; None where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        number = ctypes.c_int()
        driver.cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def _installed(names: Sequence[str]) -> str | None:
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    return None


def _show(terminal: Terminal, facts: dict[str, Any], findings: Sequence[Finding], works: bool) -> None:
    driver = facts["gpu_driver"]
    rows = [
        ["python", facts["python"]],
        ["machine", f"{facts['cpu']}, {facts['cores']} usable cores"],
        ["CUDA driver", driver or "none: the CPU path is used"],
        *([name, found or "not installed"] for name, found in facts["packages"].items()),
    ]
    terminal.table("Environment", ["", "found"], rows, left=True)
    terminal.table("Examination", ["part", "state", "detail"], [finding[:3] for finding in findings], left=True)
    for finding in findings:
        if finding.state != "ok" and finding.remedy:
            terminal.say(f"{finding.what}: {finding.remedy}")
    terminal.say(
        "the CPU path works" if works else "the CPU path does not work; see above", "green" if works else "red"
    )
