"""Networks as data: validation, files, initialisations."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from conftest import INF, NAN, SPECS, assert_same, bits

import gradkern as gk
from gradkern.errors import ModelFileError
from gradkern.init import INITIALISATIONS


def layer(n_out, n_in, activation="relu", dtype=np.float64, bias=True, seed=0):
    rng = np.random.default_rng(seed)
    b = rng.standard_normal(n_out).astype(dtype) if bias else None
    return gk.Dense(rng.standard_normal((n_out, n_in)).astype(dtype), b, activation)


@pytest.mark.parametrize("weight, bias, error, message", [
    (np.ones(3), None, ValueError, r"encoder\.weight: must be a matrix \(n_out, n_in\), got shape \(3,\)"),
    (np.ones((2, 3, 4)), None, ValueError, r"encoder\.weight: must be a matrix.*\(2, 3, 4\)"),
    (np.ones((2, 0)), None, ValueError, r"encoder\.weight: must not be empty, got shape \(2, 0\)"),
    (np.ones((0, 2)), None, ValueError, r"encoder\.weight: must not be empty"),
    (np.ones((2, 3)), np.ones(3), ValueError, r"encoder\.bias: has shape \(3,\), but encoder\.weight has \(2, 3\)"),
    (np.ones((2, 3)), np.ones((2, 1)), ValueError, r"encoder\.bias: must be a vector \(n_out,\), got shape \(2, 1\)"),
    ([[1.0, NAN], [INF, 2.0]], None, ValueError, r"encoder\.weight: 2 of 4 entries .*, the first at \(0, 1\)"),
    (np.ones((2, 3)), [1.0, -INF], ValueError, r"encoder\.bias: 1 of 2 entries are not finite, the first at \(1,\)"),
    (np.array([[NAN]], ml_dtypes.float8_e4m3fn), None, ValueError, r"encoder\.weight: 1 of 1"),
    (np.ones((2, 3), complex), None, TypeError, r"encoder\.weight: dtype"),
    ([["a"]], None, TypeError, r"encoder\.weight"),
    (object(), None, TypeError, r"encoder\.weight: not an array, got object"),
])  # fmt: skip
def test_dense_validation(weight, bias, error, message):
    with pytest.raises(error, match=message):
        gk.Dense(weight, bias, name="encoder")


def test_dense_activation_is_checked():
    with pytest.raises(ValueError, match=r"encoder: activation must be one of identity, relu.*got 'swish'"):
        gk.Dense([[1.0]], None, "swish", name="encoder")


def test_chaining_names_both_shapes():
    with pytest.raises(ValueError, match=r"\(4, 3\).*\(2, 5\): 4 outputs into 5 inputs"):
        gk.MLP([layer(4, 3), layer(2, 5)])
    with pytest.raises(ValueError, match="at least one layer"):
        gk.MLP([])


def test_properties():
    net = gk.MLP([layer(4, 3), layer(2, 4, "tanh", bias=False)])
    assert (net.depth, net.widths, net.parameter_count) == (2, [3, 4, 2], 12 + 4 + 8)
    assert net.activations == ["relu", "tanh"] and "3 -> 4 -> 2" in repr(net)


def test_random():
    a, b = (gk.MLP.random(depth=4, width=6, activation="tanh", bias_std=0.1, seed=5) for _ in range(2))
    for one, two in zip(a.layers, b.layers, strict=True):
        assert_same(one.weight, two.weight)
        assert_same(one.bias, two.bias)
    assert not np.array_equal(a.layers[0].weight, a.layers[1].weight)
    assert not np.array_equal(a.layers[0].weight, gk.MLP.random(depth=4, width=6, seed=6).layers[0].weight)
    net = gk.MLP.random(widths=[3, 7, 2], activation="gelu", output_activation="identity")
    assert net.widths == [3, 7, 2] and net.activations == ["gelu", "identity"]


@pytest.mark.parametrize("options, error, message", [
    ({"init": "magic"}, ValueError, "init must be one of"), ({"activation": "swish"}, ValueError, "activation must be one of"),
    ({"widths": [3]}, ValueError, "needs at least two widths"), ({"widths": []}, ValueError, "needs at least two widths"),
    ({"widths": [3, 0]}, ValueError, "each of widths must be at least 1, got 0"),
    ({"widths": [3, 2.5]}, TypeError, "each of widths must be an integer, got 2.5"),
    ({"depth": 0}, ValueError, "depth must be at least 1, got 0"), ({"depth": "3"}, TypeError, "depth must be an integer"),
    ({"depth": 2.5}, TypeError, "depth must be an integer"), ({"width": True}, TypeError, "width must be an integer"),
    ({"bias_std": -1}, ValueError, "bias_std must be finite and not negative, got -1"),
    ({"bias_std": "x"}, TypeError, "bias_std must be a number"), ({"gain": NAN}, ValueError, "gain must be finite, got nan"),
    ({"gain": "x"}, TypeError, "gain must be a number"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_named(options, error, message):
    with pytest.raises(error, match=message):
        gk.MLP.random(**options)


def test_layers_are_dense():
    with pytest.raises(TypeError, match="MLP: layers must be a sequence of Dense, got Dense"):
        gk.MLP(layer(2, 3))
    with pytest.raises(TypeError, match="MLP: layer 1 must be a Dense, got int"):
        gk.MLP([layer(2, 3), 1])


def same_net(a, b):
    assert a.activations == b.activations and a.widths == b.widths
    for one, two in zip(a.layers, b.layers, strict=True):
        assert_same(np.asarray(one.weight), np.asarray(two.weight))
        assert (one.bias is None) == (two.bias is None)
        if one.bias is not None:
            assert_same(np.asarray(one.bias), np.asarray(two.bias))


FORMATS = [f for f in SPECS if f != "tfloat32"]


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_save_and_load(tmp_path, ending, fmt):
    dtype = SPECS[fmt].dtype
    sizes = [3, *range(4, 15), 2]  # twelve layers: layers.10 must come after layers.2
    net = gk.MLP([layer(o, i, ["relu", "leaky_relu(0.2)", "gelu"][i % 3], dtype, i % 4 != 1, seed=i)
                  for i, o in pairwise(sizes)])  # fmt: skip
    path = tmp_path / f"net{ending}"
    if ending == ".npz" and fmt not in ("float64", "float32", "float16"):
        with pytest.raises(ValueError, match=r"npz cannot hold layers\.0\.weight in .*save as \.safetensors"):
            net.save(path)
        assert not path.exists()
        return
    net.save(path)
    same_net(gk.MLP.load(path), net)
    same_net(gk.MLP.load(str(path)), net)
    assert gk.MLP.load(path, activation="tanh").activations == ["tanh"] * 11 + ["identity"]
    assert gk.MLP.load(path, activation="tanh", output_activation="sigmoid").activations[-1] == "sigmoid"


def test_saving_elsewhere_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.safetensors or \.npz, got 'net\.pt'"):
        gk.MLP([layer(2, 3)]).save(tmp_path / "net.pt")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_state_dict_of_torch_sequential(tmp_path, dtype):
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    nn = torch.nn
    torch.manual_seed(0)
    blocks = [module for i in range(12) for module in (nn.Linear(5 + i, 6 + i), nn.ReLU())]
    model = nn.Sequential(*blocks, nn.Linear(17, 3)).to(getattr(torch, dtype))
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    net = gk.MLP.load(path, activation="relu")
    assert net.widths == [*range(5, 18), 3] and net.activations == ["relu"] * 12 + ["identity"]
    linear = [m for m in model if isinstance(m, nn.Linear)]
    for mine, theirs in zip(net.layers, linear, strict=True):
        assert str(np.asarray(mine.weight).dtype) == dtype
        assert np.array_equal(np.asarray(mine.weight).astype(np.float64), theirs.weight.detach().double().numpy())
    if dtype == "float64":
        x = torch.randn(4, 5, dtype=torch.float64)
        report = gk.probe(net, x, arithmetic="float64", keep="tensors")
        want = model(x).detach().numpy()
        got = report.row(13, "activation").tensor.reshape(4, 3)
        assert np.abs(got - want).max() <= 1e-12 * np.abs(want).max()


def write(path, tensors, metadata=None):
    if path.suffix == ".npz":
        np.savez(path, **tensors)
    else:
        pytest.importorskip("safetensors.numpy").save_file(tensors, path, metadata=metadata)


ONE = {"0.weight": np.ones((2, 3)), "0.bias": np.ones(2)}


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize("tensors, message", [
    ({**ONE, "2.weight": np.ones((4, 5))}, r"do not chain: '0\.weight' has shape \(2, 3\), '2\.weight' \(4, 5\)"),
    ({**ONE, "norm.scale": np.ones(2)}, r"'norm\.scale' \(2,\) is neither a weight nor a bias"),
    ({"conv.weight": np.ones((2, 3, 3, 3))}, r"'conv\.weight' must be a matrix.*\(2, 3, 3, 3\)"),
    ({"embedding": np.ones((2, 3))}, r"no tensor named '\.\.\.weight'.*embedding"),
    ({"0.weight": np.ones((2, 3)), "0.bias": np.ones(3)}, r"0\.bias: has shape \(3,\), but 0\.weight has \(2, 3\)"),
    ({"0.weight": np.full((2, 3), NAN)}, r"0\.weight: 6 of 6 entries are not finite"),
    ({"0.weight": np.ones((2, 3)), "1.bias": np.ones(2)}, r"'1\.bias'"),
    ({"0.weight": np.ones((0, 3))}, r"0\.weight: must not be empty"),
    ({"0.weight": np.ones((2, 3), np.complex64)}, r"0\.weight"),
])  # fmt: skip
def test_files_that_are_no_model(tmp_path, ending, tensors, message):
    path = tmp_path / f"model{ending}"
    write(path, tensors)
    with pytest.raises(ModelFileError, match=message) as error:
        gk.MLP.load(path, activation="relu")
    assert str(path) in str(error.value)


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_activations_must_come_from_somewhere(tmp_path, ending):
    path = tmp_path / f"model{ending}"
    write(path, ONE)
    with pytest.raises(ModelFileError, match="names no activations; pass activation="):
        gk.MLP.load(path)
    with pytest.raises((ModelFileError, ValueError), match="activation must be one of"):
        gk.MLP.load(path, activation="relu", output_activation="swish")


@pytest.mark.parametrize("stored", ['["relu", "relu"]', '["swish"]', "relu", "3", '{"a": 1}', "[1]"])
def test_foreign_activations_in_the_metadata(tmp_path, stored):
    path = tmp_path / "model.safetensors"
    write(path, ONE, {"activations": stored})
    with pytest.raises(ModelFileError):
        gk.MLP.load(path)
    assert gk.MLP.load(path, activation="relu").depth == 1


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_truncated_at_any_point(tmp_path, ending):
    path = tmp_path / f"model{ending}"
    gk.MLP([layer(5, 4)]).save(path)
    whole = path.read_bytes()
    for length in [0, 1, 7, 8, 9, 40, *range(60, len(whole), max(1, len(whole) // 25)), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match="not a complete"):
            gk.MLP.load(path)


def test_other_files(tmp_path):
    with pytest.raises(ModelFileError, match="no such file"):
        gk.MLP.load(tmp_path / "absent.npz")
    with pytest.raises(ModelFileError):
        gk.MLP.load(tmp_path)
    other = tmp_path / "model.pt"
    other.write_bytes(b"x")
    with pytest.raises(ModelFileError, match=r"must be a \.safetensors or \.npz file, got '\.pt'"):
        gk.MLP.load(other)
    integer = tmp_path / "int.safetensors"
    write(integer, {"0.weight": np.ones((2, 2), np.int64)})
    with pytest.raises(ModelFileError, match=r"'0\.weight' has dtype I64"):
        gk.MLP.load(integer, activation="relu")
    np.save(tmp_path / "array.npy", np.ones((2, 2)))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    with pytest.raises(ModelFileError):
        gk.MLP.load(tmp_path / "array.npz", activation="relu")
    write(tmp_path / "object.npz", {"0.weight": np.array([[{}]], object)})
    with pytest.raises(ModelFileError):
        gk.MLP.load(tmp_path / "object.npz", activation="relu")


def test_file_holds_the_activations(tmp_path):
    path = tmp_path / "net.safetensors"
    gk.MLP([layer(2, 3, "elu(0.5)")]).save(path)
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert json.loads(header["__metadata__"]["activations"]) == ["elu(0.5)"]


N_OUT, N_IN = 300, 200
STD = {
    "normal": 1.0, "he_normal": math.sqrt(2 / N_IN), "xavier_normal": math.sqrt(2 / (N_IN + N_OUT)),
    "lecun_normal": math.sqrt(1 / N_IN),
}  # fmt: skip
BOUND = {
    "uniform": 1.0, "he_uniform": math.sqrt(6 / N_IN), "xavier_uniform": math.sqrt(6 / (N_IN + N_OUT)),
    "torch_default": math.sqrt(1 / N_IN),
}  # fmt: skip


@pytest.mark.parametrize("gain", [1.0, 3.0])
@pytest.mark.parametrize("name", [*STD, *BOUND])
def test_distribution_of_initialisations(name, gain):
    stats = pytest.importorskip("scipy.stats")
    w = getattr(gk.init, name)(N_OUT, N_IN, gain=gain, seed=1)
    assert w.shape == (N_OUT, N_IN) and w.dtype == np.float64
    if name in STD:
        expected, law = gain * STD[name], stats.norm(scale=gain * STD[name])
        fourth = 3
    else:
        bound = gain * BOUND[name]
        assert np.abs(w).max() <= bound
        expected, law, fourth = bound / math.sqrt(3), stats.uniform(-bound, 2 * bound), 1.8
    sigma = math.sqrt((fourth - 1) / w.size)  # standard deviation of the relative sample variance
    assert abs(np.mean(w**2) / expected**2 - 1) < 5 * sigma
    assert abs(w.mean()) < 5 * expected / math.sqrt(w.size)
    assert stats.kstest(w.ravel(), law.cdf).pvalue > 1e-5


@pytest.mark.parametrize("shape", [(20, 20), (30, 11), (11, 30), (1, 5), (5, 1)])
def test_orthogonal(shape):
    w = gk.init.orthogonal(*shape, gain=1.5, seed=2)
    gram = w @ w.T if shape[0] <= shape[1] else w.T @ w
    assert np.abs(gram - 2.25 * np.eye(len(gram))).max() < 1e-13 and w.shape == shape


def test_orthogonal_is_haar():
    """Without the sign correction of QR the first entry of Q would never be positive."""
    first = [gk.init.orthogonal(3, 3, seed=s)[0, 0] for s in range(300)]
    assert abs(np.mean(first)) < 5 * math.sqrt(1 / 3 / 300) and abs(np.mean(np.square(first)) - 1 / 3) < 0.1


def test_identity():
    assert np.array_equal(gk.init.identity(2, 3, gain=2.0), [[2, 0, 0], [0, 2, 0]])


@pytest.mark.parametrize("name", ["normal", "he_uniform", "orthogonal", "torch_default"])
def test_seeds(name):
    draw = getattr(gk.init, name)
    assert_same(draw(5, 4, seed=3), draw(5, 4, seed=3))
    assert not np.array_equal(bits(draw(5, 4, seed=3)), bits(draw(5, 4, seed=4)))
    generator = np.random.default_rng(3)
    assert_same(draw(5, 4, seed=generator), draw(5, 4, seed=3))
    assert not np.array_equal(draw(5, 4, seed=generator), draw(5, 4, seed=3))


def test_gains_are_those_of_torch():
    torch = pytest.importorskip("torch")
    for name, theirs in (("identity", "linear"), ("sigmoid", "sigmoid"), ("tanh", "tanh"), ("relu", "relu"),
                         ("leaky_relu", "leaky_relu"), ("selu", "selu")):  # fmt: skip
        assert gk.init.gain(name) == pytest.approx(torch.nn.init.calculate_gain(theirs), rel=1e-15)
    assert gk.init.gain("leaky_relu(0.3)") == pytest.approx(torch.nn.init.calculate_gain("leaky_relu", 0.3), rel=1e-15)
    for name in ("gelu", "relu(2)", "", "leaky_relu(a)", "swish"):
        with pytest.raises(ValueError, match="gain"):
            gk.init.gain(name)
    with pytest.raises(TypeError, match="gain: activation must be a name, got 3"):
        gk.init.gain(3)


@pytest.mark.parametrize("name", INITIALISATIONS)
def test_sizes_and_gains_of_another_type(name):
    draw = getattr(gk.init, name)
    for sizes, options, argument in (((2.5, 3), {}, "n_out"), ((3, "3"), {}, "n_in"), ((3, 3), {"gain": "x"}, "gain")):
        with pytest.raises(TypeError, match=f"^{name}: {argument} must be "):
            draw(*sizes, **options)
    assert_same(draw(np.int64(3), np.int8(2), gain=np.float32(0.5)), draw(3, 2, gain=0.5))


def test_sizes_below_one():
    for n_out, n_in in ((0, 3), (3, 0), (-1, 2)):
        for name in ("normal", "he_normal", "xavier_uniform", "orthogonal", "torch_default", "identity"):
            with pytest.raises(ValueError, match="at least 1"):
                getattr(gk.init, name)(n_out, n_in)
