"""`info` and `selftest`: what this machine offers, and whether it computes what it must."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gradkern import _core
from gradkern._backend import device_states, get_num_threads, isa, select_isa, set_num_threads, usable_isas
from gradkern._result import Result


@dataclass(frozen=True, repr=False)
class Info(Result):
    """What this installation can do.

    Attributes
    ----------
    version, python, numpy, compiler, machine : str
        Versions and the kind of processor.
    isa : str
        Instruction set in use.
    isas : dict
        Every instruction set built in: ``"usable"``, or why not.
    threads : int
        Threads in use.
    devices : dict
        Every device: ``"usable"`` and what it is, as ``"usable: NVIDIA H100, sm_90, 85 GB"``, or exactly why not.
    """

    version: str
    python: str
    numpy: str
    compiler: str
    machine: str
    isa: str
    isas: dict[str, str]
    threads: int
    devices: dict[str, str]


def info() -> Info:
    """Say what this installation can do: version, instruction sets, threads, devices and why one cannot be used."""
    from importlib.metadata import version  # not at the top: it would be a third of gradkern's import time

    return Info(
        version=version("gradkern"),
        python=platform.python_version(),
        numpy=np.__version__,
        compiler=_core.compiler,
        machine=platform.machine(),
        isa=isa(),
        isas={name: "usable" if usable else why for name, usable, why in _core.isas()},
        threads=get_num_threads(),
        devices={"cpu": "usable", **device_states()},
    )


@dataclass(frozen=True, repr=False)
class SelfTest(Result):
    """Outcome of `selftest`: every check by name, with ``""`` or what went wrong."""

    checks: dict[str, str]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return not any(self.checks.values())


def _thresholds() -> str:
    from gradkern.cast import cast

    cases = [
        ("float16", 65520.0, np.inf), ("float16", 65519.99, 65504.0), ("float16", 2.0**-25, 0.0),
        ("float16", np.nextafter(2.0**-25, 1), 2.0**-24), ("bfloat16", 1 + 2.0**-8, 1.0),
        ("float8_e4m3fn", 464.0, 448.0), ("float8_e4m3fn", 465.0, np.nan), ("float8_e5m2", 61440.0, np.inf),
        ("float32", 2.0**-150, 0.0), ("tfloat32", 1 + 2.0**-11, 1.0),
    ]  # fmt: skip
    for fmt, x, want in cases:
        got = float(cast([x], fmt).values[0])
        if not (got == want or (np.isnan(got) and np.isnan(want))):
            return f"cast({x!r}, {fmt!r}) gave {got!r}, must be {want!r}"
    return ""


def _known_chain() -> str:
    from gradkern.chain import probe
    from gradkern.net import MLP, Dense

    net = MLP([Dense([[0.5]], name=f"layers.{i}") for i in range(30)])
    report = probe(net, [[1.0]], arithmetic="float16")
    first = report.first("flushed")
    if first is None or first.layer != 25:
        return f"0.5^t in float16 must first flush in layer 25, got {None if first is None else first.layer}"
    return ""


def _same_bits() -> str:
    from gradkern.dense import dense_forward

    rng = np.random.default_rng(7)
    x, w, b = rng.standard_normal((13, 37)), rng.standard_normal((29, 37)), rng.standard_normal(29)
    before_isa, before_threads = isa(), get_num_threads()
    try:
        for arithmetic in ("float64", "float32", "float16", "float16_pure", "bfloat16", "float8_e4m3fn"):
            results = {}
            for name in usable_isas():
                for threads in (1, 3):
                    select_isa(name)
                    set_num_threads(threads)
                    out = dense_forward(x, w, b, activation="gelu", arithmetic=arithmetic).output
                    results[name, threads] = np.asarray(out).tobytes()
            if len(set(results.values())) != 1:
                return f"{arithmetic}: bits differ between instruction sets or thread counts"
    finally:
        select_isa(before_isa)
        set_num_threads(before_threads)
    return ""


def _elementary() -> str:
    x = np.array([-3.0, -0.5, 0.0, 0.25, 1.0, 2.5])
    truths = {"exp": np.exp(x), "expm1": np.expm1(x), "tanh": np.tanh(x), "sigmoid": 1 / (1 + np.exp(-x))}
    for name, truth in truths.items():
        error = np.abs(_core.elementary_f64(name, x) - truth)
        if not np.all(error <= 4 * np.spacing(np.abs(truth))):
            return f"{name} is off by up to {error.max():g}"
    return ""


def selftest() -> SelfTest:
    """Check known answers on this machine: thresholds, a chain whose first dead layer is known, bits, functions; seconds."""
    checks: dict[str, Callable[[], str]] = {
        "format thresholds": _thresholds,
        "0.5^t in float16 dies in layer 25": _known_chain,
        "elementary functions": _elementary,
        "same bits on every instruction set and thread count": _same_bits,
    }
    return SelfTest({name: check() for name, check in checks.items()})
