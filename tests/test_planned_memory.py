"""A probe holds what it says it will."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import gradkern as gk

SCRIPT = """
import ctypes, re, sys
import numpy as np
import gradkern as gk

def kilobytes(field):
    with open("/proc/self/status") as status:
        return int(re.search(field + r":\\s+(\\d+)", status.read())[1])

depth, width, batch, fmt, reference, keep = sys.argv[1:]
dtype = gk.finfo(fmt).dtype
net = gk.MLP.random(depth=int(depth), width=int(width), activation="identity", init="orthogonal")
net = gk.MLP([gk.Dense(np.asarray(l.weight).astype(dtype), activation="identity") for l in net.layers])
x = np.ones((int(batch), int(width)), dtype)
gk.probe(gk.MLP(net.layers[:1]), x, arithmetic=fmt, reference=reference == "yes")
ctypes.CDLL(None).malloc_trim(0)
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")  # the peak is what is resident now
before = kilobytes("VmRSS")
report = gk.probe(net, x, arithmetic=fmt, reference=reference == "yes", keep=keep)
print((kilobytes("VmHWM") - before) * 1024, report.planned_bytes)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux, to reset the peak")
@pytest.mark.parametrize(
    ("depth", "width", "batch", "fmt", "reference", "keep"),
    [
        (100, 256, 256, "float32", "no", "reports"),
        (100, 256, 256, "float16", "no", "reports"),
        (60, 128, 512, "float32", "yes", "reports"),
        (60, 128, 256, "float16", "yes", "tensors"),
        (2000, 32, 32, "float32", "no", "reports"),
    ],
)
def test_resident_memory_stays_within_the_plan(depth, width, batch, fmt, reference, keep):
    command = [sys.executable, "-c", SCRIPT, *map(str, (depth, width, batch, fmt, reference, keep))]
    few = os.environ | {"GRADKERN_NUM_THREADS": "2"}  # what each thread packs into is not in the plan
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=few)
    grown, planned = map(int, done.stdout.split())
    assert grown <= 1.2 * planned
    assert grown >= 0.5 * planned  # the plan is no idle number


def test_the_plan_grows_by_the_layer():
    def planned(depth):
        net = gk.MLP.random(depth=depth, width=16)
        return gk.probe(net, [[1.0] * 16] * 4, reference=False).planned_bytes

    assert planned(40) - planned(30) == planned(30) - planned(20) > 0
