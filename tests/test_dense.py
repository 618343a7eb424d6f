"""Dense forward and backward against an exact integer model of the contract, bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import (
    INF,
    NAN,
    NARROW,
    SPECS,
    adversarial,
    assert_same_values,
    chain,
    check_same_as_baseline,
    round_array,
    round_exactly,
    widened,
)

import gradkern as gk

STORAGES = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
ACCUMULATORS = ["float64", "float32", "float16", "bfloat16"]


class Model:
    """Section 2 of the contract on lists of Python floats."""

    def __init__(self, a: gk.Arithmetic):
        self.acc, self.storage, self.operands = a.accumulate, a.storage, a.operands
        self.mode = {"rounding": a.rounding, "overflow": a.overflow, "subnormals": a.subnormals}

    def store(self, x):
        x = np.asarray(x, dtype=np.float64)
        flat = [v if math.isnan(v) else round_exactly(v, self.storage, **self.mode) for v in x.ravel().tolist()]
        return np.array(flat, dtype=np.float64).reshape(x.shape)

    def product(self, a, b, bias=None, is_sum=False):
        """Rounded a (m, k) times b (k, n); a sum has no operands to round."""
        if self.operands != self.storage and not is_sum:
            a, b = round_array(a, self.operands), round_array(b, self.operands)
        bias = [None] * b.shape[1] if bias is None else bias.tolist()
        columns = b.T.tolist()
        wide = [[chain(row, c, self.acc, v) for c, v in zip(columns, bias, strict=True)] for row in a.tolist()]
        return self.store(np.array(wide, dtype=np.float64).reshape(a.shape[0], b.shape[1]))

    def forward(self, x, w, b):
        return self.product(self.store(x), self.store(w).T, None if b is None else self.store(b))

    def backward(self, dz, x, w):
        dz, x, w = self.store(dz), self.store(x), self.store(w)
        bias = self.product(np.ones((1, len(dz))), dz, is_sum=True)[0]
        return self.product(dz, w), self.product(dz.T, x), bias


def check(a, x, w, b, dz):
    model = Model(a)
    out = gk.dense_forward(x, w, b, arithmetic=a)
    z = model.forward(x, w, b)
    assert out.pre_activation.dtype == np.dtype(SPECS[a.storage].dtype)
    assert_same_values(out.pre_activation, z, "z")
    assert_same_values(out.output, z, "h")
    got = gk.dense_backward(dz, x, w, arithmetic=a)
    for name, truth in zip(("input", "weight", "bias"), model.backward(dz, x, w), strict=True):
        assert_same_values(getattr(got, name), truth, f"d {name}")
    assert_same_values(gk.dense_backward(dz, x, w, z, arithmetic=a).weight, got.weight)  # the identity's phi' is 1


def draw(rng, shape, spread):
    return rng.standard_normal(shape) * 2.0 ** rng.uniform(-spread, spread, shape)


SHAPES = [(1, 1, 1), (2, 3, 5), (5, 17, 9), (3, 40, 33), (7, 1, 40), (17, 4, 2)]


@pytest.mark.parametrize("acc", ACCUMULATORS)
@pytest.mark.parametrize("storage", STORAGES)
def test_ragged_shapes(storage, acc):
    rng = np.random.default_rng(11)
    a = gk.Arithmetic(storage, accumulate=acc)
    for index, (batch, n_in, n_out) in enumerate(SHAPES):
        spread = [0.5, 3][index % 2]
        b = draw(rng, n_out, spread) if index % 3 else None
        check(
            a, draw(rng, (batch, n_in), spread), draw(rng, (n_out, n_in), spread), b, draw(rng, (batch, n_out), spread)
        )


@pytest.mark.slow
@pytest.mark.parametrize("acc", ACCUMULATORS)
@pytest.mark.parametrize("storage", STORAGES)
def test_random_shapes_and_ranges(storage, acc):
    rng = np.random.default_rng(12)
    for _ in range(12):
        batch, n_in, n_out = (int(v) for v in rng.integers(1, 41, 3))
        spread = float(rng.choice([0.2, 4, 12, 40, 160]))
        a = gk.Arithmetic(storage, accumulate=acc, overflow=str(rng.choice(["ieee", "saturate"])))
        check(a, draw(rng, (batch, n_in), spread), draw(rng, (n_out, n_in), spread), draw(rng, n_out, spread),
              draw(rng, (batch, n_out), spread))  # fmt: skip


@pytest.mark.parametrize("acc", ACCUMULATORS)
@pytest.mark.parametrize("storage", STORAGES)
def test_adversarial_values(storage, acc, isa):
    """Ties, subnormals, thresholds, infinities and NaN meeting each other in short chains."""
    rng = np.random.default_rng(13)
    pool = np.concatenate([adversarial(storage), adversarial(acc), [1.0, -1.0, 2.0**-12, 1 + 2.0**-10, 3.0]])
    a = gk.Arithmetic(storage, accumulate=acc)
    finite = pool[np.isfinite(pool)]
    for values in (pool, finite, finite[np.abs(finite) < 1e6]):
        check(
            a,
            rng.choice(values, (9, 3)),
            rng.choice(values, (11, 3)),
            rng.choice(values, 11),
            rng.choice(values, (9, 11)),
        )


@pytest.mark.parametrize("acc", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("storage", ["float64", "float32"])
def test_near_ties_of_the_accumulator(storage, acc):
    """x w + a a hair's breadth from a tie: rounding the sum twice goes wrong."""
    p, emin = SPECS[acc].p, SPECS[acc].emin
    rng = np.random.default_rng(14)
    n = 400
    base = 1 + rng.integers(0, 2 ** (p - 1), n) * 2.0 ** (1 - p)
    tie = np.where(rng.random(n) < 0.5, 1, -1) * 2.0**-p
    hair = rng.choice([0.0, 1, -1], n) * 2.0 ** -rng.integers(p + 2, 45 if storage == "float32" else 300, n)
    scale = 2.0 ** rng.integers(max(emin, -100) // 2, 3, n)
    x = np.stack([base * scale, tie * scale, hair * scale], axis=1)
    a = gk.Arithmetic(storage, accumulate=acc)
    model, w = Model(a), np.ones((1, 3))
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        got = gk.dense_forward(x[:, order], w, arithmetic=a).pre_activation
        assert_same_values(got, model.forward(x[:, order], w, None))
    pair = np.stack([base, tie * (1 + hair)], axis=1)  # one fma: base + product, the product in many bits
    got = gk.dense_forward(pair, np.array([[1.0, 1 + 2.0**-20]]), arithmetic=a).pre_activation
    assert_same_values(got, model.forward(pair, np.array([[1.0, 1 + 2.0**-20]]), None))


def test_infinite_accumulator_meets_a_product_beyond_float64():
    """-inf + (finite x w) = -inf, though x w overflows float64; float64 operands, narrower accumulators."""
    for acc in ("float32", "float16", "bfloat16", "float64"):
        got = gk.dense_forward([[-INF, 1e200]], [[1.0, 1e200]], arithmetic=gk.Arithmetic("float64", accumulate=acc))
        assert got.pre_activation[0, 0] == -INF, acc


@pytest.mark.parametrize("acc", ["float32", "float64"])
def test_tfloat32_operands(acc, isa):
    rng = np.random.default_rng(15)
    a = gk.Arithmetic("float32", operands="tfloat32", accumulate=acc)
    check(a, draw(rng, (4, 19), 2), draw(rng, (6, 19), 2), draw(rng, 6, 2), draw(rng, (4, 6), 2))
    pool = adversarial("tfloat32")
    check(a, rng.choice(pool, (6, 2)), rng.choice(pool, (7, 2)), rng.choice(pool, 7), rng.choice(pool, (6, 7)))
    got = gk.dense_forward([[1 + 2.0**-11]], [[1.0]], [1 + 2.0**-11], arithmetic=a).pre_activation
    assert got[0, 0] == 2 + 2.0**-11  # the operand loses its last bit, the bias does not


@pytest.mark.parametrize("storage", ["float32", *NARROW])
@pytest.mark.parametrize("mode", [
    {"rounding": "toward_zero"}, {"overflow": "saturate"}, {"subnormals": "flush"},
    {"rounding": "toward_zero", "overflow": "saturate", "subnormals": "flush"},
])  # fmt: skip
def test_storage_modes(storage, mode):
    rng = np.random.default_rng(16)
    a = gk.Arithmetic(storage, **mode)
    check(a, draw(rng, (3, 21), 1), draw(rng, (5, 21), 1), draw(rng, 5, 1), draw(rng, (3, 5), 1))
    pool = adversarial(storage)
    check(a, rng.choice(pool, (7, 2)), rng.choice(pool, (8, 2)), rng.choice(pool, 8), rng.choice(pool, (7, 8)))


def test_stochastic_storage_stays_within_one_neighbour_and_is_reproducible(isa, threads):
    rng = np.random.default_rng(17)
    x, w = round_array(rng.standard_normal((40, 30)), "float16"), round_array(rng.standard_normal((50, 30)), "float16")
    a = gk.Arithmetic("float16", accumulate="float64", rounding="stochastic", seed=9)
    got = gk.dense_forward(x, w, arithmetic=a).output.astype(np.float64)
    truth = gk.dense_forward(x, w, arithmetic="float64").output
    step = np.spacing(np.abs(truth).astype(np.float16)).astype(np.float64)
    assert np.all(np.abs(got - truth) < step)
    up = np.mean((got > truth)[got != truth])
    assert abs(up - 0.5) < 5 * 0.5 / math.sqrt(got.size)
    check_same_as_baseline("stochastic", lambda: gk.dense_forward(x, w, arithmetic=a).output.tobytes())


@pytest.mark.parametrize("shape", [(0, 3, 2), (3, 0, 2)])
def test_empty_dimensions(shape):
    batch, n_in, n_out = shape
    out = gk.dense_forward(np.ones((batch, n_in)), np.ones((n_out, n_in)), np.full(n_out, 7.0)).output
    assert out.shape == (batch, n_out) and np.all(out == 7)
    got = gk.dense_backward(np.ones((batch, n_out)), np.ones((batch, n_in)), np.ones((n_out, n_in)))
    assert got.input.shape == (batch, n_in) and got.weight.shape == (n_out, n_in) and np.all(got.weight == 0)


def check_same_bits(values, a, what):
    x, w, b, dz = values

    def compute():
        out = gk.dense_forward(x, w, b, activation="gelu", arithmetic=a)
        back = gk.dense_backward(dz, x, w, out.pre_activation, activation="gelu", arithmetic=a)
        return [t.tobytes() for t in (out.output, out.pre_activation, back.input, back.weight, back.bias)]

    check_same_as_baseline(("dense", what), compute)


@pytest.mark.parametrize(
    "name", ["float64", "float32", "tf32", "float16", "float16_pure", "bfloat16_pure", "float8_e5m2"]
)
def test_same_bits_on_every_isa_and_thread_count(name, isa, threads):
    rng = np.random.default_rng(18)
    values = [draw(rng, s, 2) for s in ((37, 67), (301, 67), 301, (37, 301))]
    check_same_bits(values, name, name)


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "float16_pure", "bfloat16_pure", "float8_e4m3fn"])
def test_same_bits_of_nan_on_every_isa(name, isa):
    """The sign of a NaN is a bit too."""
    rng = np.random.default_rng(19)
    pool = np.array([NAN, -NAN, INF, -INF, 1.0, 0.0, -2.0])
    check_same_bits([rng.choice(pool, s) for s in ((9, 3), (21, 3), 21, (9, 21))], name, ("nan", name))


