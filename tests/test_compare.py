"""`compare`: identical runs, true distances, events on one side, first divergences, and the forms of its arguments."""

from __future__ import annotations

import gc
import math
import sys
import weakref

import numpy as np
import pytest

import gradkern as gk
from gradkern import _core, ulp

ROLES = ("pre_activation", "activation", "grad_activation", "grad_pre_activation", "grad_weight", "grad_bias")


def mlp(depth: int = 4, width: int = 24, **options) -> gk.MLP:
    return gk.MLP.random(**{"depth": depth, "width": width, "activation": "tanh", "init": "xavier_normal"} | options)


def batch(rows: int = 32, width: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, width))


NETS = {
    "chain": (mlp(bias_std=0.1), batch(), {"loss": "mse", "target": batch(seed=1)}),
    "rnn": (gk.RNN.random(hidden=16, inputs=3, seed=1), np.random.default_rng(0).standard_normal((6, 8, 3)), {}),
    "truncated": (
        gk.RNN.random(hidden=16, inputs=3, seed=2),
        np.random.default_rng(0).standard_normal((6, 8, 3)),
        {"loss_at": "every", "bptt": 2, "step_accumulate": "storage"},
    ),
}


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("name", ["float64", "float16", "float8_e4m3fn", "float16[rounding=stochastic,seed=5]"])
def test_identical_arithmetics_are_identical(kind, name):
    net, x, options = NETS[kind]
    found = gk.compare(net, x, arithmetics=[name, name], **options)
    (pair,) = found.pairs
    assert found.identical and pair.first is None and pair.findings == []
    assert pair.verdict == f"identical: {len(pair.tensors)} tensors, {pair.size:,} values equal to the bit"
    assert all(t.max_ulp == t.difference == t.log2_ratio == 0 and t.equal == t.size for t in pair.tensors)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize(("one", "two"), [("float16", "float16_pure"), ("bfloat16", "float16"), ("float64", "float32")])
def test_every_row_says_what_the_tensors_of_two_probes_say(kind, one, two):
    net, x, options = NETS[kind]
    a, b = (gk.probe(net, x, arithmetic=name, keep="tensors", **options) for name in (one, two))
    (pair,) = gk.compare(net, x, arithmetics=[one, two], **options).pairs
    assert [(t.layer, t.role) for t in pair.tensors] == [(row.layer, row.role) for row in a.layers]
    assert set(ROLES) <= {t.role for t in pair.tensors}
    formats = gk.finfo(a.arithmetic.storage), gk.finfo(b.arithmetic.storage)
    for t, mine, theirs in zip(pair.tensors, a.layers, b.layers, strict=True):
        p, q = mine.tensor.astype(np.float64), theirs.tensor.astype(np.float64)
        assert t.equal == np.sum(p == q) and t.compared == t.size == p.size
        assert (t.larger, t.smaller) == (np.sum(abs(q) > abs(p)), np.sum(abs(q) < abs(p)))
        if formats[0] == formats[1]:
            distance = np.abs(_places(mine.tensor) - _places(theirs.tensor))
        else:
            distance = ulp.quanta_apart(p, q, formats)
        assert t.max_ulp == distance.max() == (distance.flat[t.max_ulp_index] if t.max_ulp_index is not None else 0)
        assert t.median_ulp == np.quantile(distance, 0.5, method="inverted_cdf")
        assert sum(t.ulp_counts) == t.size and t.ulp_counts[0] == np.sum(distance == 0)
        norms = np.linalg.norm(p), np.linalg.norm(q)
        assert t.difference == pytest.approx(np.linalg.norm(q - p) / norms[0] if norms[0] else 0, rel=1e-12)
        assert t.log2_ratio == pytest.approx(math.log2(norms[1] / norms[0]) if norms[0] else 0, abs=1e-12)
        assert (t.reference_error, t.relative_error) == (mine.relative_error, theirs.relative_error)


def _places(tensor: np.ndarray) -> np.ndarray:
    """Integers in the order of the values, from the bits of float16 or float32."""
    bits = tensor.view(f"i{tensor.dtype.itemsize}").astype(np.int64)
    return np.where(bits < 0, -(bits & (2 ** (8 * tensor.dtype.itemsize - 1) - 1)), bits)


