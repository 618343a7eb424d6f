"""CuPy's arrays and torch's tensors on a CUDA device, against the CPU's bits. Needs a device."""

import numpy as np
import pytest
from conftest import bits

import gradkern as gk
from gradkern import _core

pytestmark = pytest.mark.gpu
RNG = np.random.default_rng(3)
X = RNG.standard_normal((64, 40)).astype(np.float32)
W = RNG.standard_normal((24, 40)).astype(np.float32)


class Cupy:
    """CuPy as the tests use it."""

    def __init__(self):
        self.library = pytest.importorskip("cupy", reason="CuPy is not installed")

    def put(self, x):
        return self.library.asarray(x)

    def get(self, x):
        assert isinstance(x, self.library.ndarray)
        return self.library.asnumpy(x)

    def pointer(self, x):
        return x.data.ptr

    def stream(self):
        return self.library.cuda.Stream(non_blocking=True)


class Torch:
    """Torch as the tests use it."""

    def __init__(self):
        self.library = pytest.importorskip("torch", reason="torch is not installed")
        if not self.library.cuda.is_available():
            pytest.skip("this torch sees no CUDA device")

    def put(self, x):
        return self.library.from_numpy(x).cuda()

    def get(self, x):
        assert isinstance(x, self.library.Tensor) and x.is_cuda
        return x.cpu().numpy()

    def pointer(self, x):
        return x.data_ptr()

    def stream(self):
        return self.library.cuda.stream(self.library.cuda.Stream())


@pytest.fixture(params=[Cupy, Torch])
def kind(request):
    if refusal := _core.device_why_not("cuda"):
        pytest.skip(f"device 'cuda' cannot be used: {refusal}")
    return request.param()


def same(kind, got, want):
    assert np.array_equal(bits(kind.get(got)), bits(want))


def check_all(kind):
    """Cast, activation, dense, measure and clip give the CPU's bits."""
    x, w = kind.put(X), kind.put(W)
    result, want = gk.cast(x, "float16"), gk.cast(X, "float16")
    same(kind, result.values, want.values)
    assert result.report == want.report
    same(kind, gk.activation_forward(x, "gelu"), gk.activation_forward(X, "gelu"))
    same(kind, gk.activation_backward(x, x, "tanh"), gk.activation_backward(X, X, "tanh"))
    options = {"activation": "tanh", "arithmetic": "float16"}
    got, want = gk.dense_forward(x, w, **options), gk.dense_forward(X, W, **options)
    same(kind, got.output, want.output)
    assert got.events == want.events
    back = gk.dense_backward(got.output, x, w, got.pre_activation, **options)
    truth = gk.dense_backward(want.output, X, W, want.pre_activation, **options)
    same(kind, back.weight, truth.weight)
    same(kind, back.input, truth.input)
    same(kind, back.bias, truth.bias)
    assert gk.measure(x).to_dict() == gk.measure(X).to_dict()
    clipped, host = {"x": x, "w": w}, {"x": X.copy(), "w": W.copy()}
    where = kind.pointer(x)
    assert gk.clip_by_global_norm(clipped, 1.0).norm == gk.clip_by_global_norm(host, 1.0).norm
    assert kind.pointer(x) == where
    same(kind, x, host["x"])
    same(kind, w, host["w"])


def test_on_the_default_stream(kind):
    check_all(kind)


def test_on_another_stream(kind):
    with kind.stream():
        check_all(kind)


def test_a_group_follows_the_stream(kind):
    x, y = kind.put(X), X.copy()
    group, host = gk.GradientGroup([x]), gk.GradientGroup([y])
    with kind.stream():
        assert gk.clip_by_global_norm(group, 10.0).norm == gk.clip_by_global_norm(host, 10.0).norm
        same(kind, x, y)
    assert gk.clip_by_global_norm(group, 1.0).norm == gk.clip_by_global_norm(host, 1.0).norm
    same(kind, x, y)


def test_layouts(kind):
    x = kind.put(X)
    same(kind, gk.cast(x.T, "float16").values, gk.cast(X.T, "float16").values)
    with pytest.raises(TypeError, match=r"not (C-)?contiguous cannot be written in place on a device"):
        gk.clip_by_norm([x.T], 1.0)


def test_work_enqueued_before_is_seen(kind):
    with kind.stream():
        x = kind.put(np.zeros(1 << 22, np.float32))
        for _ in range(50):
            x += 1
        result = gk.cast(x, "float16")
    assert result.report.exact == 1 << 22
    assert gk.measure(result.values).amax == 50


def test_torch_narrow_formats():
    torch = Torch().library
    if refusal := _core.device_why_not("cuda"):
        pytest.skip(refusal)
    x = torch.from_numpy(X)
    for fmt in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        got, want = gk.cast(x.cuda(), fmt).values, gk.cast(x, fmt).values
        assert got.is_cuda and got.dtype == want.dtype == getattr(torch, fmt)
        assert torch.equal(got.cpu().view(torch.uint8), want.view(torch.uint8))
