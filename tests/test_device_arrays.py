"""Arrays in a device's memory, in and out without a copy, against the bits that the CPU makes of the same numbers."""

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest
from conftest import adversarial, bits
from device_arrays import on_device, synchronizations

import gradkern as gk
from gradkern import _core

RNG = np.random.default_rng(7)
X = RNG.standard_normal((33, 17)).astype(np.float32) * 300
W = RNG.standard_normal((9, 17)).astype(np.float32)


def same(got, want):
    """Equal bits, and `got` on the device."""
    assert isinstance(got, _core.DeviceArray)
    assert got.dtype == want.dtype and got.shape == want.shape
    assert np.array_equal(bits(got.to_host()), bits(want))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_to_a_device_and_back(device, dtype):
    x = X.astype(dtype)
    there = on_device(x, device)
    assert (there.shape, there.size, there.ndim, there.nbytes, there.dtype) == (x.shape, x.size, 2, x.nbytes, x.dtype)
    same(there, x)
    same(there.reshape((17, 33)), x.reshape(17, 33))
    with pytest.raises(ValueError, match="sizes differ"):
        there.reshape((3,))
    with pytest.raises(ValueError, match="item sizes differ"):
        there.view("float16" if dtype != np.float16 and dtype != ml_dtypes.bfloat16 else "float32")


@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float32"])
def test_cast(device, fmt):
    x = adversarial(fmt)
    got, want = gk.cast(on_device(x, device), fmt), gk.cast(x, fmt)
    same(got.values, want.values)
    assert got.report == want.report and repr(got.report) == repr(want.report)


def test_cast_into_an_array_there(device):
    out = on_device(np.empty(X.shape, np.float16), device)
    result = gk.cast(on_device(X, device), "float16", out=out)
    assert result.values is out
    same(out, gk.cast(X, "float16").values)
    x = on_device(X.astype(np.float16), device)
    assert gk.cast(x, "float16", scale=2.0, out=x).values is x  # over itself
    same(x, gk.cast(X.astype(np.float16), "float16", scale=2.0).values)
    with pytest.raises(TypeError, match=f"out lies on the host and the argument on {device}:0"):
        gk.cast(x, "float16", out=np.empty(X.shape, np.float16))
    with pytest.raises(ValueError, match=r"out must have shape \(33, 17\), got \(3,\)"):
        gk.cast(x, "float32", out=on_device(np.empty(3, np.float32), device))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,)])
def test_small_shapes(device, shape):
    x = np.full(shape, 1e-9)
    result = gk.cast(on_device(x, device), "float16")
    same(result.values, gk.cast(x, "float16").values)
    assert result.report == gk.cast(x, "float16").report or x.size == 0
    assert result.report.flushed == x.size


def test_activation(device):
    z, dz = on_device(X / 300, device), on_device(X, device)
    for arithmetic in ("float16", gk.Arithmetic("bfloat16", derivative="stored_output")):
        options = {"arithmetic": arithmetic}
        same(gk.activation_forward(z, "gelu", **options), gk.activation_forward(X / 300, "gelu", **options))
        same(gk.activation_backward(dz, z, "tanh", **options), gk.activation_backward(X, X / 300, "tanh", **options))
    out = on_device(np.empty(X.shape, np.float32), device)
    assert gk.activation_forward(z, "relu", out=out) is out
    same(out, gk.activation_forward(X / 300, "relu"))


def test_dense(device):
    b, options = W[:, 0].copy(), {"activation": "tanh", "arithmetic": "float16"}
    x, w = on_device(X, device), on_device(W, device)
    got, want = gk.dense_forward(x, w, on_device(b, device), **options), gk.dense_forward(X, W, b, **options)
    same(got.output, want.output)
    same(got.pre_activation, want.pre_activation)
    assert got.events == want.events
    back = gk.dense_backward(got.output, x, w, got.pre_activation, **options)
    truth = gk.dense_backward(want.output, X, W, want.pre_activation, **options)
    for name in ("input", "weight", "bias"):
        same(getattr(back, name), getattr(truth, name))
    assert back.events == truth.events


