"""Random-matrix theory: what `jacobian` and `probe` find over ensembles of nets, within the ensembles' own error bars.

Every expectation is derived here from the literature; seeds are fixed, and an error bar is the standard error over them.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from jacobian_truth import chain_of
from scipy.optimize import brentq
from scipy.special import polygamma, psi
from scipy.stats import binom, kstest

import gradkern as gk

NATS = math.log(2)  # of a bit


def assert_within(sample, expected, errors=3.0):
    """The sample's mean, along the first axis, is the expected value to so many of its standard errors."""
    error = sample.std(axis=0, ddof=1) / math.sqrt(len(sample))
    assert (np.abs(sample.mean(axis=0) - expected) <= errors * error).all(), (sample.mean(axis=0), expected, error)


def assert_variance(sample, expected, errors=4.0):
    """The sample's variance is the expected one, of a normal distribution, to so many of its standard errors."""
    error = expected * math.sqrt(2 / (len(sample) - 1))
    assert (np.abs(sample.var(axis=0, ddof=1) - expected) <= errors * error).all(), (sample.var(axis=0), expected)


def log_overlap(p, n):
    """E log |det| of the p x p corner of a Haar orthogonal n x n matrix: det^2 is a product of beta variables."""
    i = np.arange(1, p + 1)
    return 0.5 * float((psi((p - i + 1) / 2) - psi((n - i + 1) / 2)).sum())


def test_lyapunov_spectrum_of_gaussian_products():
    """Every exponent of 100 Gaussian 4 x 4 layers, the smallest included, over 200 draws.

    Newman, Commun. Math. Phys. 103 (1986) 121: for entries N(0, 1) the i-th exponent is (log 2 + psi((n - i + 1) / 2)) / 2,
    each layer's QR diagonal being an independent chi variable with n - i + 1 degrees of freedom (Cohen and Newman, Ann.
    Probab. 12 (1984) 283, for the first). At depth L the volume of a fixed p-plane grows by the first p singular values
    times its overlap with their right singular vectors, which are Haar distributed: so E of the sum of the first p
    log sigma_i is L times the sum of the exponents less E log of that overlap, up to ratios sigma_(i+1) / sigma_i.
    """
    n, depth, draws = 4, 100, 200
    found = np.array([
        gk.jacobian(chain_of(np.random.default_rng(seed).standard_normal((depth, n, n))), np.zeros(n), per_layer=False)
        .log2_singular_values
        for seed in range(draws)
    ]) * NATS  # fmt: skip
    freedom = n - np.arange(n)
    newman = 0.5 * (math.log(2) + psi(freedom / 2))
    overlap = np.diff([0.0, *(log_overlap(p, n) for p in range(1, n + 1))])
    assert np.abs(overlap).max() / depth < 0.02  # the exponents themselves, to one part in fifty
    assert_within(found / depth, newman - overlap / depth)
    assert_within(found.sum(axis=1), depth * newman.sum())  # log |det|, at any depth
    assert_variance(found, depth * polygamma(1, freedom / 2) / 4)


def chi_square_moments(width):
    """Mean and variance of log chi^2_K, K binomial(width, 1/2) and not 0."""
    k = np.arange(1, width + 1)
    share = binom.pmf(k, width, 0.5) / (1 - 0.5**width)
    mean = float(share @ (psi(k / 2) + math.log(2)))
    variance = float(share @ (polygamma(1, k / 2) + (psi(k / 2) + math.log(2) - mean) ** 2))
    return mean, variance


