"""Lines for the end of a test run, such as whether a real host was there; under pytest-xdist from all its workers."""

from __future__ import annotations

_LINES: list[str] = []


def tell(line: str) -> None:
    """Have the line printed once when all tests have run."""
    _LINES.append(line)


def lines() -> list[str]:
    """What was told, each line once."""
    return list(dict.fromkeys(_LINES))
