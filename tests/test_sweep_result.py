"""What a sweep's result says: medians over draws, mean field theory's phase diagram, tables, pictures."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import gradkern as gk

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(201)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def mean_field(sigma_w: float, sigma_b: float) -> tuple[float, float]:
    """Rate of gradients of an infinitely wide tanh net [bits/layer], and what a unit adds to its first correction times n.

    chi_1 = sigma_w^2 E phi'(sqrt(q*) z)^2: Schoenholz, Gilmer, Ganguli, Sohl-Dickstein, ICLR 2017, equations 3 and 5.
    """
    q = 1.0
    for _ in range(2000):
        q = sigma_w**2 * float(WEIGHTS @ np.tanh(math.sqrt(q) * NODES) ** 2) + sigma_b**2
    slopes = 1 - np.tanh(math.sqrt(q) * NODES) ** 2
    second, fourth = float(WEIGHTS @ slopes**2), float(WEIGHTS @ slopes**4)
    # || D W^T v ||^2 is a mean of n terms phi'^2 times a squared Gaussian; the log of a mean is half its variance below
    return math.log2(sigma_w**2 * second) / 2, (3 * fourth / second**2 - 1) / 4 / math.log(2)


@pytest.mark.parametrize("sigma_w, sigma_b", [(0.8, 0.3), (1.3, 0.0), (1.5, 1.0), (2.5, 0.3), (4.0, 0.5)])
def test_gradients_change_as_mean_field_theory_says(sigma_w: float, sigma_b: float) -> None:
    width = 160
    grid = {
        "depth": 40,
        "width": width,
        "activation": "tanh",
        "init": "lecun_normal",
        "arithmetic": "float64",
        "batch": 1,
    }
    (row,) = gk.sweep({**grid, "gain": sigma_w, "bias_std": sigma_b, "seed": range(12)}).quenched().rows
    theory, correction = mean_field(sigma_w, sigma_b)
    slack = 2 * correction / width
    assert row["gradient_rate_low"] - slack <= theory <= row["gradient_rate_high"] + slack
    assert row["gradient_rate_high"] - row["gradient_rate_low"] + slack < 0.15


@pytest.fixture(scope="module")
def phases() -> gk.SweepResult:
    return gk.sweep({
        "depth": 25, "width": 40, "activation": "tanh", "init": "lecun_normal", "gain": np.arange(0.5, 3.1, 0.5),
        "bias_std": [0.0, 0.4, 0.8], "arithmetic": "float32", "batch": 2, "seed": range(3),
    })  # fmt: skip


def test_the_zero_contour_is_the_edge_of_chaos(phases: gk.SweepResult) -> None:
    pytest.importorskip("matplotlib")
    ax = phases.plot()
    (contour,) = [c for c in ax.collections if type(c).__name__ == "QuadContourSet"]
    (line,) = contour.allsegs[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == (r"$\sigma_w$", r"$\sigma_b$") and len(line) >= 3
    for sigma_w, sigma_b in line:
        below, above = mean_field(sigma_w - 0.25, sigma_b)[0], mean_field(sigma_w + 0.25, sigma_b)[0]
        assert below < 0 < above
    assert ax.get_title(loc="left") == "depth 25, width 40, tanh, lecun_normal, float32"
    mesh = ax.collections[0]
    assert mesh.get_array().shape == (3, 6) and mesh.norm.vmin == -mesh.norm.vmax


def test_quenched_rows_are_medians_of_the_draws(phases: gk.SweepResult) -> None:
    typical = phases.quenched()
    assert len(phases) == 54 and len(typical) == 18
    for row in typical.rows:
        draws = [r for r in phases.rows if (r["gain"], r["bias_std"]) == (row["gain"], row["bias_std"])]
        assert row["draws"] == 3 and "seed" not in row and "severity" not in row and "dead" not in row
        for name in ("gradient_rate", "weight_rate", "gradient_bits", "effective_depth", "loss"):
            assert row[name] == np.median([r[name] for r in draws])
        assert math.isnan(row["gradient_rate_low"])  # of three draws nothing can be said
    both = phases.quenched(["seed", "gain"])
    assert len(both) == 3 and {row["draws"] for row in both.rows} == {18}
    assert all(row["gradient_rate_low"] < row["gradient_rate"] < row["gradient_rate_high"] for row in both.rows)
    for over in ("depths", [], ["seed", "key"]):
        with pytest.raises(ValueError, match="over must be of depth"):
            phases.quenched(over)


def test_failed_draws_are_not_counted() -> None:
    rows = gk.sweep({"depth": 2, "width": 3, "seed": range(3)}).rows
    broken = gk.SweepResult((rows[0], {**rows[1], "error": "MemoryError: "}, rows[2]))
    (row,) = broken.quenched().rows
    assert row["draws"] == 2 and row["loss"] == (rows[0]["loss"] + rows[2]["loss"]) / 2
    (none,) = gk.SweepResult(broken.failed).quenched().rows
    assert none["draws"] == 0 and "loss" not in none


def test_medians_are_not_moved_by_a_dead_network() -> None:
    """A dead net has no rate and loses all bits; the median over three goes on being a number."""
    rows = gk.sweep({"depth": 12, "width": 3, "batch": 1, "seed": range(40)})
    dead = [row for row in rows.rows if row["dead"]]
    assert dead and all(row["gradient_bits"] == -math.inf or math.isnan(row["gradient_bits"]) for row in dead)
    (row,) = rows.quenched().rows
    assert row["death_probability"] == len(dead) / 40 and math.isfinite(row["gradient_rate"])


def test_where_chooses_by_value(phases: gk.SweepResult) -> None:
    assert len(phases.where(gain=1, bias_std=np.float32(0))) == 3
    assert {row["seed"] for row in phases.where(seed=2).rows} == {2}
    assert len(phases.where(arithmetic=gk.arithmetic("float16"))) == 0
    assert repr(phases.where(width=3)) == "SweepResult: 0 points"
    with pytest.raises(ValueError, match="grid may have"):
        phases.where(gains=1)


def test_it_is_shown(phases: gk.SweepResult) -> None:
    lines = repr(phases).splitlines()
    assert lines[0] == "SweepResult: 54 points; gain 0.5 .. 3 (6); bias_std 0, 0.4, 0.8; seed 0, 1, 2"
    assert lines[1].split() == [
        "gain", "bias_std", "seed", "gradients", "low", "high", "weights", "effective", "trainable", "log2", "scale",
        "severity",
    ]  # fmt: skip
    assert len(lines) == 13 and lines[-1] == "  ... and 44 more" and len({len(line) for line in lines[1:-1]}) == 1
    assert "P(dead)" in repr(phases.quenched())
    text = phases._repr_html_()
    assert text.count("<tr>") == 11 and "<th>gradients</th>" in text


def test_it_is_json_and_a_frame(phases: gk.SweepResult) -> None:
    payload = json.loads(json.dumps(phases.to_dict(), allow_nan=False))
    assert (payload["points"], payload["failed"], len(payload["rows"])) == (54, 0, 54)
    pytest.importorskip("pandas")
    frame = phases.to_frame()
    assert len(frame) == 54 and frame["gradient_rate"].dtype == np.float64 and frame["gain"].nunique() == 6
    assert frame.groupby(["gain", "bias_std"])["gradient_rate"].median().tolist() == [
        row["gradient_rate"] for row in sorted(phases.quenched().rows, key=lambda row: (row["gain"], row["bias_std"]))
    ]


def test_trainable_depth_is_drawn_as_a_line_per_format() -> None:
    pytest.importorskip("matplotlib")
    formats = ["float32", "float16", "float8_e5m2"]
    result = gk.sweep({
        "depth": [4, 8, 16, 24], "width": 8, "activation": "sigmoid", "init": "xavier_normal", "arithmetic": formats,
        "seed": range(6), "batch": 4,
    })  # fmt: skip
    ax = result.plot()
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert list(lines) == [*formats, "every layer"] and ax.get_xlabel() == "depth"
    assert list(lines["float32"].get_ydata()) == [4, 8, 16, 24]  # two bits a layer, 149 there are
    typical = {(r["depth"], r["arithmetic"]): r["trainable_depth"] for r in result.quenched().rows}
    for fmt in formats:
        assert list(lines[fmt].get_ydata()) == [typical[depth, fmt] for depth in (4, 8, 16, 24)]
    assert typical[24, "float8_e5m2"] < typical[24, "float16"] < 15
    rates = result.plot(value="gradient_rate", x="depth")
    assert "bits/layer" in rates.get_ylabel()
    assert rates.get_legend() is not None


def test_what_cannot_be_drawn_is_refused(phases: gk.SweepResult) -> None:
    pytest.importorskip("matplotlib")
    for options, message in (
        ({"x": "gains"}, "x and y must be of depth"), ({"value": "speed"}, "value must be of .*gradient_rate"),
        ({"x": "gain", "y": "width"}, "bias_std varies too; choose one value by where"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            phases.plot(**options)
    with pytest.raises(ValueError, match="a plane needs several numbers"):
        phases.where(bias_std=0).plot(x="gain", y="bias_std")
    with pytest.raises(ValueError, match=r"none of depth.* varies"):
        phases.where(gain=1, bias_std=0).plot()
    many = gk.sweep({"depth": [1, 2], "width": 2, "gain": np.arange(1, 20)})
    with pytest.raises(ValueError, match="19 lines, for gain; choose fewer by where"):
        many.plot(x="depth", value="loss")