@pytest.mark.parametrize("init, bits", [("he_normal", 0.0), ("xavier_normal", -0.5)])
def test_relu_chains(init, bits):
    """Hanin and Nica, Commun. Math. Phys. 376 (2020) 287: log ||J u||^2 is normal, of mean -beta / 2 and variance beta.

    Exactly, for any fixed u and x: a unit's row w is Gaussian; given on which side of zero w.x lies, w.v has the law of a
    Gaussian up to its sign, as the part of w across x is symmetric. So ||D W v||^2 = ||v||^2 var chi^2_K, K binomial(n, 1/2),
    whatever x is, and independently in each layer. He's variance 2 / n makes that 5 / n of variance a layer and -5 / (2 n) of
    mean: beta = sum 5 / n. Xavier's, half of it, loses half a bit a layer besides (row 19 of the claims).
    """
    wide_mean, wide_variance = chi_square_moments(2000)
    assert wide_variance * 2000 == pytest.approx(5, rel=0.01)
    assert (wide_mean + math.log(2 / 2000)) * 2000 == pytest.approx(-2.5, rel=0.01)
    width, depth, draws = 30, 40, 250
    mean, variance = chi_square_moments(width)
    found = []
    for seed in range(draws):
        net = gk.MLP.random(widths=[1] + [width] * (depth + 1), activation="relu", init=init, seed=seed)
        found.append(2 * NATS * gk.jacobian(net, [1.0], per_layer=False).log2_singular_values[0])
    alive = np.array(found)
    assert np.isfinite(alive).all()  # 2^-30 a layer not to be
    first = math.log(2.0 if init == "he_normal" else 2 / (1 + width)) + mean  # n_in = 1
    expected = first + depth * (math.log(2 / width) + 2 * bits * NATS + mean)
    assert_within(alive, expected)
    assert_variance(alive, (depth + 1) * variance)
    assert kstest((alive - expected) / math.sqrt((depth + 1) * variance), "norm").pvalue > 0.01


NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(120)


def gauss(function):
    """E f(z), z standard normal."""
    return float(WEIGHTS @ function(NODES) / WEIGHTS.sum())


def mean_field(sigma_w, sigma_b):
    """q* and chi_1 of tanh: q = sigma_w^2 E tanh(sqrt(q) z)^2 + sigma_b^2, chi_1 = sigma_w^2 E tanh'(sqrt(q*) z)^2."""

    def excess(q):
        return sigma_w**2 * gauss(lambda z: np.tanh(math.sqrt(q) * z) ** 2) + sigma_b**2 - q

    q = brentq(excess, 1e-3, 100)
    return q, sigma_w**2 * gauss(lambda z: np.cosh(math.sqrt(q) * z) ** -4.0)


def gradient_decay(sigma_w, sigma_b, width, depth, q, seed):
    """Log of the squared norm that a random gradient gains over the layers, in nats, for an input of variance q."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(width)
    x *= math.sqrt(width * (q - sigma_b**2) / sigma_w**2) / np.linalg.norm(x)
    net = gk.MLP([
        gk.Dense(sigma_w / math.sqrt(width) * rng.standard_normal((width, width)),
                 sigma_b * rng.standard_normal(width), "tanh")
        for _ in range(depth)
    ])  # fmt: skip
    report = gk.probe(net, x, grad_output=rng.standard_normal((1, width)), arithmetic="float64", reference=False)
    norms = {row.layer: row.log2_norm for row in report.rows("grad_activation")}
    return 2 * NATS * (norms[0] - norms[depth])


@pytest.mark.parametrize("sigma_w, sigma_b", [(1.0, 0.3), (1.8, 0.2)])
def test_mean_field_gradients_of_tanh(sigma_w, sigma_b):
    """Schoenholz, Gilmer, Ganguli, Sohl-Dickstein, ICLR 2017: at q*, gradients change by chi_1 a layer, on both sides of 1.

    That is the limit of wide layers; a width n is off by some 1 / n a layer. Twice the mean at 128 less that at 64 is off by
    1 / n^2 only: some 12 / 64^2 = 0.003, a tenth of the error bar.
    """
    depth, draws = 12, 200
    q, chi = mean_field(sigma_w, sigma_b)
    assert (chi < 1) == (sigma_w < 1.5) and abs(chi - 1) > 0.1
    found = {
        width: np.array([gradient_decay(sigma_w, sigma_b, width, depth, q, 1000 * width + s) for s in range(draws)])
        for width in (64, 128)
    }
    assert_within(2 * found[128] - found[64], depth * math.log(chi))


def test_orthogonal_chains_are_isometric():
    """Saxe, McClelland, Ganguli 2014: every singular value of every product is 1, to within L n eps of rounding."""
    for seed in range(200):
        net = gk.MLP.random(depth=30, width=6, activation="identity", init="orthogonal", seed=seed)
        found = gk.jacobian(net, np.zeros(6), per_layer=False)
        assert np.abs(found.log2_singular_values).max() <= 30 * 6 * 2.0**-52
