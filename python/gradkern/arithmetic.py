"""`Arithmetic`: what every stored tensor is rounded to, how a dot product is summed, and what rounding may do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

from gradkern._arguments import seed_of
from gradkern._units import EVIDENCE, FLOAT8, Accumulator, accumulator, find, instructions
from gradkern.formats import format_ids, format_name

ROUNDINGS = ("nearest_even", "toward_zero", "stochastic")
OVERFLOWS = ("ieee", "saturate")
SUBNORMALS = ("keep", "flush")
DERIVATIVES = ("exact", "stored_output")
STORAGE_FORMATS = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")


def _choice(function: str, argument: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{function}: {argument} must be one of {', '.join(choices)}, got {value!r}")
    return value


def rounding_mode(function: str, rounding: str, overflow: str, subnormals: str) -> tuple[int, int, int]:
    """Check the three names and return the numbers that the kernels take."""
    return (
        ROUNDINGS.index(_choice(function, "rounding", rounding, ROUNDINGS)),
        OVERFLOWS.index(_choice(function, "overflow", overflow, OVERFLOWS)),
        SUBNORMALS.index(_choice(function, "subnormals", subnormals, SUBNORMALS)),
    )


@dataclass(frozen=True)
class Arithmetic:
    """How a network computes.

    Parameters
    ----------
    storage : str
        Format that weights, pre-activations, activations and gradients are rounded to.
    operands : str, optional
        What a product's inputs are rounded to first: ``storage`` (default), or ``"tfloat32"`` with float32 storage.
    accumulate : str
        How a dot product is summed. ``float32``, ``float64``, ``float16`` or ``bfloat16``: one correctly rounded fused
        multiply-add a step in that format, k ascending. Or a unit of a GPU, a CPU or a library: see `mma` for their names,
        and `explain`. Its accumulator starts at +0, or at the sum that goes on; a bias is added after its last step,
        rounded once to the accumulator.
    rounding : {"nearest_even", "toward_zero", "stochastic"}
        Rounding to storage. Stochastic rounding draws from a counter-based generator and `seed`: it is reproducible.
    overflow : {"ieee", "saturate"}
        ``ieee`` gives inf (NaN in float8_e4m3fn); ``saturate`` the largest finite value.
    subnormals : {"keep", "flush"}
        ``flush`` turns stored values below the smallest normal into signed zeros.
    derivative : {"exact", "stored_output"}
        ``stored_output`` forms phi' from the rounded output, as frameworks do (tanh' = 1 - h*h).
    seed : int
        Seed of stochastic rounding.

    Raises
    ------
    TypeError
        If the seed is no integer.
    ValueError
        If a field has an unknown value, or the combination has no meaning.
    """

    storage: str = "float32"
    operands: str | None = None
    accumulate: str = "float32"
    rounding: str = "nearest_even"
    overflow: str = "ieee"
    subnormals: str = "keep"
    derivative: str = "exact"
    seed: int = 0

    def __post_init__(self) -> None:
        storage = format_name(self.storage)
        operands = storage if self.operands is None else format_name(self.operands)
        object.__setattr__(self, "storage", _choice("Arithmetic", "storage", storage, STORAGE_FORMATS))
        object.__setattr__(self, "operands", operands)
        if operands != storage and (operands, storage) != ("tfloat32", "float32"):
            raise ValueError(
                f"Arithmetic: operands must be the storage format, or tfloat32 with float32 storage, got {operands!r} "
                f"with {storage!r}"
            )
        accumulate = accumulator(self.accumulate, "Arithmetic: accumulate")
        object.__setattr__(self, "accumulate", accumulate.name)
        if accumulate.unit is not None:
            find(accumulate, operands, operands, "Arithmetic")
        rounding_mode("Arithmetic", self.rounding, self.overflow, self.subnormals)
        _choice("Arithmetic", "derivative", self.derivative, DERIVATIVES)
        object.__setattr__(self, "seed", seed_of(self.seed, "Arithmetic"))

    @property
    def mode(self) -> tuple[int, int, int]:
        """Rounding, overflow and subnormals as the kernels take them."""
        return rounding_mode("Arithmetic", self.rounding, self.overflow, self.subnormals)

    @property
    def format_ids(self) -> tuple[int, int, int, int]:
        """Storage, operands, the accumulator's format and the matrix unit as the kernels take them."""
        ids, acc = format_ids(), accumulator(self.accumulate, "Arithmetic: accumulate")
        return ids[self.storage], ids[self.operands or self.storage], ids[acc.format], acc.unit_id

    def __str__(self) -> str:
        """Return the name of the preset, or a preset with its changes in brackets; `arithmetic` reads it back."""
        base, rest = _closest_preset(self)
        return base + (f"[{','.join(f'{k}={v}' for k, v in rest.items())}]" if rest else "")


ArithmeticLike: TypeAlias = "str | Arithmetic"

