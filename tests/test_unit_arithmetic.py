"""Matrix units as the accumulator of an arithmetic: names, layers, chains and recurrent nets, from `mma` alone."""

from __future__ import annotations

import json
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest

import gradkern as gk
from gradkern import _units, cli
from gradkern.formats import finfo

NAMES = [info.name for info in gk.arithmetics() if "@" in info.name]
SOME = ["float16@volta/float16", "float16@hopper", "tfloat32@ampere", "float8_e4m3fn@hopper.wgmma", "bfloat16@blackwell",
        "float8_e5m2@hopper/float16", "float8_e4m3fn@ada", "bfloat16@x86.amx",
        "float16@cuda.hmul_hadd", "float16@numpy"]  # fmt: skip


def test_every_unit_operand_and_accumulator_is_a_preset():
    assert len(NAMES) == len(set(NAMES)) == 64
    for name in NAMES:
        a = gk.arithmetic(name)
        assert str(a) == name
        assert gk.arithmetic(str(a)) == a
    assert (
        gk.arithmetic("fp16@hopper")
        == gk.arithmetic("float16@hopper/float32")
        == gk.Arithmetic("float16", accumulate="hopper")
    )
    assert gk.arithmetic("tf32@ampere") == gk.Arithmetic("float32", operands="tfloat32", accumulate="ampere")
    changed = gk.Arithmetic("float16", accumulate="volta/float16", overflow="saturate")
    assert str(changed) == "float16@volta/float16[overflow=saturate]"
    assert gk.arithmetic(str(changed)) == changed


def test_presets_say_how_well_they_are_known():
    evidence = {info.name: info.evidence for info in gk.arithmetics()}
    assert "recorded outputs" in evidence["float16@volta"]
    assert "recorded outputs" not in evidence["float16@turing"]
    assert "there is no recording" in evidence["float16@turing"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bfloat16@volta", "volta has no instruction for bfloat16 times bfloat16; it multiplies float16"),
        ("float32@hopper", "no instruction for float32"),
        ("bfloat16@ampere/float16", "accumulates bfloat16 products in float32 only"),
        ("float16@kepler", "accumulate must be one of"),
    ],
)
def test_what_a_unit_cannot_do_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        gk.arithmetic(name)


def accumulated(a, b, arithmetic, bias=None, start=None):
    """A product by `mma`, with the bias added in the accumulator by NumPy, rounded once to storage by ml_dtypes."""
    acc = _units.accumulator(arithmetic.accumulate, "test")
    if arithmetic.operands == "tfloat32":
        a, b = (gk.cast(x, "tfloat32").values for x in (a, b))
    d = gk.mma(a, b, start, unit=arithmetic.accumulate)
    if bias is not None:
        d = d + bias.astype(finfo(acc.format).dtype)
    return d


def settled(d, arithmetic):
    return d.astype(finfo(arithmetic.storage).dtype)


def drawn(rng, shape, arithmetic, scale=1.0):
    return (rng.standard_normal(shape) * scale).astype(np.float32).astype(finfo(arithmetic.storage).dtype)


def same(x, y):
    return np.array_equal(np.asarray(x, np.float64), np.asarray(y, np.float64), equal_nan=True)


# torch_cpu sums a layer in another order than a product: see test_cpu_units.py.
@pytest.mark.parametrize("name", [name for name in NAMES if "torch_cpu" not in name])
def test_dense_layers_are_products_of_the_unit(name):
    a, rng = gk.arithmetic(name), np.random.default_rng(1)
    x, w, b = drawn(rng, (6, 37), a), drawn(rng, (11, 37), a, 0.3), drawn(rng, 11, a)
    out = gk.dense_forward(x, w, b, arithmetic=a)
    assert same(out.pre_activation, settled(accumulated(x, np.ascontiguousarray(w.T), a, b), a))
    dz = drawn(rng, (6, 11), a)
    g = gk.dense_backward(dz, x, w, arithmetic=a)
    assert same(g.input, settled(accumulated(dz, w, a), a))
    assert same(g.weight, settled(accumulated(np.ascontiguousarray(dz.T), x, a), a))
    ones = np.ones((1, 6), x.dtype)
    assert same(g.bias, settled(accumulated(ones, dz, a), a)[0])


@pytest.mark.parametrize("name", SOME)
def test_chains_are_their_layers(name, isa, threads):
    a, rng = gk.arithmetic(name), np.random.default_rng(2)
    widths = [20, 33, 18]
    layers = [gk.Dense(drawn(rng, (n, m), a, 0.3), drawn(rng, n, a, 0.1), "tanh") for m, n in pairwise(widths)]
    x = drawn(rng, (40, 20), a)
    report = gk.probe(gk.MLP(layers), x, arithmetic=a, keep="tensors")
    h, inputs, outputs = x, [], []
    for layer in layers:
        inputs.append(h)
        outputs.append(gk.dense_forward(h, layer.weight, layer.bias, activation="tanh", arithmetic=a))
        h = outputs[-1].output
        assert same(report.row(len(inputs), "pre_activation").tensor, outputs[-1].pre_activation)
    dh = np.ones(h.shape, h.dtype)
    for number in (2, 1):
        layer = layers[number - 1]
        g = gk.dense_backward(
            dh, inputs[number - 1], layer.weight, outputs[number - 1].pre_activation, activation="tanh", arithmetic=a
        )
        assert same(report.row(number, "grad_weight").tensor, g.weight)
        assert same(report.row(number, "grad_bias").tensor, g.bias)
        dh = g.input
        assert same(report.row(number - 1, "grad_activation").tensor, dh)


