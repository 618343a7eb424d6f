"""`RNN` and `RecurrentReport`: arguments, files, what is said about steps, where a NaN was made, and memory."""

from __future__ import annotations

import math
import resource
import sys

import numpy as np
import pytest

import gradkern as gk


def small(activation="tanh", **options):
    return gk.RNN.random(hidden=8, inputs=3, activation=activation, **options)


X = np.random.default_rng(0).standard_normal((6, 2, 3))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([[1.0, 2.0]], [[1.0]]), r"RNN.recurrent_weight: must be square .*\(1, 2\)"),
        ((np.eye(2), [[1.0]]), r"RNN.input_weight: has shape \(1, 1\), but RNN.recurrent_weight has \(2, 2\)"),
        ((np.eye(2), np.eye(2), [1.0]), r"RNN.bias: has shape \(1,\), but RNN.recurrent_weight has \(2, 2\)"),
        (([[math.nan]], [[1.0]]), "RNN.recurrent_weight: 1 of 1 entries are not finite"),
    ],
)
def test_wrong_weights_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        gk.RNN(*arguments)


@pytest.mark.parametrize(
    "x, options, error, message",
    [
        (np.ones((5, 2, 4)), {}, ValueError, r"x has shape \(5, 2, 4\), but RNN.input_weight has \(8, 3\)"),
        (np.ones((0, 2, 3)), {}, ValueError, r"x has shape \(0, 2, 3\): there must be at least one step"),
        (X, {"initial": np.ones((2, 7))}, ValueError, r"initial has shape \(2, 7\), h_0 is \(2, 8\)"),
        (X, {"bptt": 0}, ValueError, "bptt must be at least 1, got 0"),
        (X, {"bptt": 1.5}, TypeError, "bptt must be an integer"),
        (X, {"loss_at": "first"}, ValueError, "loss_at must be 'last' or 'every', got 'first'"),
        (X, {"step_accumulate": "never"}, ValueError, "step_accumulate must be 'accumulate' or 'storage'"),
        (X, {"grad_output": np.ones((2, 7))}, ValueError, r"grad_output has shape \(2, 7\), the outputs \(1, 2, 8\)"),
        (X, {"loss_at": "every", "loss": "mse", "target": np.ones((5, 2, 8))}, ValueError, "each of 6 steps"),
        (X, {"loss": "mse", "target": np.ones((2, 7))}, ValueError, r"target has shape \(2, 7\)"),
        (X, {"grad_output": np.ones((2, 8)), "loss": "mse"}, ValueError, "either grad_output or a loss"),
        (X, {"depth": 3}, TypeError, "depth"),
    ],
)
def test_wrong_arguments_are_named(x, options, error, message):
    with pytest.raises(error, match=message):
        gk.probe(small(), x, **options)


def test_an_mlp_has_no_steps():
    with pytest.raises(TypeError, match="bptt can be given for an RNN only, net is MLP"):
        gk.probe(gk.MLP.random(depth=2, width=3), np.ones((1, 3)), bptt=3)


def test_one_sample_may_come_without_a_batch():
    one, batch = gk.probe(small(), X[:, 0]), gk.probe(small(), X[:, :1])
    assert one.batch == 1
    assert one.contributions.log2_norm.tolist() == batch.contributions.log2_norm.tolist()


def test_grad_output_replaces_the_loss():
    by_loss = gk.probe(small(), X, keep="tensors", loss_at="every")
    given = gk.probe(small(), X, keep="tensors", loss_at="every", grad_output=np.ones((6, 2, 8)))
    assert np.array_equal(by_loss.row(0, "grad_weight").tensor, given.row(0, "grad_weight").tensor)
    assert given.loss is None


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_files_hold_what_torch_names(tmp_path, ending):
    net = small("relu")
    net.save(tmp_path / f"net{ending}")
    loaded = gk.RNN.load(tmp_path / f"net{ending}")
    assert loaded.activation == "relu"
    for a, b in zip(net.parameters, loaded.parameters, strict=True):
        assert np.array_equal(a.values, b.values)


