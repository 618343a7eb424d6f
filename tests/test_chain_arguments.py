"""Arguments that are stored as they are, whose truth is themselves: the same report as where they are decoded and judged."""

import numpy as np
import pytest

import gradkern as gk

SHAPES = [(3, 5), (64, 64), (96, 90)]  # the last one by all threads


def special_weights(fmt: str, shape: tuple[int, int]):
    info, rng = gk.finfo(fmt), np.random.default_rng(3)
    w = (rng.standard_normal(shape) / np.sqrt(shape[1])).astype(info.dtype)
    flat, tiny = w.reshape(-1), float(info.smallest_subnormal)
    flat[:6] = np.array([0.0, -0.0, tiny, -3 * tiny, float(info.max), 1.0]).astype(info.dtype)
    return w


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("fmt", ["float64", "float32", "float16", "bfloat16", "float8_e5m2"])
@pytest.mark.parametrize("storage", ["float64", "float32", "float16", "bfloat16"])
def test_an_exact_argument_is_judged_like_any_other(storage, fmt, shape, threads):
    weight = special_weights(fmt, shape)
    bias = special_weights(fmt, (1, shape[0] + 6))[0, : shape[0]]
    net = gk.MLP([gk.Dense(weight, bias, activation="tanh")])
    x = np.random.default_rng(4).standard_normal((7, shape[1]))
    quick, whole = (gk.probe(net, x, arithmetic=storage, scale=4.0, keep=keep) for keep in ("reports", "tensors"))
    for a, b in zip(quick.layers, whole.layers, strict=True):
        assert (a.name, repr(a.to_dict())) == (b.name, repr(b.to_dict()))
    if storage == fmt:
        row = quick.rows("weight")[0]
        size = np.abs(weight.astype(np.float64))
        subnormal = np.count_nonzero((size > 0) & (size < float(gk.finfo(fmt).smallest_normal)))
        assert row.relative_error == 0 and row.subnormal == subnormal >= 2 and row.structural == 2
