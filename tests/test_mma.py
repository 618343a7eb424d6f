"""`mma` against outputs that were not made here: worked examples, a reference model, recorded GPUs, exact rationals."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import mma_truth
import numpy as np
import pytest

import gradkern as gk
from gradkern import _core, _units
from gradkern.formats import finfo, format_ids

WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32}


def stored(bits, fmt):
    dtype = np.dtype(np.float32) if fmt == "tfloat32" else finfo(fmt).dtype
    return np.ascontiguousarray(np.asarray(bits).astype(WORDS[dtype.itemsize])).view(dtype)


def unit_of(p):
    return p.unit if p.accumulate == "float32" else f"{p.unit}/float16"


def computed(p):
    d = gk.mma(
        stored(p.A, p.a_format), stored(p.B, p.b_format), stored(p.C, p.accumulate),
        unit=unit_of(p), instruction_k=p.instruction_k,
    )  # fmt: skip
    return d.view(WORDS[d.dtype.itemsize])


def examples():
    for line in (mma_truth.DATA / "mma_examples.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        head, a, b, result, shows = (part.strip() for part in line.split("|", 4))
        unit, a_format, b_format, accumulate = head.split()
        c, d = (np.array([[int(word, 16)]]) for word in result.split(" -> "))
        row = np.array([[int(word, 16) for word in a.split()]])
        column = np.array([[int(word, 16)] for word in b.split()])
        yield mma_truth.Problem(f"{unit} {shows}", unit, a_format, b_format, accumulate, None, row, column, c, d)


def test_worked_examples(isa):
    wrong = [(p.name, hex(computed(p)[0, 0])) for p in examples() if computed(p)[0, 0] != p.D[0, 0]]
    assert wrong == []
    assert sum(1 for _ in examples()) > 300


def test_golden_outputs(isa):
    count, wrong = 0, {}
    for p in mma_truth.golden():
        differ = int((computed(p) != p.D).sum())
        count += p.D.size
        if differ:
            wrong[p.name] = differ
    assert wrong == {}
    assert count == 56320


@pytest.mark.skipif(not mma_truth.SILICON.exists(), reason="recorded GPU outputs are not here: set GRADKERN_SILICON")
def test_recorded_gpus():
    ids, wrong, count = format_ids(), {}, 0
    for p in mma_truth.recorded():
        unit, (a, b), acc = _units.unit_ids()[p.unit], (ids[p.a_format], ids[p.b_format]), ids[p.accumulate]
        k = p.instruction_k or 0
        d = [
            _core.mma_model(unit, a, b, acc, k, x[None].astype(np.uint32), y[None].astype(np.uint32),
                            np.array([[c]], np.uint32))[0, 0]
            for x, y, c in zip(p.A, p.B, p.C, strict=True)
        ]  # fmt: skip
        differ = int((np.array(d) != p.D).sum())
        count += len(d)
        if differ:
            wrong[p.name] = differ
    assert wrong == {}
    assert count == 57600


@pytest.mark.skipif(not mma_truth.SILICON.exists(), reason="recorded GPU outputs are not here: set GRADKERN_SILICON")
def test_recorded_gpus_by_the_kernels(isa):
    """Squares of 40 rows and columns hold the recorded products on their diagonal."""
    for p in mma_truth.recorded():
        unit = unit_of(p)
        for first in range(0, 400, 40):
            part = slice(first, first + 40)
            c = np.zeros((40, 40), p.C.dtype)
            np.fill_diagonal(c, p.C[part])
            d = gk.mma(
                stored(p.A[part], p.a_format), stored(p.B[part].T, p.b_format), stored(c, p.accumulate), unit=unit,
                instruction_k=p.instruction_k,
            )  # fmt: skip
            assert (np.diagonal(d).view(p.D.dtype) == p.D[part]).all(), p.name


def draw(shape, fmt, seed):
    """Random patterns of every kind: exponents all over, subnormals, zeros, NaN and infinity."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2 ** (8 * finfo(fmt).dtype.itemsize), shape, np.uint64)
    plain = rng.standard_normal(shape) * 2.0 ** rng.integers(-6, 6, shape)
    near = plain.astype(np.float32).astype(finfo(fmt).dtype).view(WORDS[finfo(fmt).dtype.itemsize])
    return np.where(rng.random(shape) < 0.03, bits, near).astype(near.dtype)


