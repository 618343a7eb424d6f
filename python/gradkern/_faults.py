"""Places where a test may interrupt an operation that promises all or nothing."""

from __future__ import annotations

from collections.abc import Callable

hook: Callable[[str], None] | None = None


def point(name: str) -> None:
    """Call the test's hook, if there is one."""
    if hook is not None:
        hook(name)