@pytest.mark.parametrize("name", SOME)
def test_recurrent_nets_are_products_of_the_unit(name, isa):
    a, rng = gk.arithmetic(name), np.random.default_rng(3)
    steps, batch, n, m = 3, 5, 12, 7
    net = gk.RNN(drawn(rng, (n, n), a, 0.3), drawn(rng, (n, m), a, 0.3), drawn(rng, n, a, 0.1), "tanh")
    x = drawn(rng, (steps, batch, m), a)
    report = gk.probe(net, x, arithmetic=a, keep="tensors")
    recurrent, from_input, bias = net.recurrent_weight, net.input_weight, net.bias
    h = [np.zeros((batch, n), x.dtype)]
    for t in range(1, steps + 1):
        part = accumulated(x[t - 1], np.ascontiguousarray(from_input.T), a)
        z = settled(accumulated(h[-1], np.ascontiguousarray(recurrent.T), a, bias, part), a)
        assert same(report.row(t, "pre_activation").tensor, z)
        h.append(gk.activation_forward(z, "tanh", arithmetic=a))
    # One walk along k, t descending and the batch ascending within a step: instructions do not end where a step does.
    order = range(steps, 0, -1)
    dz = np.concatenate([np.asarray(report.row(t, "grad_pre_activation").tensor) for t in order])
    before = np.concatenate([h[t - 1] for t in order])
    total = accumulated(np.ascontiguousarray(dz.T), before, a)
    assert same(report.rows("grad_weight")[0].tensor, settled(total, a))


def test_units_differ_from_the_chain_and_from_one_another():
    rng = np.random.default_rng(4)
    x, w = (
        rng.uniform(0, 1, (8, 512)).astype(ml_dtypes.bfloat16),
        rng.uniform(0, 1, (8, 512)).astype(ml_dtypes.bfloat16),
    )
    seen = {unit: gk.mma(x, np.ascontiguousarray(w.T), unit=unit).tobytes() for unit in ("float32", "ampere", "hopper")}
    assert len(set(seen.values())) == 3


@pytest.mark.parametrize("name", [*NAMES, "float16", "bfloat16_pure", "float64", "ampere", "volta/float16"])
def test_explanations(name):
    e = gk.explain(name)
    text = repr(e)
    assert e.name.split("@")[0] in text
    assert "<table>" in e._repr_html_()
    assert json.loads(json.dumps(e.to_dict()))["evidence"]
    if e.example.terms is not None:
        assert sum(e.example.terms) == e.example.total
        assert str(e.parameters["F, fraction bits"]) in text


def test_the_worked_example_shows_the_bits_kept():
    results = [gk.explain(f"float16@{unit}").example.result for unit in ("volta", "ampere", "hopper")]
    assert results == [0.0, -0.5, -0.75]
    assert gk.explain("float16@hopper").example.exact == -0.875


def test_the_worked_examples_tell_units_that_round_each_operation_apart():
    order = {name: gk.explain(f"bfloat16@x86.{name}").example.result for name in ("amx", "avx512_bf16")}
    assert order == {"amx": 1, "avx512_bf16": -1}  # the sum is 0: see the two orders in docs/cpu_units.md
    square = {name: gk.explain(f"float16@cuda.{name}").example.result for name in ("hfma", "hmul_hadd")}
    assert square == {"hfma": 2.0**-20, "hmul_hadd": 0}  # (1 + 2^-10)^2 less its rounding to float16


def test_an_explanation_names_the_other_instructions_and_exact_numbers():
    text = repr(gk.explain("float16@hopper"))
    assert "instruction_k=8" in text and "mma.m16n8k8: L 8, F 25" in text
    assert "8388608" in text and "the quantum is 2^-2" in text
    assert gk.explain("float16@hopper").example.quantum == 0.25
    assert "instruction_k" not in repr(gk.explain("float16@volta"))
    assert all(len(line) <= 102 for info in gk.arithmetics() for line in repr(gk.explain(info.name)).splitlines())


def test_explain_on_the_command_line(capsys):
    assert cli.main(["explain", "float16@hopper", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["example"]["result"] == -0.75
    assert cli.main(["explain"]) == 0
    assert "bfloat16@ampere" in capsys.readouterr().out
    assert cli.main(["explain", "bfloat16@volta"]) == 2
    assert "volta has no instruction" in capsys.readouterr().err
