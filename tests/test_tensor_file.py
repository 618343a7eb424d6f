"""Files of tensors: mapped, checked against their own headers, refused precisely."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
from conftest import assert_same

import gradkern as gk
from gradkern.errors import TensorFileError
from gradkern.tensor_file import natural_key, open_tensors

RNG = np.random.default_rng(0)
ARRAYS = {
    "a": RNG.standard_normal((5, 3)), "b": RNG.standard_normal((4, 2, 3)).astype(np.float32),
    "c": RNG.standard_normal(7).astype(np.float16), "scalar": np.array(2.5, np.float32), "empty": np.zeros((0, 4), np.float32),
    "ids": np.arange(6), "mask": np.array([True, False]),
}  # fmt: skip
NARROW = {
    name: RNG.standard_normal((3, 5)).astype(dtype)
    for name, dtype in (("bf", ml_dtypes.bfloat16), ("e4", ml_dtypes.float8_e4m3fn), ("e5", ml_dtypes.float8_e5m2))
}


def save(path, tensors, **options):
    from safetensors.numpy import save_file

    save_file(tensors, path, **options)
    return path


def raw(path, header, data=b""):
    """A .safetensors file by hand; the header as text or as what JSON makes of it."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_safetensors_are_mapped_and_equal(tmp_path):
    path = save(tmp_path / "m.safetensors", ARRAYS | NARROW, metadata={"format": "np"})
    opened = open_tensors(path)
    assert [t.name for t in opened] == sorted(ARRAYS | NARROW) and opened.metadata == {"format": "np"}
    for tensor in opened:
        array = tensor.load()
        assert_same(array, (ARRAYS | NARROW)[tensor.name])
        assert (tensor.shape, tensor.dtype, tensor.nbytes) == (array.shape, array.dtype, array.nbytes)
        if array.size:
            assert isinstance(array.base, np.memmap) and not array.flags.writeable


def test_safetensors_that_are_not_aligned(tmp_path):
    values = np.arange(1, 4, dtype=np.float32)
    for pad in range(4):
        header = json.dumps({"x": entry(shape=(3,), offsets=(0, 12))}) + " " * pad
        (tensor,) = open_tensors(raw(tmp_path / "m.safetensors", header, values.tobytes()))
        assert_same(np.array(tensor.load()), values)
        assert gk.measure(tensor.load()).to_dict() == gk.measure(values).to_dict()


@pytest.mark.parametrize("compressed", [False, True])
def test_npz(tmp_path, compressed):
    arrays = {**ARRAYS, "fortran": np.asfortranarray(RNG.standard_normal((4, 6))), "swapped": ARRAYS["a"].astype(">f8"),
              "weights/läyer": ARRAYS["b"]}  # fmt: skip
    path = tmp_path / "m.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    opened = open_tensors(path)
    assert [t.name for t in opened] == list(arrays)
    for tensor in opened:
        array, wanted = tensor.load(), arrays[tensor.name]
        assert array.dtype == wanted.dtype and np.array_equal(array, wanted) and tensor.shape == wanted.shape
        assert np.array_equal(tensor.load(verify=True), wanted)
        assert isinstance(array.base, np.memmap) == (not compressed and array.size > 0)


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path, order):
    array = np.array(ARRAYS["a"], order=order)
    np.save(tmp_path / "grad.npy", array)
    (tensor,) = open_tensors(str(tmp_path / "grad.npy"))
    assert tensor.name == "grad" and isinstance(tensor.load().base, np.memmap)
    assert_same(np.ascontiguousarray(tensor.load()), np.ascontiguousarray(array))


def test_natural_order():
    names = ["layers.10.w", "layers.2.w", "layers.2.b", "a1²", "a"]
    assert sorted(names, key=natural_key) == ["a", "a1²", "layers.2.b", "layers.2.w", "layers.10.w"]


