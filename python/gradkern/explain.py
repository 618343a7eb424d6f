"""`explain`: what an arithmetic models, how a dot product rounds in it, and how well that is known."""

from __future__ import annotations

import html
import math
import textwrap
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from gradkern import _core
from gradkern._arrays import as_bits_view
from gradkern._result import Result
from gradkern._rounded_units import LIMITS, RULES
from gradkern._units import EVIDENCE, Accumulator, Instruction, accumulator, find, instructions, unit_ids
from gradkern.arithmetic import Arithmetic, ArithmeticLike, arithmetic
from gradkern.formats import finfo, format_ids, format_name

_Values: TypeAlias = "tuple[list[float], list[float], float]"

# Products a[i] b[i] and c whose step shows what the unit keeps, by operands and accumulator.
_LADDER = ([-(2.0**13), -0.5, -0.25, -0.125], [2.0**10, 1.0, 1.0, 1.0], 2.0**23)
_TIE = ([2.0**-5, 2.0**-11], [2.0**-6, 2.0**-11], 1.0)
_FLOAT8 = ([2.0**8, 2.0**-2, 2.0**-5], [2.0**7, 2.0**-2, 2.0**-5], 0.0)
# The same of units that round each operation: -2^24 + 1 - 1 + 2^24 is 0, 1 or -1 by the order of the sum; and a square, all
# of whose last bit is left where the product is not rounded.
_ORDER = ([-(2.0**12), 1.0, -1.0], [2.0**12, 1.0, 1.0], 2.0**24)
_SQUARE = ([1 + 2.0**-10], [1 + 2.0**-10], -(1 + 2.0**-9))
_OF_FORM = {"amx": _ORDER, "pairs": _ORDER, "fused_half": _SQUARE, "separate_half": _SQUARE}


@dataclass(frozen=True)
class WorkedExample:
    """One step of the model: operands, accumulator, what is inside, and the result.

    Attributes
    ----------
    a, b : list of float
        Operands, of `operands` format.
    c, exact, result : float
        The accumulator, the sum in real arithmetic, and what the unit gives.
    common_exponent : int or None
        E, the largest exponent; None for an fma chain.
    quantum : float or None
        2^(E - F), of which every term is a whole number.
    terms : list of int
        The products, then c, in quanta, truncated.
    total : int or None
        Their exact sum.
    """

    a: list[float]
    b: list[float]
    c: float
    exact: float
    result: float
    common_exponent: int | None = None
    quantum: float | None = None
    terms: list[int] | None = None
    total: int | None = None


@dataclass(frozen=True, repr=False)
class Explanation(Result):
    """What `explain` returns.

    Attributes
    ----------
    name, description : str
        The arithmetic or unit, and what it is in a sentence.
    operands, accumulate : str
        Formats of the products' inputs and of the running sum.
    parameters : dict
        Of a matrix unit: instruction, k, L (products of a step), F (fraction bits), EZ (least common exponent), output, and
        its other instructions for these operands.
    evidence : list of str
        How well it is known, a source a line.
    example : WorkedExample
        One step, computed by the model.
    """

    name: str
    description: str
    operands: str
    accumulate: str
    parameters: dict[str, Any]
    evidence: list[str]
    example: WorkedExample

    def __repr__(self) -> str:
        """Return the explanation as a page of text."""
        lines = [self.name, *textwrap.wrap(self.description, 100, initial_indent="  ", subsequent_indent="  ")]
        for title, rows in self._sections():
            lines.append(title)
            width = max(len(key) for key, _ in rows)
            for key, value in rows:
                lines += textwrap.wrap(f"  {key:<{width}}  {value}", 102, subsequent_indent=" " * (width + 4))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th colspan="2">{html.escape(title)}</th></tr>'
            + "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in section)
            for title, section in self._sections()
        )
        caption = f"<caption>{html.escape(self.name)}: {html.escape(self.description)}</caption>"
        return f"<table>{caption}{rows}</table>"

    def _sections(self) -> list[tuple[str, list[tuple[str, str]]]]:
        e = self.example
        products = " + ".join(f"{x:.12g} * {y:.12g}" for x, y in zip(e.a, e.b, strict=True))
        example = [("step", f"{products} + {e.c:.12g}"), ("exact", f"{e.exact!r}")]
        if e.terms is not None and e.quantum is not None:
            example += [
                ("largest exponent", f"{e.common_exponent}, so the quantum is 2^{math.frexp(e.quantum)[1] - 1}"),
                ("terms in quanta", " ".join(str(t) for t in e.terms)),
                ("their sum", str(e.total)),
            ]
        example.append(("result", f"{e.result!r}"))
        parameters = [(key, str(value)) for key, value in self.parameters.items()]
        known = [(str(i), line) for i, line in enumerate(self.evidence, 1)]
        return [("parameters", parameters), ("a worked example", example), ("how well it is known", known)]


