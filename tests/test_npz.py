"""Archives of many arrays: opened once, read in linear time, closed however reading ends."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest

import gradkern as gk
from gradkern.errors import TensorFileError
from gradkern.tensor_file import open_tensors


@pytest.fixture(params=[False, True], ids=["stored", "compressed"])
def archive(request, tmp_path):
    path = tmp_path / "many.npz"
    arrays = {f"layer{i}": np.full(3, i + 1.0) for i in range(300)}
    (np.savez_compressed if request.param else np.savez)(path, **arrays)
    return path, arrays


def descriptors(path):
    """How many descriptors of this process are open on a file."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the folder itself is gone by now
            found += link.readlink() == path
    return found


def test_the_directory_is_read_once(archive, monkeypatch):
    """Reading it for each member, in turn as long as there are members, would take quadratic time."""
    path, arrays = archive
    opened = []
    original = zipfile.ZipFile._RealGetContents
    monkeypatch.setattr(zipfile.ZipFile, "_RealGetContents", lambda self: (opened.append(self), original(self)))
    table = gk.measure_many(path)
    assert [stats.amax for stats in table.values()] == [array[0] for array in arrays.values()]
    assert len(opened) == 1


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_files_are_closed_after_measuring(archive):
    path, _ = archive
    gk.measure_many(path)
    assert descriptors(path) == 0
    with open_tensors(path) as opened:
        assert descriptors(path) == 1
    assert descriptors(path) == 0
    for tensor in opened:
        if tensor.start is None:
            with pytest.raises(TensorFileError, match=r"many\.npz: was closed before tensor 'layer\d+' was read"):
                tensor.load()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_an_interrupt_closes_the_file(tmp_path, ending):
    from safetensors.numpy import save_file

    path, arrays = tmp_path / f"m{ending}", {f"t{i}": np.full(1 << 21, i + 1.0) for i in range(6)}
    np.savez_compressed(path, **arrays) if ending == ".npz" else save_file(arrays, path)
    calls = []

    def progress(done, total):
        calls.append(done)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        gk.measure_many(path, progress=progress)
    if ending == ".npz":
        assert descriptors(path) == 0  # though the traceback still holds every frame
    assert len(calls) == 2
    del caught
    gc.collect()
    assert descriptors(path) == 0


def test_a_damaged_member_closes_the_file(tmp_path):
    path = tmp_path / "bad.npz"
    np.savez_compressed(path, **{f"t{i}": np.random.default_rng(i).standard_normal(500) for i in range(4)})
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as whole:
        data[whole.infolist()[2].header_offset + 1500] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(TensorFileError, match=r"bad\.npz: not a complete \.npz file \(member 't2'"):
        gk.measure_many(path)
    if Path("/proc/self/fd").exists():
        gc.collect()
        assert descriptors(path) == 0