def test_the_first_divergence_is_the_one_that_was_planted():
    # 2048 + 1 + 1 is 2050 in float32 and 2048 in float16 sums, for the middle unit of the second layer only.
    exact = gk.Dense(np.eye(3), None, "identity")
    weight = np.array([[1.0, 0, 0], [2048.0, 1, 1], [0, 0, 1]])
    net = gk.MLP([exact, gk.Dense(weight, None, "identity"), exact])
    (pair,) = gk.compare(net, np.ones((2, 3)), arithmetics=["float16", "float16_pure"]).pairs
    at = pair.first
    assert (at.layer, at.role, at.index) == (2, "pre_activation", 1)
    assert (at.reference_value, at.value) == (2050, 2048) and at.place == "sample 0, unit 1"
    row = next(t for t in pair.tensors if (t.layer, t.role) == (2, "pre_activation"))
    assert (row.max_ulp, row.equal, row.first, row.first_values) == (1, 4, 1, (2050, 2048))
    assert row.ulp_counts == [4, 0, 2] and (row.larger, row.smaller) == (0, 2)


def test_of_two_formats_one_rounding_is_no_divergence():
    net = gk.MLP([gk.Dense([[1.0]], None, "identity")])
    (pair,) = gk.compare(net, [[0.1]], arithmetics=["float64", "float16"]).pairs
    assert pair.first is None and not pair.identical and pair.verdict == "differs by rounding only"


def test_signed_zeros_are_told_apart_and_are_no_distance():
    # 0 * -1 + 0 in the chain is +0; flushing -2^-24 gives -0 where keeping gives the value, so plant it in the input.
    net = gk.MLP([gk.Dense([[1.0]], None, "identity")])
    flush = "float16[subnormals=flush]"
    (pair,) = gk.compare(net, [[-(2.0**-24)]], arithmetics=["float16", flush]).pairs
    first = pair.tensors[0]
    assert (first.role, first.zero_only, first.max_ulp) == ("activation", (0, 1), 1)
    assert math.copysign(1, first.first_values[1]) == -1


def test_overflow_on_one_side_is_critical_and_named_from_either_side():
    net = mlp(depth=3, activation="identity", gain=60.0)
    bfloat, half = (
        gk.compare(net, batch(), arithmetics=pair).pairs[0]
        for pair in (["bfloat16", "float16"], ["float16", "bfloat16"])
    )
    assert bfloat.verdict.startswith("overflows where bfloat16 does not")
    assert half.verdict.startswith("does not overflow where float16 does")
    for pair, side in ((bfloat, 1), (half, 0)):
        finding = pair.findings[0]
        assert (finding.kind, finding.severity) == ("overflow", "critical")
        bad = [t for t in pair.tensors if t.nonfinite_only[side]]
        report = gk.probe(net, batch(), arithmetic="float16")
        assert (bad[0].layer, bad[0].role) == (report.first("overflow").layer, report.first("overflow").role)
        assert all(not t.nonfinite_only[1 - side] for t in pair.tensors)
        assert sum(t.nonfinite_only[side] for t in bad) == sum(row.nonfinite for row in report.layers)


def test_saturation_is_said_though_everything_is_finite():
    net = mlp(depth=3, activation="identity", gain=60.0)
    pair = gk.compare(net, batch(), arithmetics=["float32", "float16[overflow=saturate]"]).pairs[0]
    assert "saturates where float32 does not" in pair.verdict and "saturated" in [f.kind for f in pair.findings]


def test_flushing_on_one_side():
    net = mlp(depth=30, gain=0.4)
    pair = gk.compare(net, batch(), arithmetics=["bfloat16", "float16"]).pairs[0]
    assert "flushes to zero what bfloat16 keeps" in pair.verdict
    assert [f.severity for f in pair.findings if f.kind == "flushed"] == ["major"]
    row = next(t for t in pair.tensors if (t.layer, t.role) == (1, "grad_pre_activation"))
    assert row.zero_only == (0, row.size) and row.difference == 1 and "flushed" not in row.events
    assert row.events["inherited"] == (0, row.size)


def test_errors_as_large_as_the_numbers():
    net = mlp(depth=30, gain=3.0)  # chaotic: errors grow until they are as large as the activations
    pair = gk.compare(net, batch(), arithmetics=["float64", "float8_e4m3fn"], reference=False).pairs[0]
    assert "differs as much as the numbers themselves" in pair.verdict
    assert math.isnan(pair.tensors[-1].relative_error)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("name", ["float16@hopper", "float16@hopper/float16", "bfloat16@hopper", "tfloat32@hopper",
                                  "float8_e4m3fn@hopper", "float16@cuda.hfma"])  # fmt: skip
def test_a_device_holds_to_the_model_of_its_unit(device, kind, name):
    if device == "cuda" and _core.devices("cuda")[0][1:3] != (9, 0):
        pytest.skip("this device has the units of another architecture")
    net, x, options = NETS[kind]
    (pair,) = gk.compare(net, x, arithmetics=name, device=["cpu", device], **options).pairs
    assert pair.verdict == f"the model holds: {len(pair.tensors)} tensors, {pair.size:,} values equal to the bit"
    assert str(pair.other) == f"{name} on {device}"


