"""Products as data: the operands of one on a device, and what the CPU makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import ptx_arguments as c
from conftest import adversarial, bits
from ptx_memory import Memory
from ptx_tensors import stored, tensor

from gradkern import _core, _units


def matrix(fmt, shape, seed, hard=True):
    """Entries of a format, some of them hard."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    if hard:
        places = rng.random(shape) < 0.02
        x[places] = rng.choice(adversarial(fmt), int(places.sum()))
    return stored(x, fmt)


@dataclass(frozen=True)
class Case:
    """A product: its shape, the formats, how its operands lie in memory, what it adds."""

    m: int
    n: int
    k: int
    formats: tuple[str, str]
    accumulate: str
    operands: str = ""
    a_transposed: bool = False
    b_transposed: bool = True
    bias: bool = False
    continued: bool = False
    misaligned: int = 0
    unit: str = "none"
    instruction_k: int = 0

    @property
    def rounded_to(self) -> str:
        """What operands are rounded to first."""
        return self.operands or self.formats[0]

    @property
    def wide(self) -> Any:
        """The type of the result."""
        return np.float64 if self.accumulate == "float64" else np.float32


def ids(*names):
    """The numbers of formats."""
    return [c.FORMATS.index(name) for name in names]


class Product:
    """Operands of a case, on the device and as the CPU's product takes them."""

    def __init__(self, case):
        self.case, self.memory = case, Memory(1 << 23)
        a_shape = (case.k, case.m) if case.a_transposed else (case.m, case.k)
        b_shape = (case.n, case.k) if case.b_transposed else (case.k, case.n)
        self.a, self.b = (
            matrix(f, s, i) for i, (f, s) in enumerate(zip(case.formats, (a_shape, b_shape), strict=True))
        )
        self.bias = matrix(case.formats[0], (case.n,), 2, False) if case.bias else None
        start = matrix(case.accumulate, (case.m, case.n), 3, False).astype(case.wide)
        self.start = start if case.continued else None
        self.want = self.on_cpu()
        self.addresses = [tensor(self.memory, x, case.misaligned) for x in (self.a, self.b)]
        self.out = self.memory.upload(start if case.continued else np.full_like(start, np.nan))
        bias = 0 if self.bias is None else tensor(self.memory, self.bias)
        self.epilogue = c.Epilogue(self.out, bias, *ids(case.formats[0]), 0, case.continued, case.n % 4 == 0)

    def on_cpu(self):
        """The product before rounding to storage."""
        case, unit = self.case, _units.unit_ids().get(self.case.unit, 0)
        a_id, b_id, operands, accumulate = ids(*case.formats, case.rounded_to, case.accumulate)
        bias = None if self.bias is None else bits(self.bias)
        a, b = (bits(self.a), a_id, case.a_transposed), (bits(self.b), b_id, case.b_transposed)
        sum_ = operands, accumulate, unit, case.instruction_k
        return np.asarray(_core.product(*a, *b, bias, a_id, *sum_, self.start))

    def result(self):
        """What the kernel left."""
        return self.memory.fetch(self.out, self.case.wide, self.want.size).reshape(self.want.shape)

    def strides(self):
        """Of a: along m and k; of b: along n and k."""
        t = self.case
        return ((1, t.m) if t.a_transposed else (t.k, 1)), ((t.k, 1) if t.b_transposed else (1, t.n))
