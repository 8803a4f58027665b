"""What the compiler made of a CUDA kernel: NVRTC to a cubin, then its resources and machine code read back.

Needs no GPU and no driver: NVRTC through cuda-bindings, and the programs of the PyPI packages
``nvidia-cuda-cuobjdump`` and ``nvidia-cuda-nvdisasm``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from has_dali.kernels import gpu
from has_dali.kernels.launch_layout import Specialisation

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)


class ToolMissingError(RuntimeError):
    """NVRTC, cuobjdump or nvdisasm is not installed; the message says what to install."""


@dataclass(frozen=True)
class Resources:
    """Per thread: registers, bytes of stack (spills and arrays) and of local memory; per block: static shared bytes."""

    registers: int
    stack_bytes: int
    local_bytes: int
    shared_bytes: int


def compile_cubin(specialisation: Specialisation, arch: int) -> bytes:
    """Machine code of one specialisation for ``sm_<arch>``.

    Raises:
        ToolMissingError: cuda-bindings or NVRTC is missing.
        RuntimeError: the source does not compile; the message is NVRTC's log.
    """
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise ToolMissingError(
            f"NVRTC is not available ({error}): pip install cuda-bindings nvidia-cuda-nvrtc"
        ) from error
    options = [*gpu.COMPILE_OPTIONS, *specialisation.options(), f"--gpu-architecture=sm_{arch}"]
    _, program = nvrtc.nvrtcCreateProgram(gpu.kernel_source().encode(), b"hide_and_seek.cu", 0, [], [])
    try:
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
        if int(status):
            log = b" " * nvrtc.nvrtcGetProgramLogSize(program)[1]
            nvrtc.nvrtcGetProgramLog(program, log)
            raise RuntimeError(f"{specialisation}: {log.decode(errors='replace')}")
        cubin = b" " * nvrtc.nvrtcGetCUBINSize(program)[1]
        nvrtc.nvrtcGetCUBIN(program, cubin)
        return cubin
    finally:
        nvrtc.nvrtcDestroyProgram(program)


@lru_cache
def _tool(name: str) -> str:
    """Path of ``cuobjdump`` or ``nvdisasm``: from its PyPI package, else from PATH."""
    try:
        import nvidia

        found = [p for base in nvidia.__path__ for p in Path(base).glob(f"cu1?/bin/{name}")]
    except ImportError:
        found = []
    path = str(found[0]) if found else shutil.which(name)
    if path is None:
        raise ToolMissingError(f"{name} is not installed: pip install nvidia-cuda-{name}")
    return path


def _run(tool: str, option: str, cubin: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        return subprocess.run([_tool(tool), option, str(path)], capture_output=True, text=True, check=True).stdout


def resources(cubin: bytes) -> Resources:
    """Resource usage of the only kernel in a cubin."""
    text = _run("cuobjdump", "-res-usage", cubin)

    def number(name: str) -> int:
        match = re.search(rf"\b{name}:(\d+)", text)
        if match is None:
            raise RuntimeError(f"cuobjdump prints no {name}: {text[:200]!r}")
        return int(match.group(1))

    return Resources(number("REG"), number("STACK"), number("LOCAL"), number("SHARED"))


def disassemble(cubin: bytes) -> list[str]:
    """Machine code, one label or instruction a line, in order."""
    lines = (re.sub(r"/\*.*?\*/", "", line).strip() for line in _run("nvdisasm", "-c", cubin).splitlines())
    return [line for line in lines if re.match(r"(\.L_\w+:|(@!?U?P\w+\s+)?[A-Z][A-Z0-9_.]*\b)", line)]