COMBINATIONS = sorted(
    {(i.unit, operand, fmt) for i in _units.instructions() for fmt in i.accumulators
     for operand in (_units.FLOAT8 if i.operands == "float8" else (i.operands,))}
)  # fmt: skip


@pytest.mark.parametrize(("unit", "operand", "accumulate"), COMBINATIONS)
def test_kernels_equal_the_scalar_model(unit, operand, accumulate, isa, threads):
    ids, acc = format_ids(), _units.Accumulator(accumulate, unit)
    a, b, c = draw((9, 75), operand, 1), draw((75, 70), operand, 2), draw((9, 70), accumulate, 3)
    expected = _core.mma_model(acc.unit_id, ids[operand], ids[operand], ids[accumulate], 0, a, b.T, c)
    p = mma_truth.Problem("", unit, operand, operand, accumulate, None, a, b, c, expected)
    assert (computed(p) == expected).all()


FUSED = sorted({i.unit for i in _units.instructions() if not i.rounds_each})


@pytest.mark.parametrize("unit", FUSED)
def test_nan_and_infinity_have_the_bits_of_the_unit(unit):
    for fmt, word in (("float32", 0x7FFFFFFF), ("float16", 0x7FFF)):
        name = _units.Accumulator(fmt, unit).name
        a = np.array([[np.inf], [np.nan], [-np.inf], [-0.0]], np.float16)
        d = gk.mma(a, np.array([[0, 1]], np.float16), unit=name)
        bits = d.view(WORDS[d.dtype.itemsize])
        assert bits[0, 0] == bits[1, 0] == bits[1, 1] == bits[2, 0] == word
        assert (d[0, 1], d[2, 1]) == (np.inf, -np.inf)
        assert bits[3, 0] == bits[3, 1] == 0  # -0 becomes +0


def test_exact_sums_are_exact():
    """Where nothing is lost every unit gives the sum itself."""
    rng = np.random.default_rng(4)
    a, b = rng.integers(-8, 9, (5, 40)).astype(np.float16), rng.integers(-8, 9, (40, 6)).astype(np.float16)
    exact = [
        [float(sum(Fraction(float(x)) * Fraction(float(y)) for x, y in zip(r, k, strict=True))) for k in b.T] for r in a
    ]
    for i in _units.instructions():
        if i.operands in ("float16", "bfloat16"):
            x, y = (v.astype(finfo(i.operands).dtype) for v in (a, b))
            assert gk.mma(x, y, unit=i.unit).tolist() == exact
    for unit in FUSED:
        assert gk.mma(a, b, unit=unit).tolist() == exact
    assert gk.mma(a, b, unit="float32").tolist() == exact


def test_instruction_k_changes_the_bits():
    a = np.array([[1] + [2.0**-12] * 14 + [0]], np.float16)
    b = np.array([[1]] + [[2.0**-13]] * 15, np.float16)
    one, two = (gk.mma(a, b, unit="hopper", instruction_k=k)[0, 0] for k in (16, 8))
    assert (one - 1) * 2**23 == 3  # 14 * 2^-25 in one sum
    assert (two - 1) * 2**23 == 2  # 7 * 2^-25 is cut to 2^-23, and so are 7 more
    assert gk.mma(a, b, unit="hopper")[0, 0] == one


def rounded(x, fmt):
    return x.astype({"bfloat16": ml_dtypes.bfloat16}[fmt]).astype(np.float32)


def test_orders_are_walks_that_are_added():
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((4, 256)).astype(np.float16), rng.standard_normal((256, 5)).astype(np.float16)
    c = rng.standard_normal((4, 5)).astype(np.float32)

    def walk(k, start=None):
        return gk.mma(a[:, k], b[k], start, unit="ampere")

    halves = walk(slice(0, 128), c), walk(slice(128, 256))
    stripes = np.arange(256) // 32 % 2
    truth = {
        "split:2": halves[0] + halves[1],
        "split:2/bfloat16": rounded(halves[0], "bfloat16") + rounded(halves[1], "bfloat16"),
        "serial:2/bfloat16": rounded(rounded(halves[0], "bfloat16") + halves[1], "bfloat16"),
        "sliced:2": walk(stripes == 0, c) + walk(stripes == 1),
        "restart:64": ((walk(slice(0, 64), c) + walk(slice(64, 128))) + walk(slice(128, 192))) + walk(slice(192, 256)),
        "split:1": walk(slice(0, 256), c),
        "ascending": walk(slice(128, 256), walk(slice(0, 128), c)),
    }
    for order, expected in truth.items():
        assert gk.mma(a, b, c, unit="ampere", order=order).tolist() == expected.tolist(), order
    assert not np.array_equal(truth["split:2"], truth["ascending"])


