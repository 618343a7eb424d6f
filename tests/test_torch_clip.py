"""clip_grad_norm_ and its family: torch's own numbers where asked for, right ones otherwise, and nothing corrupted."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys

import numpy as np
import pytest
from device_arrays import on_device
from hypothesis import given, settings
from hypothesis import strategies as st

import gradkern as gk

torch = pytest.importorskip("torch")
import gradkern.torch as gkt  # noqa: E402

theirs = torch.nn.utils
ORDERS = [0.5, 1.5, 2, 4, "inf"]
KINDS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def parameters(*grads):
    """Parameters with these gradients, which are copied; None stays None."""
    made = []
    for grad in grads:
        parameter = torch.nn.Parameter(torch.zeros_like(grad) if grad is not None else torch.zeros(2))
        parameter.grad = None if grad is None else grad.clone()
        made.append(parameter)
    return made


def gradients(made):
    return [p.grad for p in made if p.grad is not None]


def norm_of(made, p):
    p = float(p)
    flat = torch.cat([g.double().flatten().abs() for g in gradients(made)])
    return float(flat.max()) if p == math.inf else float((flat**p).sum() ** (1 / p))


@pytest.fixture(params=[True, False], ids=["strict", "exact"])
def clip(request):
    """clip_grad_norm_ in both modes, which agree on ordinary gradients."""

    def call(*args, **options):
        return gkt.clip_grad_norm_(*args, strict_torch=request.param, **options)

    return call


@pytest.mark.parametrize("ours", ["clip_grad_norm_", "clip_grad_value_", "get_total_norm"])
def test_signatures_are_those_of_torch(ours):
    def words(function):
        found = inspect.signature(function).parameters.values()
        return [(p.name, p.default) for p in found if p.kind is p.POSITIONAL_OR_KEYWORD]

    assert words(getattr(gkt, ours)) == words(getattr(theirs, ours))


def test_gradkern_does_not_import_torch():
    code = (
        "import gradkern, sys; assert 'torch' not in sys.modules; import gradkern.torch; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_large_gradients_are_clipped_to_the_norm(clip, p, kind):
    made = parameters(torch.arange(1.0, 101, dtype=kind).view(10, 10), torch.ones(10, dtype=kind) / 1000)
    before, old = norm_of(made, p), [g.clone() for g in gradients(made)]
    norm = clip(made, 2.0, norm_type=p)
    assert norm.shape == ()
    assert norm.dtype == kind
    assert float(norm) == pytest.approx(before, rel=1e-6)
    assert norm_of(made, p) == pytest.approx(2.0, rel=1e-5)
    ratios = torch.cat([(g / o).flatten() for g, o in zip(gradients(made), old, strict=True)])
    assert float(ratios.std()) < 1e-7


@pytest.mark.parametrize("p", ORDERS)
def test_small_gradients_stay(clip, p):
    generator = torch.Generator().manual_seed(0)
    made = parameters(torch.rand(10, 10, generator=generator) / 10000, torch.ones(10) / 500)
    before, old = norm_of(made, p), [g.clone() for g in gradients(made)]
    bound = 2 * before
    assert float(clip(made, bound, norm_type=p)) == pytest.approx(before, rel=1e-6)
    assert all(torch.equal(g, o) for g, o in zip(gradients(made), old, strict=True))


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nonfinite_gradients_are_an_error_where_asked_for(clip, p, value):
    grad = torch.ones(3, 4)
    grad[1, 2] = value
    made = parameters(torch.ones(2), grad)
    old = [g.numpy().tobytes() for g in gradients(made)]
    with pytest.raises(RuntimeError, match="total norm of order") as caught:
        clip(made, 1.0, norm_type=p, error_if_nonfinite=True)
    assert isinstance(caught.value, gk.NonFiniteError)
    assert [g.numpy().tobytes() for g in gradients(made)] == old


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nonfinite_gradients_otherwise(p, value):
    grad = torch.ones(3, 4)
    grad[1, 2] = value
    exact, strict, expected = (parameters(torch.ones(2), grad) for _ in range(3))
    norm = gkt.clip_grad_norm_(exact, 1.0, norm_type=p)
    assert math.isnan(norm) if math.isnan(value) else norm == math.inf
    assert exact[0].grad.equal(torch.ones(2))
    assert exact[1].grad.numpy().tobytes() == grad.numpy().tobytes()
    gkt.clip_grad_norm_(strict, 1.0, norm_type=p, strict_torch=True)
    theirs.clip_grad_norm_(expected, 1.0, norm_type=p)
    for ours, want in zip(gradients(strict), gradients(expected), strict=True):
        np.testing.assert_array_equal(ours.numpy(), want.numpy())


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 20)), max_size=5),
    st.sampled_from([0.5, 1, 1.5, 2, 4, math.inf]),
    st.integers(-12, 12),
    st.floats(0.01, 100),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=200, deadline=None)
def test_strict_numbers_are_those_of_torch(shapes, p, binade, max_norm, seed):
    generator = torch.Generator().manual_seed(seed)
    grads = [(torch.randn(n, generator=generator) * 2.0**binade).to(kind) for kind, n in shapes]
    if p == math.inf and any(g.numel() == 0 for g in grads):
        return  # which torch refuses
    ours, expected = parameters(*grads), parameters(*grads)
    norm = gkt.clip_grad_norm_(ours, max_norm, norm_type=p, strict_torch=True)
    want = theirs.clip_grad_norm_(expected, max_norm, norm_type=p)
    assert norm.dtype == want.dtype
    order = 1 if len({kind for kind, _ in shapes}) < 2 else 8  # torch sums formats in an order of its own
    torch.testing.assert_close(norm, want, rtol=order * torch.finfo(want.dtype).eps, atol=0, equal_nan=True)
    for a, b in zip(gradients(ours), gradients(expected), strict=True):
        tiny = torch.finfo(b.dtype).smallest_normal * torch.finfo(b.dtype).eps
        torch.testing.assert_close(a, b, rtol=order * torch.finfo(b.dtype).eps, atol=tiny, equal_nan=True)


@pytest.mark.parametrize("p", [1, 2, 3.5, math.inf])
def test_exact_numbers_in_every_format_at_once(p):
    generator = torch.Generator().manual_seed(1)
    made = parameters(*((torch.randn(5, 7, generator=generator) * 8).to(kind) for kind in KINDS))
    before, old = norm_of(made, p), [g.clone() for g in gradients(made)]
    norm = gkt.clip_grad_norm_(made, 0.7, norm_type=p)
    assert norm.dtype == torch.float64
    assert float(norm) == pytest.approx(before, rel=1e-12)
    for grad, was in zip(gradients(made), old, strict=True):
        exact = was.double() * (0.7 / before)
        ulps = 4 if grad.dtype == torch.float64 else 1  # the expectation is in float64 itself
        assert float(((grad.double() - exact) / exact).abs().max()) <= ulps * torch.finfo(grad.dtype).eps


def test_corrections():
    made = parameters(torch.full((1000,), 4000.0, dtype=torch.float16))  # torch: inf, and zeros
    norm = gkt.clip_grad_norm_(made, 1.0)
    assert (norm.dtype, float(norm)) == (torch.float32, pytest.approx(4000 * math.sqrt(1000), rel=1e-7))
    assert norm_of(made, 2) == pytest.approx(1.0, rel=1e-3)
    for value in (1e30, 1e-30):  # torch: zeros, and a norm of 0
        made = parameters(torch.full((4,), value))
        assert float(gkt.clip_grad_norm_(made, value)) == pytest.approx(2 * value, rel=1e-7)
        assert norm_of(made, 2) == pytest.approx(value, rel=1e-6)
    made = parameters(torch.tensor([3.0, 4.0]))  # torch: the data change by 2e-7
    gkt.clip_grad_norm_(made, 5.0)
    assert made[0].grad.tolist() == [3.0, 4.0]


def test_a_norm_beyond_float32_is_float64():
    norm = gkt.get_total_norm([torch.full((4,), 3e38)])
    assert (norm.dtype, float(norm)) == (torch.float64, pytest.approx(6e38, rel=1e-6))


@pytest.mark.parametrize("bound", [-1.0, math.nan])
def test_bounds_are_checked(bound):
    made = parameters(torch.ones(2))
    with pytest.raises(ValueError, match="clip_grad_norm_: max_norm must not be negative or NaN"):
        gkt.clip_grad_norm_(made, bound)
    with pytest.raises(ValueError, match="clip_grad_value_: clip_value must not be negative or NaN"):
        gkt.clip_grad_value_(made, bound)
    assert made[0].grad.equal(torch.ones(2))


@pytest.mark.parametrize("p", [0, -2, math.nan])
def test_orders_are_checked(p):
    with pytest.raises(ValueError, match="norm_type must be positive"):
        gkt.clip_grad_norm_(parameters(torch.ones(2)), 1.0, norm_type=p)


def test_what_may_be_given(clip):
    (single,) = parameters(torch.full((4,), 4.0))
    assert float(clip(single, 1.0)) == 8
    assert norm_of([single], 2) == pytest.approx(1)
    made = parameters(torch.tensor([3.0]), None, torch.tensor([4.0]))
    assert float(clip((p for p in made), 1.0)) == 5
    assert made[1].grad is None
    assert norm_of(made, 2) == pytest.approx(1)
    assert float(clip(made, math.inf)) == pytest.approx(1)
    for nothing in ([], parameters(None)):
        assert clip(nothing, 1.0).equal(torch.tensor(0.0))
    with pytest.warns(UserWarning, match="empty generator"):
        assert clip((p for p in ()), 1.0) == 0


def test_memory_is_written_in_place_and_strides_are_kept(clip):
    grad = torch.arange(1.0, 7).view(2, 3).t()
    parameter = torch.nn.Parameter(torch.zeros(3, 2))
    parameter.grad = grad
    place = grad.data_ptr()
    clip([parameter], 1.0)
    assert (parameter.grad.data_ptr(), parameter.grad.stride()) == (place, (1, 3))
    assert float(grad.norm()) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_clipped(kind):
    grad = torch.arange(-50.0, 50, dtype=torch.float64).view(10, 10).div(5).to(kind)
    ours, expected = parameters(grad, None, grad.t()), parameters(grad, None, grad.t())
    assert gkt.clip_grad_value_((p for p in ours), 2.5) is None
    theirs.clip_grad_value_(expected, 2.5)
    assert all(a.equal(b) for a, b in zip(gradients(ours), gradients(expected), strict=True))
    gkt.clip_grad_value_(ours[0], 0.5)
    assert float(ours[0].grad.abs().max()) == 0.5
    gkt.clip_grad_value_([], 1.0)


def test_values_that_are_not_finite_are_clipped_as_torch_does():
    grad = torch.tensor([math.inf, -math.inf, math.nan, 0.5])
    (made,) = parameters(grad)
    gkt.clip_grad_value_(made, 1.0)
    np.testing.assert_array_equal(made.grad.numpy(), [1, -1, math.nan, 0.5])


@pytest.mark.parametrize("p", ORDERS)
def test_total_norms(p):
    generator = torch.Generator().manual_seed(2)
    tensors = [torch.randn(4, 5, generator=generator), torch.randn(7, generator=generator)]
    want = theirs.get_total_norm(tensors, norm_type=p)
    torch.testing.assert_close(gkt.get_total_norm((t for t in tensors), norm_type=p), want)
    torch.testing.assert_close(gkt.get_total_norm(tensors[0], p), theirs.get_total_norm(tensors[0], p))
    assert gkt.get_total_norm([]).equal(torch.tensor(0.0))
    tensors[1][3] = math.nan
    assert gkt.get_total_norm(tensors, p).isnan()
    with pytest.raises(RuntimeError, match=r"tensors\[1\]\[3\] is NaN or infinite"):
        gkt.get_total_norm(tensors, p, error_if_nonfinite=True)


@pytest.mark.parametrize("p", [0.5, 3])
def test_a_norm_that_the_kernels_lack_is_summed_on_the_host(device, p):
    """Of arrays on a device, which have no arithmetic of their own."""
    from gradkern.torch.clip_grad import _clip_other

    hosts = [np.array([[3.0, -1.0]]), np.array([0.5])]
    there = [on_device(host.copy(), device) for host in hosts]
    norm = _clip_other(gk.GradientGroup(there), 1.0, p, "clip_grad_norm_")
    assert norm == pytest.approx(sum((abs(host) ** p).sum() for host in hosts) ** (1 / p), rel=1e-14)
    for host, array in zip(hosts, there, strict=True):
        np.testing.assert_allclose(array.to_host(), host / norm, rtol=1e-6)


LINEAR = torch.nn.Linear(2, 2)
NO_PARAMETERS = [
    (lambda: [np.ones(3)], r"parameters\[0\] must be a torch.Tensor, got ndarray"),
    (lambda: [LINEAR.weight, None], r"parameters\[1\] must be a torch.Tensor, got NoneType"),
    (LINEAR.named_parameters, r"parameters\[0\] must be a torch.Tensor, got a pair; give parameters\(\)"),
    (lambda: LINEAR, r"parameters must be a tensor or an iterable of tensors, got Linear; give its parameters\(\)"),
    (lambda: torch.nn.Sequential(LINEAR), r"parameters\[0\] must be a torch.Tensor, got Linear"),
]


@pytest.mark.parametrize("parameters, what", NO_PARAMETERS)
def test_parameters_that_are_none(parameters, what):
    for strict in (False, True):
        with pytest.raises(TypeError, match=f"^clip_grad_norm_: {what}"):
            gkt.clip_grad_norm_(parameters(), 1.0, strict_torch=strict)
    with pytest.raises(TypeError, match=f"^clip_grad_value_: {what}"):
        gkt.clip_grad_value_(parameters(), 1.0)
    with pytest.raises(
        TypeError, match=r"^get_total_norm: tensors must be a tensor or an iterable of tensors, got Linear$"
    ):
        gkt.get_total_norm(LINEAR)
