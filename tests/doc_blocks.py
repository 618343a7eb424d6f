"""Code blocks of a page of Markdown: they run in order, in one namespace, and print what the page says they print."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language (with what follows it) and code of every block."""
    return re.findall(r"```([\w ]+)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def run_python_blocks(page: Path, languages: set[str]) -> int:
    """Run the blocks in one of these languages; return how many. A text block after one says what it prints."""
    namespace: dict[str, object] = {}
    found, ran = blocks(page), 0
    for index, (language, code) in enumerate(found):
        if language not in languages:
            continue
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, f"{page.name} block {index}", "exec"), namespace)
        ran += 1
        printed = [line.rstrip() for line in out.getvalue().strip().splitlines()]
        follows = found[index + 1] if index + 1 < len(found) else ("", "")
        shown = [line.rstrip() for line in follows[1].strip().splitlines()] if follows[0] == "text" else []
        assert printed == shown, f"{page.name} block {index}"
    return ran
