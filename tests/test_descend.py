"""`descend` against torch, exact stability bounds and itself on other machines; what a trajectory says of a run."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import bits, check_same_as_baseline

import gradkern as gk


def problem(loss: str, seed: int = 0, rows: int = 24, widths=(5, 8, 8, 3), activation="tanh"):
    """Return a small network, an input and a target."""
    rng = np.random.default_rng(seed)
    net = gk.MLP.random(
        widths=list(widths), activation=activation, output_activation="identity", bias_std=0.1, seed=seed
    )
    x = rng.standard_normal((rows, widths[0]))
    return (
        net,
        x,
        rng.integers(0, widths[-1], rows) if loss == "cross_entropy" else rng.standard_normal((rows, widths[-1])),
    )


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_trajectories_equal_torch_in_float64(loss, activation):
    torch = pytest.importorskip("torch")
    net, x, y = problem(loss, activation=activation)
    run = gk.descend(net, x, y, lr=0.1, steps=30, loss=loss, arithmetic="float64")
    parameters = [torch.tensor(p, requires_grad=True) for layer in net.layers for p in (layer.weight, layer.bias)]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    phi = {"tanh": torch.tanh, "relu": torch.relu}[activation]
    for step in run.steps:
        h = torch.tensor(x)
        for i in range(0, len(parameters), 2):
            h = h @ parameters[i].T + parameters[i + 1]
            h = phi(h) if i + 2 < len(parameters) else h
        value = getattr(torch.nn.functional, {"mse": "mse_loss"}.get(loss, loss))(h, torch.tensor(y))
        optimizer.zero_grad()
        value.backward()
        norm = math.sqrt(sum(float((p.grad**2).sum()) for p in parameters))
        assert step.loss == pytest.approx(float(value.detach()), rel=1e-12)
        assert step.log2_gradient_norm == pytest.approx(math.log2(norm), abs=1e-11)
        optimizer.step()
    found = [p for layer in run.net.layers for p in (layer.weight, layer.bias)]
    for ours, theirs in zip(found, parameters, strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("arithmetic", ["float32", "float16", "bfloat16[rounding=stochastic]"])
def test_same_bits_everywhere(isa, threads, arithmetic):
    net, x, y = problem("mse", rows=40)

    def compute():
        run = gk.descend(net, x, y, lr=0.3, steps=12, arithmetic=arithmetic, clip=1.0, scaler=2.0**8)
        return [bits(w).tobytes() for w in run.weights], [s.to_dict() for s in run.steps]

    check_same_as_baseline(("descend", arithmetic), compute)


def deviation(depth: int, lr: float, steps: int) -> tuple[float, float]:
    """First and last w - 1 of `depth` equal 1x1 layers that learn the identity, from just beside it."""
    start = 1 + 2.0**-20
    net = gk.MLP([gk.Dense([[start]], None, "identity") for _ in range(depth)])
    run = gk.descend(net, [[1.0]], [[1.0]], lr=lr, steps=steps, arithmetic="float64")
    weights = [float(w[0, 0]) for w in run.weights]
    assert max(weights) - min(weights) < 1e-13  # symmetry keeps them equal
    return start - 1, weights[0] - 1


@pytest.mark.parametrize("depth", [1, 2, 3, 10])
def test_the_stability_bound_of_a_deep_scalar_chain(depth):
    """L = (w_D ... w_1 - 1)^2, twice the textbook's, has curvature 2 D along (1, ..., 1) at w = 1: stable for lr < 1 / D.

    Each layer moves by 2 w^(D-1) (w^D - 1), a D-th of what one tied weight would: its curvature is 2 D^2, and its bound on
    1/2 (w^D - 1)^2 is 2 / D^2. Saxe, McClelland, Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear
    neural networks", ICLR 2014.
    """
    bound, steps = 1 / depth, 50
    for share in (0.5, 0.98, 1.02):
        first, last = deviation(depth, share * bound, steps)
        factor = abs(1 - 2 * share)  # per step
        if share == 0.5:  # Newton's step: only the square of the deviation is left, then that of the square
            assert abs(last) < 1e-13
        else:
            assert abs(last) / first == pytest.approx(factor**steps, rel=0.02 * depth)
        assert (abs(last) < first) == (share < 1)


@pytest.mark.parametrize("depth", [2, 5])
def test_the_tied_weight_is_stable_below_2_over_depth_squared(depth):
    """w <- w - eta D w^(D-1) (w^D - 1) is the untied chain at lr = eta D / 2, so that the bounds 2 / D^2 and 1 / D agree."""
    for share in (0.98, 1.02):
        eta = share * 2 / depth**2
        w = 1 + 2.0**-20
        for _ in range(60):
            w -= eta * depth * w ** (depth - 1) * (w**depth - 1)
        assert deviation(depth, eta * depth / 2, 60)[1] == pytest.approx(w - 1, rel=1e-6)
        assert (abs(w - 1) < 2.0**-20) == (share < 1)


def chain(depth: int, start: float):
    return gk.MLP([gk.Dense([[start]], None, "identity") for _ in range(depth)])


def test_verdicts_of_the_scalar_chain():
    """From w = 0.9: converged below the bound 1 / D, oscillating above it, overflowed far above."""
    verdicts = {}
    for lr in (1e-7, 0.05, 0.11, 3.0):
        run = gk.descend(chain(10, 0.9), [[1.0]], [[1.0]], lr=lr, steps=40, arithmetic="float64")
        verdicts[lr] = run.verdict
    assert verdicts == {1e-7: "slow", 0.05: "converged", 0.11: "oscillates", 3.0: "overflowed"}


def test_the_loop_grows_weights_then_gradients_then_overflows():
    """The loop: a rate too large, larger weights, larger gradients, infinity, NaN."""
    run = gk.descend(chain(4, 1.5), [[1.0]], [[1.0]], lr=0.2, steps=6, arithmetic="float16")
    origin = run.first_nonfinite
    assert run.verdict == "overflowed" and origin.cause == "overflow" and origin.story
    until = [s for s in run.steps if s.step < origin.step]
    gradients = [s.log2_gradient_norm for s in until]
    assert gradients[1] > gradients[0] + 8
    weights = [s.log2_weight_norm for s in run.steps if s.step <= origin.step]
    assert weights == sorted(weights)
    losses = [s.loss for s in run.steps[origin.step + 1 :]]
    assert not np.isfinite(losses).any() and math.isnan(losses[-1])
    finding = run.findings[0]
    assert (finding.kind, finding.severity) == ("overflow", "critical") and f"layer {origin.layer}" in finding.where
    assert np.isnan(run.weights[0].astype(float)).all()
    with pytest.raises(gk.NonFiniteError, match="layer 1 weight"):
        _ = run.net


def test_the_origin_is_where_the_report_says():
    """Layer, role, index and cause are those of a probe of the same weights."""
    net = gk.MLP.random(depth=12, width=16, activation="relu", gain=3.0, seed=1)
    x = np.random.default_rng(0).standard_normal((8, 16))
    run = gk.descend(net, x, np.zeros((8, 16)), lr=1e-3, steps=3, arithmetic="float16")
    report = gk.probe(net, x, loss="mse", target=np.zeros((8, 16)), arithmetic="float16")
    first = report.first("overflow")
    origin = run.first_nonfinite
    assert (origin.step, origin.layer, origin.role) == (0, first.layer, first.role)
    assert origin.index == first.first["overflow"] and origin.cause == "overflow"
    made = report.first("invalid")
    assert made is None or f"layer {made.layer} {made.role}" in origin.story


def test_an_update_that_overflows_is_an_origin():
    run = gk.descend(chain(1, 1.0), [[10.0]], [[-100.0]], lr=100.0, steps=2, arithmetic="float16")
    assert (run.first_nonfinite.role, run.first_nonfinite.step) == ("updated weight", 0)
    assert run.steps[0].update.overflow == 1 and run.verdict == "overflowed"


def test_nan_in_the_data_is_called_given():
    run = gk.descend(
        chain(2, 1.0), [[math.nan]], [[1.0]], lr=0.1, steps=3, arithmetic="float32", stop_at_nonfinite=True
    )
    assert len(run.steps) == 1 and run.stopped and run.first_nonfinite.cause == "given"
    assert run.findings[0].kind == "nonfinite_input"


def test_a_run_goes_on_from_where_it_ended():
    """Stochastic rounding, minibatches and a scaler: 6 + 6 steps are 12."""
    net, x, y = problem("cross_entropy")
    options = {"lr": 0.2, "loss": "cross_entropy", "arithmetic": "float16[rounding=stochastic,seed=5]", "batch": 7}
    whole = gk.descend(net, x, y, steps=12, scaler=gk.LossScaler(2.0**10, interval=3), **options)
    scaler = gk.LossScaler(2.0**10, interval=3)
    half = gk.descend(net, x, y, steps=6, scaler=scaler, **options)
    rest = gk.descend(half.net, x, y, steps=6, start=half.next_step, scaler=scaler, **options)
    assert [s.to_dict() for s in half.steps + rest.steps] == [s.to_dict() for s in whole.steps]
    assert [bits(w).tobytes() for w in rest.weights] == [bits(w).tobytes() for w in whole.weights]
    other = gk.descend(half.net, x, y, steps=6, start=0, scaler=gk.LossScaler(2.0**10, interval=3), **options)
    assert [s.loss for s in other.steps] != [s.loss for s in rest.steps]


def test_step_zero_is_a_probe():
    net, x, y = problem("mse")
    run = gk.descend(net, x, y, lr=0.1, steps=2, arithmetic="float16", keep="reports")
    report = gk.probe(net, x, loss="mse", target=y, arithmetic="float16", reference=False)
    assert run.steps[0].loss == report.loss
    assert run.steps[0].log2_norms["grad_weight"] == [row.log2_norm for row in report.rows("grad_weight")]
    assert [r["stored"]["amax"] for r in run.steps[0].report.records] == [r["stored"]["amax"] for r in report.records]
    assert run.steps[1].report.loss == run.steps[1].loss


def test_saved_trajectories_say_the_same(tmp_path):
    net, x, y = problem("mse")
    run = gk.descend(net, x, y, lr=90.0, steps=9, arithmetic="float16", scaler=gk.LossScaler(2.0**14), clip=3.0)
    for name in ("run.json", "run.json.gz", "run.npz"):
        run.save(tmp_path / name)
        loaded = gk.Trajectory.load(tmp_path / name)
        assert loaded.to_dict() == run.to_dict() and repr(loaded) == repr(run)
    with pytest.raises(ValueError, match="holds no weights"):
        _ = loaded.net
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no saved Trajectory"):
        gk.Trajectory.load(tmp_path / "no.json")
    with pytest.raises(ValueError, match=r"save: the name must end in .* got 'run\.txt'"):
        run.save(tmp_path / "run.txt")
    for name in ("old.txt", "old.npz"):  # what any name once gave
        (tmp_path / "run.json").rename(tmp_path / name)
        assert gk.Trajectory.load(tmp_path / name).to_dict() == run.to_dict()
        (tmp_path / name).rename(tmp_path / "run.json")


def test_frames_pictures_and_tables():
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib").use("agg")
    net, x, y = problem("mse")
    run = gk.descend(net, x, y, lr=0.1, steps=5, arithmetic="float16")
    frame, layers = run.to_frame(), run.to_frame("layer")
    assert list(frame["step"]) == [0, 1, 2, 3, 4] and list(frame["loss"]) == list(run.losses)
    assert len(layers) == 15 and list(layers["log2_norm_weight"][:3]) == run.steps[0].log2_norms["weight"]
    assert run.log2_norms("grad_weight").shape == run.events("flushed").shape == (5, 3)
    figure = run.plot().figure
    assert len(figure.axes) == 3 and figure.axes[1].get_ylabel() == "layer"
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].get_lines()}
    np.testing.assert_allclose(2.0 ** lines["loss"], run.losses)
    assert "<table>" in run._repr_html_() and "verdict" in run.to_dict()


def test_a_first_step_of_numpy():
    net, x, y = problem("mse")
    run = gk.descend(net, x, y, lr=0.1, steps=1, start=np.int64(7))
    assert (run.start, type(run.start), run.steps[0].step, run.next_step) == (7, int, 7, 8)


def test_callbacks():
    net, x, y = problem("mse")
    seen, ticks = [], []
    run = gk.descend(net, x, y, lr=0.1, steps=9, callback=lambda s: seen.append(s.step) or s.step == 3,
                     progress=lambda done, total: ticks.append((done, total)))  # fmt: skip
    assert seen == [0, 1, 2, 3] and run.stopped == "callback" and ticks[-1] == (4, 9) and run.next_step == 4


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"lr": math.inf}, ValueError, "descend: lr must be finite"),
        ({"steps": 0}, ValueError, "descend: steps must be at least 1"),
        ({"batch": 99}, ValueError, "batch must be at most the 24 rows"),
        ({"loss": "l1"}, ValueError, "descend: loss must be one of"),
        ({"clip": -1.0}, ValueError, "clip must be a norm of at least 0"),
        ({"clip": "small"}, TypeError, "clip must be a number"),
        ({"scaler": 3.0}, ValueError, "scaler must be a power of two"),
        ({"master_weights": "tfloat32"}, ValueError, "master_weights must be one of"),
        ({"keep": "all"}, ValueError, "keep must be"),
        ({"start": -1}, ValueError, "descend: start must be at least 0, got -1"),
        ({"start": 1.5}, TypeError, "descend: start must be an integer, got 1.5"),
        ({"start": True}, TypeError, "descend: start must be an integer, got True"),
        ({"target": np.zeros((3, 3))}, ValueError, r"descend: target has shape \(3, 3\)"),
        ({"x": np.zeros((24, 4))}, ValueError, r"descend: x has shape \(24, 4\)"),
        ({"net": "net"}, TypeError, "descend: net must be an MLP"),
    ],
)
def test_bad_arguments_are_named(change, error, words):
    net, x, y = problem("mse")
    arguments = {"net": net, "x": x, "target": y, "lr": 0.1, "steps": 2} | change
    with pytest.raises(error, match=words):
        gk.descend(**arguments)
