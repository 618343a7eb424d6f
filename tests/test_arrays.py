"""Arrays of NumPy and of anything it can read: right values, no copy where contiguous, precise refusals."""

from __future__ import annotations

import array
import ctypes
import mmap
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from conftest import SPECS, assert_same, assert_same_values, widened

import gradkern as gk
from gradkern._arrays import read

FORMATS = [name for name in SPECS if name != "tfloat32"]
X = np.random.default_rng(12).standard_normal((6, 8)) * 3


def interface_only(x):
    """An object with nothing but NumPy's interface, and the array that owns the memory."""
    return type("Interface", (), {"__array_interface__": x.__array_interface__, "owner": x})()


DOUBLES = array.array("d", X.ravel().tolist())
BUFFERS = {
    "array.array": (DOUBLES, X.ravel()),
    "memoryview": (memoryview(DOUBLES), X.ravel()),
    "memoryview, matrix": (memoryview(DOUBLES).cast("B").cast("d", (6, 8)), X),
    "ctypes": ((ctypes.c_double * 48).from_buffer(DOUBLES), X.ravel()),
    "__array_interface__": (interface_only(X), X),
}


@pytest.mark.parametrize("kind", list(BUFFERS))
def test_buffers_are_not_copied(kind):
    thing, want = BUFFERS[kind]
    got = read(thing, "x")
    address = X.ctypes.data if kind == "__array_interface__" else DOUBLES.buffer_info()[0]
    assert got.bits.ctypes.data == address
    assert_same(got.values, want)
    assert isinstance(gk.cast(thing, "bfloat16").values, np.ndarray)


@pytest.mark.parametrize("thing, want", [
    (memoryview(DOUBLES)[::-3], X.ravel()[::-3]), (memoryview(X.astype(">f4")), X.astype(np.float32)),
    (array.array("f", [1.5, -2]), [1.5, -2]), (array.array("i", [3, -4]), [3, -4]), (array.array("Q"), []),
    (bytearray(b"\x01\xff"), [1, 255]), (interface_only(X.T), X.T), (interface_only(X[::-1, ::2]), X[::-1, ::2]),
    (np.float16(0.1), np.float16(0.1)), (ml_dtypes.bfloat16(3), 3), (ml_dtypes.float8_e5m2(-2), -2), (np.int8(-7), -7),
    (7, 7), (-0.0, -0.0), ([[1, 2.5], [3, 4]], [[1, 2.5], [3, 4]]), ((), []), ([np.float16(1), 2], [1, 2]),
    (X.astype(">f8").T, X.T), (X.astype(">i4"), X.astype(int)), (np.broadcast_to(X[0], (3, 8)), [X[0]] * 3),
    (X[::-1, ::-2], X[::-1, ::-2]), (X.view(type("Subclass", (np.ndarray,), {})), X), (np.ma.masked_array(X), X),
])  # fmt: skip
def test_values_of_other_kinds(thing, want):
    assert_same_values(read(thing, "x").values, want)


@pytest.mark.parametrize("fmt", FORMATS)
def test_read_only_memory_is_read_and_never_written(fmt, tmp_path):
    """Pages mapped read-only: a write to them would end the process."""
    x = X.astype(SPECS[fmt].dtype)
    (tmp_path / "x").write_bytes(x.tobytes())
    with open(tmp_path / "x", "rb") as file:
        pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    frozen = np.frombuffer(pages, x.dtype).reshape(x.shape)
    for thing in (frozen, interface_only(frozen)) if fmt in ("float64", "float32", "float16") else (frozen,):
        got = read(thing, "x")
        assert got.bits.ctypes.data == frozen.ctypes.data
        assert_same_values(gk.cast(thing, "float64", scale=2.0).values, 2 * widened(x))
        assert gk.measure(thing).amax == np.abs(widened(x)).max()
        gk.dense_forward(thing, thing, arithmetic="float32" if fmt == "float64" else fmt)
    assert (tmp_path / "x").read_bytes() == x.tobytes()


@pytest.mark.parametrize("thing, message", [
    (np.ma.masked_greater(X, 1.0), r"masked; use .compressed\(\)"),
    (np.ones(2, np.longdouble), "got float128"), (np.ones(2, ml_dtypes.float8_e4m3b11fnuz), "float8_e4m3b11fnuz"),
    (np.ones(2, ml_dtypes.int4), "got int4"), (b"ab", r"got \|S2"), ("ab", "not an array, got str"),
    (True, "got bool"), (1j, "not an array, got complex"), ({1.0}, "not an array, got set"),
    ([[1.0], [1.0, 2.0]], "not an array"), (memoryview(b"a").cast("c"), r"got \|S1"), (2**70, "got object"),
    (np.zeros(2, [("a", "f4")]), "got .*f4"), (np.float32, "got type|got object|not give"),
])  # fmt: skip
def test_refusals(thing, message):
    with pytest.raises(TypeError, match=f"^cast: x: .*({message})"):
        gk.cast(thing, "float16")


def test_import_stays_light():
    code = "import sys, gradkern as gk; gk.cast([1.0], 'bfloat16'); print({'torch', 'jax'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
