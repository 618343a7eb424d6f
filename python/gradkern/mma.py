"""`mma`: the raw product D = A B + C of a matrix unit, bit for bit, or of an fma chain."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern import _core
from gradkern._arrays import Bits, as_bits_view, check_one_place, empty_beside, on_host, read_in_place
from gradkern._backend import takes_device
from gradkern._order import order_of
from gradkern._units import FLOAT8, Accumulator, accumulator, find
from gradkern.cast import cast
from gradkern.formats import finfo, format_ids

_TFLOAT32 = np.uint32(0xFFFFE000)  # the bits that the unit reads


def _matrix(x: Any, name: str) -> Bits:
    bits = read_in_place(x, f"mma: {name}")
    if len(bits.shape) != 2:
        raise ValueError(f"mma: {name} must be a matrix, got shape {bits.shape}")
    return bits


def _formats(a: Bits, b: Bits, acc: Accumulator) -> tuple[str, str]:
    if a.format != b.format and not (acc.unit is not None and a.format in FLOAT8 and b.format in FLOAT8):
        raise ValueError(f"mma: a is {a.format}, b {b.format}: only a matrix unit's float8 formats may be mixed")
    if acc.unit is None:
        return a.format, b.format
    return ("tfloat32", "tfloat32") if a.format == "float32" else (a.format, b.format)


def _accumulated(wide: NDArray[Any], acc: Accumulator, *, added: bool = False) -> NDArray[Any]:
    """Wide values as the accumulator's format holds them, a unit's NaN being 0x7FFFFFFF or 0x7FFF as its kernels leave it.

    ``added``: by NumPy, whose NaN is another.
    """
    d = wide.astype(finfo(acc.format).dtype, copy=False)
    if acc.unit is not None and (added or acc.format == "float16"):
        nan = np.isnan(d)
        if nan.any():
            as_bits_view(d)[nan] = 0x7FFF if acc.format == "float16" else 0x7FFFFFFF
    return d


@takes_device
def mma(
    a: Any,
    b: Any,
    c: Any = None,
    *,
    unit: str,
    instruction_k: int | None = None,
    order: str = "ascending",
    device: str | None = None,
) -> Any:
    """Compute D = A B + C as a matrix unit does, C being its first accumulator, before any rounding to storage.

    A unit adds L products and the accumulator at once: every term is truncated toward zero to F bits below the largest
    exponent among them, the sum is exact, and is truncated (float32) or rounded (float16). See `explain` and
    docs/matrix_units.md. An fma chain rounds after every product.

    Parameters
    ----------
    a : array, (m, k)
        float16, bfloat16, float8_e4m3fn, float8_e5m2, or float32, of which a unit reads tfloat32: it drops the low 13 bits. A
        kernel that rounds its operands does so before (``gk.cast(a, "tfloat32")``).
    b : array, (k, n)
        Of the format of `a`; the float8 formats may be mixed on a unit.
    c : array, (m, n), optional
        In the accumulator's format. Default: +0.
    unit : str
        ``volta``, ``turing``, ``ampere``, ``ada``, ``hopper``, ``hopper.wgmma``, ``blackwell``, ``blackwell.tcgen05`` or
        ``rtx_blackwell``, with a float32 accumulator, or a float16 one as in ``hopper/float16``; or one that rounds after
        each operation (docs/cpu_units.md): ``x86.amx``, ``x86.avx512_bf16``, ``x86.avx512_fp16``, ``cuda.hfma``,
        ``cuda.hmul_hadd``, ``numpy``, ``torch_cpu``; or an fma chain, ``float32``, ``float64``, ``float16``, ``bfloat16``.
    instruction_k : int, optional
        Products of one instruction, where a unit has several for these operands. Default: its largest. On Hopper and Blackwell
        two instructions of 8 do not add as one of 16.
    order : str
        ``ascending``: one walk along k. What libraries also do: ``split:P`` (P contiguous parts, each walked from +0, the
        first from C, then added), ``split:P/FORMAT`` (parts rounded to a format first), ``serial:P/FORMAT`` (each part added
        to the rounded sum so far), ``sliced:S`` or ``sliced:SxW`` (S walks over alternating stripes of W = 32), ``restart:N``
        (a new walk every N, as float8 kernels without fast accumulation do at 128). Additions outside the unit round to nearest.
    device : {None, "cpu", "cuda", "simt"}
        Where to compute. None: where the arrays lie. A device computes on its own unit (docs/devices.md).

    Returns
    -------
    array, (m, n)
        In the accumulator's format. Missing products at the end of k are zeros.

    Raises
    ------
    TypeError, ValueError
        For arguments of a wrong kind, dtype or shape, for formats that the unit does not take, and for a unit that the device
        does not have: nothing is guessed.

    Examples
    --------
    >>> a = np.array([[-(2.0**13), -0.5, -0.25, -0.125]], np.float16)
    >>> b = np.array([[2.0**10], [1], [1], [1]], np.float16)
    >>> c = np.array([[2.0**23]], np.float32)
    >>> [float(gk.mma(a, b, c, unit=u)[0, 0]) for u in ("float32", "volta", "ampere", "hopper")]
    [-0.875, 0.0, -0.5, -0.75]
    """
    acc = accumulator(unit, "mma: unit")
    left, right = _matrix(a, "a"), _matrix(b, "b")
    if left.shape[1] != right.shape[0]:
        raise ValueError(f"mma: a has shape {left.shape}, b {right.shape}: the inner sizes must agree")
    a_format, b_format = _formats(left, right, acc)
    if acc.unit is None:
        if instruction_k is not None:
            raise ValueError(f"mma: instruction_k is of a matrix unit, unit is {unit!r}")
        k = 1
    else:
        k = find(acc, a_format, b_format, "mma", instruction_k).k
    plan = order_of(order, k, "mma: order")
    shape = (left.shape[0], right.shape[1])
    accumulated = None if c is None else _matrix(c, "c")
    check_one_place("mma", a=left, b=right, c=accumulated)
    start = _start(accumulated, shape, acc)
    x, y = left.bits, right.bits
    on_device = isinstance(x, _core.DeviceArray)
    if a_format == "tfloat32" and not on_device:  # a device's unit drops them itself
        x, y = x & _TFLOAT32, y & _TFLOAT32
    ids = format_ids()
    walks = plan.walks(left.shape[1], k)
    host_x, host_y = (x, y) if len(walks) == 1 else (on_host(x), on_host(y))
    walked = []
    for columns in walks:
        whole = len(columns) == left.shape[1]
        part_a = x if whole else _beside(x, host_x[:, columns], left.format)
        part_b = y if whole else _beside(y, host_y[columns], right.format)
        wide: Any = _core.product(
            part_a, ids[a_format], False, part_b, ids[b_format], False, None, 0, ids[a_format], ids[acc.format],
            acc.unit_id, k if acc.unit else 0, start,
        )  # fmt: skip
        if on_device and plan.kind == "ascending" and not (acc.unit and acc.format == "float16"):
            return left.restore(wide if acc.format in ("float64", "float32") else cast(wide, acc.format).values)
        walked.append(_accumulated(on_host(wide), acc))
        start = None
    return left.restore(_beside(x, _accumulated(plan.add(walked), acc, added=len(walked) > 1), acc.format))


def _beside(bits: Any, array: NDArray[Any], fmt: str) -> Any:
    """Bring an array to where other bits lie; on the host it is one already."""
    array = np.ascontiguousarray(array)
    if not isinstance(bits, _core.DeviceArray):
        return array
    there = empty_beside(bits, array.shape, fmt)
    there[...] = array
    return there


def _start(c: Bits | None, shape: tuple[int, int], acc: Accumulator) -> Any:
    if c is None:
        return None
    if c.format != acc.format:
        raise TypeError(f"mma: c is {c.format}, the accumulator {acc.format}")
    if c.shape != shape:
        raise ValueError(f"mma: c has shape {c.shape}, the product {shape}")
    return as_bits_view(c.values if acc.format in ("float64", "float32") else cast(c.values, "float32").values)
