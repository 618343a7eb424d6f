"""A hand-made DLPack producer: every field of its capsules can be set, and calls of its deleter are counted."""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p

import numpy as np

CODES = {"int": 0, "uint": 1, "float": 2, "bfloat16": 4, "bool": 6, "float8_e4m3fn": 10, "float8_e5m2": 12}
CPU, CUDA, CUDA_HOST, ROCM, CUDA_MANAGED = 1, 2, 3, 10, 13
LEGACY, VERSIONED = b"dltensor", b"dltensor_versioned"
_CALLBACK = ctypes.CFUNCTYPE(None, c_void_p)
_kept = []  # callbacks, for as long as any capsule might call them

_api = ctypes.PyDLL(None)
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = [c_void_p, c_char_p, _CALLBACK]
_api.PyCapsule_IsValid.argtypes = [c_void_p, c_char_p]
_api.PyCapsule_GetName.restype = c_char_p
_api.PyCapsule_GetName.argtypes = [ctypes.py_object]


def capsule_name(capsule) -> bytes:
    """Name of a capsule, which says whether it was used."""
    return _api.PyCapsule_GetName(capsule)


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", c_void_p), ("device_type", c_int32), ("device_id", c_int32), ("ndim", c_int32),
        ("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16),
        ("shape", ctypes.POINTER(c_int64)), ("strides", ctypes.POINTER(c_int64)), ("byte_offset", c_uint64),
    ]  # fmt: skip


class _Legacy(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("context", c_void_p), ("deleter", _CALLBACK)]


class _Versioned(ctypes.Structure):
    _fields_ = [
        ("major", c_uint32), ("minor", c_uint32), ("context", c_void_p), ("deleter", _CALLBACK), ("flags", c_uint64),
        ("tensor", _Tensor),
    ]  # fmt: skip


def type_of(dtype: np.dtype) -> tuple[int, int]:
    """DLPack's code and bits of a NumPy or ml_dtypes dtype."""
    name = dtype.name
    return CODES[name if name in CODES else name.rstrip("0123456789")], 8 * dtype.itemsize


class Producer:
    """Exports an array by DLPack; keywords replace what the capsule says of it."""

    def __init__(self, array, *, capsule=VERSIONED, version=(1, 0), flags=0, deleter=True, offset=0, **fields):
        self.array, self.capsule_name, self.version, self.flags = array, capsule, version, flags
        self.with_deleter, self.offset, self.fields = deleter, offset, fields
        self.deleted = 0

    def __dlpack_device__(self):
        return self.fields.get("device", (CPU, 0))

    def __dlpack__(self, *, max_version=None, **_):
        a, fields = self.array, self.fields
        code, bits = fields.get("type") or type_of(a.dtype)
        shape = fields.get("shape", a.shape)
        strides = fields.get("strides", tuple(s // a.itemsize for s in a.strides))
        keep = [(c_int64 * len(v))(*v) if v is not None else None for v in (shape, strides)]
        tensor = _Tensor(
            fields.get("data", a.ctypes.data - self.offset), *self.__dlpack_device__(),
            fields.get("ndim", len(shape or ())), code, bits, fields.get("lanes", 1), *keep, self.offset,
        )  # fmt: skip

        def delete(_pointer):
            self.deleted += 1

        def destroy(capsule):  # as real producers' capsules do: only if nobody took the tensor
            if _api.PyCapsule_IsValid(capsule, self.capsule_name):
                delete(None)

        deleter = _CALLBACK(delete) if self.with_deleter else _CALLBACK()
        if self.capsule_name == VERSIONED:
            managed = _Versioned(*self.version, None, deleter, self.flags, tensor)
        else:
            managed = _Legacy(tensor, None, deleter)
        destructor = _CALLBACK(destroy)
        _kept.append((managed, deleter, destructor, keep, a))
        return _api.PyCapsule_New(ctypes.addressof(managed), self.capsule_name, destructor)


class OldProducer(Producer):
    """One from before DLPack 1.0, which has not heard of max_version."""

    def __init__(self, array, **fields):
        super().__init__(array, capsule=LEGACY, **fields)

    def __dlpack__(self, stream=None):
        return super().__dlpack__()


class OnlyDlpack:
    """Hides all of an array but its DLPack methods."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()
