"""`Spectrum` as a result: words, pictures, frames, JSON."""

from __future__ import annotations

import html
import json

import numpy as np
import pytest
from jacobian_truth import chain_of

import gradkern as gk

STEPS = {
    "explodes": [[2.0, 0.0], [0.0, 1.0]],
    "vanishes": [[0.5, 0.0], [0.0, 0.25]],
    "transient": [[0.5, 100.0], [0.0, 0.5]],
    "nilpotent": [[0.0, 2.0], [0.0, 0.0]],
    "steady": [[0.0, 1.0], [-1.0, 0.0]],
}
WORDS = {
    "explodes": "explodes", "vanishes": "vanishes", "transient": "grows, then vanishes", "nilpotent": "exactly zero",
    "steady": "keeps its size",
}  # fmt: skip


def found(kind, k=None):
    return gk.jacobian(chain_of([np.array(STEPS[kind])] * 20), [0.0, 0.0], k)


@pytest.mark.parametrize("k", [None, 1, 2])
@pytest.mark.parametrize("kind", STEPS)
def test_kinds_and_words(kind, k):
    spectrum = found(kind, k)
    assert spectrum.kind == kind and spectrum.depth == 20
    text = spectrum.summary()
    assert WORDS[kind] in text.splitlines()[0] and repr(spectrum) == text
    assert ("iterations" in text) == (k is not None) and ("rank" in text) == (k is None)
    assert max(map(len, text.splitlines())) <= 110
    assert html.escape(text) in spectrum._repr_html_()


def test_numbers_in_words():
    assert found("explodes").summary().splitlines()[1:] == [
        "  singular values  2^20.0 down to 2^0.0",
        "  Lyapunov         +0.000 to +1.000 bits/layer",
        "  shape            rank 2, stable rank 1, condition 2^20.0",
        "  layer norms      2; their product, 2^20.0, is an upper bound",
    ]
    assert "to 2^6.6 after layer 1, then decay" in found("transient").summary()


def test_plain_values_and_frames():
    pytest.importorskip("pandas")
    spectrum = found("nilpotent")
    values = json.loads(json.dumps(spectrum.to_dict()))
    assert values["log2_singular_values"] == ["-inf", "-inf"] and values["kind"] == "nilpotent"
    assert values["log2_norm_bound"] == 20 and values["log2_condition"] == "inf" and values["rank"] == 0
    frame = found("vanishes").to_frame()
    assert frame["log2_singular_value"].tolist() == [-20, -40] and frame["lyapunov"].tolist() == [-1, -2]
    batch = gk.jacobian(chain_of([np.array(STEPS["vanishes"])] * 3), np.zeros((4, 2)))
    assert batch.to_frame()["sample"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert batch.log2_norm_bound.tolist() == [-3] * 4 and batch.kind == ["vanishes"] * 4
    assert "at 4 points: 4 vanishes" in batch.summary()
    assert json.dumps(batch.to_dict())


def test_only_a_batch_has_samples():
    spectrum = found("steady")
    assert spectrum.samples is None
    with pytest.raises(TypeError, match="single point"):
        len(spectrum)
    with pytest.raises(TypeError, match="single point"):
        spectrum[0]
    batch = gk.jacobian(chain_of([np.eye(2)]), np.zeros((3, 2)), 1)
    assert len(batch) == 3 and batch[2].residual <= 1e-8
    with pytest.raises(IndexError):
        batch[3]


@pytest.mark.parametrize("k", [None, 1])
def test_plots(k):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    for kind in STEPS:
        axes = found(kind, k).plot()
        assert len(axes.figure.axes) == 2
        axes.figure.canvas.draw()
        own = Figure().subplots()
        assert found(kind, k).plot(own) is own
    growth = found("transient").plot().lines[0]
    assert growth.get_ydata()[:2] == pytest.approx([0, np.log2((100 + np.sqrt(100**2 + 1)) / 2)], abs=1e-4)
    batch = gk.jacobian(gk.MLP.random(depth=5, width=3), np.ones((4, 3)))
    batch.plot().figure.canvas.draw()