def test_against_and_devices_choose_the_reference():
    net, x = mlp(), batch()
    found = gk.compare(net, x, arithmetics=["float16", "bfloat16", "float32"], against="float32")
    assert [str(run) for run in found.runs] == ["float32", "float16", "bfloat16"]
    found = gk.compare(net, x, arithmetics=["float16"], against=("float64", "cpu"))
    assert [str(run) for run in found.runs] == ["float64 on cpu", "float16"]
    found = gk.compare(net, x, arithmetics="float16", device=[None, "cpu"])
    assert found.pairs[0].verdict.startswith("the model holds: ")
    assert found.pair("float16 on cpu") is found.pair("float16") is found.pairs[0]
    found = gk.compare(net, x, arithmetics=("float16", "bfloat16"), device="cpu")
    assert [str(run) for run in found.runs] == ["float16 on cpu", "bfloat16 on cpu"]


def test_a_model_that_does_not_hold_says_where_it_fails(monkeypatch):
    def probe(net, x, *, arithmetic, device, **options):
        rule = gk.arithmetic("float16_pure") if device == "cuda" else arithmetic  # a device with other sums
        return gk.probe(net, x, arithmetic=rule, **options)

    monkeypatch.setattr(sys.modules["gradkern.compare"], "probe", probe)
    pair = gk.compare(mlp(), batch(), arithmetics=[("float16", "cpu"), ("float16", "cuda")]).pairs[0]
    finding = pair.findings[0]
    assert pair.verdict.startswith("the model does not hold") and (finding.kind, finding.severity) == (
        "model",
        "critical",
    )
    assert finding.where == "float16 on cuda: layer 1 pre_activation"
    assert f"{pair.size - pair.equal:,} of {pair.size:,} values differ" in finding.evidence


def test_the_tensors_of_two_runs_at_most_are_alive(monkeypatch):
    alive: list[weakref.ref] = []

    def probe(*arguments, **options):
        gc.collect()
        assert sum(ref() is not None for ref in alive) <= 1  # the reference run's
        report = gk.probe(*arguments, **options)
        alive.append(weakref.ref(report))
        return report

    monkeypatch.setattr(sys.modules["gradkern.compare"], "probe", probe)
    gk.compare(mlp(), batch(), arithmetics=["float64", "float32", "float16", "bfloat16"])
    assert len(alive) == 4


def test_progress_rises_to_the_end():
    seen: list[tuple[int, int]] = []
    gk.compare(mlp(), batch(), arithmetics=["float32", "float16", "bfloat16"], progress=lambda *at: seen.append(at))
    done = [at for at, _ in seen]
    assert done == sorted(done) and len({total for _, total in seen}) == 1 and seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"arithmetics": ["float16"]}, ValueError, "at least two runs, got 1"),
        ({"arithmetics": []}, ValueError, "at least two runs, got 0"),
        ({"arithmetics": ["float16", "float12"]}, ValueError, "arithmetic: must be"),
        ({"arithmetics": ["float16", 3]}, TypeError, "got int"),
        ({"arithmetics": [("float16", "cpu", 1), "float32"]}, ValueError, "arithmetic, device"),
        ({"arithmetics": [("float16", 3), "float32"]}, TypeError, "device must be a string"),
        ({"arithmetics": ["float16", "float32"], "device": ["cpu", "cuda"]}, ValueError, "several devices"),
        ({"arithmetics": [("float16", "cpu"), ("float16", "nowhere")]}, ValueError, "device must be"),
        ({"arithmetics": ["float16", "float32"], "keep": "tensors"}, TypeError, "no argument 'keep'"),
        ({"arithmetics": ["float16", "float32"], "arithmetic": "float16"}, TypeError, "give arithmetics"),
        ({"arithmetics": ["float16", "float32"], "magic": 1}, TypeError, "magic"),
        ({"arithmetics": ["float16", "float32"], "scale": 3.0}, ValueError, "power of two"),
    ],
)
def test_bad_arguments_are_named(options, error, words):
    with pytest.raises(error, match=words):
        gk.compare(mlp(), batch(), **options)


def test_runs_that_hold_nothing_finite_are_not_called_equal():
    """Both are NaN in the same places: nothing differs there, and nothing can be said."""
    net = gk.MLP.random(depth=2, width=3, seed=0)
    comparison = gk.compare(net, np.full((1, 3), np.nan), arithmetics=["float32", "float16"])
    assert comparison.pairs[0].verdict == "holds NaN or infinity, as the other does"
    worst = comparison.findings[0]
    assert (worst.kind, worst.severity) == ("nonfinite", "critical") and "cannot be compared" in worst.evidence
