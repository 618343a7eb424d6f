"""A Jacobian as the product of its layers' factors diag(f'(z_l)) W_l: of an MLP, or of the steps of a recurrent net."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from gradkern import _core
from gradkern._arrays import Bits, read
from gradkern._exact_rank import exact_rank
from gradkern._product_svd import sorted_qr
from gradkern.activation import activation_code
from gradkern.dense import dense_forward
from gradkern.net import MLP
from gradkern.recurrent import RNN

Array = NDArray[np.float64]

_LIFT = 1000  # bits: products of tiny weights stay clear of float64's subnormal numbers
_EVEN = 8  # bits between sizes of columns that cost a QR no digits to speak of
_STACK = 1 << 22  # entries of the matrices whose norms are taken together


@dataclass(frozen=True, eq=False)
class Factor:
    """2^exponent diag(slope) W.

    Attributes
    ----------
    weight : Bits
        (n_out, n_in), in any format.
    slope : array, (n_out,)
        f'(z) of the layer or step over a power of two: the largest is between 1/2 and 1, or so much more as W is less.
    exponent : int
    """

    weight: Bits
    slope: Array
    exponent: int

    @classmethod
    def of(cls, weight: Bits, slope: Array) -> Factor:
        """Make the factor of a weight (n_out, n_in) and f'(z) (n_out,)."""
        size = int(np.frexp(np.abs(weight.values.astype(np.float64, copy=False)).max())[1])
        exponent = int(np.frexp(np.abs(slope).max())[1]) + min(0, max(size, -_LIFT))
        return cls(weight, np.ldexp(slope, -exponent), exponent)

    @property
    def values(self) -> Array:
        """W in float64, exactly."""
        return self.weight.values.astype(np.float64, copy=False)

    @property
    def matrix(self) -> Array:
        """diag(slope) W, rounded once an entry."""
        return np.asarray(self.slope[:, None] * self.values)


def factors_of(net: MLP, x: Array) -> list[Factor]:
    """Evaluate every layer's slopes at one input, by the reference chain: float64 with an exponent beside each tensor."""
    layers = []
    for layer in net.layers:
        weight, bias = layer.parameters
        code, alpha = activation_code(layer.activation, "jacobian")
        layers.append((weight.pair, None if bias is None else bias.pair, code, alpha))
    slopes = _core.slopes(layers, x)
    return [Factor.of(layer.parameters[0], slope) for layer, slope in zip(net.layers, slopes, strict=True)]


def factors_of_steps(net: RNN, x: Array, initial: Array) -> list[Factor]:
    """Evaluate every step's slopes along one sequence (steps, inputs) from h_0: layers W with the biases V x_t + b."""
    recurrent = net.parameters[0]
    code, alpha = activation_code(net.activation, "jacobian")
    driven = dense_forward(x, net.input_weight, net.bias, arithmetic="float64").pre_activation
    slopes = _core.slopes([(recurrent.pair, read(b, "jacobian: x").pair, code, alpha) for b in driven], initial)
    return [Factor.of(recurrent, slope) for slope in slopes]


def widths_of(factors: Sequence[Factor]) -> list[int]:
    """Sizes, the input's first."""
    return [factors[0].weight.shape[1], *(factor.weight.shape[0] for factor in factors)]


class Factors:
    """The factors as matrices that a basis can travel through, see `gradkern._product_svd.Product`.

    Each is scaled by a power of two; so are its columns, for which the rows of the factor before are scaled back: a basis
    travels accurately where rows differ in size, and not where columns do.
    """

    def __init__(self, factors: Sequence[Factor]) -> None:
        self.factors = factors
        largest = [np.abs(factor.matrix).max(axis=0) for factor in factors]
        columns = [np.frexp(np.where(top > 0, top, 1.0))[1] for top in largest]
        columns[0] = np.full_like(columns[0], columns[0].max())
        self.log2_scale = int(columns[0][0]) + sum(factor.exponent for factor in factors)
        self._columns = columns
        self._rows = [*columns[1:], np.zeros(len(factors[-1].slope), np.int32)]
        self.sizes: Sequence[float] = [float(np.abs(matrix).max()) for matrix in self._matrices()]

    def _matrices(self, *, backwards: bool = False) -> Iterator[Array]:
        order = range(len(self.factors))
        for layer in reversed(order) if backwards else order:
            shift = self._rows[layer][:, None] - self._columns[layer]
            yield np.ldexp(self.factors[layer].matrix, shift)

    def forward(self, basis: Array) -> tuple[Array, list[Array]]:
        """Send a basis (n_in, p) through: its orthonormal image, and the triangular factor of each layer."""
        return _travel(self._matrices(), basis)

    def backward(self, basis: Array) -> Array:
        """Send a basis (n_out, p) through the transposed factors, the sizes of their columns first: as rows of the basis."""
        for matrix in self._matrices(backwards=True):
            top = np.abs(matrix).max(axis=1)
            shift = np.frexp(np.where(top > 0, top, 1.0))[1][:, None]
            if np.ptp(shift) > _EVEN:
                basis, _ = sorted_qr(np.ldexp(basis, shift))
                matrix = np.ldexp(matrix, -shift)
            basis, _ = sorted_qr(matrix.T @ basis)
        return basis

    def exact_rank(self) -> int:
        """Rank of the product in exact arithmetic."""
        return exact_rank([(f.values, f.slope) for f in self.factors], self.factors[0].weight.shape[1])


def _travel(matrices: Iterator[Array], basis: Array) -> tuple[Array, list[Array]]:
    triangles = []
    for matrix in matrices:
        basis, r = sorted_qr(matrix @ basis)
        triangles.append(r)
    return basis, triangles


def _norms(matrices: Iterator[Array]) -> Array:
    """Spectral norms, many matrices of a shape at a time."""
    found: list[float] = []
    for shape, group in groupby(matrices, key=lambda m: m.shape):
        most = max(1, _STACK // (shape[0] * shape[1]))
        stack: list[Array] = []
        for matrix in group:
            stack.append(matrix)
            if len(stack) == most:
                found += np.linalg.norm(np.stack(stack), 2, axis=(1, 2)).tolist()
                stack = []
        if stack:
            found += np.linalg.norm(np.stack(stack), 2, axis=(1, 2)).tolist()
    return np.array(found)


def exponents_of(factors: Sequence[Factor]) -> Array:
    """Log2 of what each factor is to be multiplied by."""
    return np.array([factor.exponent for factor in factors], dtype=np.float64)


def log2_layer_norms(factors: Sequence[Factor]) -> Array:
    """log2 of the spectral norm of each factor."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log2(_norms(factor.matrix for factor in factors)) + exponents_of(factors))


def log2_growth(factors: Sequence[Factor]) -> Array:
    """log2 of the spectral norm of the product of the first l factors, l = 1 ... L."""
    exponents: list[int] = []

    def products() -> Iterator[Array]:
        product, exponent = np.eye(factors[0].weight.shape[1]), 0
        for factor in factors:
            product = factor.matrix @ product
            shift = int(np.frexp(np.abs(product).max())[1])
            product, exponent = np.ldexp(product, -shift), exponent + shift + factor.exponent
            exponents.append(exponent)
            yield product

    with np.errstate(divide="ignore"):
        return np.asarray(np.log2(_norms(products())) + np.array(exponents))
