"""Tables of statistics: what is measured, what is skipped, joint windows against real casts at every scale."""

from __future__ import annotations

import json
import math
import re
from xml.etree import ElementTree

import ml_dtypes
import numpy as np
import pytest
from conftest import INF, NAN, SPECS, round_array, widened

import gradkern as gk
from gradkern.fit import Bracket
from gradkern.joint_window import listed
from gradkern.trouble import SORTS, judge

NARROW = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")


def normal(shape, log2=0, dtype=np.float32, seed=0):
    return (np.random.default_rng(seed).standard_normal(shape) * 2.0**log2).astype(dtype)


ARRAYS = {
    "first": normal((5, 7)),
    "second": normal(100, -12, np.float16, 1),
    "third": normal(9, 5, ml_dtypes.bfloat16, 2),
}


def same(table, arrays, names=None):
    assert list(table) == list(names or arrays)
    for name, array in zip(table, arrays.values(), strict=True):
        assert table[name].to_dict() == gk.measure(array, name=name).to_dict()


def test_mapping():
    table = gk.measure_many(ARRAYS)
    same(table, ARRAYS)
    assert len(table) == 3 and "first" in table and table.skipped == {}
    assert dict(table.items()) == dict(zip(table.keys(), table.values(), strict=True))
    with pytest.raises(KeyError, match="no tensor 'fist'; did you mean first"):
        table["fist"]


@pytest.mark.parametrize("make", [
    lambda: list(ARRAYS.items()), lambda: iter(ARRAYS.items()), lambda: tuple(ARRAYS.items()), lambda: ARRAYS.items(),
])  # fmt: skip
def test_pairs(make):
    same(gk.measure_many(make()), ARRAYS)


def test_unnamed_arrays_are_numbered():
    for source in (list(ARRAYS.values()), ARRAYS.values(), (a for a in ARRAYS.values())):
        same(gk.measure_many(source), ARRAYS, ["0", "1", "2"])


def test_a_generator_may_reuse_its_memory():
    def stream():
        buffer = np.empty(50)
        for k in range(6):
            buffer[:] = 2.0**k
            yield f"step{k}", buffer

    table = gk.measure_many(stream())
    assert [stats.amax for stats in table.values()] == [2.0**k for k in range(6)]


def test_nested_mappings_and_what_is_skipped():
    checkpoint = {
        "model": {"w": ARRAYS["first"], "ids": np.arange(3), "mask": np.array([True])}, "epoch": 3, "best": None,
        "name": "run 7", "lr": 0.1, "history": [0.5, 0.25], "complex": np.ones(2, complex),
        "optimizer": {"state": {0: {"m": ARRAYS["second"]}}, "groups": [{"betas": (0.9, 0.99), "w": ARRAYS["third"]}]},
    }  # fmt: skip
    table = gk.measure_many(checkpoint)
    same(table, ARRAYS, ["model.w", "optimizer.state.0.m", "optimizer.groups.0.w"])
    assert table.skipped == {
        "model.ids": "int64, no floating-point format", "model.mask": "bool, no floating-point format",
        "epoch": "int, not an array", "best": "None", "name": "str, not an array", "lr": "float, not an array",
        "history": "a list of Python values, not an array", "complex": "complex, no floating-point format",
        "optimizer.groups.0.betas": "a tuple of Python values, not an array",
    }  # fmt: skip
    with pytest.raises(KeyError, match="skipped: int, not an array"):
        table["epoch"]


def test_torch():
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2).to(torch.bfloat16)
    )
    wanted = {n: p for n, p in model.state_dict().items() if p.dtype.is_floating_point}
    for source in (model, model.state_dict()):
        table = gk.measure_many(source)
        same(table, wanted)
        assert table.skipped == {"1.num_batches_tracked": "int64, no floating-point format"}
    same(gk.measure_many(model.named_parameters()), dict(model.named_parameters()))
    assert list(gk.measure_many(model.parameters())) == [str(i) for i in range(6)]
    optimizer = torch.optim.Adam(model[0].parameters())
    model[0](torch.ones(2, 4)).sum().backward()
    optimizer.step()
    table = gk.measure_many(optimizer)
    assert table["state.0.exp_avg"].to_dict()["amax"] == float(optimizer.state[model[0].weight]["exp_avg"].abs().max())
    grads = gk.measure_many({n: p.grad for n, p in model.named_parameters()})
    assert list(grads) == ["0.weight", "0.bias"] and grads.skipped["2.weight"] == "None"
    with pytest.raises(ValueError, match=r"measure_many: nothing to measure: w \(a meta tensor has no values\)"):
        gk.measure_many({"w": torch.ones(2, device="meta")})


