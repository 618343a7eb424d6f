"""Pictures of a sweep: a phase diagram over two parameters, or lines along one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradkern._colours import LINE_COLOURS
from gradkern.plot import _figure
from gradkern.sweep_point import PARAMETERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gradkern.sweep_result import SweepResult

_LABELS = {
    "gradient_rate": "decay rate of activation gradients [bits/layer]",
    "weight_rate": "decay rate of weight gradients [bits/layer]",
    "activation_rate": "growth of activations [bits/layer]",
    "gradient_bits": "gradient at the first layer over that at the last [bits]",
    "trainable_depth": "layers whose weights get a gradient", "effective_depth": "layers that get a gradient",
    "death_probability": "networks without any gradient", "gain": "gain", "bias_std": "standard deviation of the biases",
    "log2_scale_best": "log2 of the loss scale to take",
}  # fmt: skip
_MOST_LINES = 16
_NUMERIC = ("depth", "gain", "bias_std", "scale", "width", "batch")


def _axes(result: SweepResult, x: str | None, y: str | None) -> tuple[str, str | None]:
    varied = result.varied
    for name in (x, y):
        if name is not None and name not in PARAMETERS:
            raise ValueError(f"plot: x and y must be of {', '.join(PARAMETERS)}, got {name!r}")
    if x is None and y is None and {"gain", "bias_std"} <= varied.keys():
        return "gain", "bias_std"
    if x is None:
        x = next((name for name in _NUMERIC if name in varied and name != y), None)
    if x is None:
        raise ValueError(f"plot: none of {', '.join(_NUMERIC)} varies: there is nothing to draw along")
    return x, y


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def plot_sweep(result: SweepResult, ax: Axes | None, value: str | None, x: str | None, y: str | None) -> Axes:
    """Draw the medians over the seeds; see `SweepResult.plot`."""
    typical = result.quenched() if "seed" in (result.rows[0] if result.rows else {}) else result
    x, y = _axes(typical, x, y)
    value = value or ("gradient_rate" if y or x in ("gain", "bias_std") else "trainable_depth")
    known = {name for row in typical.rows for name, v in row.items() if isinstance(v, float | int)}
    if value not in known:
        raise ValueError(f"plot: value must be of {', '.join(sorted(known - set(PARAMETERS)))}, got {value!r}")
    ax = _figure().subplots() if ax is None else ax
    if y is not None:
        _plane(typical, ax, value, x, y)
    else:
        _lines(typical, ax, value, x)
    fixed = {name: row[name] for row in typical.rows[:1] for name in PARAMETERS if name in row}
    title = ", ".join(f"{k} {v:g}" if isinstance(v, float) else str(v) if isinstance(v, str) else f"{k} {v}"
                      for k, v in fixed.items() if k not in typical.varied and k not in ("scale", "batch"))  # fmt: skip
    ax.set_title(title, fontsize=10, loc="left")
    return ax


def _edges(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def _plane(typical: SweepResult, ax: Axes, value: str, x: str, y: str) -> None:
    others = [name for name in typical.varied if name not in (x, y)]
    if others:
        raise ValueError(f"plot: {', '.join(others)} varies too; choose one value by where({others[0]}=...)")
    across, up = (sorted({row[name] for row in typical.rows}) for name in (x, y))
    if min(len(across), len(up)) < 2 or isinstance(across[0], str) or isinstance(up[0], str):
        raise ValueError(f"plot: a plane needs several numbers of {x} and of {y}, got {len(across)} and {len(up)}")
    grid = np.full((len(up), len(across)), math.nan)
    for row in typical.rows:
        grid[up.index(row[y]), across.index(row[x])] = _number(row.get(value))
    centres = np.array(across, np.float64), np.array(up, np.float64)
    finite = np.ma.masked_invalid(grid)
    signed = value.endswith(("_rate", "_bits"))
    most = float(np.abs(finite).max()) if finite.count() else 1.0
    colours = {"cmap": "RdBu_r", "vmin": -most, "vmax": most} if signed else {"cmap": "viridis"}
    mesh = ax.pcolormesh(_edges(centres[0]), _edges(centres[1]), finite, rasterized=True, **colours)
    if signed and finite.min() < 0 < finite.max():
        ax.contour(*centres, finite, levels=[0.0], colors="black", linewidths=1.5)
        ax.plot([], [], color="black", lw=1.5, label="zero")
        ax.legend(frameon=False, loc="lower right")
    ax.figure.colorbar(mesh, ax=ax, label=_LABELS.get(value, value), pad=0.02)
    ax.set(xlabel=_sigma(typical, x), ylabel=_sigma(typical, y))


def _sigma(typical: SweepResult, name: str) -> str:
    """Name of an axis; gain and bias_std are mean field theory's sigmas where the variance of weights is gain^2 / n."""
    field_theory = all(row["init"] == "lecun_normal" for row in typical.rows)
    symbol = {"gain": r"$\sigma_w$", "bias_std": r"$\sigma_b$"}.get(name) if field_theory else None
    return symbol or _LABELS.get(name, name)


def _lines(typical: SweepResult, ax: Axes, value: str, x: str) -> None:
    others = [name for name in typical.varied if name != x]
    lines: dict[tuple[Any, ...], list[tuple[float, ...]]] = {}
    for row in typical.rows:
        ends = (_number(row.get(f"{value}_{end}")) for end in ("low", "high"))
        lines.setdefault(tuple(row[n] for n in others), []).append((float(row[x]), _number(row.get(value)), *ends))
    if len(lines) > _MOST_LINES:
        raise ValueError(f"plot: {len(lines)} lines, for {', '.join(others)}; choose fewer by where({others[0]}=...)")
    for index, (values, points) in enumerate(lines.items()):
        across, middle, low, high = np.array(sorted(points)).T
        words = (f"{n} {v:g}" if isinstance(v, float) else str(v) if isinstance(v, str) else f"{n} {v}"
                 for n, v in zip(others, values, strict=True))  # fmt: skip
        colour = LINE_COLOURS[index % len(LINE_COLOURS)]
        ax.plot(across, middle, marker="o", ms=3, color=colour, label=", ".join(words), ls="-" if index < 8 else "--")
        ax.fill_between(across, low, high, color=colour, alpha=0.15, lw=0)
    if x == "depth" and value in ("trainable_depth", "effective_depth"):
        ax.axline((0, 0), slope=1, color="#999999", lw=0.8, ls=":", zorder=0, label="every layer")
        ax.set(xlim=(0, None), ylim=(0, None))
    if value.endswith("_rate"):
        ax.axhline(0, color="#999999", lw=0.8, zorder=0)
    if others:
        ax.legend(frameon=False, fontsize=8)
    ax.set(xlabel=_sigma(typical, x), ylabel=_LABELS.get(value, value))