_PRESETS: dict[str, tuple[Arithmetic, str]] = {
    "float64": (Arithmetic("float64", accumulate="float64"), "IEEE double throughout"),
    "float32": (Arithmetic("float32"), "IEEE single throughout"),
    "tf32": (Arithmetic("float32", operands="tfloat32"), "float32 tensors, products of operands rounded to 11 bits"),
    "float16": (Arithmetic("float16"), "float16 tensors, float32 sums: what mixed-precision training runs"),
    "float16_pure": (Arithmetic("float16", accumulate="float16"), "float16 tensors and float16 sums"),
    "bfloat16": (Arithmetic("bfloat16"), "bfloat16 tensors, float32 sums"),
    "bfloat16_pure": (Arithmetic("bfloat16", accumulate="bfloat16"), "bfloat16 tensors and bfloat16 sums"),
    "float8_e4m3fn": (Arithmetic("float8_e4m3fn"), "OCP FP8 E4M3 tensors (no infinity), float32 sums"),
    "float8_e5m2": (Arithmetic("float8_e5m2"), "OCP FP8 E5M2 tensors, float32 sums"),
}
_NAMES = {"fp64": "float64", "fp32": "float32", "tfloat32": "tf32", "fp16": "float16", "bf16": "bfloat16",
          "e4m3": "float8_e4m3fn", "e5m2": "float8_e5m2"}  # fmt: skip
_OPERANDS = {**{short: name for short, name in _NAMES.items() if "tf" not in name}, "tf32": "tfloat32"}


@cache
def _unit_presets() -> dict[str, tuple[Arithmetic, str, str]]:
    """Every unit's default instructions as presets: the arithmetic, what it is, and how well it is known."""
    presets: dict[str, tuple[Arithmetic, str, str]] = {}
    for i in instructions():
        for operands in FLOAT8 if i.operands == "float8" else (i.operands,):
            storage = "float32" if operands == "tfloat32" else operands
            for fmt in i.accumulators:
                name = f"{operands}@{Accumulator(fmt, i.unit).name}"
                arithmetic = Arithmetic(storage, operands=operands, accumulate=Accumulator(fmt, i.unit).name)
                text = f"{operands} products on {i.unit} ({i.instruction}), {fmt} sums"
                evidence = "; ".join(EVIDENCE[letter] for letter in i.evidence)
                presets.setdefault(name, (arithmetic, text, evidence))
    return presets


def _preset(name: str) -> Arithmetic | None:
    name = _NAMES.get(name, name)
    if name in _PRESETS:
        return _PRESETS[name][0]
    operands, at, unit = name.partition("@")
    if not at:
        return None
    if operands in _OPERANDS:
        name = f"{_OPERANDS[operands]}@{unit}"
    if name in _unit_presets():
        return _unit_presets()[name][0]
    operands, _, unit = name.partition("@")
    storage = "float32" if operands == "tfloat32" else operands
    return Arithmetic(storage, operands=operands, accumulate=unit)  # which says why there is none


def _differences(a: Arithmetic, b: Arithmetic) -> dict[str, Any]:
    return {f: getattr(a, f) for f in a.__dataclass_fields__ if getattr(a, f) != getattr(b, f)}


def _closest_preset(a: Arithmetic) -> tuple[str, dict[str, Any]]:
    presets = {name: preset for name, (preset, _) in _PRESETS.items()}
    presets |= {name: preset for name, (preset, _, _) in _unit_presets().items()}
    name = min(presets, key=lambda name: len(_differences(a, presets[name])))
    return name, _differences(a, presets[name])


def arithmetic(name: ArithmeticLike) -> Arithmetic:
    """Return the arithmetic of this name.

    Parameters
    ----------
    name : str or Arithmetic
        A preset (see `arithmetics`), one of a matrix unit as ``"float16@hopper"``, a preset with changes as in
        ``"float16[overflow=saturate,seed=3]"``, or an `Arithmetic`, which is returned as it is.

    Returns
    -------
    Arithmetic

    Raises
    ------
    ValueError
        If there is no such preset or field.
    """
    if isinstance(name, Arithmetic):
        return name
    base, bracket, rest = str(name).partition("[")
    preset = _preset(base)
    if preset is None:
        raise ValueError(
            f"arithmetic: must be an Arithmetic or one of {', '.join(_PRESETS)}, or of a matrix unit as "
            f"float16@hopper, got {name!r}"
        )
    if not bracket:
        return preset
    if not rest.endswith("]"):
        raise ValueError(f"arithmetic: the bracket of {name!r} is not closed")
    changes: dict[str, Any] = {}
    for item in rest.removesuffix("]").split(","):
        field, _, value = (part.strip() for part in item.partition("="))
        if field not in preset.__dataclass_fields__:
            known = ", ".join(preset.__dataclass_fields__)
            raise ValueError(f"arithmetic: unknown field {field!r} in {name!r}; known: {known}")
        if field == "seed" and not value.isdecimal():
            raise ValueError(f"arithmetic: seed must be a whole number, got {value!r}")
        changes[field] = int(value) if field == "seed" else value
    return replace(preset, **changes)


@dataclass(frozen=True)
class ArithmeticInfo:
    """One preset: its name, what it is, and how well it is known."""

    name: str
    description: str
    evidence: str


def arithmetics() -> list[ArithmeticInfo]:
    """List the presets: name, what it is, and how well it is known."""
    exact = "defined: IEEE 754 fused multiply-add, bits tested on every instruction set"
    presets = [ArithmeticInfo(name, text, exact) for name, (_, text) in _PRESETS.items()]
    return presets + [ArithmeticInfo(name, text, evidence) for name, (_, text, evidence) in _unit_presets().items()]
