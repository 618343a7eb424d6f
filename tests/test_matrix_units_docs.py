"""The page on matrix units: its table is that of the code, its examples run, its picture's numbers are what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from gradkern import _units

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "matrix_units.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="needs a source checkout")


def table() -> str:
    lines = [
        "| unit | operands | instruction | L | F | EZ | float32 result | evidence |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for i in _units.instructions():
        floor = str(i.floor_float32) if i.floor_float16 is None else f"{i.floor_float32} / {i.floor_float16}"
        output = "13 bits" if i.float32_output == "truncated13" else "23 bits"
        name = f"{i.instruction}, as halves" if i.halves else i.instruction
        cells = [i.unit, i.operands, name, i.products, i.fraction_bits, floor, output, i.evidence]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def test_the_table_is_the_codes():
    text = PAGE.read_text()
    shown = text.split("tests/test_matrix_units_docs.py -->\n")[1].split("\n<!-- end -->")[0]
    assert shown == table()


def test_the_examples_run(capsys):
    scope: dict[str, object] = {}
    for block in PAGE.read_text().split("```python\n")[1:]:
        exec(block.split("```")[0], scope)
    assert capsys.readouterr().out == "[-0.875, 0.0, -0.5, -0.75]\n"


def test_the_bias_is_what_the_page_says():
    spec = importlib.util.spec_from_file_location("matrix_units_figure", DOCS / "matrix_units_figure.py")
    assert spec is not None
    assert spec.loader is not None
    figure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figure)
    half = [figure.bias("float16", unit, 4096) for unit in ("volta", "ampere", "hopper")]
    assert half == sorted(half)
    assert all(-2e-4 < value < -1e-5 for value in half)
    assert figure.bias("float8_e4m3fn", "ada", 4096) < -0.01
    assert abs(figure.bias("float8_e4m3fn", "blackwell.tcgen05", 4096)) < 1e-5
    assert abs(figure.bias("float16", "volta", 4096)) > abs(figure.bias("float16", "volta", 256))
