"""Judging a table: columns against single tensors, brackets told as ranges, order, names, tensors without numbers."""

from __future__ import annotations

import sys
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from conftest import INF, NAN

import gradkern as gk
from gradkern._table_words import magnitudes, remarks, shares, tensor_columns
from gradkern.fit import Bracket
from gradkern.joint_window import joint_window
from gradkern.render import scales
from gradkern.render_table import table_lines
from gradkern.trouble import SORTS, judge

NARROW = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")


def edges():
    """Tensors with entries on and beside every threshold, at ends that float64 barely holds, and without any entry."""
    rng = np.random.default_rng(3)
    yield {f"t{i}": rng.standard_normal(rng.integers(1, 90)) * 2.0 ** rng.integers(-40, 40) for i in range(40)}
    for fmt in map(gk.finfo, gk.formats()):
        around = np.array([fmt.overflow_threshold, fmt.smallest_normal, fmt.zero_threshold, 1.5 * fmt.zero_threshold])
        near = np.concatenate([around, np.nextafter(around, 0), np.nextafter(around, INF)])
        near = np.append(near[np.isfinite(near)], 1.0)
        yield {f"{i}": near[i:] for i in range(len(near))}
        yield {f"{i}": near[: i + 1] for i in range(len(near))}
    yield {"zero": np.zeros(3), "nan": np.array([NAN]), "empty": np.zeros(0), "inf": np.array([INF, 0.0])}
    yield {"least": np.array([5e-324]), "most": np.array([1.7e308]), "both": np.array([5e-324, 1.7e308])}
    yield {"none": np.zeros(0, np.float32)}


def tables():
    yield from map(gk.measure_many, edges())
    net = gk.MLP.random(depth=400, width=4, activation="sigmoid", init="xavier_normal")
    yield gk.measure_many(gk.probe(net, np.ones((2, 4))))  # the reference outgrows float64
    arrays = {"a": np.ones(5, ml_dtypes.bfloat16), "b": np.full(4, 2.0**-10, np.float16)}
    yield gk.measure_many(arrays, scale=2.0**12)


@pytest.mark.parametrize("fmt", gk.formats())
def test_columns_count_what_single_tensors_do(fmt):
    for table in tables():
        for scale in (1.0, 2.0**-30, 2.0**9, 2.0**1000):
            fits = table.columns.fits(fmt, scale)
            assert [fits[i] for i in range(len(table))] == [stats.fit(fmt, scale) for stats in table.values()]


@pytest.mark.parametrize("fmt", gk.formats())
def test_columns_find_the_scales_of_single_tensors(fmt):
    for table in tables():
        largest, bound = table.columns.largest_scales(fmt)
        found = [int(k) if b else None for k, b in zip(largest, bound, strict=True)]
        assert found == [stats.largest_scale(fmt) for stats in table.values()]
        for lose in (0.0, 1e-3, 0.3, 0.999):
            smallest, bound = table.columns.smallest_scales(fmt, lose)
            found = [int(k) if b else None for k, b in zip(smallest, bound, strict=True)]
            assert found == [stats.smallest_scale(fmt, lose) for stats in table.values()]
            named = [replace(stats, name=name) for name, stats in table.items()]
            assert table.loss_scale_window(fmt, lose) == joint_window(named, fmt, lose)


def test_columns_without_a_lower_bound():
    columns = gk.measure_many({"a": np.array([2.0**-60, 1.0]), "big": np.array([2.0**20])}).columns
    assert not columns.smallest_scales("float16", 1.0)[1].any()
    assert columns.most_served("float16", 1.0) == (2.0**-5, 2)
    assert gk.measure_many({"zero": np.zeros(3)}).columns.most_served("float16", 0.0) == (1.0, 1)


def test_a_window_open_at_either_end_is_written():
    window = gk.measure_many({"a": np.ones(3)}).loss_scale_window("float16")
    assert scales(window) == "2^-24..2^15"
    assert scales(replace(window, low=None, log2_low=None, headroom_bits=None)) == "any..2^15"
    assert scales(replace(window, high=None, log2_high=None, headroom_bits=None)) == "2^-24..any"
    assert scales(gk.measure_many({"a": np.zeros(3)}).loss_scale_window("float16")) == "any"
    assert scales(gk.measure_many({"a": np.array([1e-30, 1e30])}).loss_scale_window("float16")) == "none"