BAD_HEADERS = {
    "no JSON": ("{", "the header is not JSON"),
    "not UTF-8": ("\udcff".encode("utf-8", "surrogatepass").decode("latin-1") + "{", "the header is not JSON"),
    "a list": ([], "the header is a JSON list, not an object"),
    "twice": ('{"x": 1, "x": 2}', "the name 'x' occurs twice"),
    "deep": ("[" * 100_000, "the header is not JSON"),
    "no fields": ({"x": {}}, "tensor 'x': needs dtype, shape and data_offsets"),
    "not an object": ({"x": 3}, "tensor 'x': needs dtype"),
    "negative shape": ({"x": entry(shape=(-2,))}, "tensor 'x': needs dtype"),
    "boolean shape": ({"x": entry(shape=(True,))}, "tensor 'x': needs dtype"),
    "three offsets": ({"x": entry(offsets=(0, 4, 8))}, "tensor 'x': needs dtype"),
    "beyond the end": ({"x": entry(shape=(4,), offsets=(0, 16))}, "tensor 'x': bytes 0 to 16 of the data, 8 there"),
    "backwards": ({"x": entry(offsets=(8, 0))}, "tensor 'x': bytes 8 to 0 of the data, 8 there"),
    "too small": ({"x": entry(shape=(3,))}, r"tensor 'x': F32 \(3,\) takes 12 bytes, has 8"),
    "huge shape": ({"x": entry(shape=(2**62, 2**62))}, "takes"),
    "overlap": ({"x": entry(), "y": entry(shape=(1,), offsets=(4, 8))}, "tensors 'x' and 'y' overlap"),
    "left over": ({"x": entry(shape=(1,), offsets=(0, 4))}, "bytes described"),
    "metadata": ({"__metadata__": 3, "x": entry()}, "__metadata__ is not an object"),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_bad_headers(tmp_path, case):
    header, message = BAD_HEADERS[case]
    path = raw(tmp_path / "m.safetensors", header, bytes(8))
    with pytest.raises(TensorFileError, match=message) as error:
        open_tensors(path)
    assert str(error.value).startswith(f"{path}: not a complete .safetensors file (") and error.value.path == str(path)
    assert error.value.tensor in (None, "x", "y")
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".npy"])
def test_truncated_at_any_point(tmp_path, ending):
    path = tmp_path / f"m{ending}"
    if ending == ".npy":
        np.save(path, ARRAYS["a"])
    elif ending == ".npz":
        np.savez(path, **ARRAYS)
    else:
        save(path, ARRAYS)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(TensorFileError, match=f"not a complete {ending} file"):
            open_tensors(path)
    if ending != ".npz":
        path.write_bytes(whole + b"x")
        with pytest.raises(TensorFileError, match="not a complete"):
            open_tensors(path)


@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".npy"])
def test_damage_is_refused_or_harmless(tmp_path, ending):
    """Any byte changed: a TensorFileError, or arrays of the shapes that the headers say."""
    path, rng = tmp_path / f"m{ending}", np.random.default_rng(0)
    if ending == ".safetensors":
        save(path, {"a": ARRAYS["a"], "c": ARRAYS["c"]})
    else:
        np.savez(path, a=ARRAYS["a"], c=ARRAYS["c"]) if ending == ".npz" else np.save(path, ARRAYS["a"])
    whole, refused = path.read_bytes(), 0
    for _ in range(400):
        data = bytearray(whole)
        for where in rng.integers(0, len(whole), rng.integers(1, 4)):
            data[where] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            for tensor in open_tensors(path):
                if tensor.problem is None:
                    assert tensor.load().shape == tensor.shape
                    assert tensor.load(verify=True).shape == tensor.shape
        except TensorFileError:
            refused += 1
    assert refused > 100