def test_measure(device):
    got, want = gk.measure(on_device(X, device)), gk.measure(X)
    assert got.to_dict() == want.to_dict()
    half = X.astype(np.float16)
    many = gk.measure_many({"a": on_device(X, device), "b": {"c": on_device(half, device)}})
    assert many["b.c"].to_dict() == gk.measure(half, name="b.c").to_dict()
    assert gk.global_norm([on_device(X, device)]) == gk.global_norm([X])


CLIPS = {
    "global": lambda g, **o: gk.clip_by_global_norm(g, 1.0, scale=4.0, **o),
    "each": lambda g, **o: gk.clip_by_norm(g, 2.0, p=1, **o),
    "rms": lambda g, **o: gk.clip_by_block_rms(g, 0.5, **o),
    "value": lambda g, **o: gk.clip_by_value(g, -1.0, 2.0, **o),
}


@pytest.mark.parametrize("clip", CLIPS.values(), ids=CLIPS)
def test_clip_in_place(device, clip):
    host = {"w": X.copy(), "b": X[0].astype(np.float16)}
    there = {name: on_device(x, device) for name, x in host.items()}
    before = {name: x.pointer for name, x in there.items()}
    copies = clip(there, out="new")
    result, want = clip(there), clip(host)
    for name, x in host.items():
        assert there[name].pointer == before[name] and result.arrays[name] is there[name]
        same(there[name], x)
        same(copies.arrays[name], x)
    assert (result.norm, result.coefficient, dict(result.norms)) == (want.norm, want.coefficient, dict(want.norms))
    assert (result.flushed, result.subnormal, result.margin) == (want.flushed, want.subnormal, want.margin)


def test_clip_adaptive(device):
    grads, weights = {"w": X.copy()}, {"w": X / 3}
    there = {"w": on_device(X, device)}
    got = gk.clip_adaptive(there, {"w": on_device(X / 3, device)})
    assert got.coefficient == gk.clip_adaptive(grads, weights).coefficient < 1
    same(there["w"], grads["w"])


def test_clip_to_arrays_there(device):
    source, out = on_device(X, device), on_device(np.zeros_like(X), device)
    gk.clip_by_global_norm([source], 1.0, out=[out])
    same(source, X)
    want = X.copy()
    gk.clip_by_global_norm([want], 1.0)
    same(out, want)


def test_group_is_looked_up_once(device):
    x, y = on_device(X, device), X.copy()
    group, host = gk.GradientGroup([x, x]), gk.GradientGroup([y, y])
    for most in (100.0, 1.0):
        assert gk.clip_by_global_norm(group, most).norm == gk.clip_by_global_norm(host, most).norm
    same(x, y)


def test_nothing_is_written_where_something_is_not_finite(device):
    bad = X.copy()
    bad[1, 2] = np.nan
    there = [on_device(X, device), on_device(bad, device)]
    with pytest.raises(gk.NonFiniteError, match=r"1\[19\]") as error:
        gk.clip_by_global_norm(there, 1.0)
    assert (error.value.tensor, error.value.index) == ("1", 19)
    same(there[0], X)
    assert gk.clip_by_global_norm(there, 1.0, nonfinite="skip").skipped
    enlarged = on_device(np.full(3, 60000, np.float16), device)
    with pytest.raises(gk.NonFiniteError, match=r"0\[0\]"):
        gk.clip_by_global_norm([enlarged], None, scale=0.5)


