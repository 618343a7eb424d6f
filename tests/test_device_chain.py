"""`probe` on a device without a reference: it stays there, and its report is the CPU's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import gradkern as gk

ARITHMETICS = [
    "float64", "float32", "tf32", "float16", "float16_pure", "bfloat16", "float8_e4m3fn", "float16@hopper",
    replace(gk.arithmetic("float16"), rounding="stochastic", seed=5),
    replace(gk.arithmetic("bfloat16"), overflow="saturate", subnormals="flush", derivative="stored_output"),
]  # fmt: skip


def network():
    return gk.MLP.random(depth=3, width=20, activation="gelu", init="xavier_normal", seed=2)


def inputs(rows=7):
    x = np.random.default_rng(3).standard_normal((rows, 20))
    x[0, 1], x[1, 2], x[2, 3] = np.nan, np.inf, 1e300
    return x


def figures(report):
    """All of a report but the memory that it was planned with, which is the machine's."""
    found = report.to_dict()
    del found["planned_bytes"]
    return found


@pytest.mark.parametrize("arithmetic", ARITHMETICS, ids=str)
@pytest.mark.parametrize("x", [inputs(), inputs()[3:]], ids=["wild", "finite"])
def test_the_report_is_the_cpus(device, arithmetic, x):
    options = {"arithmetic": arithmetic, "loss": "mse", "target": np.ones((len(x), 20)), "scale": 256.0}
    expected = gk.probe(network(), x, reference=False, **options)
    found = gk.probe(network(), x, reference=False, device=device, **options)
    np.testing.assert_equal(figures(found), figures(expected))
    assert found.planned_bytes > 0


def test_an_interrupt_between_layers_ends_it(device):
    def stop(done, total):
        if done >= total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gk.probe(network(), inputs(), reference=False, device=device, progress=stop)


def test_progress_reaches_its_end(device):
    steps = []
    gk.probe(
        network(), inputs(), reference=False, device=device, progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(done, 6) for done in range(7)]


def test_tensors_and_truth_are_kept_on_a_device_too(device):
    expected = gk.probe(network(), inputs(), keep="tensors")
    found = gk.probe(network(), inputs(), keep="tensors", device=device)
    np.testing.assert_equal(figures(found), figures(expected))
