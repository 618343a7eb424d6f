"""The pages on units: the table is that of the code, the examples print what they say, the picture's numbers are true."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from doc_blocks import run_python_blocks

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
        if i.rounds_each:
            continue
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


def test_the_blocks_print_what_the_pages_say():
    assert run_python_blocks(PAGE, {"python"}) == 4
    assert run_python_blocks(DOCS / "cpu_units.md", {"python"}) == 1


def test_the_bias_is_what_the_page_and_its_picture_say():
    spec = importlib.util.spec_from_file_location("matrix_units_figure", DOCS / "matrix_units_figure.py")
    assert spec is not None
    assert spec.loader is not None
    figure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figure)
    # By another implementation of the rules, which agrees with MMA-Sim: 4096 products of numbers in [0, 1).
    known = {
        ("float16", "volta"): -8.1e-5, ("float16", "ampere"): -4.5e-5, ("float16", "hopper"): -2.3e-5,
        ("float8_e4m3fn", "ada"): -6.6e-2, ("float8_e4m3fn", "hopper.wgmma"): -6.6e-2,
        ("float8_e4m3fn", "blackwell.tcgen05"): -4.8e-7,
    }  # fmt: skip
    for (fmt, unit), expected in known.items():
        assert figure.bias(fmt, unit, 4096) == pytest.approx(expected, rel=0.05), (fmt, unit)
    assert "4096 products lose 6.6 %" in PAGE.read_text()
    restarted = figure.bias("float8_e4m3fn", "hopper.wgmma", 4096, "restart:128")
    assert restarted == pytest.approx(figure.bias("float8_e4m3fn", "hopper.wgmma", 128), rel=0.1)
    assert abs(figure.bias("float16", "float32", 4096)) < 1e-7
