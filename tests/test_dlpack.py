"""Our reader of DLPack capsules against a producer whose every field is set by hand."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import SPECS, all_patterns, assert_same, assert_same_values, bits
from dlpack_producer import (
    CUDA_HOST,
    CUDA_MANAGED,
    LEGACY,
    ROCM,
    VERSIONED,
    OldProducer,
    Producer,
    capsule_name,
)

import gradkern as gk
from gradkern import _core
from gradkern._arrays import read

FORMATS = [name for name in SPECS if name != "tfloat32"]
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
PRODUCERS = [Producer, OldProducer]


def sample(fmt, shape=(4, 6)):
    """Distinct values of a format, the last ones negative."""
    return np.linspace(9, -3, int(np.prod(shape))).reshape(shape).astype(SPECS[fmt].dtype)


@pytest.mark.parametrize("producer", PRODUCERS)
@pytest.mark.parametrize("fmt", FORMATS)
def test_view_of_every_format(fmt, producer):
    array = sample(fmt)
    source = producer(array)
    got = read(source, "x")
    assert (got.format, got.bits.ctypes.data) == (fmt, array.ctypes.data)
    assert_same(got.values, array)
    part = got.bits[1:]
    del got
    assert source.deleted == 0, "a view of the view still reads the memory"
    del part
    assert source.deleted == 1


@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_every_pattern_arrives(fmt):
    patterns = all_patterns(fmt)
    assert np.array_equal(read(Producer(patterns), "x").bits, bits(patterns))


@pytest.mark.parametrize("producer", PRODUCERS)
@pytest.mark.parametrize("name", INTEGERS)
def test_integers_become_float64(name, producer):
    limits = np.iinfo(name)
    array = np.array([0, 1, limits.min, limits.max, 77], name)
    source = producer(array)
    got = read(source, "x")
    assert got.format == "float64" and got.values.tolist() == [float(v) for v in array.tolist()]
    assert source.deleted == 1, "the values were copied: the memory is not needed any more"


VIEWS = {
    "transposed": lambda a: a.T, "steps": lambda a: a[::2, ::3], "negative steps": lambda a: a[::-1, ::-2],
    "broadcast": lambda a: np.broadcast_to(a[1], (3, 6)), "row": lambda a: a[2], "column": lambda a: a[:, 1],
    "0-d": lambda a: a[1, 2], "empty": lambda a: a[:0], "empty inside": lambda a: a[:, 2:2],
}  # fmt: skip


@pytest.mark.parametrize("offset", [0, 1, 8, 24])
@pytest.mark.parametrize("view", list(VIEWS))
@pytest.mark.parametrize("fmt", FORMATS)
def test_shapes_strides_and_offsets(fmt, view, offset):
    array = np.asarray(VIEWS[view](sample(fmt)))
    for producer in PRODUCERS:
        source = producer(array, offset=offset)
        result = gk.cast(source, "float64")
        assert isinstance(result.values, np.ndarray)
        assert_same_values(result.values, array)
        assert source.deleted == 1


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (24,), (4, 6), (2, 3, 4)])
def test_null_pointers(shape):
    """Null strides mean C-contiguous, 0-d needs no shape, an empty tensor no data."""
    array = sample("bfloat16", shape)
    fields = {"strides": None} | ({"shape": None} if shape == () else {}) | ({"data": None} if 0 in shape else {})
    assert_same(read(Producer(array, **fields), "x").values, array)


def test_misaligned_memory():
    raw = np.zeros(8 * 5 + 1, np.uint8)
    array = raw[1:].view(np.float64)
    array[:] = [1, 2, 3, 4, 5]
    for thing in (array, Producer(array)):
        got = read(thing, "x")
        assert got.bits.flags.aligned and got.values.tolist() == [1, 2, 3, 4, 5]


def test_only_a_versioned_capsule_without_the_flag_may_be_written():
    array = sample("float16")
    for source, writeable in ((Producer(array), True), (Producer(array, flags=1), False), (OldProducer(array), False)):
        view, name = _core.dlpack_view(source.__dlpack__())
        assert (view.flags.writeable, view.dtype, name) == (writeable, np.uint16, "float16")
        assert view.base is not None and np.array_equal(view, bits(array))


@pytest.mark.parametrize("device", [(CUDA_HOST, 0), (CUDA_MANAGED, 1)])
def test_host_memory_of_a_device_is_read(device):
    assert_same(read(Producer(sample("float32"), device=device), "x").values, sample("float32"))


def test_a_null_deleter_is_not_called():
    source = Producer(sample("float32"), deleter=False)
    assert_same(read(source, "x").values, sample("float32"))
    assert source.deleted == 0


REFUSED = [
    ({"device": (ROCM, 0)}, "on ROCm device 0"),
    ({"device": (99, 4)}, "on device 4 of DLPack's device type 99"),
    ({"lanes": 2}, "code 2, 32 bits, 2 lanes"),
    ({"lanes": 0}, "code 2, 32 bits, 0 lanes"),
    ({"type": (2, 0)}, "code 2, 0 bits"),
    ({"type": (2, 8)}, "code 2, 8 bits"),
    ({"type": (2, 128)}, "code 2, 128 bits"),
    ({"type": (0, 4)}, "code 0, 4 bits"),
    ({"type": (1, 24)}, "code 1, 24 bits"),
    ({"type": (3, 64)}, "code 3, 64 bits"),
    ({"type": (4, 32)}, "code 4, 32 bits"),
    ({"type": (5, 64)}, "code 5, 64 bits"),
    ({"type": (6, 1)}, "code 6, 1 bits"),
    ({"type": (6, 8)}, "got bool"),
    ({"type": (10, 16)}, "code 10, 16 bits"),
    ({"type": (11, 8)}, "code 11, 8 bits"),
    ({"type": (12, 4)}, "code 12, 4 bits"),
    ({"type": (17, 4)}, "code 17, 4 bits"),
    ({"ndim": -1}, "-1 dimensions"),
    ({"ndim": 65}, "65 dimensions"),
    ({"shape": None, "ndim": 2}, "2 dimensions without a shape"),
    ({"shape": (4, -6)}, "a dimension of -6"),
    ({"shape": (2**40, 2**40)}, "more bytes than an address can count"),
    ({"shape": (0, 2**40, 2**40), "strides": None}, "more bytes than an address can count"),
    ({"strides": (2**62, 1)}, "more bytes than an address can count"),
    ({"data": None}, "no data"),
]


@pytest.mark.parametrize("capsule", [VERSIONED, LEGACY])
@pytest.mark.parametrize("fields, message", REFUSED)
def test_refusals_say_what_was_given_and_free_it(fields, message, capsule):
    source = Producer(sample("float32"), capsule=capsule, **fields)
    with pytest.raises(TypeError, match=f"^measure: x: .*{message}"):
        gk.measure(source)
    assert source.deleted == 1


@pytest.mark.parametrize("version, known", [((0, 9), False), ((1, 0), True), ((1, 9), True), ((2, 0), False)])
def test_of_another_major_version_only_the_deleter_is_touched(version, known):
    source = Producer(sample("float32"), version=version, **({} if known else {"shape": None, "ndim": 7}))
    if known:
        assert_same(read(source, "x").values, sample("float32"))
    else:
        with pytest.raises(TypeError, match=f"DLPack version {version[0]} is not supported"):
            read(source, "x")
    assert source.deleted == 1


@pytest.mark.parametrize("capsule", [VERSIONED, LEGACY])
def test_a_capsule_is_used_once(capsule):
    source = Producer(sample("float32"), capsule=capsule)
    taken = source.__dlpack__()
    view, _ = _core.dlpack_view(taken)
    assert capsule_name(taken) == b"used_" + capsule
    with pytest.raises(TypeError, match="not a DLPack capsule that is still unused"):
        _core.dlpack_view(taken)
    del taken
    assert source.deleted == 0 and np.array_equal(view, bits(sample("float32")))
    del view
    assert source.deleted == 1


@pytest.mark.parametrize("thing", [5, None, "dltensor", np.ones(3)])
def test_what_is_not_a_capsule(thing):
    class Wrong:
        def __dlpack__(self, **_):
            return thing

    with pytest.raises(TypeError, match=r"^cast: x: not a DLPack capsule"):
        gk.cast(Wrong(), "float16")


@pytest.mark.parametrize("error", [BufferError, RuntimeError, ValueError, TypeError])
def test_a_producer_that_refuses(error):
    class Refuses:
        def __dlpack__(self, **_):
            raise error("never mind why")

    array = sample("float64")

    class HasMore(Refuses):
        __array_interface__ = array.__array_interface__

    with pytest.raises(TypeError, match=r"^cast: x: Refuses does not give its memory \(never mind why\)"):
        gk.cast(Refuses(), "float16")
    assert read(HasMore(), "x").bits.ctypes.data == array.ctypes.data
