"""Every block of docs/remedies.md runs and prints what it says, and its tables are what the libraries do."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from doc_blocks import run_python_blocks

PAGE = Path(__file__).parents[1] / "docs/remedies.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="not a source checkout")


@pytest.fixture(scope="module")
def tables():
    """The script that writes the tables."""
    spec = importlib.util.spec_from_file_location("remedies_table", PAGE.with_name("remedies_table.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def on_page(name: str) -> list[list[str]]:
    """Cells of a table between its markers, without the rule beneath the header."""
    text = re.search(rf"<!-- {name}: begin -->\n(.*?)\n<!-- {name}: end -->", PAGE.read_text(encoding="utf-8"), re.S)
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in text.group(1).splitlines()]
    return [rows[0], *rows[2:]]


def columns(rows: list[list[str]]) -> dict[str, list[str]]:
    return {cells[0]: list(cells[1:]) for cells in zip(*rows, strict=True)}


def test_blocks_print_what_the_page_says() -> None:
    languages = {"python"} | ({"python torch"} if importlib.util.find_spec("torch") else set())
    assert run_python_blocks(PAGE, languages) >= 4


def test_the_table_of_clipping(tables) -> None:
    shown, now = columns(on_page("clipping")), columns(tables.clipping())
    assert shown["gradkern"] == now["gradkern"]
    steady = [i for i, case in enumerate(tables.CASES) if case.same_everywhere]
    for name in shown.keys() & now.keys():  # peers of the same version
        assert [shown[name][i] for i in steady] == [now[name][i] for i in steady], name


def test_the_table_of_loss_scaling(tables) -> None:
    pytest.importorskip("torch")
    shown, now = columns(on_page("scaling")), columns(tables.scaling())
    for name in shown.keys() & now.keys():
        assert shown[name] == now[name], name
    assert "gradkern" in shown.keys() & now.keys()
