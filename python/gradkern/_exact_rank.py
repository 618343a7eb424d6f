"""The exact rank of a product of matrices of floating-point numbers, by arithmetic modulo primes.

Floating-point numbers are integers times powers of two, so a product of matrices has residues modulo any odd prime. Its
rank there is at most the true one, and smaller only where the prime divides a certain integer: of three primes one tells.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Residues = NDArray[np.float64]
Factor = tuple[NDArray[np.float64], NDArray[np.float64]]  # weight and slope: diag(slope) weight

_PRIMES = 3
_LEAST, _MOST = -1074 - 53, 1024  # exponents of a float64's last bit, and then some


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


@lru_cache
def _primes(inner: int) -> tuple[int, ...]:
    """Return the largest primes for which sums of so many products are exact in float64."""
    n = 1 << ((53 - max(inner - 1, 1).bit_length()) // 2)
    found: list[int] = []
    while len(found) < _PRIMES:
        n -= 1
        if _is_prime(n):
            found.append(n)
    return tuple(found)


@lru_cache
def _powers_of_two(prime: int) -> NDArray[np.int64]:
    return np.array([pow(2, e % (prime - 1), prime) for e in range(_LEAST, _MOST + 1)], np.int64)


def _residues(values: NDArray[np.float64], prime: int) -> NDArray[np.int64]:
    mantissa, exponent = np.frexp(values)
    digits = np.ldexp(mantissa, 53).astype(np.int64)
    return np.asarray(digits % prime * _powers_of_two(prime)[exponent - 53 - _LEAST] % prime)


def _rank_modulo(matrix: NDArray[np.int64], prime: int) -> int:
    rank, rows = 0, matrix
    for column in range(matrix.shape[1]):
        pivots = np.flatnonzero(rows[:, column])
        if not pivots.size:
            continue
        pivot = rows[pivots[0]] * pow(int(rows[pivots[0], column]), -1, prime) % prime
        rows = np.delete(rows, pivots[0], axis=0)
        rows = (rows - rows[:, column, None] * pivot) % prime
        rank += 1
        if not rows.size:
            break
    return rank


def exact_rank(factors: Iterable[Factor], n_in: int) -> int:
    """Rank of diag(slope_L) W_L ... diag(slope_1) W_1, the factors given from the first on; finite numbers only."""
    listed: list[Factor] = list(factors)
    primes = _primes(max(n_in, *(max(weight.shape) for weight, _ in listed)))
    best, known = 0, min(n_in, *(min(weight.shape) for weight, _ in listed))
    for prime in primes:
        product: NDArray[Any] = np.eye(n_in)
        for weight, slope in listed:
            factor = _residues(slope, prime)[:, None] * _residues(weight, prime) % prime
            product = np.fmod(factor.astype(np.float64) @ product, prime)
            if not product.any():
                break
        else:
            best = max(best, _rank_modulo(product.astype(np.int64), prime))
        if best == known:
            break
    return best
