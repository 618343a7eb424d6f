"""Streams and refusals of producers of device memory, over the host's imitation of a device."""

import gc
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from device_arrays import CudaInterface, CudaProducer, on_device
from dlpack_producer import CUDA, CUDA_MANAGED, ROCM

import gradkern as gk
from gradkern import _core, _device
from gradkern._arrays import read_in_place

X = np.arange(12, dtype=np.float32).reshape(3, 4) / 7


@pytest.fixture(autouse=True)
def imitated(monkeypatch):
    """CUDA's memory is that of the simt library."""
    if refusal := _core.device_why_not("simt"):
        pytest.skip(refusal)
    monkeypatch.setattr(_device, "CUDA", "simt")


def test_dlpack_is_asked_for_the_default_stream_and_kept_alive():
    producer = CudaProducer(X)
    view = read_in_place(producer, "x").bits
    assert producer.streams == [1] and view.stream == 1
    assert view.pointer == producer.memory.pointer and view.shape == X.shape
    again = view.reshape((12,))
    del view
    gc.collect()
    assert producer.deleted == 0
    assert np.array_equal(again.to_host(), X.ravel())
    del again
    gc.collect()
    assert producer.deleted == 1


def test_managed_memory_is_a_devices():
    assert read_in_place(CudaProducer(X, device=(CUDA_MANAGED, 0)), "x").place == "simt:0"


@pytest.mark.parametrize(("stream", "number"), [(None, 0), (1, 1), (2, 2), (77, 77)])
def test_the_interfaces_stream_is_used(stream, number):
    producer = CudaInterface(X, stream=stream)
    view = read_in_place(producer, "x").bits
    assert view.stream == number and view.pointer == producer.memory.pointer
    result = gk.cast(producer, "float16")
    assert result.values.stream == number
    assert np.array_equal(result.values.to_host(), X.astype(np.float16))


def test_written_in_place():
    producer, want = CudaInterface(X), X.copy()
    result, other = gk.clip_by_global_norm([producer], 0.5), gk.clip_by_global_norm([want], 0.5)
    assert result.norm == other.norm and result.arrays[0] is producer
    assert np.array_equal(producer.memory.to_host(), want)


REFUSED = [
    (lambda: CudaInterface(X, stream=0), "cast: x: .*stream 0 is ambiguous"),
    (
        lambda: CudaInterface(X, strides=(4, 12)),
        r"must be C-contiguous and native on its device, got strides \(4, 12\)",
    ),
    (lambda: CudaInterface(X, typestr=">f4"), "must be C-contiguous and native on its device"),
    (lambda: CudaInterface(X, typestr="<i4"), "cast: x: dtype must be a floating-point format of gradkern, got int32"),
    (lambda: CudaInterface(X, mask=X), "entries are masked"),
    (lambda: CudaInterface(X, data=(X.ctypes.data, False)), "its memory is not on simt:-1, as it says"),
    (lambda: CudaProducer(X, strides=(1, 3)), "must be C-contiguous on its device; copy it there first"),
    (lambda: CudaProducer(X, device=(CUDA, 5)), "its memory is not on simt:5, as it says"),
    (lambda: CudaProducer(X, data=X.ctypes.data), "its memory is not on simt:0, as it says"),
    (lambda: CudaProducer(X, type=(5, 64)), "DLPack data type not supported: code 5"),
    (lambda: CudaProducer(X, device=(ROCM, 0)), "on ROCm device 0, which the host cannot read"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED, ids=[words[:30] for _, words in REFUSED])
def test_refusals(make, words):
    with pytest.raises(TypeError, match=words):
        gk.cast(make(), "float16")


def test_read_only_memory_is_not_written():
    producer = CudaInterface(X)
    producer.__cuda_array_interface__["data"] = (producer.memory.pointer, True)
    assert gk.cast(producer, "float16").values.shape == X.shape
    with pytest.raises(ValueError, match=r"clip_by_norm: arrays\[0\]: is read-only"):
        gk.clip_by_norm([producer], 1.0)


def test_memory_of_the_imitation_is_no_cuda_memory():
    x = on_device(X)
    for ask in (x.__dlpack__, x.__dlpack_device__):
        with pytest.raises(TypeError, match=r"memory of device 'simt' is read by to_host\(\) only"):
            ask()
    assert not hasattr(x, "__cuda_array_interface__")


def test_without_a_device_the_error_says_why(monkeypatch):
    monkeypatch.setattr(_device, "CUDA", "cuda")
    refusal = _core.device_why_not("cuda")
    if not refusal:
        pytest.skip("there is a CUDA device")
    with pytest.raises(gk.CudaError, match="device 'cuda' cannot be used: ") as error:
        gk.cast(CudaInterface(X), "float16")
    assert refusal in str(error.value)
    with pytest.raises(gk.CudaError):
        gk.measure(CudaProducer(X))
    assert gk.info().devices["cuda"] == refusal


def test_cupy_arrays_on_their_stream(monkeypatch):
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    asked = []

    def current(device):
        asked.append(device)
        return SimpleNamespace(ptr=70 + len(asked))

    monkeypatch.setattr(cupy.cuda, "get_current_stream", current)
    memory = on_device(X)
    pointer = cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(memory.pointer, memory.nbytes, memory, 0), 0)
    x = cupy.ndarray(X.shape, np.float32, pointer)
    result = gk.cast(x, "float16")
    assert asked == [0] and result.values.stream == 71
    assert np.array_equal(result.values.to_host(), X.astype(np.float16))
    group = gk.GradientGroup([x])
    gk.clip_by_global_norm(group, 0.5)
    assert len(asked) == 3 and group._units.sources[0].stream == 73  # asked again at the step
    want = X.copy()
    gk.clip_by_global_norm([want], 0.5)
    assert np.array_equal(memory.to_host(), want)
    with pytest.raises(TypeError, match="not C-contiguous cannot be written in place on a device"):
        gk.clip_by_norm([x.T], 1.0)


BROKEN = """
import ctypes, pathlib, shutil, sys
package, target = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
shutil.copytree(package, target / "gradkern", ignore=shutil.ignore_patterns("libgradkern_*", "__pycache__"))
library = (package / "libgradkern_simt.so").read_bytes()
(target / "gradkern" / "libgradkern_simt.so").write_bytes(library[: len(library) * int(sys.argv[3]) // 100])
sys.path.insert(0, str(target))
import gradkern as gk
assert gk.__file__.startswith(str(target)), gk.__file__
print(gk.info().devices["simt"])
print(gk.cast([1.0], "float16").report.exact)
"""


@pytest.mark.parametrize("percent", [0, 1, 50, 99])
def test_a_broken_library_breaks_nothing(tmp_path, percent):
    package = _core.__file__.rpartition("/")[0]
    run = subprocess.run(
        [sys.executable, "-c", BROKEN, package, str(tmp_path), str(percent)],
        capture_output=True, text=True, check=False, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["libgradkern_simt.so is broken: cut short, or no library", "1"]
