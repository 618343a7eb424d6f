"""Every block of docs/compare.md runs and prints what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest
from doc_blocks import run_python_blocks

PAGE = Path(__file__).parents[1] / "docs/compare.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="not a source checkout")


def test_blocks_print_what_the_page_says() -> None:
    assert run_python_blocks(PAGE, {"python"}) == 6