def test_files_read_as_their_arrays(tmp_path):
    from safetensors.numpy import save_file

    save_file(ARRAYS, tmp_path / "m.safetensors")
    same(gk.measure_many(tmp_path / "m.safetensors"), ARRAYS)
    same(gk.measure_many(str(tmp_path / "m.safetensors")), ARRAYS)
    arrays = {name: ARRAYS[name] for name in ("first", "second")}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "m.npz", **arrays)
        same(gk.measure_many(tmp_path / "m.npz"), arrays)
    np.save(tmp_path / "first.npy", ARRAYS["first"].T)
    assert gk.measure_many(tmp_path / "first.npy")["first"].l1 == pytest.approx(gk.measure(ARRAYS["first"]).l1)


def test_gradients_of_a_probe():
    net, x = gk.MLP.random(depth=3, width=5, activation="tanh"), normal((4, 5))
    for reference in (True, False):
        report = gk.probe(net, x, scale=2.0**4, reference=reference)
        table = gk.measure_many(report)
        assert len(table) == 3 * 4 + 1 and next(iter(table)) == "layer 0 grad_activation"
        row = report.row(2, "grad_weight")
        assert table["layer 2 grad_weight"] is (row.reference if reference else row.stats)
    report = gk.probe(net, x)
    ours, theirs = gk.measure_many(report).loss_scale_window("float16"), report.loss_scale_window("float16")
    assert (ours.log2_low, ours.log2_high, ours.best) == (theirs.log2_low, theirs.log2_high, theirs.best)


@pytest.mark.parametrize("source, error, message", [
    (np.ones(3), TypeError, "got one array; measure it by gk.measure"), (3, TypeError, "got int"),
    (None, TypeError, "got NoneType"), (b"x", TypeError, "got bytes"),
    ({}, ValueError, "nothing to measure$"), ([], ValueError, "nothing to measure$"),
    ({"a": [1.0]}, ValueError, r"nothing to measure: a \(a list of Python values, not an array\)"),
    ({"a.b": np.ones(1), "a": {"b": np.ones(1)}}, ValueError, "two arrays are named 'a.b'"),
    ([("x", np.ones(1)), ("x", np.ones(1))], ValueError, "two arrays are named 'x'"),
    ("absent.safetensors", ValueError, "absent.safetensors: no such file"),
])  # fmt: skip
def test_what_cannot_be_measured(source, error, message):
    with pytest.raises(error, match=message):
        gk.measure_many(source)