def test_a_bracket_is_printed_as_a_range():
    cases = [((0, 0), "."), ((3, 3), "30"), ((1, 3), "10-30"), ((0, 2), "0-20"), ((9, 10), "90-100")]
    for (low, high), text in cases:
        assert shares(Bracket(low, high), 10) == text
    assert shares(Bracket(40_001, 40_002), 10**6) == "4.0", "both ends read the same"


def test_ranges_reach_the_table_and_only_their_low_end_is_trouble():
    rng = np.random.default_rng(0)
    cut = np.concatenate(
        [2.0**-7 * (1 + rng.random(30)), np.ones(70)]
    )  # e4m3fn's smallest normal is cut in that binade
    over = np.array([449.0, 460.0, 470.0, 1.0])
    table = gk.measure_many({"cut": cut, "over": over})
    judged = judge(table, ["e4m3"], lose=0.05)
    (fmt,) = judged.formats
    assert (fmt.overflow, fmt.flushed, fmt.subnormal) == (Bracket(1, 1), Bracket(0, 0), Bracket(0, 1))
    worst, other = judged.tensors
    found = other.fits["float8_e4m3fn"].subnormal
    assert (worst.name, worst.severity, worst.fits["float8_e4m3fn"].overflow) == ("over", "critical", Bracket(1, 3))
    assert (other.severity, other.suspicion) == (None, "minor") and found.low <= 1 and found.high == 30
    columns = {column.name: column for column in tensor_columns(judged, list(judged.tensors), table)}
    assert columns["ovf"].cells == ["25-75", "."] and columns["ovf"].styles == ["bold red", "dim"]
    assert columns["sub"].cells == [".", shares(found, 100)] and columns["sub"].styles == ["dim", "dim"]
    text = "\n".join("".join(text for text, _ in line) for line in table_lines(table, judged, 100))
    assert "0..1" in text and "25-75" in text and "-30" in text and "a-b: between a and b" in text
    alone = judge(gk.measure_many({"cut": cut}), ["e4m3"], lose=0.05)
    assert alone.severity is None and alone.tensors.suspicion == "minor" and len(alone.troubled) == 1
    assert alone.to_dict()["formats"][0]["subnormal"] == {"low": 0, "high": 1}


def parts(**shares_at):
    """A tensor of 1000 entries of 1 but for some, given as exponent=count."""
    x = np.ones(1000)
    start = 0
    for exponent, count in shares_at.items():
        x[start : start + count] = 2.0 ** int(exponent[1:].replace("m", "-"))
        start += count
    return x


def test_the_worst_is_that_of_all_formats_together():
    one, both = parts(em20=600), parts(em60=500)  # of e5m2 alone, and of both formats
    table = gk.measure_many({"one": one, "both": both})
    judged = judge(table, ["float16", "e5m2"])
    maxima = {t.name: max(fit.flushed.low for fit in t.fits.values()) for t in judged.tensors}
    assert maxima["one"] > maxima["both"], "the largest share alone would put them the other way round"
    assert [t.name for t in judged.tensors] == ["both", "one"]
    assert [t.name for t in judge(table, ["float16", "e5m2"], sort="flushed").tensors] == ["both", "one"]
    assert [t.name for t in judge(table, ["e5m2"]).tensors] == ["one", "both"]


def test_overflow_and_flushing_count_together():
    mixed, flushed = parts(e17=200, em60=500), parts(e17=300, em60=300)
    names = [t.name for t in judge(gk.measure_many({"b": flushed, "a": mixed}), ["float16"]).tensors]
    assert names == ["a", "b"]


def test_severity_goes_first_and_what_may_be_lost_counts_as_none():
    arrays = {"minor": parts(em20=900), "allowed": parts(em20=400, em60=1), "major": parts(em60=2),
              "critical": parts(e17=1), "nan": np.append(np.ones(999), NAN)}  # fmt: skip
    judged = judge(gk.measure_many(arrays), ["float16"])
    assert [t.name for t in judged.tensors] == ["nan", "critical", "major", "minor", "allowed"]
    assert [t.severity for t in judged.tensors] == ["critical", "critical", "major", "minor", "minor"]


