"""`Comparison`: its text, tables, picture and file say what it holds; ``gradkern compare`` says the same."""

from __future__ import annotations

import io
import json
import math
import re

import numpy as np
import pytest

import gradkern as gk
from gradkern import _core
from gradkern.cli import main
from gradkern.render_comparison import RUNS_TITLE, render_comparison, run_table, tensor_table, trouble_first

NAMES = ["float32", "float16", "float16[rounding=toward_zero]", "float32", "float8_e4m3fn"]


@pytest.fixture(scope="module")
def found() -> gk.Comparison:
    net = gk.MLP.random(depth=10, width=64, activation="tanh", init="xavier_normal", gain=0.6, bias_std=0.1)
    return gk.compare(net, np.random.default_rng(0).standard_normal((64, 64)), arithmetics=NAMES)


def coloured(found: gk.Comparison, width: int, **options: bool) -> str:
    from rich.console import Console

    stream = io.StringIO()
    render_comparison(found, Console(file=stream, width=width, force_terminal=True), **options)
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())


def test_text_leads_with_trouble(found):
    text = repr(found)
    places = [text.index(f"\n{pair.other}: {pair.verdict[:20]}") for pair in found.pairs]
    assert (
        text.startswith("10 layers 64 -> 64 -> ... -> 64 (tanh), batch 64") and max(map(len, text.splitlines())) <= 110
    )
    severities = [pair.findings[0].severity if pair.findings else "none" for pair in found.pairs]
    order = [severities[i] for i in np.argsort(places)]
    assert order == sorted(order, key=("critical", "major", "minor", "none").index) and len(set(order)) == 3
    flat = " ".join(text.split())
    for pair in found.pairs:
        assert " ".join(pair.verdict.split()) in flat
        assert all(f.kind in flat and f.remedy in flat for f in pair.findings)


def test_worst_tensors_come_first_and_equal_ones_not_at_all(found):
    for pair in found.pairs:
        rows = trouble_first(pair)
        assert len(rows) == sum(not t.identical for t in pair.tensors)
        shown = [cells[0] for cells in tensor_table(pair)[1]]
        assert shown == [f"layer {t.layer} {t.role}" for t in rows[:6]]
    gaps = [t.difference for t in trouble_first(found.pair("float16"))]
    assert gaps == sorted(gaps, reverse=True)


def test_the_table_of_runs_has_the_largest_values(found):
    header, rows = run_table(found)
    row = dict(zip(header, rows[2], strict=True))
    tensors = found.pair("float16[rounding=toward_zero]").tensors
    assert row["run"] == "float16[rounding=toward_zero]"
    assert row["difference"] == f"{max(t.difference for t in tensors):.1e}"
    assert float(row["max ulp"]) == pytest.approx(max(t.max_ulp for t in tensors), rel=5e-3)
    assert dict(zip(header, rows[3], strict=True))["equal %"] == "100"


@pytest.mark.parametrize("width", [60, 100, 200])
def test_terminals_of_any_width(found, width):
    text = coloured(found, width)
    assert max(map(len, text.splitlines())) <= width
    flat = "".join(text.split())
    assert "float16[rounding=toward_zero]:biasedtowardzero" in flat
    every = coloured(found, 200, every=True)
    assert every.count("grad_weight") > text.count("grad_weight") and RUNS_TITLE.split(";")[0] in every


def test_html_is_escaped_and_whole(found):
    text = found._repr_html_()
    assert text.count("<table>") == text.count("</table>") == 1 + sum(not pair.identical for pair in found.pairs)
    assert "biased toward zero" in text and found.pairs[0]._repr_html_() in text


def test_files_and_dicts_keep_everything(found, tmp_path):
    for name in ("a.json", "b.json.gz"):
        found.save(tmp_path / name)
        again = gk.Comparison.load(tmp_path / name)
        assert again.to_dict() == found.to_dict() and repr(again) == repr(found)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()
    (tmp_path / "c.json").write_text('{"gradkern_comparison": 1, "runs": []}')
    for broken, words in (("c.json", "holds no saved Comparison"), ("missing.json", "missing.json: no such file")):
        with pytest.raises(ValueError, match=words):
            gk.Comparison.load(tmp_path / broken)


def test_nan_and_infinity_pass_through_files(tmp_path):
    net = gk.MLP.random(depth=3, width=8, activation="identity", gain=80.0)
    found = gk.compare(net, np.ones((4, 8)), arithmetics=["bfloat16", "float16"], reference=False)
    assert any(math.isnan(t.median_ulp) for t in found.pairs[0].tensors)
    found.save(tmp_path / "a.json")
    again = gk.Comparison.load(tmp_path / "a.json")
    assert again.to_dict() == found.to_dict() and isinstance(again.pairs[0].tensors[-1].first_values, tuple)


def test_frame_has_a_line_for_every_pair_and_tensor(found):
    pytest.importorskip("pandas")
    frame = found.to_frame()
    assert len(frame) == len(found.rows) == sum(len(pair.tensors) for pair in found.pairs)
    line, (pair, tensor) = frame.iloc[7], found.rows[7]
    assert (line["other"], line["role"], line["max_ulp"]) == (str(pair.other), tensor.role, tensor.max_ulp)
    assert line["bias"] == tensor.bias and line["zero_other_only"] == tensor.zero_only[1]


