"""Small layers go by spans, each thread with its samples, where only statistics are asked for: the same bits as by layers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import gradkern as gk

WIDTHS = [9, *[40, 1, 33, 64, 64, 17, 128, 128, 5, 70, 3, 3, 50, 20, 6] * 3]  # spans, and a rest


def net(fmt: str, activation: str) -> gk.MLP:
    rng = np.random.default_rng(0)
    dtype = gk.finfo(fmt).dtype
    return gk.MLP(
        [
            gk.Dense(
                (rng.standard_normal((n_out, n_in)) * (2 / n_in) ** 0.5).astype(dtype),
                rng.standard_normal(n_out).astype(dtype) if n_out % 2 else None, activation,
            )
            for n_in, n_out in pairwise(WIDTHS)
        ]
    )  # fmt: skip


ARITHMETICS = [
    *("float64", "float32", "float16", "float16_pure", "bfloat16", "tf32", "float8_e5m2"),
    gk.Arithmetic(storage="float16", subnormals="flush", overflow="saturate", rounding="toward_zero"),
    gk.Arithmetic(storage="bfloat16", derivative="stored_output"),
]


@pytest.mark.parametrize("weights", ["float64", "float16"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("arithmetic", ARITHMETICS, ids=str)
def test_spans_and_layers_are_the_same(arithmetic, activation, weights, threads):
    network, x = net(weights, activation), np.random.default_rng(1).standard_normal((61, WIDTHS[0]))
    x[5, 3], x[60, 1] = np.inf, np.nan
    for scale, samples in ((1.0, x), (8.0, x[:59].astype(np.float32))):
        run = {"arithmetic": arithmetic, "reference": False, "scale": scale}
        spans, layers = gk.probe(network, samples, **run), gk.probe(network, samples, **run, keep="tensors")
        assert spans.loss == layers.loss or (np.isnan(spans.loss) and np.isnan(layers.loss))
        for a, b in zip(spans.layers, layers.layers, strict=True):
            assert (a.name, repr(a.to_dict())) == (b.name, repr(b.to_dict()))


@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_what_is_counted_stays_as_it_is(fmt, threads):
    """A layer's gradients are counted on one thread while another multiplies with them: of one sample they are NaN."""
    network = gk.MLP.random(depth=32, width=64, activation="relu", bias_std=0.1, seed=0)
    samples = np.random.default_rng(0).standard_normal((512, 64))
    samples[40, 3] = np.inf
    run = {"arithmetic": fmt, "reference": False}
    layers = gk.probe(network, samples, **run, keep="tensors").layers
    want = [(layer.name, repr(layer.to_dict())) for layer in layers]
    for _ in range(12):
        assert [(layer.name, repr(layer.to_dict())) for layer in gk.probe(network, samples, **run).layers] == want