def test_equals_keep_their_order():
    arrays = {f"t{i}": parts(em60=300) if i % 3 else np.ones(7) for i in (5, 3, 9, 1, 7, 2, 6)}
    for sort in set(SORTS) - {"name", "size"}:
        names = [t.name for t in judge(gk.measure_many(arrays), ["float16"], sort=sort).tensors]
        assert names in (["t5", "t1", "t7", "t2", "t3", "t9", "t6"], list(arrays)), sort


def test_names_are_those_of_the_table(tmp_path):
    small, large = gk.measure(np.array([2.0**-60])), gk.measure(np.array([2.0**60]), name="former")
    bad = gk.measure(np.array([NAN, 1.0]), name="former")
    table = gk.StatsTable({"small": small, "large": large, "bad": bad})
    table.save(tmp_path / "t.json")
    for named in (table, gk.StatsTable.load(tmp_path / "t.json")):
        judged = judge(named, ["float16"])
        assert {t.name for t in judged.tensors} == {"small", "large", "bad"} and judged.nonfinite == ["bad"]
        why = named.loss_scale_window("float16").why
        assert why.startswith("no loss scale fits float16: small needs") and "large overflows above" in why
        assert why.endswith("1 of 3 tensors holds NaN or inf, which no scale mends: bad")
        assert "former" not in repr(named) and "the tensor" not in repr(named)
    assert table["large"] is large, "the statistics are not copied"


def test_keys_that_are_no_text():
    stats = gk.measure(np.array([2.0**60, 2.0**-60]))
    table = gk.StatsTable({3: stats, ("a", 1): stats})
    assert list(table) == ["3", "('a', 1)"] and "3 needs at least" in table.loss_scale_window("float16").why
    assert "('a', 1)" in repr(table) and table.fit("float16")["3"].overflow.low == 1
    with pytest.raises(ValueError, match="StatsTable: two tensors are named '3'"):
        gk.StatsTable({3: stats, "3": stats})
    measured = gk.measure_many({3: np.array([1e9]), (1, 2): np.ones(2)})
    assert [t.name for t in judge(measured, ["float16"]).tensors] == ["3", "(1, 2)"]


def test_tensors_without_a_number_do_not_fit_they_are_named():
    arrays = {"zero": np.zeros(3), "nan": np.array([NAN, INF]), "mix": np.array([0.0, NAN]), "empty": np.zeros(0)}
    table = gk.measure_many({**arrays, "one": np.ones(2)})
    judged = judge(table, ["float16"])
    assert judged.blank == list(arrays)
    found = {tensor.name: magnitudes(tensor) for tensor in judged.tensors}
    assert found == {"zero": "all zero", "nan": "no finite", "mix": "zero, NaN/inf", "empty": "empty", "one": "0..0"}
    said = "4 of 5 tensors have no finite non-zero entry: zero, nan, mix and 1 more"
    assert said in [text for text, _ in remarks(table, judged)] and said in repr(table)
    for name in arrays:
        alone = gk.measure_many({name: arrays[name]})
        assert f"1 of 1 tensor has no finite non-zero entry: {name}" in repr(alone)
        assert "healthy: every" not in repr(alone)
        assert "no finite non-zero entry" in alone.loss_scale_window("float16").why
        assert "no finite non-zero entry" in alone[name].loss_scale_window("float16").why


def test_thousands_of_tensors_are_written_at_once():
    """Judged in arrays: some eighty calls of Python functions a tensor, in place of thousands."""
    rng, count, calls = np.random.default_rng(0), 2000, 0
    arrays = {f"layers.{i // 10}.{i % 10}": rng.standard_normal(16) * 2.0 ** -(i % 40) for i in range(count)}
    table = gk.measure_many(arrays)

    def count_calls(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count_calls)
    try:
        text, html = repr(table), table._repr_html_()
    finally:
        sys.setprofile(before)
    assert len(text.splitlines()) < 60 and len(html) < 20_000
    assert count < calls < 120 * count
