"""`probe` of an `RNN`: exact rationals, torch autograd, the contract step by step, and the same bits everywhere."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from conftest import bits, chain, check_same_as_baseline, fma, round_exactly, widened

import gradkern as gk


def seeded(hidden=6, inputs=5, steps=8, batch=4, activation="tanh", gain=0.5, seed=0):
    rng = np.random.default_rng(seed)
    net = gk.RNN(
        gain * rng.standard_normal((hidden, hidden)), rng.standard_normal((hidden, inputs)),
        0.3 * rng.standard_normal(hidden), activation,
    )  # fmt: skip
    return net, rng.standard_normal((steps, batch, inputs)), rng.standard_normal((batch, hidden))


def test_the_exact_rationals_of_a_scalar_chain():
    net = gk.RNN([[0.5]], [[1.0]], None, "identity")
    report = gk.probe(net, np.ones((5, 1, 1)), arithmetic="float64", keep="tensors")
    w, h, outputs = Fraction(1, 2), Fraction(0), [Fraction(0)]
    for _ in range(5):
        h = w * h + 1
        outputs.append(h)
    shares = [w ** (5 - k) * outputs[k - 1] for k in range(1, 6)]
    assert shares == [0, Fraction(1, 8), Fraction(3, 8), Fraction(7, 8), Fraction(15, 8)]
    assert report.row(0, "grad_weight").tensor.item() == sum(shares) == Fraction(13, 4)
    c = report.contributions
    assert list(c.steps) == [5, 4, 3, 2, 1]
    want = [math.log2(s) if s else -math.inf for s in reversed(shares)]
    assert np.allclose(c.log2_norm, want, rtol=0, atol=1e-15)
    assert np.allclose(c.stored_log2_norm, want, rtol=0, atol=1e-15)
    running = np.log2(np.cumsum([float(s) for s in reversed(shares)]))
    assert np.allclose(c.running_log2_norm, running, rtol=0, atol=1e-15)


def torch_gradients(torch, net, x, h0, loss, target, at, bptt):
    """Every gradient by autograd, the state detached where gradients are cut, from the last step backwards."""
    w, v, b, first = (
        torch.tensor(np.asarray(a), dtype=torch.float64, requires_grad=True)
        for a in (net.recurrent_weight, net.input_weight, net.bias, h0)
    )
    phi = {"tanh": torch.tanh, "relu": torch.relu, "gelu": torch.nn.functional.gelu}[net.activation]
    h, outputs, steps = first, [], len(x)
    for t in range(1, steps + 1):
        if bptt and (steps - t + 1) % bptt == 0:
            h = h.detach()
        h = phi(torch.tensor(x[t - 1]) @ v.T + h @ w.T + b)
        outputs.append(h)
    out = torch.stack(outputs) if at == "every" else h
    if loss == "sum":
        value = out.sum()
    elif loss == "mse":
        value = torch.nn.functional.mse_loss(out, torch.tensor(target))
    else:
        value = torch.nn.functional.cross_entropy(out.reshape(-1, out.shape[-1]), torch.tensor(target).reshape(-1))
    leaves = {"grad_weight": w, "grad_input_weight": v, "grad_bias": b, "grad_activation": first}
    grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    return {k: None if g is None else g.numpy() for k, g in zip(leaves, grads, strict=True)}, float(value.detach())


@pytest.mark.parametrize("bptt", [None, 1, 3, 8, 11])
@pytest.mark.parametrize("at", ["last", "every"])
@pytest.mark.parametrize("loss", ["sum", "mse", "cross_entropy"])
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_every_gradient_against_torch(activation, loss, at, bptt):
    torch = pytest.importorskip("torch")
    net, x, h0 = seeded(activation=activation)
    rng = np.random.default_rng(1)
    shape = (8, 4) if at == "every" else (4,)
    target = {"sum": None, "mse": rng.standard_normal((*shape, 6)), "cross_entropy": rng.integers(0, 6, shape)}[loss]
    report = gk.probe(
        net, x, loss=loss, target=target, arithmetic="float64", keep="tensors", loss_at=at, bptt=bptt, initial=h0
    )
    wanted, value = torch_gradients(torch, net, x, h0, loss, target, at, bptt)
    assert report.loss == pytest.approx(value, rel=1e-12)
    assert report.reference_loss == pytest.approx(value, rel=1e-12)
    for role, want in wanted.items():
        rows = [row for row in report.rows(role) if row.layer == 0]
        if want is None:  # h_0 is beyond the truncation
            assert rows == []
            continue
        size = np.abs(want).max()
        assert np.abs(rows[0].tensor - want).max() <= 1e-12 * size, role
        assert np.abs(np.ldexp(rows[0].truth, rows[0].reference.exponent) - want).max() <= 1e-12 * size, role


def test_long_chains_against_torch():
    torch = pytest.importorskip("torch")
    net, x, h0 = seeded(hidden=16, inputs=3, steps=200, batch=2, gain=0.3)
    report = gk.probe(net, x, arithmetic="float64", keep="tensors", initial=h0)
    wanted, _ = torch_gradients(torch, net, x, h0, "sum", None, "last", None)
    for role, want in wanted.items():
        assert np.abs(report.row(0, role).tensor - want).max() <= 1e-12 * np.abs(want).max(), role


def stored_recurrence(net, x, h0, storage, acc, every=False):
    """The contract with exact integers: z, h and the gradients of sum(h_T), phi being relu."""

    def fl(value):
        return round_exactly(value, storage)

    w, v, b = (
        [[fl(float(e)) for e in row] for row in np.atleast_2d(a)]
        for a in (net.recurrent_weight, net.input_weight, net.bias)
    )
    b, n = b[0], len(w)
    xs = [[[fl(float(e)) for e in row] for row in step] for step in x]
    hs, zs = [[[fl(float(e)) for e in row] for row in h0]], [None]
    for step in xs:
        z = [
            [fl(chain([*xi, *hi], [*v[j], *w[j]], acc, b[j])) for j in range(n)]
            for xi, hi in zip(step, hs[-1], strict=True)
        ]
        zs.append(z)
        hs.append([[max(e, 0.0) for e in row] for row in z])
    dh, dzs, steps = [[1.0] * n for _ in h0], [], len(x)
    for t in range(steps, 0, -1):
        dz = [
            [fl(d * (1.0 if e > 0 else 0.0)) for d, e in zip(*rows, strict=True)]
            for rows in zip(dh, zs[t], strict=True)
        ]
        dzs.append((t, dz))
        own = [[1.0] * n if every and t > 1 else [None] * n for _ in h0]
        dh = [
            [fl(chain(row, [w[j][k] for j in range(n)], acc, o[k])) for k in range(n)]
            for row, o in zip(dz, own, strict=True)
        ]

    def total(values_of, columns):
        result = []
        for j in range(n):
            for k in range(columns):
                a = 0.0
                for t, dz in dzs:
                    for i, row in enumerate(dz):
                        a = fma(row[j], values_of(t, i, k), a, acc)
                result.append(fl(a))
        return result

    inputs = len(v[0])
    return {
        "activation": [e for row in hs[-1] for e in row], "grad_activation": [e for row in dh for e in row],
        "grad_weight": total(lambda t, i, k: hs[t - 1][i][k], n),
        "grad_input_weight": total(lambda t, i, k: xs[t - 1][i][k], inputs),
        "grad_bias": total(lambda t, i, k: 1.0, 1),
    }  # fmt: skip


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize(
    "storage, acc", [("float32", "float32"), ("float16", "float32"), ("float16", "float16"), ("bfloat16", "bfloat16")]
)
def test_the_contract_step_by_step(storage, acc, every, isa):
    net, x, h0 = seeded(hidden=4, inputs=3, steps=5, batch=2, activation="relu", gain=0.7, seed=3)
    arithmetic = gk.Arithmetic(storage=storage, accumulate=acc)
    report = gk.probe(net, x, arithmetic=arithmetic, keep="tensors", initial=h0, loss_at="every" if every else "last")
    wanted = stored_recurrence(net, x, h0, storage, acc, every)
    for role, want in wanted.items():
        layer = 5 if role == "activation" else 0
        got = widened(report.row(layer, role).tensor).ravel().tolist()
        assert got == want, role


def test_storage_accumulation_is_autograds_sum():
    """fl(total + fl(share)) with shares that are exact: a share below half an ulp of the total is absorbed."""
    net = gk.RNN([[1.0]], [[1.0]], None, "identity")
    x = np.zeros((4, 1, 1))
    initial = np.array([[1.0]])
    run = {"arithmetic": "float16", "initial": initial, "keep": "tensors"}
    once = gk.probe(net, x, **run)
    every = gk.probe(net, x, **run, step_accumulate="storage")
    assert once.row(0, "grad_weight").tensor.item() == every.row(0, "grad_weight").tensor.item() == 4.0
    assert list(every.contributions.absorbed) == [0] * 4
    assert once.contributions.absorbed is None
    # h = 2048 + k: from the second step on, a share of 2^-1 is added to a total above 2048
    x = np.zeros((3, 1, 1))
    net = gk.RNN([[2.0**-12]], [[1.0]], None, "identity")
    report = gk.probe(net, x, arithmetic="float16", initial=[[4096.0]], step_accumulate="storage", keep="tensors")
    h = [4096.0, 1.0, 2.0**-12]
    total, absorbed = np.float16(0), []
    for t in (3, 2, 1):
        share = np.float16(2.0 ** (-12 * (3 - t)) * h[t - 1])
        new = np.float16(np.float64(total) + np.float64(share))
        absorbed.append(int(share != 0 and new == total))
        total = new
    assert report.row(0, "grad_weight").tensor.item() == total
    assert list(report.contributions.absorbed) == absorbed


@pytest.mark.parametrize("step_accumulate", ["accumulate", "storage"])
@pytest.mark.parametrize("arithmetic", ["float32", "float16", "float16_pure", "bfloat16", "tf32", "float8_e5m2"])
def test_same_bits_everywhere(arithmetic, step_accumulate, isa, threads):
    net, x, h0 = seeded(hidden=70, inputs=33, steps=6, batch=5, gain=0.1)

    def compute():
        report = gk.probe(
            net, x, arithmetic=arithmetic, keep="tensors", initial=h0, loss_at="every", scale=8.0,
            step_accumulate=step_accumulate,
        )  # fmt: skip
        tensors = tuple(bits(row.tensor).tobytes() for row in report.layers)
        return tensors, repr(report.contributions.to_frame().to_dict()), [repr(row.to_dict()) for row in report.layers]

    pytest.importorskip("pandas")
    check_same_as_baseline((arithmetic, step_accumulate, "recurrent"), compute)


def test_the_loss_scale_scales_gradients_only():
    net, x, _ = seeded()
    plain = gk.probe(net, x, arithmetic="float64", keep="tensors")
    scaled = gk.probe(net, x, arithmetic="float64", keep="tensors", scale=2.0**20)
    for row in plain.layers:
        factor = 2.0**20 if row.role.startswith("grad") else 1.0
        assert np.array_equal(scaled.row(row.layer, row.role).tensor, row.tensor * factor)
    shares = [report.contributions.stored_log2_norm for report in (plain, scaled)]
    assert np.allclose(*shares, rtol=0, atol=1e-14)


def test_1000_steps_of_decay_are_followed_by_the_reference():
    """0.5^t: the stored chain dies, the true one goes on to 2^-999 and below."""
    net = gk.RNN([[0.5]], [[1.0]], None, "identity")
    x = np.zeros((1200, 1, 1))
    report = gk.probe(net, x, arithmetic="float16", initial=[[1.0]])
    assert report.decay_rate().bits_per_layer == pytest.approx(-1, abs=1e-12)
    assert report.row(1, "grad_pre_activation").reference_log2_norm == -1199
    assert report.effective_horizon() == 25
    assert report.contributions.log2_norm[-1] == -1199
    assert report.contributions.running_log2_norm[-1] == pytest.approx(math.log2(1200) - 1199, abs=1e-9)


@pytest.mark.parametrize("bptt", [None, 7])
@pytest.mark.parametrize("arithmetic", ["float32", "float16", "float16_pure", "bfloat16", "float64", "float8_e4m3fn"])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_samples_by_thread_and_step_by_step_are_the_same(arithmetic, scale, bptt, threads):
    """Where no tensor is kept each thread takes its samples through many steps at once."""
    net, x, h0 = seeded(hidden=40, inputs=9, steps=37, batch=57, gain=0.2)
    net = gk.RNN(net.recurrent_weight, net.input_weight, net.bias, "tanh")
    run = {"arithmetic": arithmetic, "initial": h0, "reference": False, "bptt": bptt, "scale": scale}
    by_rows, by_steps = gk.probe(net, x, **run), gk.probe(net, x, **run, keep="tensors")
    for a, b in zip(by_rows.layers, by_steps.layers, strict=True):
        assert (a.name, repr(a.to_dict())) == (b.name, repr(b.to_dict()))
    assert repr(by_rows.contributions.stored_log2_norm.tolist()) == repr(
        by_steps.contributions.stored_log2_norm.tolist()
    )
