"""Types of the compiled kernels; tests/test_stubs.py holds this file against the module."""

from collections.abc import Callable, Iterator, Sequence
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import NDArray

class DeviceArray:
    @staticmethod
    def from_host(array: NDArray[Any], library: str, stream: int = 0) -> DeviceArray: ...
    @staticmethod
    def borrow(
        library: str,
        pointer: int,
        shape: Sequence[int],
        dtype: str,
        device: int,
        stream: int,
        owner: Any,
        writeable: bool,
    ) -> DeviceArray: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def itemsize(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def library(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def pointer(self) -> int: ...
    @property
    def stream(self) -> int: ...
    @property
    def writeable(self) -> bool: ...
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...
    def empty(self, shape: Sequence[int], dtype: str) -> DeviceArray: ...
    def to_host(self) -> NDArray[Any]: ...
    def view(self, dtype: Any) -> DeviceArray: ...
    def reshape(self, shape: Sequence[int]) -> DeviceArray: ...
    def use_stream(self, stream: int, owner: Any) -> None: ...
    def __setitem__(self, key: EllipsisType, values: _Array) -> None: ...
    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

class PendingCounts:
    def fetch(self) -> dict[str, Any]: ...

_Array = NDArray[Any] | DeviceArray
_Bits = tuple[NDArray[Any], int]

_Parts = tuple[float, float, float]
_Moments = tuple[float, float, float, float, _Parts, _Parts]

activation_names: list[str]
cell_edges: list[float]
elementary_names: list[str]
compiler: str

class ChainRecords:
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    def __iter__(self) -> Iterator[dict[str, Any]]: ...

class ChainRun:
    def __init__(
        self,
        layers: list[tuple[_Bits, _Bits | None, int, float]],
        input: _Bits,
        batch: int,
        storage: int,
        operands: int,
        accumulate: int,
        unit: int,
        rounding: int,
        overflow: int,
        subnormals: int,
        seed: int,
        stored_output_derivative: bool,
        loss_scale: float,
        with_reference: bool,
        keep_tensors: bool,
        measured: bool = True,
    ) -> None: ...
    def planned_bytes(self) -> int: ...
    def forward(self, progress: Callable[[int, int], None] | None) -> None: ...
    def backward(
        self,
        gradient: NDArray[np.float64],
        reference_gradient: NDArray[np.float64] | None,
        reference_exponent: int,
        progress: Callable[[int, int], None] | None,
    ) -> None: ...
    def output(self) -> NDArray[np.float64]: ...
    def reference_output(self) -> tuple[NDArray[np.float64], int]: ...
    def take_records(self) -> ChainRecords: ...

class Recurrence:
    def __init__(
        self,
        recurrent_weight: _Bits,
        input_weight: _Bits,
        bias: _Bits | None,
        activation: tuple[int, float],
        x: _Bits,
        initial: _Bits | None,
        truncate: int,
        round_every_step: bool,
        formats: list[int],
        mode: list[int],
        seed: int,
        stored_output_derivative: bool,
        loss_scale: float,
        with_reference: bool,
        keep_tensors: bool,
        measured: bool = True,
    ) -> None: ...
    def planned_bytes(self) -> int: ...
    def forward(self, progress: Callable[[int, int], None] | None) -> None: ...
    def backward(
        self,
        gradients: NDArray[np.float64],
        reference_gradients: NDArray[np.float64] | None,
        exponents: list[int],
        progress: Callable[[int, int], None] | None,
    ) -> None: ...
    def output(self, step: int) -> NDArray[np.float64]: ...
    def reference_output(self, step: int) -> tuple[NDArray[np.float64], int]: ...
    def contributions(self) -> dict[str, Any]: ...
    def take_records(self) -> ChainRecords: ...

class ClipGroup:
    def __init__(
        self, sources: Sequence[_Array], targets: Sequence[_Array], formats: list[int], rows: list[int] = ...
    ) -> None: ...
    @staticmethod
    def in_place(arrays: list[Any], formats: dict[int, int], tensor_type: Any) -> ClipGroup | None: ...
    @property
    def formats(self) -> NDArray[np.int64]: ...
    def __len__(self) -> int: ...
    def overlap(self) -> bool: ...
    def survey(self, norm: int, counted: int) -> tuple[NDArray[Any], NDArray[Any]]: ...
    def scale(
        self,
        first: NDArray[np.float64],
        second: NDArray[np.float64],
        write: NDArray[np.bool_],
        zero: bool,
        back: list[tuple[_Array, Any, _Array]],
    ) -> tuple[int, int, int, int]: ...
    def clamp(
        self,
        low: NDArray[np.float64],
        high: NDArray[np.float64],
        write: NDArray[np.bool_],
        zero: bool,
        back: list[tuple[_Array, Any, _Array]],
    ) -> tuple[int, int, int, int]: ...

class Tangent:
    def __init__(self, factors: list[tuple[_Bits, NDArray[np.float64]]]) -> None: ...
    def forward(self, vectors: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
    def backward(self, vectors: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...

def activation_forward(pre_activation: _Array, format: int, activation: int, alpha: float) -> _Array: ...
def activation_backward(
    grad_output: _Array,
    pre_activation: _Array,
    output: _Array | None,
    format: int,
    activation: int,
    alpha: float,
) -> _Array: ...
def convert(
    source: _Array,
    source_format: int,
    stored: _Array,
    format: int,
    scale: float,
    rounding: int,
    overflow: int,
    subnormals: int,
    seed: int,
    stream: int,
) -> dict[str, Any] | PendingCounts: ...
def devices(name: str) -> list[tuple[str, int, int, int]]: ...
def dlpack_device_view(capsule: object, library: str, stream: int) -> DeviceArray: ...
def dlpack_view(capsule: object) -> tuple[NDArray[Any], str]: ...
def elementary_f32(name: str, x: NDArray[np.float32]) -> NDArray[np.float32]: ...
def elementary_f64(name: str, x: NDArray[np.float64]) -> NDArray[np.float64]: ...
def formats() -> list[dict[str, Any]]: ...
def isa() -> str: ...
def isas() -> list[tuple[str, bool, str]]: ...
def device_why_not(name: str) -> str: ...
def use_device(name: str | None) -> str | None: ...
def num_threads() -> int: ...
def product(
    a: _Array,
    a_format: int,
    a_transposed: bool,
    b: _Array,
    b_format: int,
    b_transposed: bool,
    bias: _Array | None,
    bias_format: int,
    operands: int,
    accumulate: int,
    unit: int = 0,
    instruction_k: int = 0,
    start: _Array | None = None,
) -> _Array: ...
def matrix_units() -> list[dict[str, Any]]: ...
def own_instructions() -> list[str]: ...
def mma_model(
    unit: int,
    a_format: int,
    b_format: int,
    accumulate: int,
    instruction_k: int,
    a: NDArray[np.uint32],
    b: NDArray[np.uint32],
    c: NDArray[np.uint32],
    right_by_columns: bool = ...,
) -> NDArray[np.uint32]: ...
def mma_trace(
    unit: int,
    a_format: int,
    b_format: int,
    accumulate: int,
    a: NDArray[np.uint32],
    b: NDArray[np.uint32],
    c: int,
) -> dict[str, Any]: ...
def select_isa(name: str) -> None: ...
def slopes(
    layers: list[tuple[_Bits, _Bits | None, int, float]], x: NDArray[np.float64]
) -> list[NDArray[np.float64]]: ...
def set_num_threads(count: int) -> None: ...
def update(
    weight: NDArray[Any],
    format: int,
    gradient: NDArray[Any],
    gradient_format: int,
    updated: NDArray[Any],
    rate: float,
    rounding: int,
    overflow: int,
    subnormals: int,
    seed: int,
    stream: int,
) -> dict[str, Any]: ...
def read_words(array: NDArray[Any]) -> int: ...
def multiply_adds(rounds: int, wide: bool) -> int: ...
def merge_moments(a: _Moments, b: _Moments) -> _Moments: ...
def statistics_of(tensor: _Array, format: int) -> dict[str, Any]: ...
def statistics(tensors: Sequence[_Array], formats: list[int]) -> tuple[NDArray[Any], NDArray[np.int64]]: ...
