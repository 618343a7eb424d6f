"""`gk.mma` where its arrays lie: the bits are the CPU's, and a unit that the device has not is refused."""

import os
import re
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from conftest import bits
from device_arrays import CudaInterface, CudaProducer, on_device, synchronizations

import gradkern as gk
from gradkern import _core, _device

RNG = np.random.default_rng(11)
OPERANDS = {
    "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}  # fmt: skip


def operand(fmt, rows, columns):
    """Ordinary values, with one of every kind that is not."""
    x = RNG.standard_normal((rows, columns)).astype(np.float32)
    x[0, :5] = np.nan, np.inf, -np.inf, -0.0, 1e-7
    if fmt == "float32":
        x.view(np.uint32)[1, 0] = 0x7F800001  # a NaN in the bits that a unit drops
    return x.astype(OPERANDS[fmt])


def same(got, want):
    assert isinstance(got, _core.DeviceArray)
    assert got.dtype == want.dtype and got.shape == want.shape
    assert np.array_equal(bits(got.to_host()), bits(want))


@pytest.fixture
def hopper(device):
    """A device with the units of an H100, as the host imitates them."""
    if device == "cuda" and [entry[1:3] for entry in _core.devices("cuda")][:1] != [(9, 0)]:
        pytest.skip("this device has the units of another architecture")
    return device


CASES = [
    ("float16", "hopper"), ("float16", "hopper/float16"), ("bfloat16", "hopper"), ("float32", "hopper"),
    ("float8_e4m3fn", "hopper"), ("float8_e5m2", "blackwell/float16"), ("float16", "cuda.hfma"),
]  # fmt: skip
CHAINS = [("float16", "float32"), ("float16", "float16"), ("bfloat16", "bfloat16"), ("float32", "float64")]


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(("fmt", "unit"), CASES + CHAINS)
def test_the_bits_are_the_cpus(hopper, fmt, unit, started):
    a, b = operand(fmt, 9, 70), operand(fmt, 70, 11)
    want = gk.mma(a, b, unit=unit)
    c = want[:, ::-1].copy() if started else None
    want = gk.mma(a, b, c, unit=unit)
    there = on_device(c, hopper) if started else None
    same(gk.mma(on_device(a, hopper), on_device(b, hopper), there, unit=unit), want)


@pytest.mark.parametrize("order", ["split:2", "split:2/bfloat16", "serial:2/float16", "sliced:2", "restart:32"])
@pytest.mark.parametrize("unit", ["hopper", "hopper/float16", "float32"])
def test_orders(hopper, unit, order):
    a, b = operand("float16", 5, 130), operand("float16", 130, 6)
    got = gk.mma(on_device(a, hopper), on_device(b, hopper), unit=unit, order=order)
    same(got, gk.mma(a, b, unit=unit, order=order))


def test_instructions_and_mixed_float8(hopper):
    a, b = operand("float32", 5, 30), operand("float32", 30, 6)
    options = {"unit": "hopper", "instruction_k": 4}
    same(gk.mma(on_device(a, hopper), on_device(b, hopper), **options), gk.mma(a, b, **options))
    a, b = operand("float8_e4m3fn", 5, 40), operand("float8_e5m2", 40, 6)
    same(gk.mma(on_device(a, hopper), on_device(b, hopper), unit="hopper"), gk.mma(a, b, unit="hopper"))


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3), (1, 1, 1)])
def test_small_shapes(hopper, shape):
    m, k, n = shape
    a, b = np.ones((m, k), np.float16), np.ones((k, n), np.float16)
    for unit in ("hopper", "hopper/float16", "float16"):
        same(gk.mma(on_device(a, hopper), on_device(b, hopper), unit=unit), gk.mma(a, b, unit=unit))


def test_one_place(device):
    a, b = np.ones((2, 3), np.float16), np.ones((3, 4), np.float16)
    with pytest.raises(TypeError, match=rf"mma: a lies on {device}:0 and b on the host"):
        gk.mma(on_device(a, device), b, unit="float32")
    with pytest.raises(TypeError, match=rf"mma: a lies on {device}:0 and c on the host"):
        gk.mma(on_device(a, device), on_device(b, device), np.ones((2, 4), np.float32), unit="float32")
    with pytest.raises(TypeError, match=f"mma: a: lies on {device}:0, and the device asked for is 'cpu'"):
        gk.mma(on_device(a, device), on_device(b, device), unit="float32", device="cpu")


def test_producers_are_multiplied_where_they_lie(monkeypatch):
    if refusal := _core.device_why_not("simt"):
        pytest.skip(refusal)
    monkeypatch.setattr(_device, "CUDA", "simt")
    a, b = operand("float16", 5, 40), operand("float16", 40, 6)
    c = np.ones((5, 6), np.float32)
    there = CudaInterface(a, stream=7), CudaProducer(b), CudaInterface(c, stream=7)
    before = synchronizations()
    got = gk.mma(*there, unit="hopper")
    assert synchronizations() == before and got.stream == 7  # enqueued, and nothing waited for
    same(got, gk.mma(a, b, c, unit="hopper"))


REFUSED = [
    ("hopper", "ada", "float8_e4m3fn", r"unit ada \(mma.m16n8k32, float8_e4m3fn times float8_e4m3fn\): device 'simt' has hopper"),
    ("ampere", "ada", "float8_e5m2", r"unit ada \(mma.m16n8k32, float8_e5m2 times float8_e5m2\): device 'simt' has ampere"),
    ("ampere", "hopper", "float16", r"unit hopper \(mma.m16n8k16, float16 times float16\): device 'simt' has ampere, whose"),
    ("hopper", "hopper.wgmma", "float16", r"unit hopper.wgmma \(wgmma.k16, .*the CPU computes every unit"),
    ("hopper", "numpy", "float16", r"unit numpy \(numpy.matmul, float16 times float16\): device 'simt' has hopper"),
]  # fmt: skip
ASKED = """
import sys, ml_dtypes, numpy as np, gradkern as gk
unit, fmt = sys.argv[1:]
x = gk.cast(np.ones((3, 3)), fmt).values
for compute in (lambda: gk.mma(x, x, unit=unit, device="simt"),
                lambda: gk.dense_forward(x, x, arithmetic=f"{fmt}@{unit}", device="simt"),
                lambda: gk.probe(gk.MLP([gk.Dense(x)]), x, arithmetic=f"{fmt}@{unit}", reference=False, device="simt")):
    try:
        compute()
        print("computed")
    except ValueError as error:
        print(error)
"""


def asked(architecture, unit, fmt):
    """What three functions say on a host that imitates an architecture."""
    if refusal := _core.device_why_not("simt"):
        pytest.skip(refusal)
    environment = os.environ | {"GRADKERN_SIMT_ARCHITECTURE": architecture}
    run = subprocess.run([sys.executable, "-c", ASKED, unit, fmt], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


@pytest.mark.parametrize(("architecture", "unit", "fmt", "words"), REFUSED)
def test_units_of_other_architectures_are_refused(architecture, unit, fmt, words):
    said = asked(architecture, unit, fmt)
    assert len(said) == 3 and all(re.search(words, line) for line in said), said


def test_units_that_say_the_same_are_computed():
    assert asked("ampere", "ada", "bfloat16") == ["computed"] * 3
    assert asked("ada", "ada", "float8_e4m3fn") == ["computed"] * 3
