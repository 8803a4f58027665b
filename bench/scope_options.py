"""Options of scopes as numbers and names, with errors that say what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_MOST = 65536


def count(name: str, text: str | None, default: int, least: int = 1) -> int:
    """A whole number.

    Raises:
        ValueError: it is none, or out of range.
    """
    if text is None:
        return default
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= _MOST:
        raise ValueError(f"{name} {text}: expected a whole number from {least} to {_MOST}")
    return number


def counts(name: str, text: str | None, default: Sequence[int]) -> list[int]:
    """Whole numbers between commas, in ascending order.

    Raises:
        ValueError: one is none, or out of range.
    """
    if text is None:
        return list(default)
    return sorted({count(name, part, 1) for part in text.split(",")})


def known(name: str, text: str | None, names: Iterable[str]) -> list[str]:
    """Names between commas; all without a text.

    Raises:
        ValueError: one is not among ``names``.
    """
    choices = list(names)
    chosen = choices if text is None else text.split(",")
    for one in chosen:
        if one not in choices:
            raise ValueError(f"{name} {one}: expected some of {', '.join(choices)}")
    return chosen
