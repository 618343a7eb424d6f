"""The largest singular values of a product without forming it: iterations of one pass forwards and one backwards.

One value: Lanczos iteration on J^T J, every new vector made orthogonal to all before. Several: subspace iteration with a
few vectors to spare, re-orthonormalised in every layer, since a deep chain's second singular value may lie 2^-100 below
its first, where a Krylov space cannot see it.

References
----------
Golub and Van Loan, Matrix Computations (4th ed., 2013), sections 8.2 and 10.1; Paige, J. Inst. Math. Appl. 10 (1972) 373.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradkern import _core
from gradkern._factors import Factor
from gradkern._product_svd import ALIGNED, graded_product, random_basis, row_singular_values

Array = NDArray[np.float64]

_SPARE = 4  # vectors beyond those asked for


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


def _log2_length(triangles: Array) -> float:
    """log2 of what a single vector was multiplied by."""
    with np.errstate(divide="ignore"):
        return float(np.log2(triangles[:, 0, 0]).sum())


def largest(tangent: _core.Tangent, n_in: int, tolerance: float, max_iterations: int, seed: int) -> Top:
    """Find the largest singular value by Lanczos iteration."""
    basis = [random_basis(n_in, 1, seed)[:, 0]]
    alpha: list[float] = []
    beta: list[float] = []
    scale = 0.0  # log2 of the first Rayleigh quotient, which the others are divided by
    for iteration in range(1, max_iterations + 1):
        image, there = tangent.forward(basis[-1][None])
        back, home = tangent.backward(image)
        log2 = _log2_length(there) + _log2_length(home)
        if log2 == -np.inf:
            return Top(np.array([-np.inf]), basis[0], iteration, 0.0)
        if iteration == 1:
            scale = log2
        w = back[0] * 2.0 ** (log2 - scale)
        alpha.append(float(w @ basis[-1]))
        known = np.array(basis)
        for _ in range(2):
            w = w - known.T @ (known @ w)
        beta.append(float(np.linalg.norm(w)))
        theta, vectors = np.linalg.eigh(np.diag(alpha) + np.diag(beta[:-1], 1) + np.diag(beta[:-1], -1))
        residual = abs(beta[-1] * vectors[-1, -1]) / theta[-1]
        if residual <= tolerance or iteration == n_in or beta[-1] == 0:
            break
        basis.append(w / beta[-1])
    vector = vectors[:, -1] @ np.array(basis[: len(alpha)])
    return Top(np.array([(scale + np.log2(theta[-1])) / 2]), vector, iteration, float(residual))


def top_singular_values(
    tangent: _core.Tangent, widths: Sequence[int], k: int, tolerance: float, max_iterations: int, seed: int
) -> Top:
    """Find the k largest singular values; those of a product of smaller rank are -inf."""
    if k == 1:
        return largest(tangent, widths[0], tolerance, max_iterations, seed)
    rows = np.ascontiguousarray(random_basis(widths[0], min(k + _SPARE, *widths), seed).T)
    image, triangles = tangent.forward(rows)
    alive = np.diagonal(triangles, axis1=1, axis2=2).all(axis=0)
    if not alive.any():
        return Top(np.full(k, -np.inf), rows[0], 1, 0.0)
    rows = rows[alive]
    image, triangles = tangent.forward(rows)
    residual = np.inf
    for _iteration in range(1, max_iterations + 1):
        graded = graded_product(triangles, len(rows))
        log2, right = row_singular_values(graded)
        vectors = right[:k] @ rows
        new, _ = tangent.backward(image)
        residual = float(np.linalg.norm(vectors - (vectors @ new.T) @ new, axis=1).max())
        aligned = graded.largest <= ALIGNED
        rows = new
        image, triangles = tangent.forward(rows)
        if residual <= tolerance and aligned:
            break
    log2, right = row_singular_values(graded_product(triangles, len(rows)))
    missing = np.full(max(k - len(log2), 0), -np.inf)
    return Top(np.concatenate([log2[:k], missing]), right[0] @ rows, _iteration, residual)
