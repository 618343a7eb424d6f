"""The picture of a table: shares, groups of rows, limits, and no state of pyplot."""

from __future__ import annotations

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from conftest import NAN

import gradkern as gk

pytest.importorskip("matplotlib")
from gradkern.plot_table import groups, limits, share_per_binade


def drawn(count, **extra):
    rng = np.random.default_rng(0)
    arrays = {f"encoder.layers.{i}.weight": rng.standard_normal(64) * 2.0 ** -(i % 12) for i in range(count)}
    return gk.measure_many({**arrays, **extra})


def test_shares_are_those_of_the_binades():
    table = gk.measure_many({"a": np.array([1.0, 1.5, 4.0, 0.0]), "zero": np.zeros(3), "b": np.array([0.25])})
    exponents, share = share_per_binade(table, 8.0)
    assert exponents.tolist() == [1, 2, 3, 4, 5] and share.shape == (3, 5)
    assert share[0] == pytest.approx([0, 0, 200 / 3, 0, 100 / 3])
    assert share.sum(axis=1) == pytest.approx([100, 0, 100]) and share[2, 0] == 100


@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_limits_by_casting(fmt):
    flush, normal, overflow = limits(gk.finfo(fmt))
    dtype = gk.finfo(fmt).dtype

    def stored(k, factor=1.0):
        with np.errstate(all="ignore"):
            return float(np.array(factor * 2.0**k, np.float64).astype(np.float32).astype(dtype))

    assert stored(flush) == 0 and stored(flush, 1.01) > 0
    assert normal == ml_dtypes.finfo(dtype).minexp
    assert not np.isfinite(stored(overflow)) and np.isfinite(stored(overflow - 1))


def test_many_names_become_groups():
    names = [f"model.layers.{i}.{part}.{kind}" for i in range(50) for part in "qkvo" for kind in ("weight", "bias")]
    found = groups(["embed.weight", *names, "head.weight"])
    assert (
        found[0] == ("embed.weight", 0, 1)
        and found[1] == ("model.layers.0", 1, 8)
        and found[-1] == ("head.weight", 401, 1)
    )
    assert len(found) == 52 and sum(count for _, _, count in found) == 402
    assert [name for name, _, _ in groups([str(i) for i in range(600)])] == [str(i) for i in range(0, 600, 10)]
    assert groups([f"layer {i} {role}" for i in range(40) for role in ("a", "b", "c")])[3] == ("layer 3", 9, 3)


@pytest.mark.parametrize("count", [1, 12, 103, 600])
def test_any_number_of_tensors(count, tmp_path):
    ax = drawn(count).plot()
    figure = ax.get_figure(root=True)
    figure.savefig(tmp_path / "t.png")
    assert figure.get_size_inches()[1] <= 17 and len(ax.get_yticks()) <= 110
    assert f"{count:,} tensor" in figure.axes[0].get_title(loc="left")
    bar_texts = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert "65504" in bar_texts and "float8_e4m3fn" in bar_texts and "448" in bar_texts


def test_marks_of_what_cannot_be_drawn():
    tail = np.append(np.ones(1000), 2.0**-120)
    ax = drawn(12, bad=np.array([NAN, 1.0]), zero=np.zeros(2), tail=tail).plot(formats=["half"], scale=4.0)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["NaN or inf", "no finite non-zero entry", "a few entries down to $2^{-118}$"]
    assert ax.get_xlim()[0] > -60 and "2^{2}" in ax.get_xlabel()
    assert drawn(3).plot().get_legend() is None


def test_in_given_axes():
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert drawn(5).plot(ax, formats=["float16"]) is ax
    with pytest.raises(ValueError, match="the table holds no tensors"):
        gk.StatsTable({}).plot()
    for arrays in ({"zero": np.zeros(3)}, {"nan": np.array([NAN])}):
        assert gk.measure_many(arrays).plot(formats=[]).get_legend() is not None


def test_pyplot_is_left_alone(tmp_path):
    code = "import sys, gradkern as gk; gk.measure_many([gk.init.normal(3, 3)]).plot(); print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_names_are_never_formulas_and_never_too_long(tmp_path):
    names = ["$x_1$", "$\\frac{", "a\x1b[31m\n", "layers.1." + "x" * 300, "layers.2." + "x" * 300]
    ax = gk.measure_many({name: np.ones(3) for name in names}).plot()
    ax.get_figure(root=True).savefig(tmp_path / "t.png")
    shown = [label.get_text() for label in ax.get_yticklabels()]
    assert shown[:3] == ["$x_1$", "$\\frac{", "a\\x1b[31m\\n"] and len(set(shown)) == 5
    assert max(map(len, shown)) <= 60 and not any(label.get_parse_math() for label in ax.get_yticklabels())
    many = gk.measure_many({f"$\\frac{{.{i}": np.ones(1) for i in range(300)}).plot()
    many.get_figure(root=True).savefig(tmp_path / "many.png")
    assert not any(label.get_parse_math() for label in many.get_yticklabels())
