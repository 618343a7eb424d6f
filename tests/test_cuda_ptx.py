"""The kernels over tensors, run from their PTX by an interpreter, against the CPU: the same bits."""

from __future__ import annotations

import ctypes

import cubins
import numpy as np
import ptx_arguments as c
import ptx_kernels
import ptx_run
import pytest
from conftest import SPECS, assert_same, bits
from ptx_kernels import slow_but
from ptx_memory import Memory
from ptx_tensors import CHUNK, numbers, stored, tensor

from gradkern import _core

pytestmark = pytest.mark.skipif(ptx_kernels.MISSING is not None, reason=f"PTX cannot be made: {ptx_kernels.MISSING}")

ROUNDINGS = {"nearest_even": 0, "toward_zero": 1, "stochastic": 2}
# Small enough for an interpreter, ragged; one is a whole group of a warp and more.
RAGGED = [1, 17, 700]


def squares(partials, name):
    """Three sums, those of the chunks one after another."""
    total = np.zeros(3)
    for part in partials:
        total = total + part[name]
    return tuple(total.tolist())


def same_counts(got, want):
    """Of two dicts, by name; sums by their bits."""
    assert {k: np.asarray(v).tolist() for k, v in got.items()} == {k: np.asarray(v).tolist() for k, v in want.items()}


def first_of(values):
    """The first that is an index."""
    return next((int(v) for v in values if v >= 0), -1)


FILES = [path.stem for path in cubins.kernel_sources()]
QUICK = [
    file for file in FILES if file not in ("table", "mma", "mma_float8", "clip")
]  # whose kernels tests run by default


@pytest.mark.parametrize("file", slow_but(FILES, *QUICK))
def test_nothing_but_known_instructions(kernels, file):
    """No calls, no local memory, no functions: every instruction of every entry is one that the interpreter runs."""
    entries = kernels.entries(file)
    assert bool(entries) == (file not in ("table", "mma"))
    assert ptx_run.unknown_opcodes(entries.values()) == set()
    assert ptx_kernels.outside_of_entries(kernels.directory / f"{file}.sm_{ptx_kernels.ARCHITECTURE}.ptx") == []


CONVERSIONS = [
    # source, stored, scale, rounding, saturates, flushes
    ("float32", "float16", 1.0, "nearest_even", False, False),
    ("float32", "float8_e4m3fn", 0.25, "nearest_even", False, True),
    ("float32", "tfloat32", 1.0, "nearest_even", False, False),
    ("float16", "float8_e5m2", 2.0, "nearest_even", True, False),
    ("float64", "float32", 1.0, "nearest_even", False, False),
    ("float64", "bfloat16", 1.0, "nearest_even", True, False),
    ("float32", "bfloat16", 1.0, "stochastic", False, False),
    ("float64", "float16", 1.0, "toward_zero", False, True),
]


def random_key(seed, stream):
    """The random bits of a tensor, from which those of its entries come: formats/encode.hpp."""
    z, mask = (seed * 0xD1342543DE82EF95 + (stream + 1) * 0x9E3779B97F4A7C15) & 2**64 - 1, 2**64 - 1
    for _ in range(2):
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        z ^= z >> 31
    return z


def kind_of_conversion(source, fmt, scale, rounding):
    """The lane type of a conversion, and whether it is the one to nearest even."""
    nearest, power = rounding == "nearest_even", np.frexp(scale)[0] == 0.5
    return "float" if nearest and power and "float64" not in (source, fmt) else "double", nearest