def test_lookups(found):
    assert found.pair("float8_e4m3fn").rows("grad_bias")[0].layer == 1
    with pytest.raises(KeyError, match="no run 'float64'"):
        found.pair("float64")
    with pytest.raises(ValueError, match="role must be one of"):
        found.pairs[0].rows("magic")
    edges, counts = found.pairs[0].tensors[5].ulp_histogram
    assert len(edges) == len(counts) and counts.sum() == found.pairs[0].tensors[5].compared


def test_picture_has_distances_errors_and_bias(found):
    pytest.importorskip("matplotlib")
    axes = found.plot().figure.axes
    assert [ax.get_ylabel().split(" [")[0].split("\n")[0] for ax in axes] == [
        "median distance",
        "relative error",
        "bias",
    ]
    lines = {tuple(line.get_ydata()) for line in axes[0].get_lines()}
    pair = found.pair("float16")
    assert tuple(t.median_ulp for t in pair.rows("pre_activation")) in lines
    assert any(set(line.get_ydata()) == {0.5} for line in axes[0].get_lines())
    half = gk.finfo("float16").epsilon / 2
    assert any(set(line.get_ydata()) == {half} for line in axes[1].get_lines())
    from matplotlib.figure import Figure

    own = Figure().subplots()
    assert found.plot(own) is own and len(own.figure.axes) == 1


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments):
        code = main(["compare", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def files(tmp_path):
    gk.MLP.random(widths=[3, 5, 2], activation="tanh", seed=1).save(tmp_path / "net.npz")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((10, 3)))
    np.save(tmp_path / "y.npy", np.arange(10) % 2)
    return tmp_path


def test_the_command_is_the_function(run, files):
    pytest.importorskip("matplotlib")
    arguments = (files / "net.npz", "--input", files / "x.npy", "--target", files / "y.npy", "--scale", "2^6")
    names = "float32,float16[overflow=saturate,rounding=toward_zero]"
    code, out, err = run(*arguments, "--arithmetic", names, "--arithmetic", "float32:cpu", "--json", "--save",
                         files / "a.json", "--plot", files / "a.png")  # fmt: skip
    assert code == 0 and not err
    net, x, y = gk.MLP.load(files / "net.npz"), np.load(files / "x.npy"), np.load(files / "y.npy")
    runs = ["float32", "float16[overflow=saturate,rounding=toward_zero]", ("float32", "cpu")]
    same = gk.compare(net, x, arithmetics=runs, loss="cross_entropy", target=y, scale=64.0)
    assert {k: v for k, v in json.loads(out).items() if k != "source"} == same.to_dict()
    assert gk.Comparison.load(files / "a.json").to_dict() == same.to_dict()
    assert (files / "a.png").stat().st_size > 10_000


def test_exit_codes(run, files):
    mine = (files / "net.npz", "--input", files / "x.npy")
    assert run(*mine, "--arithmetic", "float16", "--device", "cpu,cpu", "--fail-on", "minor")[0] == 0
    assert run(*mine, "--arithmetic", "float32,float16", "--fail-on", "minor")[0] == 1
    assert run(*mine, "--arithmetic", "float32,float16", "--fail-on", "major")[0] == 0
    code, out, _ = run("--arithmetic", "float16,float16[rounding=toward_zero]", "--scale", "2^14", "--fail-on", "major")
    assert code == 1 and "biased toward zero" in out
    code, out, _ = run(*mine, "--arithmetic", "float16", "--against", "float64", "--all")
    assert code == 0 and "reference run: float64" in " ".join(out.split()) and out.count("grad_bias") >= 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--arithmetic", "float16"), "at least two runs"),
        (("--arithmetic", "float12,float16"), "arithmetic: must be"),
        (("--arithmetic", "float16,float32", "--device", "cpu,simt"), "several devices"),
        (("--arithmetic", "float16:nowhere,float32"), "device must be"),
        (("--scale", "3"), "--scale: must be a power of two"),
        (("--loss", "magic"), "loss"),
        (("--plot", "a.gif"), "--plot"),
    ],
)
def test_errors_are_one_line(run, arguments, words):
    code, out, err = run(*arguments)
    assert code == 2 and not out and err.startswith("gradkern: error:") and words in err and err.count("\n") == 1


def test_a_device_that_cannot_be_used_is_no_finding(run):
    if not _core.device_why_not("cuda"):
        pytest.skip("this device can be used")
    code, out, err = run("--arithmetic", "float16@hopper", "--device", "cpu,cuda")
    assert code == 2 and not out and err.count("\n") == 1
    assert err.startswith("gradkern: error: device 'cuda' cannot be used")


def test_the_help_teaches(run):
    code, out, _ = run("--help")
    assert code == 0
    for words in ("units in the last place", "rounding=toward_zero", "--device cpu,cuda", "--against", "Exit codes"):
        assert words in " ".join(out.split())
