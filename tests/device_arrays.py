"""Producers of device memory that are no library: they claim to be CUDA's and note what they are asked for."""

from __future__ import annotations

import ctypes

from dlpack_producer import CUDA, Producer

from gradkern import _core


def on_device(array, library="simt"):
    """Return a copy in a device's memory."""
    return _core.DeviceArray.from_host(array, library)


def synchronizations() -> int:
    """How often the simt library waited for its device."""
    path = _core.__file__.rpartition("/")[0] + "/libgradkern_simt.so"
    return ctypes.CDLL(path).gradkern_simt_synchronizations()


class CudaProducer(Producer):
    """DLPack of memory on CUDA device 0."""

    def __init__(self, array, **fields):
        self.memory, self.streams = on_device(array), []
        super().__init__(array, **({"device": (CUDA, 0), "data": self.memory.pointer} | fields))

    def __dlpack__(self, *, stream=None, max_version=None, **_):
        self.streams.append(stream)
        return super().__dlpack__(max_version=max_version)


class CudaInterface:
    """__cuda_array_interface__ and nothing else."""

    def __init__(self, array, **fields):
        self.memory = on_device(array)
        self.__cuda_array_interface__ = {
            "shape": array.shape, "typestr": array.dtype.str, "data": (self.memory.pointer, False), "version": 3,
            "strides": None, **fields,
        }  # fmt: skip
