"""Clippers that go by the norms of former steps: the papers' rules, and histories that one NaN does not poison."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import gradkern as gk

NORMS = np.abs(np.random.default_rng(0).standard_normal(60)) + 0.5


def clip(clipper, norm, **options):
    x = np.array([0.6, -0.8]) * norm
    result = clipper.clip({"x": x}, **options)
    return result, float(np.linalg.norm(x))


def test_quantile_is_autoclip():
    clipper, history = gk.QuantileClipper(0.1), []
    for norm in NORMS:
        history.append(norm)
        result, after = clip(clipper, norm)
        bound = np.percentile(history, 10)
        assert after == pytest.approx(min(norm, bound), rel=1e-12)
        assert result.norm == pytest.approx(norm, rel=1e-14)
        assert result.clipped == (result.norm > bound) or after == pytest.approx(bound, rel=1e-12)
    np.testing.assert_allclose(clipper.history, history, rtol=1e-14)


def test_a_window_forgets():
    clipper = gk.QuantileClipper(0.0, window=3)
    for norm in (1.0, 5.0, 6.0, 7.0):
        clip(clipper, norm)
    assert clip(clipper, 9.0)[1] == pytest.approx(6.0)
    assert len(clipper.history) == 3


def zclip(norms, threshold=2.5, decay=0.97, warmup=25):
    """The paper's rule, plainly."""
    seen, mean, variance, after = [], None, None, []
    for norm in norms:
        if mean is None:
            seen.append(norm)
            after.append(norm)
            if len(seen) == warmup:
                mean, variance = np.mean(seen), np.var(seen)
            continue
        std = math.sqrt(variance)
        z = (norm - mean) / std
        norm = mean + threshold**2 / z * std if z > threshold else norm
        after.append(norm)
        mean = decay * mean + (1 - decay) * norm
        variance = decay * variance + (1 - decay) * (norm - mean) ** 2
    return after, mean, variance


def test_z_score_is_zclip():
    norms = NORMS.copy()
    norms[[30, 41, 42]] *= 100
    clipper = gk.ZScoreClipper()
    after = [clip(clipper, norm)[1] for norm in norms]
    want, mean, variance = zclip(norms)
    np.testing.assert_allclose(after, want, rtol=1e-12)
    assert (clipper.mean, clipper.variance) == pytest.approx((mean, variance), rel=1e-12)
    assert after[30] < norms[30] / 20


@pytest.mark.parametrize("make", [gk.QuantileClipper, lambda: gk.ZScoreClipper(warmup=5)])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("policy", ["raise", "skip", "zero", "propagate"])
def test_what_is_not_finite_leaves_no_trace(make, bad, policy):
    clean, met = make(), make()
    for i, norm in enumerate(NORMS):
        want = clip(clean, norm)[1]
        if i % 7 == 3:
            x = np.array([bad, 2.0])
            if policy == "raise":
                with pytest.raises(gk.NonFiniteError, match=r"Clipper\.clip: 0"):
                    met.clip(x)
            else:
                met.clip(x, nonfinite=policy)
        assert clip(met, norm)[1] == want
    assert met.ignored == 9
    state = met.state_dict()
    assert state.pop("ignored") == 9
    assert state == {k: v for k, v in clean.state_dict().items() if k != "ignored"}


@pytest.mark.parametrize("make", [lambda: gk.QuantileClipper(0.3, 7), lambda: gk.ZScoreClipper(2.0, 0.9, 10)])
@pytest.mark.parametrize("after", [0, 4, 30])
def test_states_go_through_json(make, after):
    one, other = make(), make()
    for norm in NORMS[:after]:
        clip(one, norm)
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for norm in NORMS[after:]:
        assert clip(one, norm)[1] == clip(other, norm)[1]
    np.testing.assert_equal(one.state_dict(), other.state_dict())


@pytest.mark.parametrize(
    "change",
    [
        {"ignored": -1}, {"ignored": True}, {"history": [math.nan]}, {"history": [-1.0]}, {"quantile": 2.0}, {"window": 0},
        {"history": ["a"]}, {"more": 1}, {"history": None}, {"ignored": 1.5}, {"window": 2.5},
    ],
)  # fmt: skip
def test_a_wrong_state_changes_nothing(change):
    clipper = gk.QuantileClipper(0.5, 4)
    clip(clipper, 2.0)
    before = clipper.state_dict()
    with pytest.raises(ValueError, match="load_state_dict"):
        clipper.load_state_dict(before | change)
    assert clipper.state_dict() == before


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: gk.QuantileClipper(1.5), ValueError, "quantile must be between 0 and 1"),
        (lambda: gk.QuantileClipper(0.5, 0), ValueError, "window must be at least 1, got 0"),
        (lambda: gk.QuantileClipper(0.5, 2.0), TypeError, "window must be an integer, got 2.0"),
        (lambda: gk.ZScoreClipper(0.0), ValueError, "threshold must be positive"),
        (lambda: gk.ZScoreClipper(decay=-0.1), ValueError, "decay must be between 0 and 1"),
        (lambda: gk.ZScoreClipper(warmup=0), ValueError, "warmup must be at least 1, got 0"),
        (lambda: gk.ZScoreClipper(warmup="3"), TypeError, "warmup must be an integer, got '3'"),
    ],
)
def test_arguments_are_checked(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_counts_of_numpy_are_counts():
    clipper = gk.QuantileClipper(0.5, np.int64(4))
    clipper.load_state_dict({**clipper.state_dict(), "ignored": np.int64(2)})
    assert (clipper.ignored, type(clipper.ignored), clipper.history.maxlen) == (2, int, 4)


def test_norms_are_those_without_the_scale():
    clipper = gk.QuantileClipper(0.0)
    clip(clipper, 2.0)
    x = np.array([3.0, 4.0]) * 1024
    result = clipper.clip(x, scale=1024.0)
    assert (result.norm, list(clipper.history)) == (5.0, [pytest.approx(2.0), 5.0])
    assert np.linalg.norm(x) == pytest.approx(2.0)
