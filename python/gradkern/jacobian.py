"""`jacobian`: the singular values of d output / d input, from the layers' factors and at any depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern._arguments import number, positive_integer
from gradkern._arrays import read
from gradkern._backend import takes_device
from gradkern._factors import (
    Factor,
    Factors,
    exponents_of,
    factors_of,
    factors_of_steps,
    log2_growth,
    log2_layer_norms,
    widths_of,
)
from gradkern._product_svd import singular_values
from gradkern._top_singular import tangent_of, top_singular_values
from gradkern.chain import _network
from gradkern.net import MLP, Dense
from gradkern.recurrent import RNN
from gradkern.recurrent_chain import initial_of, sequence_of
from gradkern.spectrum import Spectrum, stack

Array = NDArray[np.float64]


def _points(x: Any, net: MLP) -> tuple[Array, bool]:
    """Take inputs as rows (batch, n_in), and say whether x is a single one."""
    values = read(x, "jacobian: x").values.astype(np.float64)
    n_in = net.widths[0]
    single = values.ndim <= 1
    if values.size == 0 or (values.size != n_in if single else values[0].size != n_in):
        raise ValueError(
            f"jacobian: x has shape {values.shape}, but {net.layers[0].name}.weight has "
            f"{(net.widths[1], n_in)}: x must be ({n_in},) or (batch, {n_in})"
        )
    return values.reshape(-1, n_in), single


def _sequences(x: Any, net: RNN, initial: Any) -> tuple[list[tuple[Array, Array]], bool]:
    """Take each sample's sequence (steps, inputs) and h_0, and say whether x is a single one."""
    bits = sequence_of(x, net, "jacobian")
    sequences = bits.values.astype(np.float64).swapaxes(0, 1)
    first = initial_of(initial, (len(sequences), net.hidden), "jacobian")
    states = np.zeros((len(sequences), net.hidden)) if first is None else first.values.astype(np.float64)
    return list(zip(sequences, states.reshape(len(sequences), -1), strict=True)), np.ndim(x) == 2


def _full(factors: Sequence[Factor], per_layer: bool, seed: int) -> Spectrum:
    widths = widths_of(factors)
    log2 = singular_values(Factors(factors), widths, seed)
    norms = log2_layer_norms(factors) if per_layer else None
    return Spectrum.of(log2, widths, norms, log2_growth(factors))


def _top(
    factors: Sequence[Factor], k: int, per_layer: bool, tolerance: float, max_iterations: int, seed: int
) -> Spectrum:
    widths, tangent, exponents = widths_of(factors), tangent_of(factors), exponents_of(factors)
    top = top_singular_values(factors, k, tolerance, max_iterations, seed)
    norms = None
    if per_layer:
        each = [top_singular_values([f], 1, tolerance, max_iterations, seed) for f in factors]
        norms = exponents + [found.log2[0] for found in each]
    with np.errstate(divide="ignore"):
        growth = np.cumsum(np.log2(tangent.forward(top.vector[None])[1][:, 0, 0]) + exponents)
    return Spectrum.of(top.log2 + exponents.sum(), widths, norms, growth, top.iterations, top.residual)


def spectrum_of(
    factors: Sequence[Factor],
    k: int | None = None,
    *,
    per_layer: bool | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 300,
    seed: int = 0,
) -> Spectrum:
    """Singular values of diag(slope_L) W_L ... diag(slope_1) W_1: what `jacobian` does at one point, for any chain.

    The steps of a recurrent net are factors that share a weight.
    """
    if not all(np.isfinite(factor.slope).all() for factor in factors):
        return Spectrum.undefined(widths_of(factors), k)
    per_layer = k is None if per_layer is None else per_layer
    if k is None:
        return _full(factors, per_layer, seed)
    return _top(factors, k, per_layer, tolerance, max_iterations, seed)


