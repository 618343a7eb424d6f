"""`compare`: one pass in several arithmetics, or on several devices, and how far the results lie apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from gradkern._arguments import check_callback, text_or_none
from gradkern.arithmetic import Arithmetic, ArithmeticLike, arithmetic
from gradkern.chain import Progress, probe
from gradkern.compared_pair import ComparedPair, ComparedRun, Divergence
from gradkern.compared_tensor import ComparedTensor, compare_rows
from gradkern.comparison import Comparison
from gradkern.lean import Lean, Place, leans
from gradkern.net import MLP, Dense
from gradkern.recurrent import RNN
from gradkern.report import ChainReport

RunLike: TypeAlias = "ArithmeticLike | tuple[ArithmeticLike, str | None]"
Devices: TypeAlias = "str | Sequence[str | None] | None"
_Spec: TypeAlias = "tuple[Arithmetic, str | None]"
_PARTS = 1000  # of a run, for the progress bar
_OURS = {"arithmetic": "arithmetics", "keep": "nothing: tensors are compared and dropped"}


def compare(
    net: MLP | Dense | list[Dense] | RNN,
    x: Any,
    *,
    arithmetics: RunLike | Sequence[RunLike],
    against: RunLike | None = None,
    device: Devices = None,
    progress: Progress | None = None,
    **probe_options: Any,
) -> Comparison:
    """Run a network forward and backward in several arithmetics and compare every stored tensor with the first one's.

    Parameters
    ----------
    net : MLP, list of Dense or RNN
    x : array
        As for `probe`.
    arithmetics : sequence of str, Arithmetic or (arithmetic, device)
        The runs. With a device, a run there is compared with the same arithmetic elsewhere:
        ``[("float16", "cpu"), ("float16", "cuda")]``.
    against : str, Arithmetic or (arithmetic, device), optional
        The reference run; default the first of `arithmetics`.
    device : str or sequence of str, optional
        Where runs without a device of their own compute. Of a sequence every device runs the one arithmetic that is given, and
        the first is the reference: ``compare(net, x, arithmetics="float16", device=["cpu", "cuda"])``.
    progress : callable, optional
        Called with (done, total) on the way. Ctrl-C is honoured there.
    **probe_options
        ``loss``, ``target``, ``grad_output``, ``scale``, ``reference`` and, of an RNN, ``bptt``, ``loss_at``, ``initial`` and
        ``step_accumulate``: see `probe`. All runs have the same.

    Returns
    -------
    Comparison

    Raises
    ------
    TypeError, ValueError
        For fewer than two runs, several devices for several arithmetics, and whatever `probe` refuses.

    Notes
    -----
    *Ulps.* Where both runs store in one format, the distance of two values is the number of steps from one representable value
    to the next that lead from one to the other: an integer, in which infinity would follow the largest finite value and both
    zeros are one. Where the formats differ, it is ``|other - reference| / q``. The quantum that a format of precision p and
    smallest normal exponent e_min has at a reference value of exponent e is ``2**(max(e, e_min) - p + 1)``, and q is the larger
    of the two formats' quanta; at most 1/2 is what one rounding of the reference value could have made. Only entries that are
    finite in both runs have a distance; the others are counted as ``nonfinite_only`` or as (un)equal.

    *Bias* is the share of these entries that are larger in magnitude than in the reference run, less the share that are smaller.
    Errors are inherited from layer to layer and shared by the entries of a sample or a unit, so even a large one may be noise.
    Whether a run's rounding is biased is judged by its fresh errors: each stored product of matrices beside the exact one
    (float64) of the same run's stored operands, in the format's normal range. A pair is called biased where in one run, and
    not in the other, the inexact sums of a tensor lie on one side more often than unbiased rounding would make them with 5 %
    for all tensors together (a sign test for shared errors, Bonferroni), and the lean is at least 0.1 plus three epsilons of
    the format, as products on a coarse grid lean by themselves. A narrow accumulator that absorbs small terms is biased, too.

    Tensors of two runs at most are in memory at a time.

    Examples
    --------
    >>> net = gk.MLP.random(depth=8, width=32, activation="tanh")
    >>> gk.compare(net, np.ones((4, 32)), arithmetics=["float32", "float16", "bfloat16"])
    """
    for name in _OURS.keys() & probe_options.keys():
        raise TypeError(f"compare: there is no argument {name!r}; give {_OURS[name]}")
    check_callback(progress, "compare", "progress")
    first, *others = _runs(arithmetics, against, device)
    stages = _Stages(progress, 1 + 2 * len(others))

    def run(spec: _Spec) -> ChainReport:
        a, where = spec
        return probe(net, x, arithmetic=a, device=where, keep="tensors", progress=stages.next(), **probe_options)

    reference = run(first)
    mine, lean = ComparedRun(*first, reference.loss), leans(reference)

    def pair(spec: _Spec) -> ComparedPair:  # a scope of its own: the run's tensors are gone before the next one begins
        other = run(spec)
        return _pair((mine, ComparedRun(*spec, other.loss)), (reference, other), (lean, leans(other)), stages.next())

    pairs = [pair(spec) for spec in others]
    runs = [mine, *(found.other for found in pairs)]
    return Comparison(reference.describe(), reference.batch, reference.scale, reference.loss_name, runs, pairs)


class _Stages:
    """One bar over several stages of equal length."""

    def __init__(self, progress: Progress | None, stages: int) -> None:
        self._progress, self._stages, self._begun = progress, stages, -1

    def next(self) -> Progress | None:
        self._begun += 1
        progress, begun, total = self._progress, self._begun, _PARTS * self._stages
        if progress is None:
            return None
        return lambda done, whole: progress(_PARTS * begun + _PARTS * done // max(whole, 1), total)


def _spec(run: Any, device: str | None, name: str) -> _Spec:
    if isinstance(run, tuple):
        if len(run) != 2:
            raise ValueError(f"compare: a run in {name} must be an arithmetic or (arithmetic, device), got {run!r}")
        run, device = run
    if not isinstance(run, str | Arithmetic):
        raise TypeError(f"compare: a run in {name} must be a str, an Arithmetic or a pair, got {type(run).__name__}")
    return arithmetic(run), text_or_none(device, "compare", "device")


def _is_one_run(value: Any) -> bool:
    pair = isinstance(value, tuple) and len(value) == 2 and (value[1] is None or value[1] in ("cpu", "cuda", "simt"))
    return isinstance(value, str | Arithmetic) or pair


def _runs(arithmetics: Any, against: Any, device: Any) -> list[_Spec]:
    """Return arithmetic and device of every run, the reference first."""
    if not _is_one_run(arithmetics) and not isinstance(arithmetics, Iterable):
        raise TypeError(f"compare: arithmetics must be a sequence of arithmetics, got {type(arithmetics).__name__}")
    if device is not None and not isinstance(device, Iterable):
        raise TypeError(f"compare: device must be a string, a sequence of them or None, got {type(device).__name__}")
    given = [arithmetics] if _is_one_run(arithmetics) else list(arithmetics)
    if device is None or isinstance(device, str):
        runs = [_spec(run, device, "arithmetics") for run in given]
    else:
        if len(given) != 1 or isinstance(given[0], tuple):
            raise ValueError(
                f"compare: several devices compare one arithmetic, got {len(given)}; give pairs (arithmetic, device) instead"
            )
        runs = [_spec(given[0], one, "arithmetics") for one in device]
    if against is not None:
        wanted = _spec(against, device if isinstance(device, str) else None, "against")
        if wanted in runs:
            runs.remove(wanted)
        runs.insert(0, wanted)
    if len(runs) < 2:
        raise ValueError(f"compare: arithmetics must give at least two runs, got {len(runs)}")
    return runs


def _pair(
    runs: tuple[ComparedRun, ComparedRun],
    reports: tuple[ChainReport, ChainReport],
    found: tuple[dict[Place, Lean], dict[Place, Lean]],
    progress: Progress | None,
) -> ComparedPair:
    tensors: list[ComparedTensor] = []
    first, reference = None, reports[0]
    for a, b in zip(reference.layers, reports[1].layers, strict=True):
        place = a.layer, a.role
        tensor = compare_rows(a, b, (found[0].get(place, Lean()), found[1].get(place, Lean())))
        if first is None and tensor.first is not None and tensor.first_values is not None:
            first = Divergence(*place, tensor.first, reference.locate(a, tensor.first), *tensor.first_values)
        tensors.append(tensor)
        if progress is not None:
            progress(len(tensors), len(reference.layers))
    return ComparedPair(*runs, reference.unit, tensors, first)