def test_block_boundaries_against_float64_matmul():
    """Across the kernels' tiles and blocks, sums of small integers are exact in any order."""
    rng = np.random.default_rng(20)
    for batch, n_in, n_out in [(15, 70, 31), (16, 33, 32), (17, 65, 257), (33, 129, 512), (1, 1000, 300)]:
        x, w = (rng.integers(-4, 5, s).astype(np.float32) for s in ((batch, n_in), (n_out, n_in)))
        for a in ("float64", "float32", "tf32"):
            assert np.array_equal(gk.dense_forward(x, w, arithmetic=a).output, x @ w.T)


def test_agrees_with_torch_in_float64():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(21)
    names = {"relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid", "gelu": "gelu", "silu": "silu", "mish": "mish",
             "softplus": "softplus", "elu": "elu", "selu": "selu"}  # fmt: skip
    for name, theirs in names.items():
        x, w, b, dh = (torch.tensor(rng.standard_normal(s), requires_grad=True) for s in ((6, 11), (5, 11), 5, (6, 5)))
        phi = torch.tanh if theirs == "tanh" else torch.sigmoid if theirs == "sigmoid" else getattr(
            torch.nn.functional, theirs)  # fmt: skip
        h = phi(x @ w.T + b)
        grads = torch.autograd.grad(h, (x, w, b), dh)
        out = gk.dense_forward(x, w, b, activation=name, arithmetic="float64")
        back = gk.dense_backward(dh, x, w, out.pre_activation, activation=name, arithmetic="float64")
        assert isinstance(out.output, torch.Tensor) and isinstance(back.weight, torch.Tensor)
        for got, want in zip((out.output, back.input, back.weight, back.bias), (h.detach(), *grads), strict=True):
            assert float((got - want).abs().max() / want.abs().max()) < 1e-12, name


