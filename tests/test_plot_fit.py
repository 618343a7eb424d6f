"""Pictures of one tensor and of fits: counts, limits, and no matplotlib before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from conftest import NAN

import gradkern as gk

pytest.importorskip("matplotlib")

X = np.random.default_rng(0).standard_normal(3000)


def test_bars_are_the_binades():
    stats = gk.measure(np.append(X * 4, [0.0, NAN]), scale=4, name="w")
    ax = stats.plot(formats=["half", "e4m3"], scale=2.0)
    exponents, counts = stats.binades
    bars = {round(bar.get_x()): bar.get_height() for bar in ax.patches}
    assert bars == dict(zip((exponents + 1).tolist(), counts.tolist(), strict=True))
    lines = {line.get_label(): line.get_xdata()[0] for line in ax.lines}
    assert lines == {
        "float16: flushed below $2^{-25}$": -25, "float16: subnormal below $2^{-14}$": -14,
        "float16: overflow from $2^{16}$": 16, "float8_e4m3fn: flushed below $2^{-10}$": -10,
        "float8_e4m3fn: subnormal below $2^{-6}$": -6, "float8_e4m3fn: overflow from $2^{9}$": 9,
    }  # fmt: skip
    left, right = ax.get_xlim()
    assert left < min(lines.values()) and right > max(lines.values()) and "2^{1}" in ax.get_xlabel()
    assert ax.get_title(loc="left") == "w, 3,002 entries, 1 zero, 1 NaN or inf"


@pytest.mark.parametrize("x", [np.zeros(0), np.zeros(3), np.array([NAN]), np.array([5e-324, 1.7e308])])
def test_tensors_with_little_to_draw(x, tmp_path):
    stats = gk.measure(x)
    for ax in (stats.plot(), stats.plot(formats=[]), stats.fit("float16").plot()):
        ax.figure.savefig(tmp_path / "p.png")


def test_a_fit_fills_its_bar():
    for fmt in gk.formats():
        for k in (-20, -8, 0, 8, 14):
            fit = gk.measure(X).fit(fmt, 2.0**k)
            ax = fit.plot()
            assert sum(bar.get_width() for bar in ax.patches) == pytest.approx(100)
            widths = {c.get_label(): c.patches[0].get_width() for c in ax.containers}
            for fate in ("flushed", "subnormal", "kept", "overflow"):
                assert widths[fate] == pytest.approx(100 * getattr(fit, fate).low / 3000)
            open_ = sum(bar.get_width() for bar in ax.patches if bar.get_hatch())
            doubt = fit.kept.high - fit.kept.low
            assert open_ == pytest.approx(100 * doubt / 3000)


def test_a_fit_of_a_table():
    table = gk.measure_many({f"t{i}": X * 2.0**i for i in range(-12, 12)})
    ax = table.fit("float8_e4m3fn", 4.0).plot()
    assert [text.get_text() for text in ax.get_yticklabels()] == list(table)
    assert ax.get_title(loc="left") == "float8_e4m3fn at scale 4" and ax.yaxis_inverted()
    with pytest.raises(ValueError, match="plot: there are no tensors to draw"):
        gk.StatsTable({}).fit("float16").plot()


def test_arguments_and_given_axes():
    from matplotlib.figure import Figure

    stats, ax = gk.measure(X), Figure().subplots()
    assert stats.plot(ax) is ax and stats.fit("float16").plot(ax) is ax
    for value, error in (("2", TypeError), (3, ValueError), (NAN, ValueError)):
        with pytest.raises(error, match=r"^plot: scale must be"):
            stats.plot(scale=value)
    with pytest.raises(ValueError, match=r"^format: must be one of"):
        stats.plot(formats=["float12"])


def test_matplotlib_is_loaded_when_it_is_asked_for():
    code = (
        "import sys, gradkern as gk; s = gk.measure([1.0]); f = s.fit('float16'); print('matplotlib' in sys.modules); "
        "f.plot(); s.plot(); print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True", "False"]
