"""Tensors of PyTorch and JAX: right values, no copy where contiguous, results of the kind given, precise refusals."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import SPECS, all_patterns, assert_same, assert_same_values, bits, round_array
from dlpack_producer import OnlyDlpack

import gradkern as gk
from gradkern._arrays import read

FORMATS = [name for name in SPECS if name != "tfloat32"]
NARROW = ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
X = np.random.default_rng(11).standard_normal((6, 8)) * 3
VIEWS = {
    "all": lambda x: x, "transposed": lambda x: x.T, "steps": lambda x: x[1::2, ::3], "row": lambda x: x[2],
    "0-d": lambda x: x[1, 3], "empty": lambda x: x[:0], "empty inside": lambda x: x[:, 4:4],
}  # fmt: skip


def torch_tensor(torch, values, fmt):
    return torch.tensor(np.asarray(values, np.float64)).to(getattr(torch, fmt))


def torch_values(tensor):
    """What torch itself says the values are."""
    return np.array(tensor.detach().double().tolist()).reshape(tensor.shape)


@pytest.mark.parametrize("wrap", [lambda t: t, OnlyDlpack], ids=["tensor", "dlpack"])
@pytest.mark.parametrize("view", list(VIEWS))
@pytest.mark.parametrize("fmt", FORMATS)
def test_torch(fmt, view, wrap):
    torch = pytest.importorskip("torch")
    tensor = VIEWS[view](torch_tensor(torch, X, fmt))
    got = read(wrap(tensor), "x")
    assert got.format == fmt
    assert_same_values(got.values, torch_values(tensor))
    if tensor.is_contiguous() and tensor.numel():
        assert got.bits.ctypes.data == tensor.data_ptr()


@pytest.mark.parametrize("fmt", NARROW)
def test_torch_every_pattern_there_and_back(fmt):
    torch = pytest.importorskip("torch")
    patterns = all_patterns(fmt)
    raw = torch.from_numpy(bits(patterns).view(f"i{patterns.itemsize}"))
    tensor = raw.view(getattr(torch, fmt))
    got = read(tensor, "x")
    assert np.array_equal(got.bits, bits(patterns))
    back = got.restore(patterns)
    assert back.dtype == tensor.dtype and torch.equal(back.view(raw.dtype), raw)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("view", list(VIEWS))
def test_torch_results_are_torch(fmt, view):
    torch = pytest.importorskip("torch")
    tensor = VIEWS[view](torch.tensor(X))
    got = gk.cast(tensor, fmt).values
    assert type(got) is torch.Tensor and got.dtype == getattr(torch, fmt) and got.shape == tensor.shape
    assert_same_values(torch_values(got), round_array(torch_values(tensor), fmt))


@pytest.mark.parametrize("fmt", FORMATS)
def test_torch_with_gradient_subclass_or_parameter(fmt):
    torch = pytest.importorskip("torch")

    class Mine(torch.Tensor):
        pass

    plain = torch_tensor(torch, X, fmt)
    for tensor in (plain.clone().requires_grad_(), torch.nn.Parameter(plain.clone()), plain.as_subclass(Mine)):
        got = read(tensor, "x")
        assert got.bits.ctypes.data == tensor.data_ptr()
        assert_same_values(got.values, torch_values(plain))


def test_torch_views_that_are_not_plain_memory():
    torch = pytest.importorskip("torch")
    z = torch.complex(torch.arange(4.0), torch.arange(4.0) + 1)
    negative = z.conj().imag
    assert negative.is_neg()
    assert read(negative, "x").values.tolist() == [-1, -2, -3, -4]
    assert read(z.imag, "x").values.tolist() == [1, 2, 3, 4]
    broadcast = torch.tensor([1.0, 2.0]).expand(3, 2)
    assert broadcast.stride() == (0, 1)
    assert read(broadcast, "x").values.tolist() == [[1, 2]] * 3
    with torch.inference_mode():
        assert read(torch.ones(2, dtype=torch.bfloat16), "x").values.tolist() == [1, 1]


@pytest.mark.parametrize("name", ["int8", "int16", "int32", "int64", "uint8", "uint16"])
def test_torch_integers(name):
    torch = pytest.importorskip("torch")
    got = read(torch.tensor([0, 3, 100]).to(getattr(torch, name)), "x")
    assert got.format == "float64" and got.values.tolist() == [0, 3, 100]


def fake(torch, **options):
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        return torch.ones(3, **options)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make, message", [
    (lambda t: t.ones(3).to_sparse(), r"dense, got layout torch.sparse_coo; use .to_dense\(\)"),
    (lambda t: t.ones(2, 2).to_sparse_csr(), "dense, got layout torch.sparse_csr"),
    (lambda t: t.ones(3).to_mkldnn(), "dense, got layout torch._mkldnn"),
    (lambda t: t.quantize_per_tensor(t.ones(3), 0.1, 0, t.quint8), r"got torch.quint8; use .dequantize\(\)"),
    (lambda t: t.ones(3, device="meta"), "a meta tensor has no values"),
    (lambda t: t.ones(3, dtype=t.complex64), "got torch.complex64"),
    (lambda t: t.ones(3, dtype=t.complex128).conj(), "got torch.complex128"),
    (lambda t: t.ones(3, dtype=t.bool), "got torch.bool"),
    (lambda t: t.zeros(3, dtype=t.float8_e4m3fnuz), "got torch.float8_e4m3fnuz"),
    (lambda t: t.nested.nested_tensor([t.ones(2), t.ones(3)]), "nested"),
    (lambda t: t.nested.nested_tensor([t.ones(2), t.ones(3)], layout=t.jagged), "nested"),
    (fake, "FakeTensor without memory of its own"),
    (lambda t: fake(t, device="cuda"), "a FakeTensor without memory of its own"),
])  # fmt: skip
def test_torch_refusals(make, message):
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=f"^measure: x: .*{message}"):
        gk.measure(make(torch))


def test_torch_refuses_inside_vmap():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"^measure: x: .*without memory of its own"):
        torch.vmap(lambda x: torch.tensor(gk.measure(x).l1))(torch.ones(3, 2))


@pytest.mark.parametrize("wrap", [lambda x: x, OnlyDlpack], ids=["array", "dlpack"])
@pytest.mark.parametrize("view", list(VIEWS))
@pytest.mark.parametrize("fmt", FORMATS)
def test_jax(fmt, view, wrap):
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        x = VIEWS[view](jax.numpy.asarray(X, dtype=fmt))
    got = read(wrap(x), "x")
    assert got.format == fmt
    assert_same(got.values, np.asarray(x))
    if x.size:
        assert got.bits.ctypes.data == x.unsafe_buffer_pointer()


@pytest.mark.parametrize("view", list(VIEWS))
@pytest.mark.parametrize("fmt", FORMATS)
def test_jax_results_are_jax(fmt, view):
    jax = pytest.importorskip("jax")
    x = VIEWS[view](jax.numpy.asarray(X, dtype="float32"))
    got = gk.cast(x, fmt).values
    assert isinstance(got, jax.Array) and got.dtype == SPECS[fmt].dtype and got.shape == x.shape
    assert got.devices() == x.devices()
    assert_same(np.asarray(got), round_array(np.asarray(x), fmt).astype(SPECS[fmt].dtype))


def test_jax_refusals():
    jax = pytest.importorskip("jax")
    deleted = jax.numpy.ones(3)
    deleted.delete()
    for x, message in (
        (deleted, "deleted"),
        (jax.random.key(0), "PRNG"),
        (jax.numpy.ones(3, bool), "got bool"),
        (jax.numpy.ones(3, "complex64"), "got complex64"),
        (jax.numpy.ones(3, "int4"), "got int4"),
    ):
        with pytest.raises(TypeError, match=f"^measure: x: .*{message}"):
            gk.measure(x)
    with pytest.raises(TypeError, match=r"^measure: x: .*traced array with shape float32\[3\]"):
        jax.jit(lambda x: gk.measure(x).l1)(jax.numpy.ones(3))


@pytest.mark.parametrize("fmt", ["float32", "bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
def test_read_is_a_view(library, fmt):
    size = 2**20
    if library == "numpy":
        x = np.ones(size, SPECS[fmt].dtype)
        address = x.ctypes.data
    elif library == "torch":
        torch = pytest.importorskip("torch")
        x = torch.ones(size).to(getattr(torch, fmt))
        address = x.data_ptr()
    else:
        x = pytest.importorskip("jax.numpy").ones(size, fmt)
        address = x.unsafe_buffer_pointer()
    things = [x] if library == "numpy" and fmt != "float32" else [x, OnlyDlpack(x)]  # NumPy does not export bfloat16
    for thing in things:
        got = read(thing, "x")
        assert got.bits.ctypes.data == address and got.bits.size == size and float(got.values[-1]) == 1.0