@pytest.mark.parametrize(
    ("source", "fmt", "scale", "rounding", "saturate", "flush"), slow_but(CONVERSIONS, CONVERSIONS[1], CONVERSIONS[6])
)
@pytest.mark.parametrize("misaligned", [0, 1])
@pytest.mark.parametrize("reports", [False, True])
def test_convert(kernels, source, fmt, scale, rounding, saturate, flush, misaligned, reports, sizes=RAGGED):
    lane, nearest = kind_of_conversion(source, fmt, scale, rounding)
    mode = (ROUNDINGS[rounding], int(saturate), int(flush), 7)
    for size in sizes:
        x, memory = numbers(source, size, wide=24), Memory()
        want = np.zeros(size, SPECS[fmt].dtype)
        counts = _core.convert(bits(x), c.FORMATS.index(source), bits(want), c.FORMATS.index(fmt), scale, *mode, 3)
        at, chunks = memory.allocate(want.nbytes, misaligned * want.itemsize), -(-size // CHUNK)
        partials = memory.allocate(c.ROUNDING_COUNTS.itemsize * chunks) if reports else 0
        empty = c.ConvertOwn(0, 0, 0, 0, 0)
        own = c.ConvertOwn(size, tensor(memory, x, misaligned), at, random_key(mode[3], 3), partials)
        others = [empty] * (size % 3)  # before it, in the same launch
        scales = c.Scale32 if lane == "float" else c.Scale64
        work = c.ConvertWork[scales](c.FORMATS.index(source), not misaligned, flush, scale != 1, scale, c.Mode(*mode),
                                     scales(scale, 1 / scale), (c.ConvertOwn * c.TOGETHER)(*others, own))  # fmt: skip
        name = f"{'report' if reports else 'convert'}_kernel<{fmt}, {lane}, {str(nearest).lower()}>"
        grid, threads = (chunks, 512) if reports else (-(-size // (2048 if lane == "float" else 1024)), 256)
        kernels.launch("convert", name, memory, (grid, len(others) + 1), threads, work)
        assert_same(memory.fetch(at, want.dtype, size), want, f"{name} of {size}")
        if reports:
            found = memory.fetch(partials, c.ROUNDING_COUNTS, chunks)
            got = dict(zip(c.EVENTS, found["events"].sum(axis=0).tolist(), strict=True))
            got |= {"first_overflow": first_of(found["first_overflow"]), "first_flushed": first_of(found["first_flushed"]),
                    "max_ulp": found["max_ulp"].max()}  # fmt: skip
            same_counts(got | {name: squares(found, name) for name in ("signal", "noise")}, counts)


@pytest.mark.parametrize("reports", [False, True])
@pytest.mark.parametrize("fmt", slow_but(c.FORMATS, "float16"))
def test_every_conversion(kernels, fmt, reports):
    """Of both lane types, to nearest even and otherwise."""
    for source, rounding in [("float64", "nearest_even"), ("bfloat16", "nearest_even"), ("float32", "stochastic")]:
        test_convert(kernels, source, fmt, 1.0, rounding, False, False, 0, reports, [300])


@pytest.mark.slow
@pytest.mark.parametrize("reports", [False, True])
@pytest.mark.parametrize("source", c.FORMATS)
@pytest.mark.parametrize("fmt", c.FORMATS)
def test_every_pair_of_formats(kernels, source, fmt, reports):
    """Every way in which a kernel loads and stores, with flushing and saturation."""
    for rounding in ROUNDINGS:
        for scale, flush, misaligned in [(1.0, False, 0), (2.0**-4, True, 1), (3.0, False, 0)]:
            test_convert(kernels, source, fmt, scale, rounding, flush, flush, misaligned, reports, [500])


@pytest.mark.parametrize("reports", [False, True])
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("fmt", slow_but(c.FORMATS, "float64", "float8_e4m3fn"))
def test_update(kernels, fmt, rounding, reports, gradient_format="float32"):
    mode = (ROUNDINGS[rounding], 0, 0, 11)
    for size, misaligned in [(700, 0), (130, 1)]:
        w, g, memory = numbers(fmt, size), numbers(gradient_format, size, 1), Memory()
        want = np.zeros_like(w)
        ids = c.FORMATS.index(fmt), c.FORMATS.index(gradient_format)
        counts = _core.update(bits(w), ids[0], bits(g), ids[1], bits(want), 0.125, *mode, 5)
        at, chunks = memory.allocate(want.nbytes, misaligned * want.itemsize), -(-size // CHUNK)
        partials = memory.allocate(c.UPDATE_COUNTS.itemsize * chunks) if reports else 0
        args = c.Update(size, ids[0], tensor(memory, w, misaligned), ids[1], tensor(memory, g, misaligned), at, 0.125,
                        c.Mode(*mode), 5, partials)  # fmt: skip
        name = f"{'report' if reports else 'update'}_kernel<{fmt}, {str(rounding == 'nearest_even').lower()}>"
        grid, threads = (chunks, 512) if reports else (-(-size // 1024), 256)
        plan = c.UpdatePlan(random_key(mode[3], 5), not misaligned, False)
        kernels.launch("update", name, memory, grid, threads, args, plan)
        assert_same(memory.fetch(at, want.dtype, size), want, f"{name} of {size}")
        if reports:
            (found,) = memory.fetch(partials, c.UPDATE_COUNTS, 1)
            same_counts({name: found[name] for name in c.UPDATE_COUNTS.names}, counts)


@pytest.mark.slow
@pytest.mark.parametrize("reports", [False, True])
@pytest.mark.parametrize("gradient_format", c.FORMATS)
@pytest.mark.parametrize("fmt", c.FORMATS)
def test_every_gradient(kernels, fmt, gradient_format, reports):
    for rounding in ROUNDINGS:
        test_update(kernels, fmt, rounding, reports, gradient_format)


@pytest.mark.parametrize("width", slow_but([4, 8], 8))
def test_elementary(kernels, width):
    kind, dtype, function = (
        ("float", np.float32, _core.elementary_f32) if width == 4 else ("double", np.float64, _core.elementary_f64)
    )
    names = _core.elementary_names
    for number, name in enumerate(names() if callable(names) else names):
        for size, misaligned in [(1027, 0), (5, 1)]:
            memory, x = Memory(), numbers("float32" if width == 4 else "float64", size)
            at = memory.allocate(x.nbytes, misaligned * width)
            parameters = (ctypes.c_uint64(tensor(memory, x, misaligned)), ctypes.c_uint64(at), ctypes.c_int64(size),
                          ctypes.c_bool(not misaligned))  # fmt: skip
            grid = -(-size * width // 4096)
            kernels.launch("elementary", f"elementary_kernel<{number}, {kind}>", memory, grid, 256, *parameters)
            assert_same(memory.fetch(at, dtype, size), np.asarray(function(name, x)), name)


ACTIVATIONS = {"sigmoid": "sigmoid_activation", "tanh": "tanh_activation"}


@pytest.mark.parametrize("fmt", slow_but(["float64", "float32", "float16", "float8_e5m2"], "float16"))
def test_activations(kernels, fmt):
    kind, wide = ("double", np.float64) if fmt == "float64" else ("float", np.float32)
    names, size = _core.activation_names, 777
    for number, name in enumerate(names() if callable(names) else names):
        memory, z, dh = Memory(), numbers(fmt, size), numbers(fmt, size, 1)
        entry, id_ = ACTIVATIONS.get(name, name), c.FORMATS.index(fmt)
        addresses = [tensor(memory, z), tensor(memory, dh)]
        for derivative in (None, "exact", "stored_output"):
            want = _core.activation_forward(bits(z), id_, number, 0.5)
            h = stored(want, fmt)
            out, slope = memory.allocate(size * wide().nbytes), memory.allocate(size * wide().nbytes)
            output = tensor(memory, h) if derivative == "stored_output" else 0
            args = c.Activation(size, number, 0.5, id_, *addresses, output, out, slope if derivative else 0)
            direction = "backward" if derivative else "forward"
            if derivative:
                want = _core.activation_backward(bits(dh), bits(z), bits(h) if output else None, id_, number, 0.5)
            grid = -(-size * wide().nbytes // 4096)
            kernels.launch(
                "activation", f"{direction}_kernel<{entry}, {kind}>", memory, grid, 256, args, ctypes.c_bool(True)
            )
            assert_same(memory.fetch(out, wide, size), np.asarray(want), f"{direction} {name} {derivative}")


def test_errors(kernels):
    """Squares of stored * 2^power - truth, against sums in lanes by NumPy."""
    for fmt, size, power in [("float16", 900, 3), ("float64", 100, -1), ("float32", 33, 0)]:
        memory, x = Memory(), stored(np.random.default_rng(5).standard_normal(size), fmt)
        truth = x.astype(np.float64) * 2.0**power * (1 + 2.0**-9)
        args = c.Errors(size, c.FORMATS.index(fmt), tensor(memory, x), tensor(memory, truth), 2.0**power, power)
        partials = memory.allocate(c.ERROR_SUMS.itemsize)
        parameters = (args, c.Factors(1, 2.0**power), ctypes.c_bool(True), ctypes.c_uint64(partials))
        kernels.launch("errors", "errors_kernel", memory, 1, 512, *parameters)
        (found,) = memory.fetch(partials, c.ERROR_SUMS, 1)
        for name, values in (("error", x.astype(np.float64) * 2.0**power - truth), ("truth", truth)):
            lanes = np.zeros((-(-size // 16), 16))
            lanes.flat[:size] = values
            sums = np.add.accumulate(lanes**2, axis=0)[-1]  # each lane in order, then the lanes, folded
            while sums.size > 1:
                sums = sums[: sums.size // 2] + sums[sums.size // 2 :]
            assert found[name].tolist() == [0, sums[0], 0], (fmt, name)
        assert not found["nonfinite"] and not found["infinite"]