@pytest.mark.parametrize("unit", ["hopper.wgmma", "ada"])
@pytest.mark.parametrize("accumulate", ["float32", "float16"])
def test_float8_without_fast_accumulation_restarts_every_128(unit, accumulate):
    """Each 128 products are a chain of their own from +0; their sums are added to nearest, by NumPy."""
    rng, name = np.random.default_rng(7), f"{unit}/{accumulate}"
    a, b = (rng.uniform(0, 1, shape).astype(ml_dtypes.float8_e4m3fn) for shape in ((5, 600), (600, 6)))
    total = np.zeros((5, 6), accumulate)
    for first in range(0, 600, 128):
        total = total + gk.mma(a[:, first : first + 128], b[first : first + 128], unit=name)
    slow, fast = (gk.mma(a, b, unit=name, order=order) for order in ("restart:128", "ascending"))
    assert slow.tolist() == total.tolist()
    assert slow.tolist() != fast.tolist()


@pytest.mark.parametrize("unit", ["hopper", "blackwell"])
@pytest.mark.parametrize("accumulate", ["float32", "float16"])
def test_float8_by_mma_sync_is_two_halves_of_float16(unit, accumulate, isa):
    """Operands in float16, pairs 0 1, 4 5, ... from +0, then 2 3, 6 7, ..., and C last, to nearest: what GPUs were seen to do."""
    rng, name = np.random.default_rng(8), f"{unit}/{accumulate}"
    a, b, c = (
        rng.standard_normal(shape) * 2.0 ** rng.integers(-6, 6, shape) for shape in ((40, 64), (64, 30), (40, 30))
    )
    a, b, c = a.astype(ml_dtypes.float8_e4m3fn), b.astype(ml_dtypes.float8_e5m2), c.astype(accumulate)

    def halves(order, late):
        total = c
        for first in (0, 32):
            columns = first + np.argsort(order(np.arange(32)), kind="stable")
            x, y = a[:, columns].astype(np.float16), b[columns].astype(np.float16)
            total = gk.mma(x, y, None if late else total, unit=name) + (total if late else 0)
        return total.tolist()

    d = gk.mma(a, b, c, unit=name).tolist()
    assert d == halves(lambda k: k // 2 % 2, late=True)
    assert d != halves(lambda k: k // 2 % 2, late=False)
    assert d != halves(lambda k: k // 2 % 2 == 0, late=True)
    assert d != halves(lambda k: k % 2, late=True)
    assert d != halves(lambda k: k // 16, late=True)


@pytest.mark.parametrize("accumulate", ["float64", "float32", "float16", "bfloat16"])
def test_fma_chains(accumulate):
    """One exact fma a step, rounded by ml_dtypes or NumPy from the exact rational."""
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((3, 7)).astype(np.float16), rng.standard_normal((7, 2)).astype(np.float16)
    c = rng.standard_normal((3, 2)).astype(finfo(accumulate).dtype)
    d = gk.mma(a, b, c, unit=accumulate)
    assert d.dtype == c.dtype
    for i in range(3):
        for j in range(2):
            total = c[i, j]
            for k in range(7):
                exact = Fraction(float(a[i, k])) * Fraction(float(b[k, j])) + Fraction(float(total))
                total = gk.cast(np.array(float(exact)), accumulate).values[()]  # the sum fits float64 here
            assert total == d[i, j]


HALF, SINGLE = np.ones((2, 3), np.float16), np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("a", "b", "options", "error", "message"),
    [
        (HALF, HALF, {"unit": "volta"}, ValueError, r"a has shape \(2, 3\), b \(2, 3\)"),
        (HALF[0], HALF.T, {"unit": "volta"}, ValueError, "a must be a matrix"),
        (SINGLE, SINGLE.T, {"unit": "volta"}, ValueError, "volta has no instruction for tfloat32 times tfloat32; it mult"),
        (HALF, SINGLE.T, {"unit": "ampere"}, ValueError, "a is float16, b float32"),
        (HALF, HALF.T, {"unit": "kepler"}, ValueError, "unit must be one of float64"),
        (HALF, HALF.T, {"unit": "hopper/float64"}, ValueError, "accumulates in float32 or float16"),
        (SINGLE, SINGLE.T, {"unit": "hopper/float16"}, ValueError, "accumulates tfloat32 products in float32 only"),
        (HALF, HALF.T, {"unit": "hopper", "instruction_k": 4}, ValueError, "must be 16 or 8, got 4"),
        (HALF, HALF.T, {"unit": "float32", "instruction_k": 4}, ValueError, "instruction_k is of a matrix unit"),
        (HALF, HALF.T, {"unit": "hopper", "c": HALF[:, :2]}, TypeError, "c is float16, the accumulator float32"),
        (HALF, HALF.T, {"unit": "hopper", "c": SINGLE}, ValueError, r"c has shape \(2, 3\), the product \(2, 2\)"),
        (HALF, HALF.T, {"unit": "hopper", "order": "random"}, ValueError, "order must be 'ascending'"),
        (HALF, HALF.T, {"unit": "hopper", "order": "split:0"}, ValueError, "with positive numbers"),
        (HALF, HALF.T, {"unit": "hopper", "order": "serial:2"}, ValueError, "serial has a format"),
        (HALF, HALF.T, {"unit": "hopper", "order": "restart:20"}, ValueError, "would cut an instruction of 16"),
        (HALF, HALF.T, {"unit": "hopper", "order": "split:2/half8"}, ValueError, "mma: order: 'split:2/half8': format: must"),
        (HALF.astype(complex), HALF.T, {"unit": "hopper"}, TypeError, "mma: a: dtype must be a floating-point format"),
        (HALF, None, {"unit": "hopper"}, TypeError, "mma: b: not an array, got NoneType"),
        (np.float16(1), HALF.T, {"unit": "hopper"}, ValueError, r"a must be a matrix, got shape \(\)"),
        (HALF, HALF.T, {"unit": "hopper", "c": np.float32(1)}, ValueError, r"c must be a matrix, got shape \(\)"),
        (HALF, HALF.T, {"unit": None}, ValueError, "mma: unit must be one of"),
    ],
)  # fmt: skip
def test_refusals(a, b, options, error, message):
    with pytest.raises(error, match=message):
        gk.mma(a, b, **options)


def test_arrays_of_any_layout_and_kind():
    """Whatever holds the numbers, the bits are the same, nothing is written to, and the result is of a's kind."""
    rng = np.random.default_rng(9)
    a, b = rng.standard_normal((40, 60)).astype(np.float16), rng.standard_normal((60, 30)).astype(np.float16)
    c = rng.standard_normal((40, 30)).astype(np.float32)
    for x in (a, b, c):
        x.flags.writeable = False
    d = gk.mma(a, b, c, unit="hopper")
    assert d.flags.writeable
    wide = np.zeros((80, 180), np.float16)
    wide[::2, ::3] = a
    layouts = [np.asfortranarray(a), a[::-1].copy()[::-1], wide[::2, ::3], a.astype(">f2")]
    for x in layouts:
        assert np.array_equal(gk.mma(x, b.T.copy().T, np.asfortranarray(c), unit="hopper"), d)
    assert np.array_equal(gk.mma(a[::2], b[:, ::3], c[::2, ::3], unit="hopper"), d[::2, ::3])
    torch = pytest.importorskip("torch")
    found = gk.mma(*(torch.tensor(x).T.contiguous().T for x in (a, b, c)), unit="hopper")
    assert isinstance(found, torch.Tensor)
    assert np.array_equal(found.numpy(), d)


def test_empty_products():
    assert gk.mma(np.ones((2, 0), np.float16), np.ones((0, 3), np.float16), unit="hopper").tolist() == [[0, 0, 0]] * 2
    assert gk.mma(np.ones((0, 4), np.float16), np.ones((4, 3), np.float16), unit="hopper").shape == (0, 3)


def test_flushing_of_the_thread_does_not_matter():
    torch = pytest.importorskip("torch")
    a, b = np.array([[2.0**-100]], ml_dtypes.bfloat16), np.array([[2.0**-40]], ml_dtypes.bfloat16)
    before = gk.mma(a, b, unit="hopper")[0, 0]
    torch.set_flush_denormal(True)
    try:
        flushed = gk.mma(a, b, unit="hopper")
    finally:
        torch.set_flush_denormal(False)
    assert before == flushed[0, 0] == 2.0**-140