def _chains(net: Any, x: Any, initial: Any) -> tuple[Iterator[list[Factor]], bool, int]:
    """Return the factors at each point, whether there is but one, and how many singular values there are."""
    if isinstance(net, RNN):
        sequences, single = _sequences(x, net, initial)
        return (factors_of_steps(net, *sequence) for sequence in sequences), single, net.hidden
    network = _network(net, "jacobian")
    if initial is not None:
        raise TypeError(f"jacobian: initial can be given for an RNN only, net is {type(net).__name__}")
    points, single = _points(x, network)
    return (factors_of(network, point) for point in points), single, min(network.widths[0], network.widths[-1])


@takes_device
def jacobian(
    net: MLP | Dense | list[Dense] | RNN,
    x: Any,
    k: int | None = None,
    *,
    per_layer: bool | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 300,
    seed: int = 0,
    initial: Any = None,
    device: str | None = None,
) -> Spectrum:
    """Singular values of the Jacobian J = diag(f'(z_L)) W_L ... diag(f'(z_1)) W_1 at a point, whatever the depth.

    In float64, from the weights as given and the pre-activations of the reference chain. The product is never formed, so
    nothing overflows, and the smallest singular values are as right as the largest. Of an `RNN`, d h_T / d h_0: a factor
    diag(f'(z_t)) W for each time step.

    Parameters
    ----------
    net : MLP, list of Dense or RNN
        Layers of any sizes; weights in any format.
    x : array, (n_in,) or (batch, n_in)
        Where to differentiate. A batch gives a spectrum for each sample, stacked along a leading axis.
        Of an RNN a sequence, (steps, inputs) or (steps, batch, inputs).
    k : int, optional
        None: all min(n_in, n_out) singular values, by QR re-orthogonalisation layer by layer: some n^3 operations a layer.
        Otherwise only the k largest, without a matrix (passes that read each weight once), for wide nets.
    per_layer : bool, optional
        Whether to find every layer's own spectral norm, too. Default: where k is None.
    tolerance : float
        With k: iterations end when || J^T J v - sigma^2 v || <= tolerance sigma^2 for each singular value asked for.
    max_iterations : int
        With k: iterations at most, each a pass forwards and one backwards; see `Spectrum.residual` for what was reached.
    seed : int
        Of the random vectors to start from.
    initial : array, (hidden,) or (batch, hidden), optional
        Of an RNN: h_0, default zeros.
    device : {None, "cpu", "cuda", "simt"}
        Where to compute.

    Returns
    -------
    Spectrum
        NaN where a pre-activation is NaN.

    Raises
    ------
    TypeError, ValueError
        For an argument of a wrong kind, dtype, shape or value.

    Notes
    -----
    The full spectrum is exact for factors that differ from the given ones by some 1e-15 of their norms, layer by layer;
    rows and columns of very different sizes do no harm. Whether a singular value is exactly zero, and its log2 -inf, is
    decided by exact arithmetic modulo primes; with k = 1 only where a pass gives zero. A slope of a saturated unit that is
    below 2^-1074 counts as that.
    Passes have the same bits on any machine; the last bits of factorisations are NumPy's.

    References
    ----------
    Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", ICML 2013, for J and its bounds;
    Saxe, McClelland, Ganguli 2014 and Pennington, Schoenholz, Ganguli 2017 for its spectrum; the algorithms are named in
    `gradkern._product_svd` and `gradkern._top_singular`.

    Examples
    --------
    >>> net = gk.MLP.random(depth=100, width=64, activation="tanh", init="orthogonal")
    >>> print(gk.jacobian(net, np.zeros(64)))
    """
    chains, single, smallest = _chains(net, x, initial)
    if k is not None:
        k = positive_integer(k, "jacobian", "k")
        if k > smallest:
            raise ValueError(f"jacobian: k must be at most min(n_in, n_out) = {smallest}, got {k}")
    if not number(tolerance, "jacobian", "tolerance") > 0:
        raise ValueError(f"jacobian: tolerance must be positive, got {tolerance}")
    positive_integer(max_iterations, "jacobian", "max_iterations")
    seed = positive_integer(seed, "jacobian", "seed", least=0)
    spectra = [
        spectrum_of(factors, k, per_layer=per_layer, tolerance=tolerance, max_iterations=max_iterations, seed=seed)
        for factors in chains
    ]
    found = spectra[0] if single else stack(spectra)
    return replace(found, unit="step") if isinstance(net, RNN) else found