def test_negative_shapes(tmp_path):
    np.save(tmp_path / "n.npy", np.ones((2, 3)))
    data = (tmp_path / "n.npy").read_bytes().replace(b"(2, 3), }  ", b"(-2, -3), }")
    (tmp_path / "n.npy").write_bytes(data)
    with pytest.raises(TensorFileError, match=r"not a complete .npy file \(shape \(-2, -3\)\)"):
        open_tensors(tmp_path / "n.npy")


def test_a_header_longer_than_the_file(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes((2**63).to_bytes(8, "little") + b"{}")
    with pytest.raises(TensorFileError, match="a header of 9,223,372,036,854,775,808 bytes, 2 there"):
        open_tensors(path)


def test_a_file_that_shrinks_is_refused_before_it_is_read(tmp_path):
    path = save(tmp_path / "m.safetensors", {"x": ARRAYS["a"]})
    (tensor,) = open_tensors(path)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(TensorFileError, match=r"'x' ends at byte .* the file was changed after it was opened"):
        tensor.load()


def test_pickles_are_never_loaded(tmp_path):
    np.save(tmp_path / "o.npy", np.array([{}], object))
    np.savez(tmp_path / "o.npz", o=np.array([{}], object), x=ARRAYS["a"])
    for path in (tmp_path / "o.npy", tmp_path / "o.npz"):
        tensor = next(iter(open_tensors(path)))
        with pytest.raises(TensorFileError, match="tensor 'o': pickled Python objects, which are never loaded"):
            tensor.load()
    assert list(gk.measure_many(tmp_path / "o.npz")) == ["x"]
    with pytest.raises(ValueError, match=r"nothing to measure: o \(pickled"):
        gk.measure_many(tmp_path / "o.npy")


def test_dtypes_without_a_name(tmp_path):
    np.save(tmp_path / "b.npy", NARROW["bf"])
    with pytest.raises(ValueError, match=r"nothing to measure: b \(dtype .*V2.*save as \.safetensors"):
        gk.measure_many(tmp_path / "b.npy")
    header = {"x": entry("F4", (4,), (0, 2)), "y": entry("F8_E8M0", (2,), (2, 4)), "z": entry("F32", (1,), (4, 8))}
    table = gk.measure_many(raw(tmp_path / "f.safetensors", header, bytes(8)))
    assert list(table) == ["z"]
    assert table.skipped == {
        n: f"dtype {k}, which is no number format here" for n, k in (("x", "F4"), ("y", "F8_E8M0"))
    }


def test_odd_archives(tmp_path):
    path = tmp_path / "odd.npz"
    buffer = io.BytesIO()
    np.save(buffer, ARRAYS["a"])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")
        archive.writestr("x.npy", buffer.getvalue())
    assert {t.name: t.problem for t in open_tensors(path)} == {"notes.txt": "not an array", "x": None}
    with pytest.warns(UserWarning), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x.npy", buffer.getvalue())
    with pytest.raises(TensorFileError, match="the name 'x' occurs twice"):
        open_tensors(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", buffer.getvalue()[:-8])
    with pytest.raises(TensorFileError, match=r"member 'x': float64 \(5, 3\) takes 120 bytes, has 112"):
        open_tensors(path)
    np.savez_compressed(path, x=np.zeros(1000))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(TensorFileError, match="not a complete"):
        [tensor.load(verify=True) for tensor in open_tensors(path)]


def shards(folder, parts, index=True):
    folder.mkdir()
    names = [f"model-{i:05}-of-{len(parts):05}.safetensors" for i in range(1, len(parts) + 1)]
    for name, tensors in zip(names, parts, strict=True):
        save(folder / name, tensors)
    if index:
        where = {t: name for name, tensors in zip(names, parts, strict=True) for t in tensors}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


PARTS = [{"layers.2": ARRAYS["a"], "layers.10": ARRAYS["b"]}, {"layers.1": ARRAYS["c"]}]


@pytest.mark.parametrize("index", [False, True])
def test_folder_of_shards(tmp_path, index):
    folder = shards(tmp_path / "model", PARTS, index)
    if index:
        save(folder / "other.safetensors", {"layers.1": ARRAYS["a"]})  # the index does not name it
    opened = open_tensors(folder)
    assert [t.name for t in opened] == ["layers.1", "layers.2", "layers.10"] and len(opened) == 3
    for tensor in opened:
        assert_same(np.array(tensor.load()), (PARTS[0] | PARTS[1])[tensor.name])
    if index:
        assert list(open_tensors(folder / "model.safetensors.index.json")) == list(opened)


def test_bad_folders(tmp_path):
    def refused(path, message):
        with pytest.raises(TensorFileError, match=message):
            open_tensors(path)

    (tmp_path / "none").mkdir()
    refused(tmp_path / "none", "a folder without .safetensors files; it holds nothing")
    (tmp_path / "none/pytorch_model.bin").write_bytes(b"")
    refused(tmp_path / "none", "it holds pytorch_model.bin")
    refused(shards(tmp_path / "twice", [*PARTS, {"layers.1": ARRAYS["a"]}], False),
            r"'layers\.1' is in two shards: model-00002.* with shape \(7,\), model-00003.* with \(5, 3\)")  # fmt: skip
    folder = shards(tmp_path / "missing", PARTS)
    (folder / "model-00001-of-00002.safetensors").unlink()
    refused(folder, "shard model-00001-of-00002.safetensors is missing, with 2 tensors")
    folder = shards(tmp_path / "moved", PARTS)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"ghost": "model-00001-of-00002.safetensors"}}))
    refused(folder, "tensor 'ghost' should be in model-00001-of-00002.safetensors, and is not")
    index.write_text(json.dumps({"weight_map": {"x": "../../secret.safetensors"}}))
    refused(folder, "outside the folder")
    for text in ("", "[]", "{}", '{"weight_map": 3}'):
        index.write_text(text)
        refused(index, "not an index of shards")
    shutil.copy(index, folder / "fp16.safetensors.index.json")
    refused(folder, "holds 2 indices of shards, name one")