def test_options_are_checked():
    with pytest.raises(ValueError, match="measure_many: scale must be a power of two, got 3"):
        gk.measure_many(ARRAYS, scale=3)
    with pytest.raises((TypeError, ValueError), match="device"):
        gk.measure_many(ARRAYS, device="tpu")
    table = gk.measure_many(ARRAYS)
    for call, message in (
        (lambda: table.fit("float12"), "format: must be one of"), (lambda: table.fit("float16", 3), "power of two"),
        (lambda: table.loss_scale_window("float16", 2), "lose must be between 0 and 1, got 2"),
        (lambda: judge(table, []), "needs at least one"), (lambda: judge(table, ["float16"], sort="x"), "sort: must be"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            call()


def test_the_scale_that_arrays_carry():
    table = gk.measure_many({"g": ARRAYS["first"] * 1024}, scale=1024)
    assert table["g"].log2_amax == pytest.approx(gk.measure(ARRAYS["first"]).log2_amax) and table["g"].scale == 1024


def test_progress(capsys, tmp_path):
    seen = []
    big = {f"t{i}": np.ones(1 << 20) for i in range(10)}
    gk.measure_many(big, progress=lambda *done: seen.append(done))
    assert [total for _, total in seen] == [80 << 20] * len(seen) and len(seen) > 2
    assert seen == sorted(seen) and seen[-1][0] == 80 << 20
    gk.measure_many((a for a in ARRAYS.values()), progress=lambda *done: seen.append(done))
    assert seen[-1] == (sum(a.nbytes for a in ARRAYS.values()), 0)
    gk.measure_many(ARRAYS)
    assert capsys.readouterr().err == ""
    assert list(gk.measure_many(ARRAYS, progress=True)) == list(ARRAYS)


def cast(x, fmt, k):
    """What NumPy or ml_dtypes make of 2**k x: (overflowed, flushed, non-zero finite)."""
    x = widened(x)
    x = x[np.isfinite(x) & (x != 0)] * 2.0**k
    with np.errstate(over="ignore", under="ignore"):
        exact = np.array_equal(x.astype(np.float32), x)  # then one rounding, not two
        stored = x.astype(np.float32).astype(SPECS[fmt].dtype) if exact and fmt in NARROW else round_array(x, fmt)
    stored = widened(stored)
    return int((~np.isfinite(stored)).sum()), int((stored == 0).sum()), x.size


def serves(x, fmt, k, lose):
    overflow, flushed, size = cast(x, fmt, k)
    return overflow == 0 and flushed <= math.floor(lose * size)


def families():
    rng = np.random.default_rng(7)
    for seed in range(6):
        spread = rng.integers(0, 12)
        yield {
            f"t{i}": normal(rng.integers(1, 400), rng.integers(-spread - 1, spread + 1), seed=seed + i)
            for i in range(5)
        }
    yield {"powers": 2.0 ** np.arange(-6, 7), "ones": np.ones(3)}
    yield {"edge": np.array([65520.0, 65519.0, 1.0]), "tie": np.array([464.0, 2.0**-10, 3 * 2.0**-11])}
    yield {"zero": np.zeros(4), "one": np.array([1.0, 0.0]), "empty": np.zeros(0)}


@pytest.mark.parametrize("fmt", NARROW)
@pytest.mark.parametrize("lose", [0.0, 1e-2, 0.3])
def test_joint_window_by_casting_at_every_scale(fmt, lose):
    for arrays in families():
        found = gk.measure_many(arrays).loss_scale_window(fmt, lose)
        good = [k for k in range(-170, 171) if all(serves(x, fmt, k, lose) for x in arrays.values())]
        if found.exists:
            assert good == list(range(found.log2_low, found.log2_high + 1))
            assert found.best in [2.0**k for k in good]
        else:
            assert good == []
            assert found.why.startswith(f"no loss scale fits {fmt}: ")


@pytest.mark.parametrize("fmt", ["float8_e4m3fn", "float8_e5m2", "float16"])
def test_no_scale_names_the_conflict_and_what_would_fit(fmt):
    arrays = {"small": normal(300, -26), "middle": normal(300), "large": normal(300, 26), "also large": normal(300, 25)}
    found = gk.measure_many(arrays).loss_scale_window(fmt, 1e-2)
    assert not found.exists and found.best is None
    low = {n: min(k for k in range(-60, 90) if cast(x, fmt, k)[1] <= 3) for n, x in arrays.items()}
    high = {n: max(k for k in range(-60, 90) if cast(x, fmt, k)[0] == 0) for n, x in arrays.items()}
    assert max(low, key=low.get) == "small" and min(high, key=high.get) == "large"
    others = [f for f in reversed(gk.formats()) if f != fmt]
    fitting = [f for f in others if any(all(serves(x, f, k, 1e-2) for x in arrays.values()) for k in range(-60, 90))]
    assert found.why == (
        f"no loss scale fits {fmt}: small needs at least 2^{low['small']} not to flush, large overflows above "
        f"2^{high['large']}; {listed(fitting, 9)} would fit"
    )
    assert re.search("bfloat16, tfloat32, float32 and float64 would fit", found.why)


def test_no_format_would_fit():
    table = gk.measure_many({"a": np.array([5e-324]), "b": np.array([1e308])})
    assert table.loss_scale_window("float32").why.endswith("; float64 would fit")
    found = table.loss_scale_window("float8_e4m3fn")
    assert found.why.endswith("; float64 would fit")


def test_nonfinite_tensors_are_named():
    arrays = {**ARRAYS, **{f"bad{i}": np.array([1.0, NAN, INF]) for i in range(5)}}
    found = gk.measure_many(arrays).loss_scale_window("float32")
    assert found.exists
    assert found.why.endswith("; 5 of 8 tensors hold NaN or inf, which no scale mends: bad0, bad1, bad2 and 2 more")
    found = gk.measure_many({"only": np.array([NAN])}).loss_scale_window("float16")
    assert "1 of 1 tensor holds NaN or inf, which no scale mends: only" in found.why


# measure's overflow bracket counts the one entry of the top binade as lost wherever another lies above that binade


@pytest.mark.parametrize("fmt", NARROW)
def test_fit_brackets_what_a_cast_does(fmt):
    for arrays in families():
        table = gk.measure_many(arrays)
        for k in (-9, 0, 4, 17):
            fit = table.fit(fmt, 2.0**k)
            assert fit.format == fmt and fit.scale == 2.0**k and list(fit.tensors) == list(table)
            wanted = np.array([cast(x, fmt, k)[:2] for x in arrays.values()])
            for (overflow, flushed), one in zip(wanted, fit.tensors.values(), strict=True):
                assert one.overflow.low <= overflow <= one.overflow.high
                assert one.flushed.low <= flushed <= one.flushed.high
            total = fit.total
            assert total.overflow.low <= wanted[:, 0].sum() <= total.overflow.high
            assert total.flushed.low <= wanted[:, 1].sum() <= total.flushed.high
    assert json.dumps(fit.to_dict(), allow_nan=False) and "total" in fit.to_dict()
    assert repr(fit).startswith(f"TableFit: {fmt} at scale 131072: ") and fit["one"] is fit.tensors["one"]
    pytest.importorskip("pandas")
    assert list(fit.to_frame().index) == list(table) and fit.to_frame()["kept_high"].sum() == total.kept.high


@pytest.mark.parametrize("fmt", NARROW)
def test_most_served_by_trying_every_scale(fmt):
    for arrays in families():
        columns = gk.measure_many(arrays).columns
        scale, served = columns.most_served(fmt, 1e-2)
        counts = {k: sum(serves(x, fmt, k, 1e-2) for x in arrays.values()) for k in range(-170, 171)}
        assert served == max(counts.values()) == counts[round(math.log2(scale))]
        nearest = min(abs(k) for k, count in counts.items() if count == served)
        assert abs(math.log2(scale)) == nearest


def test_trouble_is_ranked():
    arrays = {"fine": np.ones(50), "nan": np.array([NAN, 1.0]), "over": np.array([1e6, 1.0]), "flush": normal(100, -30),
              "digits": np.full(10, 2.0**-20)}  # fmt: skip
    judged = judge(gk.measure_many(arrays), ["float16", "half"])
    assert [t.name for t in judged.tensors] == ["nan", "over", "flush", "digits", "fine"]
    assert [t.severity for t in judged.tensors] == ["critical", "critical", "major", "minor", None]
    (fmt,) = judged.formats
    assert fmt.overflow == fmt.flushed == fmt.subnormal == Bracket(1, 1) and judged.nonfinite == ["nan"]
    assert judged.severity == "critical" and len(judged.troubled) == 4
    assert judge(gk.measure_many({"fine": np.ones(5)}), ["float16"]).severity is None
    orders = {sort: [t.name for t in judge(gk.measure_many(arrays), NARROW, sort=sort).tensors] for sort in SORTS}
    assert orders["name"] == sorted(arrays) and orders["size"][:2] == ["flush", "fine"]
    assert orders["amax"][0] == orders["overflow"][0] == "over" and orders["nonfinite"][0] == "nan"
    assert orders["flushed"][0] == "flush" and orders["subnormal"][0] == "digits"


def test_text_html_json_frame():
    arrays = {**ARRAYS, "<nan>": np.array([NAN, 1.0]), "zero": np.zeros(3), "empty": np.zeros(0), "n": 3}
    table = gk.measure_many(arrays)
    text = repr(table)
    assert text.startswith("6 tensors, 149 entries, 3 float64, 1 float32, 1 float16, 1 bfloat16; cast at scale 2^0")
    assert (
        "1 of 6 tensors holds NaN or inf, which no scale mends: <nan>" in text
        and "skipped 1: int, not an array" in text
    )
    assert max(map(len, text.splitlines())) <= 110
    tree = ElementTree.fromstring(table._repr_html_())
    assert len(tree.findall("table")) == 2 and "<nan>" not in table._repr_html_()
    payload = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert list(payload["tensors"]) == list(table) and payload["skipped"] == {"n": "int, not an array"}
    assert repr(gk.StatsTable({})) == "StatsTable: no tensors" and gk.StatsTable({})._repr_html_()
    with pytest.raises(ValueError, match="the table is empty"):
        gk.StatsTable({}).total  # noqa: B018
    pytest.importorskip("pandas")
    frame = table.to_frame()
    assert list(frame.index) == list(table) and frame.loc["first", "amax"] == table["first"].amax
    assert frame["size"].sum() == 149 and frame.loc["<nan>", "nan"] == 1


def test_total_is_that_of_the_joined_tensor():
    arrays = {f"t{i}": normal(50 + i, i, seed=i) for i in range(4)}
    total, whole = gk.measure_many(arrays).total, gk.measure(np.concatenate(list(arrays.values())))
    for count in ("size", "nan", "zero", "negative", "amax", "amin"):
        assert getattr(total, count) == getattr(whole, count)
    assert total.fit("float8_e4m3fn", 4.0).flushed == whole.fit("float8_e4m3fn", 4.0).flushed
    assert total.l1 == pytest.approx(whole.l1, rel=1e-12)


def test_adding_tables():
    a, b = {"x": normal(9), "y": normal(8, 3)}, {"y": normal(7, -3, seed=4), "z": normal(6)}
    both = gk.measure_many({**a, "n": 1}) + gk.measure_many({**b, "x2": None})
    assert list(both) == ["x", "y", "z"] and both.skipped == {"n": "int, not an array", "x2": "None"}
    assert both["y"].size == 15 and both["y"].amin == gk.measure(np.concatenate([a["y"], b["y"]])).amin
    assert both["x"].to_dict() == gk.measure(a["x"], name="x").to_dict()
    with pytest.raises(TypeError):
        gk.measure_many(a) + 3


def test_adding_tables_of_other_names_is_a_union():
    both = gk.measure_many({"x": normal(9)}) + gk.measure_many({"y": normal(8)})
    assert list(both) == ["x", "y"]


@pytest.mark.parametrize("ending", [".json", ".json.gz"])
def test_save_and_load(tmp_path, ending):
    table = gk.measure_many({**ARRAYS, "bad": np.array([NAN, -INF, 0.0]), "empty": np.zeros(0), "n": 1})
    table.save(tmp_path / f"t{ending}")
    loaded = gk.StatsTable.load(str(tmp_path / f"t{ending}"))
    assert loaded.to_dict() == table.to_dict() and loaded.skipped == table.skipped
    for fmt in NARROW:
        assert loaded.loss_scale_window(fmt).why == table.loss_scale_window(fmt).why
        assert loaded.fit(fmt, 2.0**9).to_dict() == table.fit(fmt, 2.0**9).to_dict()
    assert gk.StatsTable.from_dict(json.loads(json.dumps(table.to_dict()))).to_dict() == table.to_dict()


def test_files_that_are_no_table(tmp_path):
    with pytest.raises(ValueError, match=r"save: the name must end in \.json, \.json\.gz or \.npz, got 't\.txt'"):
        gk.measure_many(ARRAYS).save(tmp_path / "t.txt")
    path = tmp_path / "t.json"
    marked = '{"gradkern_table": 1'
    for text in ("", "[]", "{}", '{"gradkern_table": 2, "tensors": {}}', marked + "}", marked + ', "tensors": 3}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"StatsTable\.load: .*t\.json holds no saved StatsTable"):
            gk.StatsTable.load(path)
    (tmp_path / "t.json.gz").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(ValueError, match="holds no saved StatsTable"):
        gk.StatsTable.load(tmp_path / "t.json.gz")


def test_npz_brings_every_bit_back(tmp_path):
    table = gk.measure_many({"a": np.random.default_rng(5).standard_normal(300), "b": np.zeros(0, np.float32)})
    table.save(tmp_path / "t.npz")
    assert gk.StatsTable.load(tmp_path / "t.npz").to_dict() == table.to_dict()
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    with pytest.raises(ValueError, match="holds no saved StatsTable"):
        gk.StatsTable.load(tmp_path / "other.npz")