def test_a_state_dict_of_torch_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    cell = torch.nn.RNN(3, 5, nonlinearity="relu").double()
    save_file({f"encoder.{k}": v for k, v in cell.state_dict().items()}, tmp_path / "rnn.safetensors")
    net = gk.RNN.load(tmp_path / "rnn.safetensors", activation="relu")
    x = np.random.default_rng(1).standard_normal((7, 2, 3))
    want = cell(torch.tensor(x))[0][-1].detach().numpy()
    got = gk.probe(net, x, arithmetic="float64", keep="tensors").row(7, "activation").tensor
    assert np.allclose(got, want, rtol=0, atol=1e-13)


def test_a_file_without_a_recurrent_layer_says_what_it_holds(tmp_path):
    gk.MLP.random(depth=2, width=3).save(tmp_path / "mlp.npz")
    with pytest.raises(gk.ModelFileError, match=r"0 tensors are named '\.\.\.weight_hh_l0'"):
        gk.RNN.load(tmp_path / "mlp.npz")


def test_the_first_nan_is_found_with_its_kind_step_and_unit():
    """1.5^t overflows float16 at step 28; at the next one inf meets -inf in unit 1 alone."""
    weight = np.array([[1.5, 2.0**-24], [1.0, -1.0]])
    net = gk.RNN(weight, np.zeros((2, 1)), None, "identity")
    report = gk.probe(net, np.zeros((60, 1, 1)), arithmetic="float16", initial=[[1.0, 0.0]], grad_output=[[0.0, 1.0]])
    overflow, invalid = report.first("overflow"), report.first("invalid")
    assert (overflow.name, overflow.first["overflow"]) == ("step 28 pre_activation", 0)
    states = [np.array([1.0, 0.0])]
    with np.errstate(all="ignore"):
        while not np.isnan(states[-1][1]):
            h = states[-1]
            states.append(np.array([1.5 * h[0] + 2.0**-24 * h[1], h[0] - h[1]], dtype=np.float16).astype(float))
    step = len(states) - 1
    assert (invalid.layer, invalid.first["invalid"], invalid.invalid_kind) == (step, 1, "inf - inf")
    found = {f.kind: f for f in report.findings}
    assert (
        f"inf - inf, the first at flat index 1 of step {step} pre_activation (sample 0, unit 1)"
        in found["invalid"].evidence
    )


def test_zero_times_infinity_is_named():
    """A masked unit: relu' = 0 meets an infinite gradient."""
    net = gk.RNN([[60000.0]], [[1.0]], None, "relu")
    x = np.zeros((3, 1, 1))
    x[0] = -1.0
    report = gk.probe(net, x, arithmetic="float16", grad_output=[[60000.0]], initial=[[0.0]])
    assert report.loss is None
    rows = [row for row in report.layers if row.invalid_kind]
    assert not rows  # a structural zero: dh is masked at the last step already
    x[0], x[1] = 0.0, 1.0
    net = gk.RNN([[1.0]], [[1.0]], None, "relu")
    report = gk.probe(net, x, arithmetic="float16", grad_output=[[math.inf]], initial=[[-1.0]])
    first = report.first("invalid")
    assert first.name == "step 1 grad_pre_activation"
    assert first.invalid_kind == "0 * inf"


def test_the_horizon_grows_with_range_and_scale():
    net = gk.RNN(np.eye(8) * 0.5, np.ones((8, 3)), None, "identity")
    report = gk.probe(net, np.ones((200, 2, 3)), arithmetic="float16")
    once = [report.effective_horizon(fmt) for fmt in ("float8_e5m2", "float16", "bfloat16", "float32", "float64")]
    assert once == sorted(once) and once[0] < once[1] < once[2] < once[4] == 199  # step 1 adds nothing: h_0 = 0
    assert report.effective_horizon("float16", scale=2.0**10) == once[1] + 10
    assert report.effective_horizon() == 25
    with pytest.raises(ValueError, match="p must be between 0 and 1"):
        report.effective_horizon("float16", p=2)
    with pytest.raises(ValueError, match="needs the reference"):
        gk.probe(net, np.ones((5, 2, 3)), reference=False).effective_horizon("float16")


