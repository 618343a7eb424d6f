"""Singular values of a product of matrices from its factors: each to relative accuracy, however far they spread.

The product is never formed. Orthonormal bases travel through the factors, A_l Q_{l-1} = Q_l R_l, forwards and backwards
in turn, until they are aligned with the singular vectors; the product of the small triangular factors is kept graded,
diag(d) X with exponents beside d, and its rows are made orthogonal by one-sided Jacobi rotations.

References
----------
Benettin, Galgani, Giorgilli, Strelcyn, Meccanica 15 (1980) 9 (discrete QR for Lyapunov exponents); Stewart, "On graded QR
decompositions of products of matrices", ETNA 3 (1995) 39; Oliveira and Stewart, "Exponents by QR iterations",
Linear Algebra Appl. 309 (2000) 175; Demmel and Veselic, "Jacobi's method is more accurate than QR",
SIAM J. Matrix Anal. 13 (1992) 1204; Cox and Higham, "Stability of Householder QR factorization for weighted least squares
problems" (1998), for the sorted rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_MOST_TURNS = 12
ALIGNED = 16.0  # largest entry of X, whose diagonal is 1, at which its rows are well conditioned
_DOUBTFUL = 2.0**-40  # of a factor's largest entry: a diagonal that may be rounding only
_SMALLEST = 2.0**-1021  # stands for a diagonal that is zero: a vector that a layer maps to zero


class Product(Protocol):
    """A product of factors that bases can travel through; the true one is this times 2^log2_scale."""

    log2_scale: int
    sizes: Sequence[float]  # largest magnitude in each factor

    def forward(self, basis: Array) -> tuple[Array, list[Array]]:
        """Return Q_L and R_1 ... R_L of a basis (n_in, p)."""

    def backward(self, basis: Array) -> Array:
        """Return the orthonormal image of a basis (n_out, p), through the transposed factors."""

    def exact_rank(self) -> int:
        """Return the rank of the product in exact arithmetic."""


@dataclass(frozen=True)
class Graded:
    """diag(mantissa * 2^exponent) X."""

    mantissa: Array
    exponent: NDArray[np.int64]
    rows: Array

    @property
    def log2(self) -> Array:
        """log2 of the diagonal."""
        return np.asarray(self.exponent + np.log2(np.abs(self.mantissa)))

    def dense(self, shift: int) -> Array:
        """Return it over 2^shift, as far as float64 holds it."""
        return np.asarray(
            np.ldexp(self.mantissa[:, None] * self.rows, np.clip(self.exponent - shift, -2000, 2000)[:, None])
        )

    @property
    def largest(self) -> float:
        """Largest magnitude in X; infinite where it left float64."""
        worst = float(np.abs(self.rows).max(initial=0.0))
        return worst if np.isfinite(worst) else np.inf


def sorted_qr(a: Array) -> tuple[Array, Array]:
    """QR of a matrix whose rows may differ in size by orders of magnitude: large rows first keep the small ones right."""
    order = np.argsort(-np.abs(a).max(axis=1), kind="stable")
    q, r = np.linalg.qr(a[order])
    unsorted = np.empty_like(q)
    unsorted[order] = q
    return unsorted, r


def graded_product(triangles: Iterable[Array], size: int) -> Graded:
    """R_L ... R_1 of upper triangular factors in the order 1 ... L, as diag(d) X, X unit upper triangular.

    R diag(d) X = diag(d') N X with d' = diag(R) d and N_ij = R_ij d_j / (R_ii d_i).
    """
    mantissa, exponent = np.ones(size), np.zeros(size, np.int64)
    rows = np.eye(size)
    with np.errstate(over="ignore", invalid="ignore"):
        for r in triangles:
            diagonal = np.diagonal(r)
            diagonal = np.where(diagonal == 0, _SMALLEST, diagonal)
            if size > 1:
                shift = np.clip(exponent - exponent[:, None], -3000, 3000)
                step = np.ldexp(r * (mantissa / (mantissa * diagonal)[:, None]), shift)
                np.fill_diagonal(step, 1.0)
                rows = np.triu(step) @ rows
            mantissa, carry = np.frexp(mantissa * diagonal)
            exponent = exponent + carry
    return Graded(mantissa, exponent, rows)


def _rounds(count: int) -> Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs in rounds of disjoint pairs: a round-robin tournament."""
    players = np.arange(count + count % 2)
    half = len(players) // 2
    for _ in range(len(players) - 1):
        one, other = players[:half], players[half:][::-1]
        both = (one < count) & (other < count)
        yield one[both], other[both]
        players = np.concatenate([players[:1], players[-1:], players[1:-1]])


def row_singular_values(product: Graded) -> tuple[Array, Array]:
    """Singular values of diag(d) X by one-sided Jacobi rotations of its rows, with exponents beside them.

    With unit rows x_i, x_j, cosine c and t = d_j / d_i <= 1 the rotation is
    x_i - t^2 u x_j, x_j + u x_i, where u = -2 c / (1 - t^2 + sqrt((1 - t^2)^2 + 4 t^2 c^2)): nothing overflows, and where
    t vanishes it is a step of Gram and Schmidt.

    Returns
    -------
    log2 : array, (p,)
        Of the singular values, largest first.
    right : array, (p, p)
        The right singular vectors as rows.
    """
    count = len(product.mantissa)
    if not np.isfinite(product.largest):  # a basis far from the singular vectors: only the diagonal is known
        order = np.argsort(-product.log2, kind="stable")
        return product.log2[order], np.eye(count)[order]
    norms = np.linalg.norm(product.rows, axis=1)
    rows = product.rows / norms[:, None]
    mantissa, exponent = np.abs(product.mantissa) * norms, product.exponent.copy()
    small = 4 * np.finfo(np.float64).eps * np.sqrt(count)
    for _ in range(60):
        worst = 0.0
        for first, second in _rounds(count):
            log2 = exponent + np.log2(mantissa)
            swap = log2[first] < log2[second]
            i, j = np.where(swap, second, first), np.where(swap, first, second)
            cosine = np.einsum("ij,ij->i", rows[i], rows[j])
            wrong = np.abs(cosine) > small
            if not wrong.any():
                continue
            i, j, cosine = i[wrong], j[wrong], cosine[wrong]
            worst = max(worst, float(np.abs(cosine).max()))
            ratio = np.ldexp(mantissa[j] / mantissa[i], np.maximum(exponent[j] - exponent[i], -2000))
            gap = (1 - ratio) * (1 + ratio)
            u = -2 * cosine / (gap + np.sqrt(gap * gap + (2 * ratio * cosine) ** 2))
            cos = 1 / np.sqrt(1 + (ratio * u) ** 2)
            pair = cos[:, None] * (rows[i] - (ratio * ratio * u)[:, None] * rows[j])
            rows[j] = cos[:, None] * (rows[j] + u[:, None] * rows[i])
            rows[i] = pair
            for k in (i, j):
                norm = np.linalg.norm(rows[k], axis=1)
                rows[k] /= norm[:, None]
                mantissa[k], carry = np.frexp(mantissa[k] * norm)
                exponent[k] += carry
        if worst == 0.0:
            break
    log2 = exponent + np.log2(mantissa)
    order = np.argsort(-log2, kind="stable")
    return log2[order], rows[order]


def _may_be_singular(triangles: Sequence[Array], sizes: Sequence[float]) -> bool:
    return any(np.abs(np.diagonal(r)).min() <= _DOUBTFUL * size for r, size in zip(triangles, sizes, strict=True))


def singular_values(product: Product, widths: Sequence[int], seed: int) -> Array:
    """log2 of all singular values of a product, largest first; -inf for those that are exactly zero."""
    rank, count = min(widths), min(widths[0], widths[-1])
    basis = random_basis(widths[0], rank, seed)
    image, triangles = product.forward(basis)
    if _may_be_singular(triangles, product.sizes):
        rank = product.exact_rank()
        if rank == 0:
            return np.full(count, -np.inf)
        image, _ = product.forward(basis[:, :rank])
    best: Graded | None = None
    for _ in range(_MOST_TURNS):
        basis = product.backward(image)
        image, triangles = product.forward(basis)
        graded = graded_product(triangles, rank)
        if best is None or graded.largest < best.largest:
            best = graded
        if best.largest <= ALIGNED:
            break
    assert best is not None
    log2 = row_singular_values(best)[0]
    return np.concatenate([log2 + product.log2_scale, np.full(count - rank, -np.inf)])


def random_basis(size: int, count: int, seed: int) -> Array:
    """Orthonormal columns (size, count) of a random subspace."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((size, count)))[0]