def test_other_files(tmp_path):
    for name, message in (("absent.npz", "no such file"), ("m.pt", r"\.npy, \.npz or \.safetensors file, got '\.pt'"),
                          ("m", "got 'no ending'")):  # fmt: skip
        if name != "absent.npz":
            (tmp_path / name).write_bytes(b"x")
        with pytest.raises(TensorFileError, match=message):
            open_tensors(tmp_path / name)


BIG = """
import re, sys, threading
import gradkern as gk
peak, done = 0, threading.Event()
def watch():
    global peak
    while not done.wait(0.005):
        peak = max(peak, int(re.search(r"RssAnon:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1)))
watcher = threading.Thread(target=watch)
watcher.start()
table = gk.measure_many(sys.argv[1])
done.set()
watcher.join()
print(len(table), sum(s.size for s in table.values()), table["t.31"].amax, peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
def test_four_gigabytes_take_little_memory(tmp_path):
    if shutil.disk_usage(tmp_path).free < 6 << 30:
        pytest.skip("needs 6 GB of disk")
    count, size = 32, 1 << 25  # 32 tensors of 128 MiB
    noise = RNG.standard_normal(size, dtype=np.float32)
    path = tmp_path / "big.safetensors"
    header = {f"t.{i}": entry(shape=(size,), offsets=(4 * size * i, 4 * size * (i + 1))) for i in range(count)}
    try:
        raw(path, header)
        with path.open("ab") as file:
            for _ in range(count):
                file.write(noise.data)
        assert path.stat().st_size > 4 << 30
        done = subprocess.run([sys.executable, "-c", BIG, str(path)], capture_output=True, text=True, check=True)
    finally:
        path.unlink(missing_ok=True)
    tensors, entries, amax, peak = done.stdout.split()
    assert (int(tensors), int(entries), float(amax)) == (count, count * size, float(np.abs(noise).max()))
    assert 0 < int(peak) < 300_000, f"{peak} kB of anonymous memory"