def explain(arithmetic: ArithmeticLike) -> Explanation:
    """Say what an arithmetic models, how a dot product rounds in it, and how well that is known.

    Parameters
    ----------
    arithmetic : str or Arithmetic
        A preset such as ``"float16"`` or ``"float16@hopper"``, or a matrix unit such as ``"ampere"`` or ``"volta/float16"``,
        which is explained with float16 operands.

    Returns
    -------
    Explanation

    Raises
    ------
    ValueError
        If there is none of this name.
    """
    if isinstance(arithmetic, str) and arithmetic.partition("/")[0] in unit_ids():
        acc = accumulator(arithmetic, "explain")
        first = next(i.operands for i in instructions() if i.unit == acc.unit)
        arithmetic = f"{first}@{acc.name}"
    a = _arithmetic(arithmetic)
    acc = accumulator(a.accumulate, "explain")
    operands = a.operands or a.storage
    if acc.unit is None:
        return _chain(a, operands, acc)
    found = find(acc, operands, operands, "explain")
    return (_rounded_unit if found.rounds_each else _unit)(a, found, operands, acc)


def _unit(a: Arithmetic, i: Instruction, operands: str, acc: Accumulator) -> Explanation:
    steps = "in two interleaved halves of float16 operands from +0, C being added last by one rounding" if i.halves else (
        f"in {-(-i.k // i.products)} steps, k ascending" if i.k > i.products else "in one step"
    )  # fmt: skip
    description = (
        f"{operands} products on {i.unit} ({i.instruction}), {i.k} at a time {steps}. A step adds {i.products} products and the "
        f"accumulator at once: each is truncated toward zero to {i.fraction_bits} bits below the largest exponent among them, "
        f"the sum is exact, and is rounded once, {i.rounding(acc.format)}."
    )
    parameters = {
        "instruction": i.instruction, "k": i.k, "L, products of a step": i.products, "F, fraction bits": i.fraction_bits,
        "EZ, least common exponent": i.floor(acc.format), "output": i.rounding(acc.format), "evidence": i.evidence,
    }  # fmt: skip
    others = [o for o in instructions() if (o.unit, o.operands) == (i.unit, i.operands) and o != i]
    parameters |= {
        f"instruction_k={o.k}": f"{o.instruction}: L {o.products}, F {o.fraction_bits}, evidence {o.evidence}"
        for o in others
    }
    evidence = [EVIDENCE[letter] for letter in i.evidence]
    return Explanation(str(a), description, operands, acc.format, parameters, evidence, _unit_example(i, operands, acc))


def _bits(values: list[float], fmt: str) -> np.ndarray[Any, Any]:
    return as_bits_view(np.array(values).astype(finfo(fmt).dtype)).astype(np.uint32)


def _unit_example(i: Instruction, operands: str, acc: Accumulator) -> WorkedExample:
    x, y, c = _FLOAT8 if i.operands == "float8" else _TIE if acc.format == "float16" else _LADDER
    shown = "float16" if i.halves else operands  # what a half multiplies
    ids = format_ids()
    t = _core.mma_trace(
        i.unit_id, ids[shown], ids[shown], ids[acc.format], _bits(x, shown), _bits(y, shown), int(_bits([c], acc.format)[0])
    )  # fmt: skip
    width = np.uint16 if acc.format == "float16" else np.uint32
    result = np.array(t["d"], width).view(finfo(acc.format).dtype)
    exact = float(np.dot(x, y) + c)
    exponent = t["common_exponent"]
    quantum = 2.0 ** (exponent - i.fraction_bits)
    return WorkedExample(x, y, c, exact, float(result), exponent, quantum, t["terms"], t["sum"])


def _rounded_unit(a: Arithmetic, i: Instruction, operands: str, acc: Accumulator) -> Explanation:
    order, rounding = RULES[i.form]
    description = f"{operands} products on {i.unit} ({i.instruction}), {acc.format} sums: {order}."
    parameters = {"instruction": i.instruction, "k": i.k, "rounding": rounding, "evidence": i.evidence}
    evidence = [EVIDENCE[letter] for letter in i.evidence]
    evidence += [LIMITS[i.unit]] if i.unit in LIMITS else []
    return Explanation(
        str(a), description, operands, acc.format, parameters, evidence,
        _sum_example(operands, operands, acc, _OF_FORM.get(i.form, _TIE)),
    )  # fmt: skip


def _chain(a: Arithmetic, operands: str, acc: Accumulator) -> Explanation:
    description = (
        f"{a.storage} tensors, {operands} products summed in {acc.format}: one fused multiply-add a step, k ascending from +0, "
        "each rounded once to nearest, ties to even; then the bias, rounded once; then one rounding to storage."
    )
    example = _sum_example(format_name(a.storage), operands, acc)
    parameters = {"step": "fma", "accumulator": acc.format, "order": "k ascending"}
    evidence = ["defined: IEEE 754 fused multiply-add, bits tested on every instruction set"]
    return Explanation(str(a), description, operands, acc.format, parameters, evidence, example)


def _sum_example(storage: str, operands: str, acc: Accumulator, values: _Values = _TIE) -> WorkedExample:
    x, y, c = values
    d = np.array([[c]])
    wide = np.float64 if acc.format == "float64" else np.float32
    ids = format_ids()
    left, right = (as_bits_view(np.array(v).astype(finfo(storage).dtype)) for v in ([x], [[w] for w in y]))
    wide_d: Any = _core.product(
        left, ids[storage], False, right, ids[storage], False, None, 0, ids[operands], ids[acc.format],
        acc.unit_id, 0, as_bits_view(d.astype(wide)),
    )  # fmt: skip
    return WorkedExample(x, y, c, float(np.dot(x, y) + c), float(wide_d[0, 0]))


_arithmetic = arithmetic
