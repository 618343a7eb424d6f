"""Text, tables and the picture of a report: what they must say and draw."""

from __future__ import annotations

import io
import math
import re

import numpy as np
import pytest

import gradkern as gk
from gradkern import render


def report_of(depth: int = 40, gain: float = 0.7, activation: str = "tanh", **options: object) -> gk.ChainReport:
    net = gk.MLP.random(depth=depth, width=24, activation=activation, init="xavier_normal", gain=gain)
    x = np.random.default_rng(0).standard_normal((8, 24))
    return gk.probe(net, x, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def vanishing() -> gk.ChainReport:
    return report_of(scale=2.0**4)


def coloured(report: gk.ChainReport, width: int = 100, **options: bool) -> str:
    from rich.console import Console

    stream = io.StringIO()
    render.render_report(
        report, Console(file=stream, width=width, force_terminal=True, color_system="standard"), **options
    )
    return stream.getvalue()


def unstyled(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_summary_says_what_it_must(vanishing: gk.ChainReport) -> None:
    text = vanishing.summary()
    flat = " ".join(text.split())
    assert text.startswith("40 layers 24 -> 24 -> ... -> 24 (tanh), batch 8, in float16, loss scale 2^4")
    assert f"loss (sum) {vanishing.loss:.6g}, true {vanishing.reference_loss:.6g}" in flat
    assert str(vanishing.decay_rate()) in flat
    assert f"{vanishing.effective_depth()} of 40 layers (stored chain)" in flat
    assert "(round once)" in flat and vanishing.loss_scale_window().why in flat
    assert vanishing.findings
    for finding in vanishing.findings:
        assert f"[{finding.severity}] {finding.kind} in {finding.where}" in flat
        assert f"remedy: {finding.remedy}" in flat
    assert repr(vanishing) == text
    assert max(map(len, text.splitlines())) <= 100


def test_table_holds_a_dozen_layers_from_the_loss_backwards(vanishing: gk.ChainReport) -> None:
    header, rows = render.gradient_table(vanishing)
    numbers = [int(row[0]) for row in rows]
    assert numbers[0] == 40 and numbers[-1] == 1 and numbers == sorted(numbers, reverse=True)
    assert 12 <= len(rows) <= 13
    assert len(render.gradient_table(vanishing, all_layers=True)[1]) == 40
    row = vanishing.row(1, "grad_pre_activation")
    cells = dict(zip(header, rows[-1], strict=True))
    assert cells["true"] == f"{row.reference_log2_norm:.1f}"
    assert cells["stored"] == f"{row.log2_norm:.1f}"
    assert cells["error"] == f"{row.relative_error:.1e}"
    assert cells["kept"] == render.percent(row.kept, row.size)
    assert cells["inherit"] == render.percent(row.inherited, row.size)


def test_summary_of_a_healthy_chain() -> None:
    report = report_of(depth=6, gain=1.0, arithmetic="float32")
    assert report.summary().endswith("\nhealthy")


def test_summary_with_nan_and_with_zero_gradients() -> None:
    broken = report_of(depth=6, gain=4.0, activation="identity", scale=2.0**14)
    assert "NaN/inf" in broken.summary() and "[critical] overflow" in broken.summary()
    dead = gk.probe(gk.MLP([gk.Dense(np.eye(3), -10.0 * np.ones(3), "relu")]), np.ones((2, 3)))
    assert re.search(r"^ +1 +zero +zero ", dead.summary(), re.MULTILINE)
    assert "[major] dead" in dead.summary()


@pytest.mark.parametrize("scale", [1.0, 2.0**30])
def test_rendering_without_a_reference(scale: float) -> None:
    report = report_of(depth=20, reference=False, scale=scale)
    text = report.summary()
    assert "reference" in text and "attributed" in text
    assert "effective depth" not in text and "true " not in text
    assert ("[critical] overflow" in text) == (scale > 1)
    assert "healthy" not in text
    assert "layer stored subnormal flushed overflow NaN/inf" in " ".join(text.split())
    assert render.verdict(report) in unstyled(coloured(report))
    assert "<table>" in report._repr_html_()


@pytest.mark.parametrize(
    ("count", "size", "text"),
    [(0, 9, "."), (9, 9, "100"), (1, 10**6, "<0.1"), (10**6 - 1, 10**6, ">99.9"), (1, 8, "12.5"), (999, 1000, "99.9")],
)
def test_percent_never_rounds_to_nothing_or_to_all(count: int, size: int, text: str) -> None:
    assert render.percent(count, size) == text


def test_html_is_escaped_and_well_formed() -> None:
    from xml.etree import ElementTree

    report = report_of(depth=20)
    text = render.report_html(report)
    tree = ElementTree.fromstring(text)
    assert "20 layers 24 -&gt; 24 -&gt; ..." in text
    assert len(tree.findall(".//tbody/tr")) == len(render.gradient_table(report)[1])
    assert len(tree.findall(".//li")) == len(report.findings) > 0


def test_coloured_report_puts_the_findings_first(vanishing: gk.ChainReport) -> None:
    styled = coloured(vanishing)
    text = unstyled(styled)
    assert "\x1b[" in styled
    assert text.index(f"[{vanishing.findings[0].severity}]") < text.index("decay rate") < text.index("rel")
    assert len(unstyled(coloured(vanishing, all_layers=True)).splitlines()) - len(text.splitlines()) >= 27


def test_coloured_table_fits_80_columns(vanishing: gk.ChainReport) -> None:
    text = unstyled(coloured(vanishing, width=80))
    header, _ = render.gradient_table(vanishing)
    line = next(line for line in text.splitlines() if line.split()[:2] == ["layer", "true"])
    assert line.split() == header


def test_info_and_selftest_render() -> None:
    from rich.console import Console

    from gradkern.system import SelfTest

    stream = io.StringIO()
    console = Console(file=stream, width=100)
    render.render_info(gk.info(), console)
    render.render_selftest(SelfTest({"one": "", "two": "got [3]"}), console)
    text = stream.getvalue()
    assert gk.info().isa in text and "device cuda" in text and "not part of this build" in text
    assert "passed  one" in text and "FAILED  two: got [3]" in text


def plot_module() -> object:
    pytest.importorskip("matplotlib")
    from gradkern import plot

    return plot


@pytest.mark.parametrize("reference", [True, False])
def test_heat_map_holds_every_nonzero_entry(reference: bool) -> None:
    plot = plot_module()
    report = report_of(scale=2.0**4, reference=reference)
    layers, exponents, share = plot.share_per_binade(report)  # type: ignore[attr-defined]
    assert layers.tolist() == list(range(1, 41)) and share.shape == (len(exponents), 40)
    assert np.all(share >= 0)
    for column, row in zip(share.T, report.rows("grad_pre_activation"), strict=True):
        stats = row.reference or row.stats
        assert math.isclose(column.sum(), 100.0 if stats.nonzero else 0.0)
        if stats.nonzero:  # the top binade holds the largest magnitude, loss scale included
            assert exponents[np.flatnonzero(column)[-1]] == math.floor(stats.log2_amax) + 4


@pytest.mark.parametrize(
    ("arithmetic", "limits"),
    [
        ("float16", (math.log2(65504), -14, -25)),
        ("float16[rounding=toward_zero]", (math.log2(65504), -14, -24)),
        ("float16[subnormals=flush]", (math.log2(65504), -14, -14)),
        ("float8_e4m3fn", (math.log2(448), -6, -10)),
        ("float8_e5m2", (math.log2(57344), -14, -17)),
    ],
)
def test_plot_draws_the_limits_and_names_them(arithmetic: str, limits: tuple[float, float, float]) -> None:
    plot = plot_module()
    report = report_of(depth=10, arithmetic=arithmetic)
    assert tuple(plot.format_limits(report).values()) == limits  # type: ignore[attr-defined]
    ax = report.plot()
    heights = {line.get_ydata()[0] for line in ax.lines if len(set(line.get_ydata())) == 1}
    assert heights >= set(limits)
    texts = " ".join(text.get_text() for text in ax.texts)
    assert f"largest finite $\\approx 2^{{{limits[0]:.4g}}}$" in texts
    assert f"flush threshold $2^{{{limits[2]}}}$" in texts
    assert ("smallest normal" in texts) == (limits[1] != limits[2])
    bottom, top = ax.get_ylim()
    assert bottom < limits[2] and top > limits[0]


def test_far_limits_are_named_at_the_edge_and_far_data_is_cut() -> None:
    pytest.importorskip("matplotlib")
    wide = report_of(depth=5, gain=1.0, arithmetic="float64").plot()
    texts = [text.get_text() for text in wide.texts]
    assert any(text.startswith("\u2191 largest finite") for text in texts)
    assert any(text.startswith("\u2193 flush threshold $2^{-1075}$") for text in texts)
    assert wide.get_ylim()[1] - wide.get_ylim()[0] < 100
    deep = report_of(depth=300, gain=0.4).plot()
    assert deep.get_ylim()[0] > -80
    assert any("down to" in text.get_text() for text in deep.texts)


def test_plot_shows_fates_lines_and_labels(vanishing: gk.ChainReport) -> None:
    pytest.importorskip("matplotlib")
    ax = vanishing.plot()
    figure = ax.figure
    below = next(a for a in figure.axes if a.get_ylabel() == "entries [%]")
    present = {fate for row in vanishing.rows("grad_pre_activation") for fate, n in row.fates.items() if n}
    assert {text.get_text() for text in below.get_legend().get_texts()} == present
    top = below.collections[-1].get_paths()[0].vertices[:, 1].max()
    assert math.isclose(top, 100.0)
    assert ax.get_shared_x_axes().joined(ax, below)
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    row = vanishing.row(40, "grad_pre_activation")
    assert math.isclose(lines["stored rms"][-1], row.log2_norm + 4 - math.log2(row.size) / 2)
    assert math.isclose(
        lines["true rms"][0], vanishing.row(1, row.role).reference_log2_norm + 4 - math.log2(row.size) / 2
    )
    assert "float16" in ax.get_title(loc="left") and "loss scale" in ax.get_ylabel() and "layer" in below.get_xlabel()


def test_plot_into_given_axes_adds_none(vanishing: gk.ChainReport) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure()
    ax = figure.subplots()
    assert vanishing.plot(ax) is ax
    assert figure.axes == [ax]


@pytest.mark.parametrize("case", ["dead", "overflow", "single", "no reference"])
def test_plot_of_hard_cases_can_be_saved(case: str) -> None:
    pytest.importorskip("matplotlib")
    if case == "dead":
        report = gk.probe(gk.MLP([gk.Dense(np.eye(3), -10.0 * np.ones(3), "relu")]), np.ones((2, 3)))
    else:
        report = {
            "overflow": lambda: report_of(depth=8, gain=3.0, scale=2.0**14),
            "single": lambda: report_of(depth=1),
            "no reference": lambda: report_of(depth=8, reference=False),
        }[case]()
    ax = report.plot()
    stream = io.BytesIO()
    ax.figure.savefig(stream, format="png")
    assert stream.getvalue().startswith(b"\x89PNG")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert ("NaN or inf stored" in labels) == (case == "overflow")
    assert ("all stored as zero" in labels) == (case == "dead")
