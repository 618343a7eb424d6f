"""The command line: exit codes, one-line errors, strict JSON, pictures, and light imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradkern as gk
from gradkern.cli import main

Files = dict[str, Path]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.standard_normal((8, 6)).astype(np.float32), "labels": rng.integers(0, 4, 8), "big": np.full(8, 9),
        "values": rng.standard_normal((8, 4)), "narrow": rng.standard_normal((8, 5)), "text": np.array(["a", "b"]),
        "empty": np.zeros((0, 6)),
    }  # fmt: skip
    paths = {}
    for name, array in arrays.items():
        paths[name] = folder / f"{name}.npy"
        np.save(paths[name], array)
    paths["x_npz"], paths["two"] = folder / "x.npz", folder / "two.npz"
    np.savez(paths["x_npz"], x=arrays["x"])
    np.savez(paths["two"], a=arrays["x"], b=arrays["x"])
    paths["x_st"], paths["labels_st"] = folder / "x.safetensors", folder / "labels.safetensors"
    save_file({"x": arrays["x"]}, paths["x_st"])
    save_file({"y": arrays["labels"]}, paths["labels_st"])
    net = gk.MLP.random(widths=[6, 5, 5, 4], activation="tanh", output_activation="identity", init="xavier_normal")
    paths["model"], paths["bare"] = folder / "model.safetensors", folder / "bare.npz"
    net.save(paths["model"])
    np.savez(paths["bare"], **{"0.weight": np.eye(6), "2.weight": np.ones((4, 6))})
    for name, source in (("cut", "model"), ("cut_npy", "x"), ("cut_npz", "x_npz"), ("cut_st", "x_st")):
        paths[name] = folder / f"{name}{paths[source].suffix}"
        paths[name].write_bytes(paths[source].read_bytes()[:90])
    paths["fake"] = folder / "fake.npz"
    paths["fake"].write_text("not a model at all")
    paths["misfit"] = folder / "misfit.npz"
    np.savez(paths["misfit"], **{"0.weight": np.ones((5, 6)), "2.weight": np.ones((4, 3))})
    paths["nan"] = folder / "nan.npz"
    np.savez(paths["nan"], **{"0.weight": np.full((2, 2), np.nan)})
    return paths


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def probe_json(run: Run, *arguments: object) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    code, out, err = run("probe", *arguments, "--json")
    assert (code, err) == (0, "")
    payload: dict[str, Any] = json.loads(out, parse_constant=refuse)
    return payload


def test_probe_prints_the_report(run: Run, files: Files) -> None:
    code, out, err = run("probe", files["model"])
    assert (code, err) == (0, "")
    assert "64 random normal rows (seed 0)" in " ".join(out.split())
    assert "3 layers 6 -> 5 -> 5 -> 4" in out and "in float16, loss scale 2^0" in out
    assert "decay rate" in out and "healthy" in out


def test_probe_json_is_the_report(run: Run, files: Files) -> None:
    options = (files["model"], "--input", files["x"], "--target", files["labels"], "--scale", "2^3")
    payload = probe_json(run, *options, "--arithmetic", "bfloat16")
    net, x, y = gk.MLP.load(files["model"]), np.load(files["x"]), np.load(files["labels"])
    report = gk.probe(net, x, loss="cross_entropy", target=y, arithmetic="bfloat16", scale=8.0)
    source = payload.pop("source")
    assert str(files["x"]) in source
    assert payload == json.loads(json.dumps(report.to_dict()))


def test_probe_json_stays_strict_where_everything_overflows(run: Run, files: Files) -> None:
    payload = probe_json(run, files["model"], "--scale", "2^40")
    assert payload["findings"][0]["kind"] == "overflow"
    assert payload["layers"][-1]["log2_norm"] == "nan"


@pytest.mark.parametrize(
    ("target", "loss"), [(None, "sum"), ("labels", "cross_entropy"), ("values", "mse"), ("labels_st", "cross_entropy")]
)
def test_default_loss_follows_the_target(run: Run, files: Files, target: str | None, loss: str) -> None:
    options = ["--target", files[target]] if target else []
    assert probe_json(run, files["model"], "--input", files["x"], *options)["loss_name"] == loss


@pytest.mark.parametrize("name", ["x_npz", "x_st"])
def test_input_files_of_every_kind_read_alike(run: Run, files: Files, name: str) -> None:
    wanted = probe_json(run, files["model"], "--input", files["x"])
    given = probe_json(run, files["model"], "--input", files[name])
    assert given["layers"] == wanted["layers"]


@pytest.mark.parametrize(("text", "scale"), [("1024", 1024.0), ("2^10", 1024.0), ("2**-3", 0.125), ("0x1p4", 16.0)])
def test_scale_is_written_in_several_ways(run: Run, files: Files, text: str, scale: float) -> None:
    assert probe_json(run, files["model"], "--scale", text)["scale"] == scale


def test_activation_of_a_bare_model(run: Run, files: Files) -> None:
    payload = probe_json(run, files["bare"], "--activation", "relu", "--output-activation", "tanh")
    assert payload["activations"] == ["relu", "tanh"]


def test_no_reference_and_all_layers(run: Run, files: Files) -> None:
    payload = probe_json(run, files["model"], "--no-reference")
    assert payload["reference_loss"] is None and payload["effective_depth"] is None
    net = gk.MLP.random(depth=30, width=3)
    net.save(files["model"].parent / "deep.npz")
    _, few, _ = run("probe", files["model"].parent / "deep.npz")
    _, everything, _ = run("probe", files["model"].parent / "deep.npz", "--all")
    assert len(everything.splitlines()) - len(few.splitlines()) >= 17


def test_threads_do_not_change_the_result(run: Run, files: Files) -> None:
    before = gk.get_num_threads()
    try:
        one, three = (probe_json(run, files["model"], "--threads", n) for n in (1, 3))
        assert gk.get_num_threads() == 3
    finally:
        gk.set_num_threads(before)
    assert one == three


def test_fail_on_turns_findings_into_exit_code_1(run: Run, files: Files) -> None:
    overflowing = ("probe", files["model"], "--scale", "2^40")  # critical
    flushing = ("probe", files["model"], "--scale", "2^-23")  # major at most
    assert run(*overflowing)[0] == 0
    for level in ("critical", "major", "minor"):
        assert run(*overflowing, "--fail-on", level)[0] == 1
        assert run("probe", files["model"], "--fail-on", level)[0] == 0
    assert run(*flushing, "--fail-on", "critical")[0] == 0
    assert run(*flushing, "--fail-on", "major")[0] == 1
    assert run(*overflowing, "--fail-on", "none")[0] == 0


def test_save_writes_what_load_reads(run: Run, files: Files, tmp_path: Path) -> None:
    path = tmp_path / "report.json.gz"
    payload = probe_json(run, files["model"], "--save", path)
    loaded = json.loads(json.dumps(gk.ChainReport.load(path).to_dict()))
    assert {"source": payload["source"], **loaded} == payload


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_plot_writes_a_picture(run: Run, files: Files, tmp_path: Path, ending: str, magic: bytes) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"chain.{ending}"
    assert run("probe", files["model"], "--plot", path)[0] == 0
    assert path.read_bytes().startswith(magic)


def test_default_network(run: Run, files: Files) -> None:
    pytest.importorskip("gradkern.data.digits")
    payload = probe_json(run)
    assert payload["batch"] == 256 and payload["loss_name"] == "cross_entropy"
    assert payload["widths"][0] == 64 and payload["widths"][-1] == 10
    assert run("probe")[0] == 0
    assert probe_json(run, "--loss", "sum")["loss_name"] == "sum"


BAD = {
    "missing model": (("nowhere.npz",), "nowhere.npz: no such file"),
    "truncated model": (("@cut",), "cut.safetensors: not a complete .safetensors file"),
    "not a model": (("@fake",), "fake.npz: not a complete .npz file"),
    "not a model of layers": (("@two",), "no tensor named '...weight'"),
    "model kind": (("@x",), "a model must be a .safetensors or .npz file, got '.npy'"),
    "layers that do not chain": (("@misfit", "--activation", "relu"), "5 outputs into 3 inputs"),
    "weights that are NaN": (("@nan", "--activation", "relu"), "4 of 4 entries are not finite"),
    "no activation": (("@bare",), "give one, such as --activation relu"),
    "unknown activation": (("@bare", "--activation", "step"), "'step'"),
    "activation without model": (("--activation", "relu"), "--activation: needs a MODEL"),
    "missing input": (("@model", "--input", "x.npy"), "x.npy: no such file"),
    "input kind": (("@model", "--input", "@model.txt"), "must be a .npy, .npz or .safetensors file, got '.txt'"),
    "truncated npy": (("@model", "--input", "@cut_npy"), "not a complete .npy file"),
    "truncated npz": (("@model", "--input", "@cut_npz"), "not a complete .npz file"),
    "truncated safetensors": (("@model", "--input", "@cut_st"), "not a complete .safetensors file"),
    "two arrays": (("@model", "--input", "@two"), "must hold one array, holds 2: a, b"),
    "input shape": (("@model", "--input", "@narrow"), "x has shape (8, 5), but layers.0.weight has (5, 6)"),
    "empty input": (("@model", "--input", "@empty"), "the array of shape (0, 6) is empty"),
    "input of text": (("@model", "--input", "@text"), "dtype must be a floating-point format"),
    "target shape": (("@model", "--target", "@values"), "target has shape (8, 4), the output (64, 4)"),
    "class out of range": (("@model", "--input", "@x", "--target", "@big"), "target holds 9"),
    "loss without target": (("@model", "--loss", "mse"), "loss='mse' needs a target"),
    "unknown loss": (("@model", "--loss", "huber"), "'huber'"),
    "unknown arithmetic": (("@model", "--arithmetic", "float12"), "float12"),
    "unknown field": (("@model", "--arithmetic", "float16[digits=3]"), "unknown field 'digits'"),
    "scale": (("@model", "--scale", "3"), "must be a power of two such as 1024 or 2^10, got '3'"),
    "scale zero": (("@model", "--scale", "0"), "got '0'"),
    "scale too large": (("@model", "--scale", "2^1024"), "got '2^1024'"),
    "scale of words": (("@model", "--scale", "nan"), "got 'nan'"),
    "threads": (("@model", "--threads", "0"), "between 1 and 1024, got 0"),
    "threads of words": (("@model", "--threads", "many"), "Invalid value for '--threads'"),
    "plot folder": (("@model", "--plot", "nowhere/a.png"), "--plot: no such folder: nowhere"),
    "plot kind": (("@model", "--plot", "a.doc"), "--plot: the name must end in .png"),
    "save kind": (("@model", "--save", "a.txt"), "--save: the name must end in .json"),
    "unknown level": (("@model", "--fail-on", "often"), "'often'"),
    "unknown option": (("@model", "--frobnicate"), "--frobnicate"),
    "two models": (("@model", "@bare"), "unexpected extra argument"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_precise_line_and_exit_code_2(run: Run, files: Files, case: str) -> None:
    arguments, message = BAD[case]
    if case == "input kind":
        (files["model"].parent / "x.txt").write_text("1 2 3")
        arguments = (*arguments[:2], str(files["model"].parent / "x.txt"))
    code, out, err = run("probe", *(files[a[1:]] if a[0] == "@" and a[1:] in files else a for a in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("gradkern: error: ") and err.count("\n") == 1 and err.endswith("\n")
    assert message in err


def test_matplotlib_missing_is_said_before_the_work(run: Run, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(gk, "probe", lambda *_, **__: pytest.fail("the work was done first"))
    code, out, err = run("probe", files["model"], "--plot", "a.png")
    assert (code, out) == (2, "")
    assert err == "gradkern: error: --plot: needs matplotlib, which is not installed: pip install 'gradkern[plot]'\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ImportError("a\n  b"), "a b"),
        (MemoryError(), "MemoryError"),
        (OSError(28, "No space left", "disk"), "disk: No space left"),
    ],
)
def test_every_expected_error_becomes_one_line(
    run: Run, files: Files, monkeypatch: pytest.MonkeyPatch, error: Exception, line: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(gk, "probe", fail)
    assert run("probe", files["model"]) == (2, "", f"gradkern: error: {line}\n")


def test_ctrl_c_is_quiet(run: Run, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gk, "probe", interrupt)
    code, out, err = run("probe", files["model"])
    assert (code, out, err.strip()) == (130, "", "")


def test_help_teaches(run: Run) -> None:
    for arguments in (["--help"], []):
        code, out, _ = run(*arguments)
        assert code == 0 and "gradkern probe --scale 2^12 --plot chain.png" in " ".join(out.split())
    code, out, _ = run("probe", "--help")
    assert code == 0 and "Exit codes" in out and "--fail-on" in out
    assert run("explode")[0] == 2


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"gradkern {gk.__version__}\n", "")


def test_info(run: Run) -> None:
    code, out, err = run("info")
    assert (code, err) == (0, "") and gk.info().isa in out and "device cpu" in out
    code, out, err = run("info", "--json")
    assert (code, err) == (0, "") and json.loads(out) == gk.info().to_dict()


def test_selftest(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run("selftest")
    assert code == 0 and out.count("passed") == len(gk.selftest().checks)
    monkeypatch.setattr(gk, "selftest", lambda: gk.SelfTest({"one": "", "two": "wrong"}))
    code, out, _ = run("selftest", "--json")
    assert code == 1 and json.loads(out) == {"passed": False, "checks": {"one": "", "two": "wrong"}}


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def test_module_runs_as_a_command(files: Files) -> None:
    done = python("-m", "gradkern", "probe", str(files["model"]), "--json")
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["batch"] == 64


def test_absent_isa_is_one_line(tmp_path: Path) -> None:
    script = tmp_path / "gradkern"
    script.write_text("import sys\nfrom gradkern.cli import main\nsys.exit(main())\n")
    for command in (["-m", "gradkern", "info"], ["-m", "gradkern", "probe"], [str(script), "selftest"]):
        done = python(*command, GRADKERN_ISA="nope")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("gradkern: error: GRADKERN_ISA: 'nope'") and done.stderr.count("\n") == 1


def test_import_is_light() -> None:
    heavy = "typer, rich, matplotlib, pandas, torch, safetensors, pyarrow, distributed"
    code = f"import sys, gradkern; print([m for m in '{heavy}'.split(', ') if m in sys.modules])"
    assert python("-c", code).stdout == "[]\n"


def test_a_closed_pipe_is_no_traceback(files: Files) -> None:
    command = f"{sys.executable} -m gradkern probe {files['model']} --json | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout == "{" and done.stderr == ""
