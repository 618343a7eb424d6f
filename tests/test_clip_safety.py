"""Clipping that is interrupted, overlapped, refused or met by NaN leaves all gradients scaled or none."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

import gradkern as gk
from gradkern import _faults

INF, NAN = math.inf, math.nan
F32 = np.float32
CLIPPERS = {
    "global": lambda a, **o: gk.clip_by_global_norm(a, 1.0, **o),
    "norm": lambda a, **o: gk.clip_by_norm(a, 1.0, **o),
    "rms": lambda a, **o: gk.clip_by_block_rms(a, 0.1, **o),
    "value": lambda a, **o: gk.clip_by_value(a, -0.5, 0.5, **o),
    "adaptive": lambda a, **o: gk.clip_adaptive(a, {k: np.ones_like(v) for k, v in a.items()}, **o),
    "quantile": lambda a, **o: _warmed(gk.QuantileClipper(0.0)).clip(a, **o),
}


def _warmed(clipper):
    clipper.clip(np.array([1.0]))
    return clipper


def bad():
    return {
        "fine": np.array([3.0, 4.0], F32),
        "bad": np.array([[1.0, 2.0], [NAN, -INF]], F32),
        "worse": np.full(3, INF, np.float16),
    }


def bytes_of(grads):
    return {name: np.asarray(g).tobytes() for name, g in grads.items()}


@pytest.mark.parametrize("name", CLIPPERS)
def test_raise_names_the_first_and_modifies_nothing(name):
    grads = bad()
    before = bytes_of(grads)
    with pytest.raises(
        gk.NonFiniteError, match=r"bad\[2\] is the first of 5 entries that are NaN or infinite"
    ) as caught:
        CLIPPERS[name](grads)
    assert (caught.value.tensor, caught.value.index, caught.value.count) == ("bad", 2, 5)
    assert bytes_of(grads) == before


@pytest.mark.parametrize("name", CLIPPERS)
def test_skip_modifies_nothing_and_says_so(name):
    grads = bad()
    before = bytes_of(grads)
    result = CLIPPERS[name](grads, nonfinite="skip")
    assert result.skipped
    assert not result.clipped
    assert math.isnan(result.norm)
    assert result.nonfinite == {"bad": gk.NonFinite(2, 2, 1, 1), "worse": gk.NonFinite(3, 0, 0, 3)}
    assert bytes_of(grads) == before


def test_zero_clips_the_rest_by_its_norm():
    grads = {"a": np.array([3.0, NAN, 4.0], F32), "b": np.array([INF, -INF], np.float16), "c": np.zeros(0)}
    result = gk.clip_by_global_norm(grads, 1.0, nonfinite="zero")
    np.testing.assert_array_equal(grads["a"], np.array([3, 0, 4], F32) * F32(0.2))
    np.testing.assert_array_equal(grads["b"], [0, 0])
    assert (result.norm, result.coefficient, result.zeroed, result.clipped, result.skipped) == (5, 0.2, 3, True, False)


def test_zero_below_the_bound_writes_only_the_zeros():
    grads = {"a": np.array([3.0, NAN, 4.0], F32), "b": np.array([1.0])}
    result = gk.clip_by_global_norm(grads, 100.0, nonfinite="zero")
    np.testing.assert_array_equal(grads["a"], [3, 0, 4])
    assert (result.coefficient, result.clipped, result.zeroed) == (1.0, False, 1)


@pytest.mark.parametrize("values", [[3.0, NAN, 4.0], [3.0, INF, -4.0], [INF, NAN], [-INF, 0.0]])
@pytest.mark.parametrize("p", [1, 2, INF])
@pytest.mark.parametrize("dtype", [np.float64, F32])
def test_propagate_is_what_torch_does(values, p, dtype):
    torch = pytest.importorskip("torch")
    ours = [np.array(values, dtype), np.array([1.0, -2.0], dtype)]
    theirs = [torch.nn.Parameter(torch.zeros(len(x), dtype=torch.from_numpy(x).dtype)) for x in ours]
    for parameter, x in zip(theirs, ours, strict=True):
        parameter.grad = torch.from_numpy(x.copy())
    norm = torch.nn.utils.clip_grad_norm_(theirs, 1.0, norm_type=p)
    result = gk.clip_by_global_norm(ours, 1.0, p=p, eps=1e-6, nonfinite="propagate")
    np.testing.assert_equal(result.norm, float(norm))
    for parameter, x in zip(theirs, ours, strict=True):
        np.testing.assert_array_equal(x, parameter.grad.numpy())


@pytest.mark.parametrize("name", CLIPPERS)
@pytest.mark.parametrize("where", ["surveyed", "decided", "scaled"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_all_or_nothing(name, where, error, monkeypatch):
    wide = np.random.default_rng(0).standard_normal((40, 60))

    def make():
        return {
            "a": wide.copy(), "strided": wide.astype(F32)[:, ::2], "b": wide.astype(np.float16),
            "turned": wide.astype(ml_dtypes.bfloat16).T,
        }  # fmt: skip

    whole, grads = make(), make()
    before = bytes_of(grads)
    CLIPPERS[name](whole)
    after = bytes_of(whole)
    assert after != before

    def interrupt(point):
        if point == where:
            raise error

    monkeypatch.setattr(_faults, "hook", interrupt)
    with pytest.raises(error):
        CLIPPERS[name](grads)
    assert bytes_of(grads) == (after if where == "scaled" else before)


@pytest.mark.parametrize("name", CLIPPERS)
def test_read_only_is_an_error_before_anything_is_touched(name):
    grads = {"a": np.array([3.0, 4.0]), "b": np.array([3.0, 4.0])}
    grads["b"].flags.writeable = False
    before = bytes_of(grads)
    with pytest.raises(ValueError, match="b: is read-only"):
        CLIPPERS[name](grads)
    assert bytes_of(grads) == before


@pytest.mark.parametrize(
    "wrong", [[[1.0, 2.0]], [3.0], [np.array([1, 2])], [np.array(["a"])], [1j * np.ones(2)], 5, "a"]
)
def test_what_is_no_array_of_floats_is_a_type_error(wrong):
    fine = np.array([3.0, 4.0])
    with pytest.raises(TypeError, match="clip_by_global_norm"):
        gk.clip_by_global_norm([fine, *wrong] if isinstance(wrong, list) else wrong, 1.0)
    np.testing.assert_array_equal(fine, [3, 4])


def test_duplicates_count_once_and_are_clipped_once():
    x = np.array([3.0, 4.0])
    result = gk.clip_by_global_norm({"a": x, "tied": x, "view": x[:]}, 1.0)
    assert (result.norm, result.size) == (5.0, 2)
    assert result.norms == {"a": 5.0, "tied": 5.0, "view": 5.0}
    np.testing.assert_array_equal(x, np.array([3.0, 4.0]) * 0.2)


@pytest.mark.parametrize("dtype", [np.float64, F32, np.float16, ml_dtypes.bfloat16])
def test_overlaps_count_once_and_are_clipped_once(dtype):
    rng = np.random.default_rng(2)
    base = (rng.standard_normal((30, 20)) * 9).astype(dtype)
    want = base.copy()
    views = [base[:12], base[5:20, ::2], base.T[3:], base[::-1, 4:9], base[25:]]
    covered = np.zeros(base.shape, bool)
    marks = [covered[:12], covered[5:20, ::2], covered.T[3:], covered[::-1, 4:9], covered[25:]]
    for mark in marks:
        mark[...] = True
    norm = float(np.linalg.norm(base[covered].astype(np.float64)))
    result = gk.clip_by_global_norm(views, 1.0)
    assert result.norm == pytest.approx(norm, rel=1e-13)
    assert result.size == covered.sum()
    for view, name in zip([want[:12], want[5:20, ::2], want.T[3:], want[::-1, 4:9], want[25:]], "01234", strict=True):
        assert result.norms[name] == pytest.approx(float(np.linalg.norm(view.astype(np.float64))), rel=1e-13)
    alone = want[covered].copy()
    gk.clip_by_global_norm(alone, 1.0)
    np.testing.assert_array_equal(base[covered].astype(np.float64), alone.astype(np.float64))
    np.testing.assert_array_equal(base[~covered].astype(np.float64), want[~covered].astype(np.float64))


def test_interleaved_views_do_not_overlap():
    base = np.arange(10.0)
    result = gk.clip_by_global_norm([base[::2], base[1::2]], 1.0)
    assert result.size == 10
    np.testing.assert_allclose(base, np.arange(10.0) / np.linalg.norm(np.arange(10.0)), rtol=1e-15)


def test_overlaps_of_different_formats_are_refused():
    base = np.ones(8)
    with pytest.raises(ValueError, match="clip_by_global_norm: arrays overlap in different formats"):
        gk.clip_by_global_norm([base, base.view(F32)], 1.0)
    np.testing.assert_array_equal(base, 1)


def test_a_broadcast_that_may_be_written_is_clipped_once():
    torch = pytest.importorskip("torch")
    x = torch.tensor([3.0]).expand(4)
    result = gk.clip_by_global_norm([x], 1.0)
    assert (result.norm, result.size, x.tolist()) == (3.0, 1, [1.0] * 4)
    assert result.norms["0"] == 6.0


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.T, lambda x: x[::2, ::-3], lambda x: np.asfortranarray(x), lambda x: x[3, 4:5].reshape(()),
        lambda x: x.astype(">f8"), lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8).copy()[1:].view(x.dtype),
    ],
)  # fmt: skip
def test_any_layout_in_place(make):
    x = make(np.random.default_rng(4).standard_normal((12, 15)))
    other = np.array(2.0, np.float16)
    values = np.array(x, np.float64)
    result = gk.clip_by_global_norm([x, other, np.zeros((0, 3), F32)], 0.5)
    assert result.norm == pytest.approx(math.hypot(np.linalg.norm(values), 2), rel=1e-14)
    np.testing.assert_allclose(np.array(x, np.float64), values * result.coefficient, rtol=1e-15)
    assert float(other) == np.float16(2 * result.coefficient)


def test_the_first_index_is_in_the_arrays_own_order():
    x = np.ones((3, 4), order="F")
    x[1, 2] = NAN
    assert gk.clip_by_global_norm([x], 1.0, nonfinite="skip").nonfinite["0"].first == 6


def test_torch_tensors_are_clipped_in_place():
    torch = pytest.importorskip("torch")
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2):
        x = torch.tensor([3.0, 4.0], dtype=dtype)
        parameter = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]).t())
        assert gk.clip_by_global_norm({"x": x, "p": parameter, "none": None}, 2.5).norm == pytest.approx(50**0.5)
        assert x.float().norm() == pytest.approx(2.5 / 2**0.5, rel=0.2)
        assert parameter.norm().item() == pytest.approx(2.5 / 2**0.5)
    with pytest.raises(TypeError, match="negative bit"):
        gk.clip_by_global_norm([torch.ones(3, dtype=torch.complex64).conj().imag], 1.0)


def test_jax_arrays_need_out():
    jnp = pytest.importorskip("jax.numpy")
    x = jnp.array([3.0, 4.0])
    with pytest.raises(TypeError, match="JAX arrays are immutable; pass out='new'"):
        gk.clip_by_global_norm([x], 1.0)
    result = gk.clip_by_global_norm({"x": x}, 1.0, out="new")
    assert type(result.arrays["x"]) is type(x)
    np.testing.assert_array_equal(result.arrays["x"], np.array([3, 4], F32) * F32(0.2))


@pytest.mark.parametrize("max_norm", [1.0, 10.0])
def test_out_is_written_and_the_arrays_are_not(max_norm):
    x, y = np.array([[3.0, 0.0]], F32).T, np.array(4.0)
    x.flags.writeable = False
    out = [np.zeros((4, 1), F32)[::2], np.zeros(())]
    result = gk.clip_by_global_norm([x, y], max_norm, out=out)
    assert result.arrays is out
    np.testing.assert_array_equal(x, [[3], [0]])
    coefficient = min(1.0, max_norm / 5)
    np.testing.assert_array_equal(out[0], x * F32(coefficient))
    assert out[1] == 4 * coefficient
    new = gk.clip_by_value([x, y], -3.0, 3.0, out="new").arrays
    assert (new[0].tolist(), new[1].tolist()) == ([[3.0], [0.0]], 3.0)


def test_out_of_a_bad_step():
    x, out = np.array([INF, 1.0]), np.zeros(2)
    with pytest.raises(gk.NonFiniteError):
        gk.clip_by_global_norm(x, 1.0, out=out)
    np.testing.assert_array_equal(out, 0)
    gk.clip_by_global_norm(x, 1.0, out=out, nonfinite="skip")
    np.testing.assert_array_equal(out, x)


def test_out_must_fit():
    x = np.array([3.0, 4.0])
    for out, words in (([x[:1]], "shape"), ([x.astype(F32)], "dtype"), ([x, x], "names"), ("copy", "'new'")):
        with pytest.raises(ValueError, match=words):
            gk.clip_by_global_norm([x], 1.0, out=out)


def test_out_may_be_the_neighbours():
    base = np.arange(1.0, 7.0)
    norm = float(np.linalg.norm(base[:4]))
    gk.clip_by_global_norm([base[:2], base[2:4]], 1.0, out=[base[1:3], base[3:5]])
    np.testing.assert_allclose(base, [1, 1 / norm, 2 / norm, 3 / norm, 4 / norm, 6], rtol=1e-15)


def test_two_of_one_name():
    with pytest.raises(ValueError, match="two arrays are named 'a'"):
        gk.clip_by_global_norm([("a", np.ones(2)), ("a", np.ones(2))], 1.0)


@pytest.mark.parametrize(
    "low, high, name", [(math.nan, 1.0, "low"), (-1.0, math.nan, "high"), (math.nan, math.nan, "low")]
)
def test_a_bound_that_is_nan_is_named(low, high, name):
    with pytest.raises(ValueError, match=f"^clip_by_value: {name} must not be NaN$"):
        gk.clip_by_value([np.ones(2)], low, high)
