"""Rewrite the tables of docs/remedies.md: every cell is what the library did just now. `python docs/remedies_table.py`."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gradkern as gk

PAGE = Path(__file__).with_name("remedies.md")
Arrays = list[NDArray[Any]]
Clipped = tuple[float, Arrays]


@dataclass(frozen=True)
class Case:
    """Gradients and a bound; `only` is the one number that is of interest, where that is not the gradients."""

    words: str
    grads: Callable[[], Arrays]
    max_norm: float
    only: Callable[[float, Arrays], str] | None = None
    same_everywhere: bool = True


def full(count: int, value: float, dtype: type) -> Callable[[], Arrays]:
    return lambda: [np.full(count, value, dtype)]


def entries(*values: float, dtype: type = np.float32) -> Callable[[], Arrays]:
    return lambda: [np.array(values, dtype)]


def many(count: int) -> Arrays:
    return [np.random.default_rng(0).standard_normal(count, np.float32) * np.float32(1e-3)]


def halves(parts: int) -> Arrays:
    numbers = np.random.default_rng(0).standard_normal(4096).astype(np.float16)
    return [part.copy() for part in np.split(numbers, parts)]


def error_of_norm(norm: float, grads: Arrays) -> str:
    exact = float(np.linalg.norm(many(10**7)[0].astype(np.float64)))
    error = norm / exact - 1
    return "norm right to 1e-12" if abs(error) < 1e-12 else f"norm off by {error:.0e}"


def only_norm(norm: float, grads: Arrays) -> str:
    return f"norm {norm:.7g}"


CASES = [
    Case("3 and 4, clipped to 1", entries(3, 4), 1.0),
    Case("3 and 4, clipped to their norm", entries(3, 4), 5.0),
    Case("0.3 and 0.4, clipped to 1", entries(0.3, 0.4), 1.0),
    Case("3e-8 and 4e-8, clipped to 1e-8", entries(3e-8, 4e-8), 1e-8),
    Case("a NaN and 4", entries(math.nan, 4), 1.0),
    Case("an inf and 4", entries(math.inf, 4), 1.0),
    Case("1,000 times 4000 in float16", full(1000, 4000, np.float16), 1.0),
    Case("60000 and 6000 in float16, clipped to 1e-4", entries(60000, 6000, dtype=np.float16), 1e-4),
    Case("4 times 1e30", full(4, 1e30, np.float32), 1.0),
    Case("4 times 1e-30, clipped to 1e-30", full(4, 1e-30, np.float32), 1e-30),
    Case("10^7 entries of about 1e-3", lambda: many(10**7), math.inf, error_of_norm, same_everywhere=False),
    Case("4,096 normal numbers in float16", lambda: halves(1), 1e9, only_norm),
    Case("the same in 64 tensors", lambda: halves(64), 1e9, only_norm),
    Case("3 and 4, clipped to -1", entries(3, 4), -1.0),
    Case("3 and 4, clipped to NaN", entries(3, 4), math.nan),
    Case("no gradient at all", list, 1.0, only_norm),
]


def by_torch(grads: Arrays, max_norm: float) -> Clipped:
    import torch

    parameters = [torch.nn.Parameter(torch.from_numpy(np.zeros_like(g))) for g in grads]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = torch.from_numpy(grad)
    return float(torch.nn.utils.clip_grad_norm_(parameters, max_norm)), grads


def by_optax(grads: Arrays, max_norm: float) -> Clipped:
    import jax.numpy as jnp
    import optax

    tree = [jnp.asarray(g) for g in grads]
    clip = optax.clip_by_global_norm(max_norm)
    clipped, _ = clip.update(tree, clip.init(tree))
    return float(optax.global_norm(tree)), [np.asarray(g) for g in clipped]


def by_keras(grads: Arrays, max_norm: float) -> Clipped:
    from keras.src.optimizers.base_optimizer import clip_by_global_norm, global_norm

    return float(global_norm(grads)), [np.asarray(g) for g in clip_by_global_norm(grads, max_norm)]


def by_gradkern(grads: Arrays, max_norm: float) -> Clipped:
    return gk.clip_by_global_norm(grads, max_norm).norm, grads


LIBRARIES: dict[str, Callable[[Arrays, float], Clipped]] = {
    "torch": by_torch, "optax": by_optax, "keras": by_keras, "gradkern": by_gradkern,
}  # fmt: skip


def installed(name: str) -> str | None:
    """Version of a library, if it is there."""
    try:
        return gk.__version__ if name == "gradkern" else version(name)
    except PackageNotFoundError:
        return None


def cell(case: Case, clip: Callable[[Arrays, float], Clipped]) -> str:
    """What a library makes of a case."""
    before, grads = case.grads(), case.grads()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            norm, after = clip(grads, case.max_norm)
    except (ArithmeticError, ValueError) as error:
        same = all(a.tobytes() == b.tobytes() for a, b in zip(before, grads, strict=True))
        return f"{type(error).__name__}, {'nothing' if same else 'SOMETHING'} modified"
    if case.only is not None:
        return case.only(norm, after)
    if all(a.tobytes() == b.tobytes() for a, b in zip(before, after, strict=True)):
        return f"norm {norm:.7g}; unchanged"
    values = [float(v) for a in after for v in a.flat[:2]]
    return f"norm {norm:.7g}; {' and '.join(f'{v:.7g}' for v in values)}"


def clipping() -> list[list[str]]:
    """Rows of the table of clipping, the header first."""
    names = [name for name in LIBRARIES if installed(name)]
    header = ["gradients, float32 unless said", *(f"{name} {installed(name)}" for name in names[:-1]), "gradkern"]
    return [header, *([case.words, *(cell(case, LIBRARIES[name]) for name in names)] for case in CASES)]


def trained(kind: Any, outcomes: Sequence[bool], options: dict[str, Any]) -> str:
    """What becomes of one weight and the scale where the loss is finite, or infinite, as asked."""
    import torch

    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    scaler = kind("cpu", **options)
    done = 0
    try:
        for good in outcomes:
            optimizer.zero_grad()
            scaler.scale(weight.sum() * (1.0 if good else math.inf)).backward()
            scaler.step(optimizer)
            scaler.update()
            done += 1
    except gk.LossScaleFloorError as error:
        return f"{type(error).__name__} after {done} steps; weight {weight.item():g}"
    scale = scaler.get_scale()
    return f"scale {f'2^{math.log2(scale):g}' if scale else '0'}; weight {weight.item():g}"


def scaling() -> list[list[str]]:
    """Rows of the table of loss scaling, the header first."""
    import torch

    from gradkern.torch import GradScaler

    kinds = [torch.amp.GradScaler, GradScaler]
    traces: dict[str, tuple[list[bool], dict[str, Any]]] = {
        "200 steps overflow, then one does not": ([False] * 200 + [True], {}),
        "200 clean steps, growth after each": ([True] * 200, {"growth_interval": 1}),
    }
    rows = [[words, *(trained(kind, *trace) for kind in kinds)] for words, trace in traces.items()]
    return [["a weight of 1, learning rate 0", f"torch {installed('torch')}", "gradkern"], *rows]


def table(rows: list[list[str]]) -> str:
    """Write rows as a table of Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def rewritten(page: str) -> str:
    """Put new tables between the markers of a page."""
    for name, rows in (("clipping", clipping()), ("scaling", scaling())):
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        head, _, rest = page.partition(begin)
        _, marker, tail = rest.partition(end)
        if not marker:
            raise ValueError(f"{PAGE.name}: no markers {begin.strip()} and {end}")
        page = f"{head}{begin}{table(rows)}\n{end}{tail}"
    return page


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
