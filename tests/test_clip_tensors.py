"""Lists of tensors are looked up by DLPack's exchange table, where that is beyond doubt, and all guarantees stay."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gradkern as gk
from gradkern import _core, _faults
from gradkern.formats import format_ids
from gradkern.gradient_group import _IDS

torch = pytest.importorskip("torch")
import gradkern.torch as gkt  # noqa: E402

KINDS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
OFFERED = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")


def looked_up(*tensors, kind=torch.Tensor):
    return _core.ClipGroup.in_place(list(tensors), _IDS, kind)


def negated():
    return torch._neg_view(torch.ones(3))


class Sub(torch.Tensor):
    pass


DOUBTFUL = {
    "transposed": lambda: torch.arange(6.0).view(2, 3).t(), "every other": lambda: torch.arange(6.0)[::2],
    "broadcast": lambda: torch.tensor([3.0]).expand(4), "negated": negated, "subclass": lambda: Sub([1.0, 2.0]),
    "parameter": lambda: torch.nn.Parameter(torch.ones(3)), "sparse": lambda: torch.eye(3).to_sparse(),
    "meta": lambda: torch.ones(3, device="meta"), "complex": lambda: torch.ones(3, dtype=torch.complex64).conj(),
    "integer": lambda: torch.ones(3, dtype=torch.int32), "zeros without memory": lambda: torch._efficientzerotensor((3,)),
    "number": lambda: 3.0, "nothing": lambda: None, "read-only": lambda: np.broadcast_to(np.ones(1), (3,)),
    "swapped bytes": lambda: np.ones(3, ">f4"), "float8_e5m2fnuz": lambda: torch.ones(3).to(torch.float8_e5m2fnuz),
    "unaligned": lambda: torch.from_numpy(np.zeros(9, np.uint8)[1:]).view(torch.uint8),
}  # fmt: skip


@pytest.mark.skipif(not OFFERED, reason="this torch has no exchange table")
@pytest.mark.parametrize("kind", KINDS)
def test_plain_tensors_are_looked_up_in_one_loop(kind):
    base = torch.arange(-4.0, 4).to(kind)
    tensors = [base, torch.zeros(0, 3).to(kind), torch.tensor(2.0).to(kind), torch.ones(1, 2, 1).to(kind)]
    group = looked_up(*tensors, np.ones(2, np.float16))
    ids = format_ids()
    assert group.formats.tolist() == [ids[str(kind).removeprefix("torch.")]] * 4 + [ids["float16"]]
    assert len(group) == 5
    assert not group.overlap()
    assert looked_up(base, base[3:]).overlap()
    assert looked_up(base, kind=None) is None


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_is_in_doubt_is_left_to_the_other_way(name):
    assert looked_up(torch.ones(3), DOUBTFUL[name]()) is None


def test_a_table_of_another_version_or_none_is_left_alone():
    class NoTable:
        is_neg = staticmethod(lambda x: False)

    class WrongTable(NoTable):
        __dlpack_c_exchange_api__ = "no capsule"

    for kind in (NoTable, WrongTable, int):
        assert looked_up(kind(), kind=kind) is None


@pytest.mark.parametrize("requires", [False, True])
@pytest.mark.parametrize("extra", [None, "transposed", "every other", "broadcast", "subclass", "parameter"])
def test_tensors_are_clipped_as_arrays_are(extra, requires):
    generator = torch.Generator().manual_seed(4)
    sizes = [(3, 5), (0,), (), (7,), (1, 1)]
    made = [torch.randn(s, generator=generator, dtype=torch.float64).to(k) for s in sizes for k in KINDS]
    if extra is not None:
        made.append(DOUBTFUL[extra]())
    arrays = [np.array(t.detach().double().numpy()).astype(gk.finfo(str(t.dtype)[6:]).dtype) for t in made]
    if extra == "broadcast":
        arrays[-1] = arrays[-1][:1].copy()
    for t in made:
        if requires and t.is_leaf:
            t.requires_grad_()
    theirs, ours = gk.clip_by_global_norm(made, 1.5), gk.clip_by_global_norm(arrays, 1.5)
    assert (theirs.norm, theirs.coefficient, theirs.flushed) == (ours.norm, ours.coefficient, ours.flushed)
    for t, a in zip(made, arrays, strict=True):
        np.testing.assert_array_equal(t.detach().double().numpy(), np.broadcast_to(a.astype(np.float64), t.shape))


def test_duplicates_and_overlaps_are_clipped_once():
    base = torch.full((16,), 2.0)
    result = gk.clip_by_global_norm([base[:8], base[8:], base[:8], base[4:12], base], 4.0)
    assert (result.norm, result.size) == (8.0, 16)
    assert base.tolist() == [1.0] * 16
    made = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    made[0].grad = made[1].grad = torch.tensor([3.0, 4.0])
    assert float(gkt.clip_grad_norm_(made, 1.0)) == 5.0
    assert made[0].grad.norm().item() == pytest.approx(1.0)


@pytest.mark.parametrize(("name", "words"), [("sparse", "must be dense"), ("meta", "no values"), ("negated", "negative bit"),
                                             ("complex", "dtype"), ("integer", "dtype")])  # fmt: skip
def test_what_cannot_be_written_is_named_and_nothing_is_touched(name, words):
    fine = torch.tensor([3.0, 4.0])
    with pytest.raises(TypeError, match=rf"clip_by_global_norm: arrays\[1\]: .*{words}"):
        gk.clip_by_global_norm([fine, DOUBTFUL[name]()], 1.0)
    assert fine.tolist() == [3.0, 4.0]


def test_names_count_what_is_left_out():
    bad = torch.tensor([1.0, math.nan])
    with pytest.raises(gk.NonFiniteError, match=r"2\[1\] is the only entry"):
        gk.clip_by_global_norm([torch.ones(2), None, bad], 1.0)
    result = gk.clip_by_global_norm([torch.ones(4), None, torch.zeros(1)], 9.0)
    assert result.norms == {"0": 2.0, "2": 0.0}
    assert list(result.norms) == ["0", "2"]
    assert gk.GradientGroup([torch.ones(4), None, bad]).names == ["0", "2"]


def test_rows_and_copies_of_tensors():
    grads, weights = [torch.full((2, 2), 3.0), torch.ones(3)], [torch.ones(2, 2), torch.ones(3)]
    result = gk.clip_adaptive(grads, weights, clip=0.5)
    assert grads[0].tolist() == [[0.5, 0.5]] * 2
    assert result.coefficient == pytest.approx(1 / 6)
    new = gk.clip_by_global_norm(grads, 0.5, out="new").arrays
    assert [type(t) for t in new] == [torch.Tensor] * 2
    assert grads[0].tolist() == [[0.5, 0.5]] * 2


def test_a_group_keeps_the_memory_it_saw():
    grad = torch.tensor([3.0, 4.0])
    view, group = grad.view(2), gk.GradientGroup([grad])
    grad.data = torch.zeros(2)
    del grad
    assert gk.clip_by_global_norm(group, 1.0).norm == 5.0
    assert view.norm().item() == pytest.approx(1.0)


WALKED = {
    "list": lambda: [torch.full((5,), 2.0), torch.full((3, 2), 3.0).half(), torch.tensor(7.0)],
    "other layouts": lambda: [torch.arange(6.0).view(2, 3).t(), torch.arange(6.0)[::2], torch.full((4,), 2.0)],
    "overlaps": lambda: (lambda base: [base[:6], base[3:], base])(torch.full((9,), 2.0)),
}
CALLS = {
    "clip_by_global_norm": lambda g: gk.clip_by_global_norm(g, 1.0),
    "clip_by_norm": lambda g: gk.clip_by_norm(g, 1.0),
    "clip_by_block_rms": lambda g: gk.clip_by_block_rms(g, 0.1),
    "clip_by_value": lambda g: gk.clip_by_value(g, -1.0, 1.0),
    "group": lambda g: gk.clip_by_global_norm(gk.GradientGroup(g), 1.0),
    "step": lambda g: gk.LossScaler(initial=4.0).step(g, 1.0),
    "clip_grad_norm_": lambda g: gkt.clip_grad_norm_([_parameter(t) for t in g], 1.0),
    "clip_grad_norm_ of order 3": lambda g: gkt.clip_grad_norm_([_parameter(t) for t in g], 1.0, norm_type=3),
    "clip_grad_value_": lambda g: gkt.clip_grad_value_([_parameter(t) for t in g], 1.0),
}


def _parameter(grad):
    parameter = torch.nn.Parameter(torch.zeros_like(grad))
    parameter.grad = grad
    return parameter


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("grads", WALKED)
def test_an_interruption_anywhere_leaves_all_or_nothing(call, grads, monkeypatch):
    """Counts the points of a whole call, then interrupts at each of them."""
    points = []
    monkeypatch.setattr(_faults, "hook", points.append)
    whole = WALKED[grads]()
    before, _ = [t.tolist() for t in whole], CALLS[call](whole)
    after = [t.tolist() for t in whole]
    assert after != before
    assert points[-1] == "scaled"
    for stop in range(len(points)):
        left = iter(range(stop + 1))

        def interrupt(point, left=left):
            if next(left, None) is None or not left.__length_hint__():
                raise KeyboardInterrupt

        monkeypatch.setattr(_faults, "hook", interrupt)
        made = WALKED[grads]()
        with pytest.raises(KeyboardInterrupt):
            CALLS[call](made)
        assert [t.tolist() for t in made] == (after if points[stop] == "scaled" else before)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("foreach", [None, False, True])
@pytest.mark.parametrize("p", [1, 2, 3, "inf"])
def test_every_way_of_torch_is_accepted(strict, foreach, p):
    shapes = ((), (3,), (1, 2)) if p == "inf" else ((), (3,), (0,), (1, 2))  # torch refuses the largest of nothing
    ours, theirs = ([_parameter(torch.arange(1.0, 1 + math.prod(s)).view(s)) for s in shapes] for _ in range(2))
    norm = gkt.clip_grad_norm_(ours, 0.5, p, foreach=foreach, strict_torch=strict)
    torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(theirs, 0.5, p, foreach=foreach))
    gkt.clip_grad_value_(ours, 0.1, foreach=foreach)
    torch.nn.utils.clip_grad_value_(theirs, 0.1, foreach=foreach)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    total = gkt.get_total_norm([a.grad for a in ours], p, foreach=foreach)
    torch.testing.assert_close(total, torch.nn.utils.get_total_norm([b.grad for b in theirs], p, foreach=foreach))


@pytest.mark.parametrize("p", [1, 2, 3])
def test_one_gradient_of_two_parameters_counts_once_in_every_order(p):
    made = [_parameter(torch.tensor([3.0, 4.0])), _parameter(torch.tensor([0.0, 1.0]))]
    made.append(_parameter(made[0].grad))
    want = sum(v**p for v in (3.0, 4.0, 1.0)) ** (1 / p)
    assert float(gkt.clip_grad_norm_(made, 1.0, p)) == pytest.approx(want, rel=1e-6)
    torch.testing.assert_close(made[2].grad, torch.tensor([3.0, 4.0]) / want)
