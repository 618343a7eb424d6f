"""The largest singular values of a product without forming it: iterations of one pass forwards and one backwards.

Where those asked for are of similar size: a block Krylov space of J^T J, kept orthogonal, restarted with its best vectors.
Where they are not: subspace iteration, made orthonormal again in every layer, since a deep chain's second singular value
may lie 2^-100 below its first, where no Krylov space of float64 sees it.

References
----------
Wu and Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems", SIAM J. Matrix Anal. 22 (2000) 602;
Golub and Van Loan, Matrix Computations (4th ed., 2013), sections 8.2 and 10.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gradkern import _core
from gradkern._factors import Factor, Factors, exponents_of, widths_of
from gradkern._product_svd import ALIGNED, graded_product, random_basis, row_singular_values

Array = NDArray[np.float64]

_SPARE = 4  # vectors beyond those asked for
_DIGITS = 49  # bits that J^T J keeps of its largest eigenvalue
_BASIS = 80  # vectors of a Krylov space before it is restarted


@dataclass(frozen=True, eq=False)
class Top:
    """The largest singular values, log2, and how they were found.

    Attributes
    ----------
    log2 : array, (k,)
    vector : array, (n_in,)
        The right singular vector of the largest.
    iterations : int
        Passes forwards and backwards.
    residual : float
        Largest || J^T J v - sigma^2 v || / sigma^2: each sigma is within half of it, relatively, of a true one, and much
        nearer (its square over the gap) where the spectrum has gaps.
    """

    log2: Array
    vector: Array
    iterations: int
    residual: float


def tangent_of(factors: Sequence[Factor]) -> _core.Tangent:
    """Give the factors to the kernels."""
    return _core.Tangent([(factor.weight.pair, factor.slope) for factor in factors])


def _normal_product(
    tangent: _core.Tangent, rows: Array, scale: tuple[int, int] | None
) -> tuple[Array, tuple[int, int]]:
    """J^T J of orthonormal rows over 2^(sum of scale), which the first product sets."""
    image, there = tangent.forward(rows)
    back, home = tangent.backward(image)
    up, down = graded_product(there, len(rows)), graded_product(home, len(rows))
    if scale is None:
        scale = int(up.exponent.max()), int(down.exponent.max())
    small = down.dense(scale[1]) @ up.dense(scale[0])
    return small.T @ back, scale


def _outside(block: Array, basis: Array) -> Array:
    """Orthonormal rows that span what a block adds to an orthonormal basis."""
    for _ in range(2):
        block = block - (block @ basis.T) @ basis
        block = np.linalg.qr(block.T)[0].T
    return block


def krylov(tangent: _core.Tangent, start: Array, k: int, tolerance: float, max_iterations: int) -> Top:
    """Find the k largest singular values, of similar size, from orthonormal rows (p, n_in) to start with, p >= k."""
    basis, size = start, start.shape[1]
    images, scale = _normal_product(tangent, basis, None)
    most = max(_BASIS, 8 * len(start))
    for iteration in range(1, max_iterations + 1):
        square = basis @ images.T
        theta, vectors = np.linalg.eigh((square + square.T) / 2)
        theta, vectors = theta[::-1], vectors[:, ::-1].T
        if theta[0] <= 0:
            return Top(np.full(k, -np.inf), basis[0], iteration, 0.0)
        wrong = vectors[:k] @ images - theta[:k, None] * (vectors[:k] @ basis)
        residuals = np.linalg.norm(wrong, axis=1) / theta[:k]
        bad = residuals > tolerance
        room = size - len(basis)
        if not bad.any() or room == 0 or iteration == max_iterations:
            break
        if len(basis) + k > most:
            keep = vectors[: most // 2]
            basis, images = keep @ basis, keep @ images
        new = _outside(wrong[bad][:room], basis)
        basis = np.concatenate([basis, new])
        images = np.concatenate([images, _normal_product(tangent, new, scale)[0]])
    log2 = (np.log2(theta[:k]) + sum(scale)) / 2
    return Top(log2, vectors[0] @ basis, iteration, float(residuals.max()))


class _Passes:
    """The kernels' passes, for bases as columns."""

    def __init__(self, tangent: _core.Tangent) -> None:
        self.tangent = tangent

    def forward(self, basis: Array) -> tuple[Array, list[Array]]:
        rows, triangles = self.tangent.forward(np.ascontiguousarray(basis.T))
        return rows.T, list(triangles)

    def backward(self, basis: Array) -> Array:
        return np.asarray(self.tangent.backward(np.ascontiguousarray(basis.T))[0].T)


def _subspace(product: _Passes | Factors, basis: Array, k: int, tolerance: float, max_iterations: int) -> Top:
    """Find the k largest singular values, however far they spread; residuals are the sines by which vectors still turn."""
    image, triangles = product.forward(basis)
    iteration, residual = 0, np.inf
    while iteration < max_iterations:
        iteration += 1
        graded = graded_product(triangles, basis.shape[1])
        vectors = basis @ row_singular_values(graded)[1][:k].T
        basis = product.backward(image)
        residual = float(np.linalg.norm(vectors - basis @ (basis.T @ vectors), axis=0).max())
        image, triangles = product.forward(basis)
        if residual <= tolerance and graded.largest <= ALIGNED:
            break
    log2, right = row_singular_values(graded_product(triangles, basis.shape[1]))
    return Top(log2[:k], basis @ right[0], iteration, residual)


def top_singular_values(factors: Sequence[Factor], k: int, tolerance: float, max_iterations: int, seed: int) -> Top:
    """Find the k largest singular values, exponents of the factors left out; those beyond the rank are -inf."""
    widths, tangent = widths_of(factors), tangent_of(factors)
    count = 1 if k == 1 else min(k + _SPARE, *widths)
    basis = random_basis(widths[0], count, seed)
    if k == 1:
        return krylov(tangent, np.ascontiguousarray(basis.T), 1, tolerance, max_iterations)
    _, triangles = _Passes(tangent).forward(basis)
    if all(np.diagonal(r).all() for r in triangles):
        log2, _ = row_singular_values(graded_product(triangles, count))
        found = min(k, count)
        if 2 * (log2[0] - log2[-1]) <= _DIGITS + np.log2(tolerance):  # what is left for the smallest eigenvalue
            top = krylov(tangent, np.ascontiguousarray(basis.T), found, tolerance, max_iterations)
        else:
            top = _subspace(_Passes(tangent), basis, found, tolerance, max_iterations)
    else:
        top = _by_exact_rank(factors, basis, k, tolerance, max_iterations)
    return replace(top, log2=np.concatenate([top.log2, np.full(k - len(top.log2), -np.inf)]))


def _by_exact_rank(factors: Sequence[Factor], basis: Array, k: int, tolerance: float, max_iterations: int) -> Top:
    """Where a layer leaves less of a vector than rounding does: rows sorted by size, and as many vectors as the rank."""
    product = Factors(factors)
    rank = min(product.exact_rank(), basis.shape[1])
    if rank == 0:
        return Top(np.full(k, -np.inf), basis[:, 0], 1, 0.0)
    top = _subspace(product, basis[:, :rank], min(k, rank), tolerance, max_iterations)
    return replace(top, log2=top.log2 + product.log2_scale - exponents_of(factors).sum())
