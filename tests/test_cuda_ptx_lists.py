"""The kernels over lists of tensors, run from their PTX by an interpreter, against the CPU: the same bits."""

from __future__ import annotations

import ctypes

import numpy as np
import ptx_arguments as c
import ptx_kernels
import pytest
from conftest import SPECS, assert_same, bits
from ptx_kernels import slow_but
from ptx_memory import Memory
from ptx_tensors import CHUNK, numbers, stored, tensor

from gradkern import _core

pytestmark = pytest.mark.skipif(ptx_kernels.MISSING is not None, reason=f"PTX cannot be made: {ptx_kernels.MISSING}")

THREADS = 128
# Of each list: sizes, and by how many entries a tensor is moved from where 16 bytes begin.
LIST = [(3000, 0), (1, 0), (0, 0), (517, 1)]
ORDERED = [*((fmt, "together") for fmt in c.FORMATS), ("float16", "first"), ("float32", "last")]


def listed(memory, fmt, tensors, struct, addresses):
    """What is common to all lists, the number of their chunks and the descriptors."""
    first = np.cumsum([0, *(-(-t.size // CHUNK) for t in tensors)])
    descriptors = (struct * len(tensors))(
        *(struct(t.size, c.FORMATS.index(fmt), *at) for t, at in zip(tensors, addresses, strict=True))
    )
    where = c.Chunks(memory.upload(first), len(tensors), int(first[-1]))
    return where, memory.upload(descriptors), first.tolist()


def binades(fmt):
    """The first binade and how many there are, of which a kernel counts the cells."""
    spec = SPECS[fmt]
    return spec.emin - spec.p + 1, int(np.frexp(spec.max)[1]) - spec.emin + spec.p - 1


@pytest.mark.parametrize(("fmt", "order"), slow_but(ORDERED, ("float8_e5m2", "together"), ("float32", "last")))
def test_statistics(kernels, fmt, order):
    memory, tensors = Memory(), [numbers(fmt, size, size) for size, _ in LIST if size]
    cancelling = stored(100 + np.random.default_rng(2).standard_normal(2100) / 64, fmt)
    constant = stored(np.full(300, -1.25), fmt)
    huge = stored(
        np.random.default_rng(1).standard_normal(400) * 2.0 ** (600 if fmt == "float64" else -SPECS[fmt].emin // 2), fmt
    )
    tensors = [
        t[np.isfinite(t.astype(np.float64))] if i else t for i, t in enumerate([*tensors, huge, cancelling, constant])
    ]
    addresses = [(tensor(memory, t, i % 2), 0) for i, t in enumerate(tensors)]
    where, descriptors, first = listed(memory, fmt, tensors, c.Tensor, addresses)
    low, count = binades(fmt)
    cells = memory.upload(np.zeros((len(tensors), count, 6), np.int64))
    partials = memory.allocate(c.STATISTICS_CHUNK.itemsize * first[-1])
    args = c.Statistics(where, c.FORMATS.index(fmt), descriptors, partials, cells)
    kernels.launch("statistics", f"statistics_kernel<{fmt}>", memory, first[-1], THREADS, args, order=order)
    found = memory.fetch(partials, c.STATISTICS_CHUNK, first[-1])
    rows = memory.fetch(cells, np.int64, len(tensors) * count * 6).reshape(-1, count, 6)
    for part, counted, t in zip(found, rows, tensors, strict=True):
        want = _core.statistics_of(bits(t), c.FORMATS.index(fmt))
        for name in c.STATISTICS_CHUNK.names:
            assert np.array_equal(part[name], want[name]), (fmt, t.size, name, part[name], want[name])
        full = np.zeros((count, 6), np.int64)
        full[want["first_binade"] - low : want["first_binade"] - low + len(want["cells"])] = want["cells"]
        assert np.array_equal(counted, full)


@pytest.mark.parametrize("fmt", ["float8_e4m3fn", "float8_e5m2"])
def test_patterns(kernels, fmt):
    dtype, rng = np.dtype(SPECS[fmt].dtype), np.random.default_rng(2)
    patterns = 256
    for size, misaligned, blocks in [(5000, 0, 2), (37, 1, 1)]:
        memory, raw = Memory(), bits(numbers(fmt, size)).copy()
        raw[::3] = rng.integers(0, patterns, raw[::3].size)
        counts = memory.upload(np.zeros(patterns, np.int64))
        first = memory.upload(np.array([2**63 - 1]))
        parameters = [ctypes.c_int64(v) for v in (tensor(memory, raw, misaligned), size, counts, first)]
        kernels.launch("patterns", f"patterns_kernel<{fmt}>", memory, blocks, 768, *parameters, dynamic_shared=4 * 8192)
        assert np.array_equal(memory.fetch(counts, np.int64, patterns), np.bincount(raw, minlength=patterns))
        bad = np.flatnonzero(~np.isfinite(raw.view(dtype).astype(np.float64)))
        assert memory.fetch(first, np.int64, 1)[0] == bad[0]


@pytest.mark.slow
@pytest.mark.parametrize(("fmt", "order"), ORDERED)
def test_clip_survey(kernels, fmt, order):
    memory, tensors = Memory(), [numbers(fmt, size, size, wide=30) for size, _ in LIST]
    addresses = [(tensor(memory, t, moved), 0) for t, (_, moved) in zip(tensors, LIST, strict=True)]
    where, descriptors, first = listed(memory, fmt, tensors, c.Gradient, addresses)
    for norm in range(3):
        partials = memory.allocate(c.SURVEY.itemsize * first[-1])
        args = c.Clip(where, c.FORMATS.index(fmt), descriptors), ctypes.c_int32(norm), ctypes.c_int64(partials)
        kernels.launch("clip", f"survey_kernel<{fmt}>", memory, first[-1], THREADS, *args, order=order)
        found = memory.fetch(partials, c.SURVEY, first[-1])
        whole = [t for t in tensors if t.size]
        records, _ = _core.ClipGroup([bits(t) for t in whole], [], [c.FORMATS.index(fmt)] * len(whole)).survey(norm, 0)
        for part, want in zip(found, records, strict=True):
            for name in ("nan", "inf", "first_nonfinite", "amax"):
                assert part[name] == want[name], (fmt, norm, name)
            assert norm_of(part, norm) == (want["mantissa"], want["exponent"]), (fmt, norm)


def norm_of(part, norm):
    """Mantissa and exponent of a norm by its three sums in two words, as csrc/ops/clip.hpp says."""
    if norm == 2:
        return part["amax"], 0
    big, medium, small = part["sums"].sum(axis=1)
    range_ = 1 if big else 0 if medium else -1
    down = (lambda x: x * 2.0**-600 * 2.0**-600) if norm == 1 else (lambda x: x * 2.0**-600)
    total = [small, medium + down(small), big + down(medium)][range_ + 1]
    return np.sqrt(total) if norm == 1 else total, 600 * range_


ZEROED = [(fmt, zero) for fmt in c.FORMATS for zero in (False, True)]  # and whether what is not finite becomes zero


@pytest.mark.slow
@pytest.mark.parametrize(("fmt", "zero"), ZEROED)
def test_clip_scale(kernels, fmt, zero):  # factors have 24 bits
    factors = [(float(np.float32(0.37)), 1.0, True), (2.0**-20, 0.5, True), (1.0, 1.0, True), (3.0, 1.0, False)]
    changed(kernels, "clip", "scale", fmt, zero, factors)


@pytest.mark.parametrize(("fmt", "zero"), slow_but(ZEROED, ("float64", False), ("bfloat16", True)))
def test_clip_clamp(kernels, fmt, zero):
    bounds = [(-0.5, 0.25, True), (-2.0, 2.0, True), (0.0, 1.0, True), (-1.0, 1.0, False)]
    changed(kernels, "clip_value", "clamp", fmt, zero, bounds)


def changed(kernels, file, what, fmt, zero, limits):
    """Tensors in place and elsewhere: results and counts."""
    memory, tensors = Memory(), [numbers(fmt, size, size) for size, _ in LIST]
    sources = [tensor(memory, t, moved) for t, (_, moved) in zip(tensors, LIST, strict=True)]
    targets = [sources[0], memory.allocate(tensors[1].nbytes), sources[2], sources[3]]
    where, descriptors, first = listed(memory, fmt, tensors, c.Gradient, list(zip(sources, targets, strict=True)))
    partials = memory.allocate(c.CLIP_COUNTS.itemsize * first[-1])
    given = memory.upload((c.Factor * len(limits))(*(c.Factor(*limit) for limit in limits)))
    args = (
        c.Clip(where, c.FORMATS.index(fmt), descriptors),
        ctypes.c_int64(given),
        ctypes.c_bool(zero),
        ctypes.c_int64(partials),
    )
    kernels.launch(file, f"{what}_kernel<{fmt}>", memory, first[-1], THREADS, *args)
    found = iter(memory.fetch(partials, c.CLIP_COUNTS, first[-1]))
    for t, at, (low, high, write) in zip(tensors, targets, limits, strict=True):
        if not t.size:
            continue
        want = t.copy()
        group = _core.ClipGroup([bits(t)], [bits(want)], [c.FORMATS.index(fmt)])
        group.survey(1, 1)
        counts = getattr(group, what)([low], [high], [write], zero, [])
        assert_same(memory.fetch(at, t.dtype, t.size), want, f"{what} {fmt}")
        assert next(found).tolist() == tuple(int(x) for x in np.asarray(counts).ravel()[:4]), (what, fmt)
