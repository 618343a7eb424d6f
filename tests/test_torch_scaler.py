"""gradkern.torch.GradScaler in the place of torch.amp.GradScaler."""

from __future__ import annotations

import inspect
import math
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradkern as gk

torch = pytest.importorskip("torch")
from gradkern.torch import GradScaler  # noqa: E402


def problem(lr=0.1):
    """A parameter and its optimizer."""
    parameter = torch.nn.Parameter(torch.ones(3))
    return parameter, torch.optim.SGD([parameter], lr=lr)


def iterate(scaler, parameter, optimizer, good=True):
    """One training iteration; the loss is infinite if it is not good."""
    optimizer.zero_grad()
    loss = (parameter**2).sum() * (1.0 if good else math.inf)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()


def test_signatures_are_those_of_torch():
    def words(function):
        found = inspect.signature(function).parameters.values()
        return [(p.name, p.default) for p in found if p.kind is not p.KEYWORD_ONLY]

    assert words(GradScaler) == words(torch.amp.GradScaler)
    for name, method in vars(torch.amp.GradScaler).items():
        if callable(method) and not name.startswith("_"):
            assert words(getattr(GradScaler, name)) == words(method), name


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 5), st.integers(0, 16))
@settings(max_examples=60, deadline=None)
def test_the_same_training_as_with_torch(outcomes, interval, start):
    runs = []
    for kind, options in ((GradScaler, {"floor": 2.0**-60, "ceiling": 2.0**60}), (torch.amp.GradScaler, {})):
        scaler = kind("cpu", init_scale=2.0**start, growth_interval=interval, **options)
        parameter, optimizer = problem()
        run = []
        for good in outcomes:
            iterate(scaler, parameter, optimizer, good)
            run.append((parameter.tolist(), scaler.state_dict(), scaler.get_scale()))
        runs.append(run)
    assert runs[0] == runs[1]


def test_states_travel_to_torch_and_back():
    ours, theirs = GradScaler("cpu", init_scale=8.0, growth_interval=3), torch.amp.GradScaler("cpu")
    iterate(ours, *problem())
    theirs.load_state_dict(ours.state_dict())
    assert theirs.state_dict() == ours.state_dict()
    again = GradScaler("cpu")
    again.load_state_dict(theirs.state_dict())
    assert again.state_dict() == ours.state_dict() == pickle.loads(pickle.dumps(ours)).state_dict()
    with pytest.raises(RuntimeError, match="empty"):
        again.load_state_dict({})
    with pytest.raises(ValueError, match="no _growth_tracker"):
        again.load_state_dict({"scale": 1.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 1})
    with pytest.raises(ValueError, match="scale must be a power of two"):
        again.load_state_dict({**ours.state_dict(), "scale": 3.0})


def test_hysteresis_travels():
    scaler, again = (GradScaler("cpu", hysteresis=3) for _ in range(2))
    parameter, optimizer = problem()
    iterate(scaler, parameter, optimizer, good=False)
    again.load_state_dict(scaler.state_dict())
    for one in (scaler, again):
        iterate(one, parameter, optimizer, good=False)
        assert one.get_scale() == 2.0**16
        iterate(one, parameter, optimizer, good=False)
        assert one.get_scale() == 2.0**15


def test_a_record_of_every_update():
    scaler = GradScaler("cpu")
    parameter, optimizer = problem()
    iterate(scaler, parameter, optimizer)
    assert (scaler.record.skipped, scaler.record.norm) == (False, pytest.approx(math.sqrt(12)))
    kept = parameter.tolist()
    iterate(scaler, parameter, optimizer, good=False)
    assert parameter.tolist() == kept
    assert (scaler.record.skipped, scaler.record.tensor) == (True, "param_groups[0].params[0]")
    assert scaler.record.next_scale == scaler.get_scale() == 2.0**15


def test_named_parameters_are_called_so():
    parameter = torch.nn.Parameter(torch.ones(3))
    try:
        optimizer = torch.optim.SGD([("layer.weight", parameter)], lr=0.1)
    except TypeError:
        pytest.skip("this torch has no named parameters")
    scaler = GradScaler("cpu")
    iterate(scaler, parameter, optimizer, good=False)
    assert scaler.record.tensor == "layer.weight"


def test_the_floor_is_an_error():
    scaler = GradScaler("cpu", init_scale=2.0)
    parameter, optimizer = problem()
    iterate(scaler, parameter, optimizer, good=False)
    with pytest.raises(gk.LossScaleFloorError, match=r"param_groups\[0\].params\[0\]\[0\] is the first of 3"):
        iterate(scaler, parameter, optimizer, good=False)
    assert scaler.record.skipped
    iterate(scaler, parameter, optimizer)  # it goes on
    assert parameter.tolist() == pytest.approx([0.8] * 3)


def test_unscaled_gradients_can_be_clipped_before_the_step():
    scaler = GradScaler("cpu", init_scale=4.0)
    parameter, optimizer = problem(lr=1.0)
    scaler.scale((parameter**2).sum()).backward()
    assert parameter.grad.tolist() == [8.0] * 3
    scaler.unscale_(optimizer)
    assert parameter.grad.tolist() == [2.0] * 3
    torch.nn.utils.clip_grad_norm_([parameter], 1.0)
    scaler.step(optimizer)
    scaler.update()
    assert float((1 - parameter.detach()).norm()) == pytest.approx(1.0, rel=1e-5)


