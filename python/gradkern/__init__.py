"""gradkern: what low precision does to gradients, layer by layer, measured exactly.

>>> import gradkern as gk
>>> report = gk.probe(gk.MLP.random(depth=40, width=64, activation="tanh"), x, arithmetic="float16")
>>> print(report.summary())
"""

from __future__ import annotations

from gradkern import init
from gradkern._backend import get_num_threads, set_num_threads
from gradkern.activation import activation_backward, activation_forward, activations
from gradkern.arithmetic import Arithmetic, ArithmeticInfo, arithmetic, arithmetics
from gradkern.bracket import Bracket
from gradkern.cast import CastResult, RoundingReport, cast
from gradkern.chain import probe
from gradkern.clip import clip_by_block_rms, clip_by_global_norm, clip_by_norm, global_norm
from gradkern.clip_adaptive import clip_adaptive
from gradkern.clip_result import ClipResult, NonFinite
from gradkern.clip_value import clip_by_value
from gradkern.clippers import QuantileClipper, ZScoreClipper
from gradkern.compare import compare
from gradkern.compared_pair import ComparedPair, ComparedRun, Divergence
from gradkern.compared_tensor import ComparedTensor
from gradkern.comparison import Comparison
from gradkern.dense import DenseGradients, DenseOutput, dense_backward, dense_forward
from gradkern.descend import descend
from gradkern.descent_step import DescentStep, NonFiniteOrigin
from gradkern.errors import (
    CudaError,
    GradkernError,
    LossScaleFloorError,
    ModelFileError,
    NonFiniteError,
    NonFiniteNormError,
    TensorFileError,
    UnsupportedIsaError,
)
from gradkern.explain import Explanation, explain
from gradkern.findings import Finding
from gradkern.fit import FormatFit, ScaleWindow
from gradkern.flush_profile import FlushProfile
from gradkern.formats import FormatInfo, finfo, formats
from gradkern.gradient_group import GradientGroup
from gradkern.jacobian import jacobian
from gradkern.measure import measure
from gradkern.measure_many import measure_many
from gradkern.mma import mma
from gradkern.net import MLP, Dense
from gradkern.rate import Rate
from gradkern.recurrent import RNN
from gradkern.recurrent_report import Contributions, RecurrentReport
from gradkern.report import ChainReport, LayerRow
from gradkern.scale import LossScaler
from gradkern.spectrum import Spectrum
from gradkern.step_record import StepRecord
from gradkern.sweep import sweep
from gradkern.sweep_point import SweepPoint
from gradkern.sweep_result import SweepResult
from gradkern.system import Info, SelfTest, info, selftest
from gradkern.table import StatsTable, TableFit
from gradkern.tensor_stats import TensorStats
from gradkern.trajectory import Trajectory
from gradkern.update import UpdateReport, UpdateResult, sgd_update


def __getattr__(name: str) -> str:
    """Look the version up when it is asked for: importlib.metadata is a third of the import time."""
    if name != "__version__":
        raise AttributeError(f"module 'gradkern' has no attribute {name!r}")
    from importlib.metadata import version

    return version("gradkern")


__all__ = [
    "MLP",
    "RNN",
    "Arithmetic",
    "ArithmeticInfo",
    "Bracket",
    "CastResult",
    "ChainReport",
    "ClipResult",
    "ComparedPair",
    "ComparedRun",
    "ComparedTensor",
    "Comparison",
    "Contributions",
    "CudaError",
    "Dense",
    "DenseGradients",
    "DenseOutput",
    "DescentStep",
    "Divergence",
    "Explanation",
    "Finding",
    "FlushProfile",
    "FormatFit",
    "FormatInfo",
    "GradientGroup",
    "GradkernError",
    "Info",
    "LayerRow",
    "LossScaleFloorError",
    "LossScaler",
    "ModelFileError",
    "NonFinite",
    "NonFiniteError",
    "NonFiniteNormError",
    "NonFiniteOrigin",
    "QuantileClipper",
    "Rate",
    "RecurrentReport",
    "RoundingReport",
    "ScaleWindow",
    "SelfTest",
    "Spectrum",
    "StatsTable",
    "StepRecord",
    "SweepPoint",
    "SweepResult",
    "TableFit",
    "TensorFileError",
    "TensorStats",
    "Trajectory",
    "UnsupportedIsaError",
    "UpdateReport",
    "UpdateResult",
    "ZScoreClipper",
    "activation_backward",
    "activation_forward",
    "activations",
    "arithmetic",
    "arithmetics",
    "cast",
    "clip_adaptive",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_value",
    "compare",
    "dense_backward",
    "dense_forward",
    "descend",
    "explain",
    "finfo",
    "formats",
    "get_num_threads",
    "global_norm",
    "info",
    "init",
    "jacobian",
    "measure",
    "measure_many",
    "mma",
    "probe",
    "selftest",
    "set_num_threads",
    "sgd_update",
    "sweep",
]