def test_one_place(device):
    x, w = on_device(X, device), on_device(W, device)
    with pytest.raises(TypeError, match=rf"dense_forward: x lies on {device}:0 and weight on the host"):
        gk.dense_forward(x, W)
    with pytest.raises(TypeError, match=rf"dense_forward: x lies on the host and weight on {device}:0"):
        gk.dense_forward(X, w)
    with pytest.raises(TypeError, match="grad_output lies on the host and pre_activation on"):
        gk.activation_backward(X, x, "relu")
    for clip in (lambda g: gk.clip_by_global_norm(g, 1.0), gk.global_norm, gk.measure_many):
        with pytest.raises(TypeError, match=rf"b lies on the host|b on the host|a lies on {device}:0"):
            clip({"a": x, "b": X.copy()})
    for other in {"cpu", "cuda", "simt"} - {device}:
        if other == "cpu" or not _core.device_why_not(other):
            with pytest.raises(TypeError, match=rf"cast: x: lies on {device}:0, and the device asked for is '{other}'"):
                gk.cast(x, "float16", device=other)
    assert gk.cast(x, "float16", device=device).values.library == device


def test_arrays_that_overlap_in_part_are_refused(device):
    whole = on_device(X, device)
    part = _core.DeviceArray.borrow(device, whole.pointer + 4, (3,), "float32", 0, 0, whole, True)
    with pytest.raises(ValueError, match="overlap in part"):
        gk.clip_by_global_norm([whole, part], 1.0)
    shut = _core.DeviceArray.borrow(device, whole.pointer, (3,), "float32", 0, 0, whole, False)
    with pytest.raises(ValueError, match=r"clip_by_global_norm: arrays\[0\]: is read-only"):
        gk.clip_by_global_norm([shut], 1.0)
    with pytest.raises(TypeError, match="its memory is not on"):
        _core.DeviceArray.borrow(device, X.ctypes.data, (3,), "float32", 0, 0, X, True)


def test_other_functions_copy_to_the_host(device):
    net = gk.MLP([gk.Dense(on_device(W, device), None, "tanh")])
    host = gk.MLP([gk.Dense(W, None, "tanh")])
    got, want = gk.probe(net, on_device(X, device)), gk.probe(host, X)
    assert got.to_dict() == want.to_dict()


def test_nothing_is_waited_for_before_a_report_is_looked_at():
    if _core.device_why_not("simt"):
        pytest.skip(_core.device_why_not("simt"))
    x, w = on_device(X), on_device(W)
    before = synchronizations()
    result = gk.cast(x, "float16")
    layer = gk.dense_forward(x, w, activation="tanh", arithmetic="float16")
    gk.dense_backward(layer.output, x, w, layer.pre_activation, activation="tanh", arithmetic="float16")
    gk.activation_forward(x, "relu")
    assert synchronizations() == before
    assert result.report.size == X.size
    assert synchronizations() == before + 1
    assert result.report.exact == gk.cast(X, "float16").report.exact and result.report.to_dict()["size"] == X.size
    assert synchronizations() == before + 1  # once
    kept = layer.events["output"]
    assert copy.copy(kept) == pickle.loads(pickle.dumps(kept)) == copy.deepcopy(kept) == kept
    assert not hasattr(kept, "no_such_field")
    assert synchronizations() == before + 2


def test_a_call_waits_once():
    if _core.device_why_not("simt"):
        pytest.skip(_core.device_why_not("simt"))
    x, many = on_device(X), [on_device(X + i) for i in range(5)]
    large = on_device(np.resize(X, 5 << 10).astype(ml_dtypes.float8_e5m2))  # measured by pattern
    group = gk.GradientGroup(many)
    for waits, call in (
        (1, lambda: gk.measure(x)),
        (1, lambda: gk.measure(large)),
        (1, lambda: gk.measure_many([large, large, large])),
        (2, lambda: gk.measure_many([x, large, *many])),
        (1, lambda: gk.global_norm(group)),
        (1, lambda: gk.clip_by_global_norm(group, 1e9)),
        (2, lambda: gk.clip_by_global_norm(group, 1.0)),  # what was found, then what was changed
        (1, lambda: gk.cast(X, "float16", device="simt")),
        (2, lambda: gk.clip_by_value(x, -0.5, 0.5)),
        (2, lambda: gk.clip_by_global_norm([X.copy()], 1.0, device="simt")),
    ):
        before = synchronizations()
        call()
        assert synchronizations() == before + waits
