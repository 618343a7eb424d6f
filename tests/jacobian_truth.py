"""Singular values of products of matrices, from the exact product; and chains to try them on."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from itertools import pairwise

import mpmath
import numpy as np

import gradkern as gk


def chain_of(weights, activation="identity"):
    return gk.MLP([gk.Dense(w, None, activation, name=f"layers.{i}") for i, w in enumerate(weights)])


def gaussian_chain(seed, widths, gain=1.0):
    rng = np.random.default_rng(seed)
    return [gain * rng.standard_normal((o, i)) for i, o in pairwise(widths)]


def exact_log2_singular_values(weights):
    """All min(n_in, n_out), of the product in enough digits that even the smallest has 50 good ones."""
    spread = sum(np.log2(np.linalg.cond(w)) for w in weights if np.linalg.matrix_rank(w) == min(w.shape))
    with mpmath.workprec(int(4 * spread) + 400):
        product = mpmath.eye(weights[0].shape[1])
        for w in weights:
            product = mpmath.matrix(w.tolist()) * product
        if product.rows < product.cols:
            product = product.T
        values = sorted(mpmath.svd_r(product, compute_uv=False), reverse=True)
        return np.array([float(mpmath.log(v, 2)) for v in values])


def rounding_bound(weights):
    """Each factor is moved by some n eps of its norm, which moves every log2 sigma by its condition times as much."""
    return sum(4 * max(w.shape) * 2.0**-52 * np.linalg.cond(w) for w in weights)


def product_bounds(weights, log2_sigma):
    """The same where terms may cancel between factors, as they do around a narrow layer.

    By Weyl's inequality no singular value moves by more than the product does.
    """
    before = [np.eye(weights[0].shape[1])]
    for w in weights:
        before.append(w @ before[-1])
    after = [np.eye(weights[-1].shape[0])]
    for w in reversed(weights):
        after.append(after[-1] @ w)
    norm = partial(np.linalg.norm, ord=2)
    moved = sum(4 * max(w.shape) * 2.0**-52 * norm(a) * norm(w) * norm(b)
                for w, a, b in zip(weights, after[-2::-1], before[:-1], strict=True))  # fmt: skip
    return np.log2(1 + moved / 2.0**log2_sigma)


def exact_rank(weights):
    """By rational elimination of the exact product."""
    product = [[Fraction(int(i == j)) for j in range(weights[0].shape[1])] for i in range(weights[0].shape[1])]
    for w in weights:
        rows = [[Fraction(v) for v in row] for row in w.tolist()]
        product = [[sum((a * b for a, b in zip(row, c, strict=True)), Fraction(0)) for c in zip(*product, strict=True)]
                   for row in rows]  # fmt: skip
    rank = 0
    for column in range(len(product[0])):
        pivot = next((r for r in range(rank, len(product)) if product[r][column]), None)
        if pivot is None:
            continue
        product[rank], product[pivot] = product[pivot], product[rank]
        for r in range(rank + 1, len(product)):
            share = product[r][column] / product[rank][column]
            product[r] = [a - share * b for a, b in zip(product[r], product[rank], strict=True)]
        rank += 1
    return rank