def test_events_report_every_rounding():
    out = gk.dense_forward([[70000.0, 1e-9]], [[1.0, 1.0]], [0.1], activation="relu", arithmetic="float16")
    assert list(out.events) == ["x", "weight", "bias", "pre_activation", "output"]
    assert (out.events["x"].overflow, out.events["x"].flushed, out.events["bias"].inexact) == (1, 1, 1)
    assert out.events["pre_activation"].overflow == 0 and out.events["pre_activation"].inf == 1
    assert widened(out.output)[0, 0] == INF


@pytest.mark.parametrize("call, message", [
    (lambda: gk.dense_forward(np.ones((2, 3)), np.ones((4, 5))), r"\(2, 3\), weight \(4, 5\)"),
    (lambda: gk.dense_forward(np.ones((2, 3)), np.ones((4, 3)), np.ones(3)), r"bias has shape \(3,\), weight \(4, 3\)"),
    (lambda: gk.dense_forward(np.ones(3), np.ones((4, 3))), r"x must be a matrix, got shape \(3,\)"),
    (lambda: gk.dense_forward(np.ones((2, 3)), np.ones(3)), "weight must be a matrix"),
    (lambda: gk.dense_forward(np.ones((2, 3)), np.ones((4, 3)), activation="swish"), "activation must be one of"),
    (lambda: gk.dense_forward(np.ones((2, 3)), np.ones((4, 3)), device="gpu"), "device"),
    (lambda: gk.dense_backward(np.ones((2, 4)), np.ones((2, 3)), np.ones((5, 3))), r"\(2, 4\), x \(2, 3\).* \(5, 3\)"),
    (lambda: gk.dense_backward(np.ones((2, 4)), np.ones((3, 3)), np.ones((4, 3))), r"\(2, 4\), x \(3, 3\).* \(4, 3\)"),
    (lambda: gk.dense_backward(np.ones((2, 4)), np.ones((2, 3)), np.ones((4, 3)), activation="relu"), "pre_activation"),
    (lambda: gk.dense_backward(np.ones((2, 4)), np.ones((2, 3)), np.ones((4, 3)), np.ones((2, 3))),
     r"\(2, 3\), .*\(2, 4\)"),
])  # fmt: skip
def test_errors_name_both_shapes(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("arguments", [
    {"storage": "tfloat32"}, {"operands": "float16"}, {"storage": "float16", "operands": "tfloat32"},
    {"accumulate": "float8_e5m2"}, {"rounding": "up"}, {"overflow": "wrap"}, {"subnormals": "ftz"},
    {"derivative": "numeric"}, {"seed": -1}, {"storage": "int8"},
])  # fmt: skip
def test_arithmetics_without_meaning(arguments):
    with pytest.raises(ValueError):
        gk.Arithmetic(**arguments)
