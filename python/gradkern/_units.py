"""Matrix units: the table of their instructions, and the names of the ways to sum a dot product."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from gradkern import _core
from gradkern.formats import FormatLike, format_name

CHAINS = ("float64", "float32", "float16", "bfloat16")  # accumulators of the fma chain
FLOAT8 = ("float8_e4m3fn", "float8_e5m2")
EVIDENCE = {
    "S": "recorded outputs of the GPU are reproduced bit for bit (Khattak and Mikaitis 2025)",
    "K": "constants found by experiment on the GPU (Khattak and Mikaitis 2025)",
    "H": "probes of the GPU (Hawkeye)",
    "M": "the reference model MMA-Sim 2.1.1 agrees (arXiv 2511.10909)",
    "E": "the emulator mmaemu agrees",
    "U": "sources disagree, or there is no recording",
    "X": "compared bit for bit with the instruction or the library itself",
    "D": "defined by the vendor's documents",
}


@dataclass(frozen=True)
class Instruction:
    """One instruction of a matrix unit.

    Attributes
    ----------
    unit, instruction, operands : str
        Whose it is, its name, and what it multiplies (``float8``: e4m3fn or e5m2, each operand its own).
    k : int
        Products of one output.
    form : str
        ``chain``: fused steps in k ascending. ``halves``: operands become float16, two interleaved halves run from +0, and C is
        added last by one rounding. Others round each operation (`rounds_each`), and have no L, F and EZ.
    accumulators : tuple of str
        Formats that it accumulates in, the default first.
    products, fraction_bits : int
        L and F: products of one fused step, bits kept below the largest exponent.
    floor_float32, floor_float16 : int or None
        EZ: the least common exponent, by accumulator; None where there is no such accumulator.
    float32_output : str
        ``truncated`` (23 bits), or ``truncated13``.
    evidence : str
        Letters of `EVIDENCE`.
    """

    unit: str
    unit_id: int
    operands: str
    instruction: str
    k: int
    form: str
    accumulators: tuple[str, ...]
    products: int
    fraction_bits: int
    floor_float32: int
    floor_float16: int | None
    float32_output: str
    evidence: str

    @property
    def halves(self) -> bool:
        """Whether it works in two halves."""
        return self.form == "halves"

    @property
    def rounds_each(self) -> bool:
        """Whether it rounds after each operation, and has no fused steps."""
        return self.form not in ("chain", "halves")

    def floor(self, accumulate: str) -> int | None:
        """EZ with this accumulator."""
        return self.floor_float16 if accumulate == "float16" else self.floor_float32

    def rounding(self, accumulate: str) -> str:
        """How the sum of a step is rounded, in words."""
        if accumulate == "float16":
            return "to float16, ties to even"
        bits = 13 if self.float32_output == "truncated13" else 23
        return f"truncated to {bits} fraction bits of float32"


@cache
def instructions() -> tuple[Instruction, ...]:
    """Every instruction of every unit; a unit's first of some operands is its default."""
    return tuple(Instruction(**row) for row in _core.matrix_units())


@cache
def unit_ids() -> dict[str, int]:
    """Return the number of each unit in the kernels' interface, by name."""
    return {i.unit: i.unit_id for i in instructions()}


@cache
def _default_format(unit: str) -> str:
    return next(i.accumulators[0] for i in instructions() if i.unit == unit)


def operand_kind(fmt: str) -> str:
    """Write a format as the table does."""
    return "float8" if fmt in FLOAT8 else fmt


@dataclass(frozen=True)
class Accumulator:
    """How a dot product is summed: in a format by the fma chain, or by a matrix unit with this accumulator."""

    format: str
    unit: str | None = None

    @property
    def name(self) -> str:
        """As `accumulate` has it."""
        if self.unit is None:
            return self.format
        return self.unit if self.format == _default_format(self.unit) else f"{self.unit}/{self.format}"

    @property
    def unit_id(self) -> int:
        """Number of the unit, 0 for the fma chain."""
        return 0 if self.unit is None else unit_ids()[self.unit]


def accumulator(name: FormatLike, argument: str) -> Accumulator:
    """Read a name: a format, a unit, or a unit and its accumulator as in ``hopper/float16``.

    Raises
    ------
    ValueError
        If there is no such way to sum.
    """
    unit, slash, fmt = str(name).partition("/")
    chain = None
    with suppress(ValueError):
        if unit in unit_ids():
            fmt = format_name(fmt) if slash else _default_format(unit)
            if fmt in ("float32", "float16"):
                return Accumulator(fmt, unit)
        else:
            chain = format_name(name)
    if chain in CHAINS:
        return Accumulator(str(chain))
    if unit in unit_ids():
        raise ValueError(f"{argument}: a matrix unit accumulates in float32 or float16, got {name!r}")
    known = ", ".join([*CHAINS, *unit_ids()])
    raise ValueError(
        f"{argument} must be one of {known}, or a unit with its accumulator as hopper/float16, got {name!r}"
    )


def find(acc: Accumulator, a: str, b: str, argument: str, k: int | None = None) -> Instruction:
    """Return the instruction of a unit for these operands.

    Raises
    ------
    ValueError
        With the reason, if the unit has none.
    """
    of_unit = [i for i in instructions() if i.unit == acc.unit]
    fitting = [i for i in of_unit if i.operands == operand_kind(a) == operand_kind(b)]
    if not fitting:
        known = ", ".join(dict.fromkeys(i.operands for i in of_unit))
        raise ValueError(f"{argument}: {acc.unit} has no instruction for {a} times {b}; it multiplies {known}")
    if acc.format not in fitting[0].accumulators:
        raise ValueError(f"{argument}: {acc.unit} accumulates {a} products in {fitting[0].accumulators[0]} only")
    if k is None:
        return fitting[0]
    for found in fitting:
        if found.k == k:
            return found
    known = " or ".join(str(i.k) for i in fitting)
    raise ValueError(f"{argument}: instruction_k of {acc.unit} for {a} must be {known}, got {k!r}")