def test_gradients_of_a_skipped_step_are_untouched():
    scaler = GradScaler("cpu", init_scale=4.0)
    parameter, optimizer = problem()
    parameter.grad = torch.tensor([1.0, math.inf, 2.0])
    scaler.unscale_(optimizer)
    assert parameter.grad.tolist() == [1.0, math.inf, 2.0]


def test_several_optimizers_share_a_scale():
    scaler = GradScaler("cpu", init_scale=4.0)
    (a, first), (b, second) = problem(), problem()
    a.grad, b.grad = torch.ones(3), torch.tensor([math.nan, 1.0, 1.0])
    scaler.step(first)
    scaler.step(second)
    scaler.update()
    assert a.tolist() != [1.0] * 3
    assert b.tolist() == [1.0] * 3
    assert (scaler.record.tensor, scaler.record.index) == ("optimizer 1 param_groups[0].params[0]", 0)
    assert scaler.get_scale() == 2.0
    a.grad, b.grad = torch.tensor([6.0, 0, 0]), torch.tensor([0, 8.0, 0])
    scaler.step(first)
    scaler.step(second)
    scaler.update()
    assert scaler.record.norm == 5.0
    assert "5" in repr(scaler.record)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("fused", [False, True])
def test_fused_optimizers(optimizer, fused):
    weights = []
    for kind in (GradScaler, torch.amp.GradScaler):
        parameter = torch.nn.Parameter(torch.ones(3))
        adam = optimizer([parameter], fused=fused)
        scaler = kind("cpu")
        for good in (True, False, True):
            iterate(scaler, parameter, adam, good)
        weights.append(parameter.detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-6, atol=0)


def test_outputs_of_any_kind_are_scaled():
    scaler = GradScaler("cpu", init_scale=8.0)
    one = torch.ones(2, dtype=torch.float16)
    for kind in (list, tuple):
        scaled = scaler.scale(kind([one, kind([one])]))
        assert type(scaled) is type(scaled[1]) is kind
        assert scaled[0].equal(one * 8)
        assert scaled[0].dtype == torch.float16
    assert [s.tolist() for s in scaler.scale(iter([one]))] == [[8.0, 8.0]]
    assert scaler.scale(torch.ones((), dtype=torch.float16)).dtype == torch.float32
    with pytest.raises(ValueError, match="outputs must be"):
        scaler.scale(1.0)


def test_sparse_gradients():
    table = torch.nn.Embedding(5, 2, sparse=True)
    optimizer = torch.optim.SGD(table.parameters(), lr=1.0)
    scaler = GradScaler("cpu")
    before = table.weight.detach().clone()
    scaler.scale(table(torch.tensor([1, 1, 3])).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert (before - table.weight).detach().round().tolist() == [[0, 0], [2, 2], [0, 0], [1, 1], [0, 0]]


def test_misuse_is_refused():
    scaler = GradScaler("cpu")
    parameter, optimizer = problem()
    with pytest.raises(RuntimeError, match="No inf checks"):
        scaler.update()
    with pytest.raises(RuntimeError, match="no parameter of this optimizer has a gradient"):
        scaler.step(optimizer)
    parameter.grad = torch.ones(3)
    with pytest.raises(RuntimeError, match="Closure"):
        scaler.step(optimizer, closure=lambda: None)
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="already been called on this optimizer"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="already been called since"):
        scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="after step"):
        scaler.unscale_(optimizer)
    half = torch.nn.Parameter(torch.ones(3, dtype=torch.float16))
    half.grad = torch.ones_like(half)
    with pytest.raises(ValueError, match=r"Attempting to unscale FP16 gradients: param_groups\[0\].params\[0\]"):
        scaler.unscale_(torch.optim.SGD([half], lr=0.1))


def test_settings():
    scaler = GradScaler("cpu", init_scale=2.0**30)
    scaler.set_growth_factor(4.0)
    scaler.set_backoff_factor(0.25)
    scaler.set_growth_interval(7)
    assert (scaler.get_growth_factor(), scaler.get_backoff_factor(), scaler.get_growth_interval()) == (4.0, 0.25, 7)
    scaler.update(new_scale=64.0)
    assert scaler.get_scale() == 64
    scaler.update(torch.tensor(32.0))
    assert scaler.get_scale() == 32
    for wrong in (lambda: scaler.update(3.0), lambda: scaler.set_growth_factor(1.001), lambda: GradScaler("cpu", 3.0)):
        with pytest.raises(ValueError, match="power of two"):
            wrong()
    assert scaler.is_enabled()


def test_disabled_it_does_nothing():
    scaler = GradScaler("cpu", enabled=False)
    parameter, optimizer = problem()
    loss = (parameter**2).sum()
    assert scaler.scale(loss) is loss
    loss.backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    scaler.load_state_dict({})
    assert parameter.tolist() == pytest.approx([0.8] * 3)
    assert (scaler.get_scale(), scaler.state_dict(), scaler.is_enabled()) == (1.0, {}, False)
    if not torch.cuda.is_available():
        with pytest.warns(UserWarning, match="CUDA is not available"):
            assert not GradScaler().is_enabled()


@pytest.mark.parametrize(
    ("name", "value"),
    [("init_scale", 3.0), ("init_scale", "a"), ("growth_factor", 1.0), ("backoff_factor", 1.0), ("growth_interval", 0)],
)
def test_arguments_are_refused_by_their_names(name, value):
    with pytest.raises((TypeError, ValueError), match=f"^GradScaler: {name} must be "):
        GradScaler("cpu", **{name: value})


def test_a_state_that_is_no_mapping():
    with pytest.raises(TypeError, match=r"^GradScaler\.load_state_dict: the state must be a mapping"):
        GradScaler("cpu").load_state_dict(3)