def test_text_speaks_of_steps():
    report = gk.probe(small(), X, bptt=4, loss_at="every")
    text = report.summary()
    assert "RNN 3 inputs, 8 units (tanh), 6 steps, loss at every step, gradients 4 steps back" in " ".join(text.split())
    assert "effective horizon" in text
    assert repr(report.contributions).splitlines()[0] == "Contributions of 6 steps to dL/dW (log2 of norms)"
    assert repr(small()) == "RNN(3 inputs, 8 units, tanh, float64)"


@pytest.mark.parametrize("reference", [True, False])
def test_reports_are_saved_whole(tmp_path, reference):
    report = gk.probe(small(), X, reference=reference, step_accumulate="storage")
    report.save(tmp_path / "report.json.gz")
    loaded = gk.ChainReport.load(tmp_path / "report.json.gz")
    assert isinstance(loaded, gk.RecurrentReport)
    assert repr(loaded.to_dict()) == repr(report.to_dict())
    assert loaded.summary() == report.summary()


def test_frames_and_pictures():
    pytest.importorskip("pandas")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    report = gk.probe(small(), X)
    frame = report.contributions.to_frame()
    assert list(frame["step"]) == [6, 5, 4, 3, 2, 1]
    axes = report.contributions.plot()
    assert [line.get_label() for line in axes.get_lines()] == [
        "share of the step",
        "as stored",
        "sum from the last step on",
    ]
    assert "step" in axes.get_xlabel()
    report.plot()
    pyplot.close("all")


def test_contributions_are_drawn_without_pyplot(monkeypatch):
    """As every picture: pyplot keeps figures alive, and may want a display."""
    pytest.importorskip("matplotlib")
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    gk.probe(small(), X).contributions.plot()
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize("options, error, message", [
    ({"hidden": 0}, ValueError, "RNN.random: hidden must be at least 1, got 0"),
    ({"hidden": 2.5}, TypeError, "RNN.random: hidden must be an integer"),
    ({"inputs": "a"}, TypeError, "RNN.random: inputs must be an integer"),
    ({"activation": None}, TypeError, "activation must be a name, got None"),
    ({"bias_std": -1.0}, ValueError, "RNN.random: bias_std must be finite and not negative, got -1"),
    ({"input_gain": "x"}, TypeError, "RNN.random: input_gain must be a number"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_named(options, error, message):
    with pytest.raises(error, match=message):
        gk.RNN.random(**options)


@pytest.mark.parametrize("net", [small(), gk.MLP.random(depth=2, width=3)])
def test_an_argument_that_does_not_exist(net):
    with pytest.raises(TypeError, match="probe: there is no argument 'bttp'"):
        gk.probe(net, X, bttp=3)


def test_one_number_is_no_target_of_every_step():
    with pytest.raises(ValueError, match=r"probe: target has shape \(\), but there is one loss at each of 6 steps"):
        gk.probe(small(), X, loss="mse", target=3.0, loss_at="every")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_in_truth_is_not_called_zero(value):
    """A true gradient of NaN has no norm, and no unit of it is zero."""
    x = X.copy()
    x[:, :, 0] = value
    report = gk.probe(small(), x, arithmetic="float64")
    for row in report.rows("pre_activation"):
        assert row.reference.nonfinite and math.isnan(row.reference_log2_norm)
    if math.isnan(value):
        assert "zero" not in report.summary().split("findings")[0]


def test_progress_counts_the_steps():
    seen = []
    gk.probe(small(), X, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 12) and seen[-1] == (12, 12)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_memory_stays_within_the_plan():
    net = gk.RNN.random(hidden=128, inputs=64)
    x = np.random.default_rng(0).standard_normal((400, 64, 64)).astype(np.float16)
    gk.probe(net, x[:2], reference=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = gk.probe(net, x, reference=False)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown <= 1.2 * report.planned_bytes
    every_step = gk.probe(net, x, reference=False, loss_at="every")
    assert every_step.planned_bytes - report.planned_bytes >= 400 * 64 * 128 * 2  # dz has no block of its own
