"""``gradkern descend``: what it prints and writes, its exit codes, and errors of one line."""

from __future__ import annotations

import json

import numpy as np
import pytest

import gradkern as gk
from gradkern.cli import main


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments):
        code = main(["descend", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    gk.MLP.random(widths=[3, 5, 2], activation="tanh", seed=1).save(tmp_path / "net.npz")
    np.save(tmp_path / "x.npy", rng.standard_normal((10, 3)))
    np.save(tmp_path / "y.npy", rng.standard_normal((10, 2)))
    return tmp_path


def test_a_rate_too_large_is_told_layer_by_layer(run):
    code, out, err = run("--lr", 8, "--steps", 6, "--fail-on", "critical")
    assert code == 1 and not err
    assert (
        "overflowed: loss (cross_entropy)" in out
        and "[critical] overflow in step" in out
        and "remedy: a rate below 8" in out
    )


def test_lost_updates_and_master_weights(run):
    small = ("--lr", 2e-5, "--arithmetic", "bfloat16", "--steps", 8, "--fail-on", "major")
    code, out, _ = run(*small)
    assert code == 1 and "stalled" in out and "w + u == w" in out
    code, out, _ = run(*small, "--master-weights", "float32")
    assert code == 0 and "master weights float32" in " ".join(out.split()) and "stalled" not in out


def test_json_is_the_run_and_the_saved_file(run, files):
    path = files / "run.json"
    arguments = (files / "net.npz", "--input", files / "x.npy", "--target", files / "y.npy", "--lr", 0.1, "--steps", 4)
    code, out, _ = run(*arguments, "--clip", 1, "--scaler", "--scale", "2^6", "--batch", 5, "--json", "--save", path)
    found = json.loads(out)
    assert code == 0 and found["loss_name"] == "mse" and found["batch"] == 5 and found["steps"][0]["scale"] == 64
    net, x, y = gk.MLP.load(files / "net.npz"), np.load(files / "x.npy"), np.load(files / "y.npy")
    scaler = gk.LossScaler(64.0)
    same = gk.descend(net, x, y, lr=0.1, steps=4, clip=1.0, scaler=scaler, batch=5)
    assert gk.Trajectory.load(path).to_dict() == same.to_dict()
    assert {k: v for k, v in found.items() if k != "source"} == same.to_dict()


def test_a_picture(run, files):
    pytest.importorskip("matplotlib")
    code, _, _ = run("--steps", 2, "--depth", 3, "--width", 8, "--plot", files / "run.png")
    assert code == 0 and (files / "run.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--lr", "nan"), "lr must be finite"),
        (("--scale", "3"), "--scale: must be a power of two"),
        (("--arithmetic", "float12"), "arithmetic: must be"),
        (("--master-weights", "float12"), "format"),
        (("--init", "magic"), "init must be one of"),
        (("--target", "y.npy"), "--target: needs an --input"),
        (("--input", "none.npy"), "none.npy: no such file"),
        (("--steps", "0"), "--steps"),
    ],
)
def test_errors_are_one_line(run, arguments, words):
    code, out, err = run(*arguments)
    assert code == 2 and not out and err.startswith("gradkern: error:") and words in err and err.count("\n") == 1


def test_the_help_teaches(run):
    code, out, _ = run("--help")
    assert code == 0
    for words in ("larger weights", "--master-weights", "--clip", "rounding=stochastic", "Exit codes"):
        assert words in " ".join(out.split())
