"""`Spectrum`: the singular values of a Jacobian, and what they say about a chain of layers."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradkern._result import Result, plain

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

STEADY = 0.01  # bits a layer that are no growth and no decay
TRANSIENT = 3.0  # bits that a vanishing product has to grow before


@dataclass(frozen=True, repr=False, eq=False)
class Spectrum(Result):
    """Singular values of a Jacobian, as log2. Of a batch, every field but the sizes has a leading axis of samples.

    Attributes
    ----------
    log2_singular_values : array, (n,)
        All min(n_in, n_out), or the k asked for; largest first, -inf for an exact zero.
    log2_condition : float or None
        log2 of the largest over the smallest of all; inf for a product without full rank, None where only k are known.
    stable_rank : float or None
        Sum of squares over the largest square, between 1 and the rank; None where only k are known.
    rank : int or None
        Singular values that are not zero; None where only k are known.
    log2_spectral_norm_per_layer : array, (depth,), or None
        Of each diag(f'(z)) W; None where it was not asked for.
    log2_growth : array, (depth,)
        log2 of the spectral norm of the product of the first l layers; with k, of the length that these give the top right
        singular vector.
    widths : list of int
        Sizes, the input's first.
    iterations : int or None
        With k: passes forwards and backwards.
    residual : float or None
        With k: the largest ||J^T J v - sigma^2 v|| / sigma^2 when they ended; where the values asked for are some 11 bits apart
        or more, the sine of the angle by which the last iteration turned v, which is the same to first order.
    unit : {"layer", "step"}
        What a factor is: of an RNN a time step.
    """

    log2_singular_values: Array
    log2_condition: Any
    stable_rank: Any
    rank: Any
    log2_spectral_norm_per_layer: Array | None
    log2_growth: Array
    widths: list[int]
    iterations: Any = None
    residual: Any = None
    unit: str = "layer"

    @classmethod
    def of(
        cls,
        log2: Array,
        widths: list[int],
        norms: Array | None,
        growth: Array,
        iterations: int | None = None,
        residual: float | None = None,
    ) -> Spectrum:
        """Make the spectrum of one point from its singular values."""
        condition = stable = rank = None
        if iterations is None:
            rank = int(np.isfinite(log2).sum())
            condition = float(log2[0] - log2[-1]) if rank == len(log2) else np.inf
            stable = float(np.exp2(2 * (log2[:rank] - log2[0])).sum()) if rank else 0.0
        return cls(log2, condition, stable, rank, norms, growth, widths, iterations, residual)

    @classmethod
    def undefined(cls, widths: list[int], k: int | None) -> Spectrum:
        """Make the spectrum of a point where a derivative is NaN."""
        depth, count = len(widths) - 1, k or min(widths[0], widths[-1])
        nan, values = np.full(depth, np.nan), np.full(count, np.nan)
        if k:
            return cls(values, None, None, None, None, nan, widths, 0, np.nan)
        return cls(values, np.nan, np.nan, 0, nan, nan, widths)

    @property
    def depth(self) -> int:
        """Layers, or time steps."""
        return len(self.widths) - 1

    @property
    def samples(self) -> int | None:
        """Points of a batch; None for a single one."""
        return None if self.log2_singular_values.ndim == 1 else len(self.log2_singular_values)

    @property
    def lyapunov(self) -> Array:
        """Finite-depth Lyapunov exponents, log2 of the singular values over the depth [bits per layer or step], of any widths."""
        return self.log2_singular_values / self.depth

    @property
    def spectral_norm_per_layer(self) -> Array | None:
        """Largest singular value of each layer's diag(f'(z)) W; None where it was not asked for."""
        log2 = self.log2_spectral_norm_per_layer
        return None if log2 is None else np.exp2(log2)

    @property
    def log2_norm_bound(self) -> Any:
        """log2 of the product of the layers' spectral norms, which the norm of the product cannot exceed.

        Pascanu et al. 2013, eq. 6: all norms below 1 suffice to vanish; norms above 1 are only necessary to explode.
        """
        if self.log2_spectral_norm_per_layer is None:
            return None
        bound = self.log2_spectral_norm_per_layer.sum(axis=-1)
        return float(bound) if self.samples is None else bound

    @property
    def kind(self) -> Any:
        """What the product does, by its largest Lyapunov exponent; for a batch a list.

        ``"explodes"``, ``"vanishes"``, ``"steady"`` (within 0.01 bits a layer), ``"transient"`` (vanishes, but after growing
        more than eightfold), ``"nilpotent"`` (exactly zero) or ``"undefined"`` (NaN).
        """
        return self._kind() if self.samples is None else [self[i]._kind() for i in range(self.samples)]

    def _kind(self) -> str:
        rate = float(self.lyapunov[0])
        if np.isnan(rate):
            return "undefined"
        if rate == -np.inf:
            return "nilpotent"
        if abs(rate) <= STEADY:
            return "steady"
        if rate > 0:
            return "explodes"
        return "transient" if self.log2_growth.max() > TRANSIENT else "vanishes"

    def __len__(self) -> int:
        """Points of a batch."""
        if self.samples is None:
            raise TypeError("Spectrum: of a single point, it has no length")
        return self.samples

    def __getitem__(self, sample: int) -> Spectrum:
        """Spectrum of one point of a batch."""
        if self.samples is None:
            raise TypeError("Spectrum: of a single point, there is none to choose")
        sample = range(self.samples)[sample]
        chosen = {name: getattr(self, name) for name in _PER_SAMPLE}
        return replace(self, **{n: _item(value, sample) for n, value in chosen.items()})

    def summary(self) -> str:
        """Return what the product does, in words."""
        from gradkern.render_spectrum import summary_text

        return summary_text(self)

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.summary())}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, with kind, lyapunov and log2_norm_bound, as JSON can hold them."""
        more = {"kind": self.kind, "lyapunov": self.lyapunov, "log2_norm_bound": self.log2_norm_bound}
        return {**super().to_dict(), **dict(plain(more))}

    def to_frame(self) -> pandas.DataFrame:
        """Return one line per sample and singular value (pandas is loaded here)."""
        import pandas

        log2 = np.atleast_2d(self.log2_singular_values)
        samples, count = log2.shape
        columns = {
            "index": np.tile(np.arange(count), samples), "log2_singular_value": log2.ravel(),
            "lyapunov": log2.ravel() / self.depth,
        }  # fmt: skip
        sample = {} if self.samples is None else {"sample": np.repeat(np.arange(samples), count)}
        return pandas.DataFrame({**sample, **columns})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the growth of the product by depth; without `ax`, the singular values by index beside it.

        matplotlib is loaded here. The axes of the growth are returned; ``.figure`` is the figure.
        """
        from gradkern.plot_spectrum import plot_spectrum

        return plot_spectrum(self, ax)


_PER_SAMPLE = tuple(f.name for f in fields(Spectrum) if f.name not in ("widths", "unit"))


def _item(values: Any, sample: int) -> Any:
    if values is None:
        return None
    value = values[sample]
    return value.item() if np.ndim(value) == 0 else value


def stack(spectra: Sequence[Spectrum]) -> Spectrum:
    """Make one spectrum of those of a batch's points."""
    stacked: dict[str, Any] = {}
    for name in _PER_SAMPLE:
        values = [getattr(s, name) for s in spectra]
        stacked[name] = None if values[0] is None else np.array(values)
    return replace(spectra[0], **stacked)
