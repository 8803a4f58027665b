"""How much memory there is."""

from __future__ import annotations


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping, where the system says so."""
    try:
        with open("/proc/meminfo") as table:
            return next(int(line.split()[1]) * 1024 for line in table if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None


def gigabytes(count: int) -> str:
    """A number of bytes, in words."""
    return f"{count / 1e9:.3g} GB"
