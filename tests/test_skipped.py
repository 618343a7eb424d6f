"""Tensors of PyTorch without entries in memory: skipped among others, refused alone; never a crash."""

from __future__ import annotations

import numpy as np
import pytest

import gradkern as gk

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # nested and quantized tensors are prototypes


def odd_tensors():
    made = {
        "sparse": (torch.eye(3).to_sparse(), "must be dense, got layout torch.sparse_coo; use .to_dense()"),
        "csr": (torch.eye(3).to_sparse_csr(), "must be dense, got layout torch.sparse_csr; use .to_dense()"),
        "meta": (torch.ones(2, device="meta"), "a meta tensor has no values"),
        "nested": (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "a nested tensor is not one array; use .unbind()"),
        "jagged": (
            torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
            "a nested tensor is not one array; use .unbind()",
        ),
        "quantized": (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8), "got torch.quint8; use .dequantize()"),
        "lazy": (torch.nn.LazyLinear(3).weight, "a parameter of a lazy module that has not run yet has no values"),
    }  # fmt: skip
    return made


@pytest.mark.parametrize("name", ["sparse", "csr", "meta", "nested", "jagged", "quantized", "lazy"])
def test_odd_tensors_are_skipped_with_the_reason(name):
    tensor, why = odd_tensors()[name]
    dense = torch.ones(4)
    for source in ({name: tensor, "w": dense}, [(name, tensor), ("w", dense)], iter([(name, tensor), ("w", dense)])):
        table = gk.measure_many(source)
        assert list(table) == ["w"] and list(table.skipped) == [name]
        assert table.skipped[name].endswith(why)
    with pytest.raises(ValueError, match=f"nothing to measure: {name} "):
        gk.measure_many({name: tensor})
    with pytest.raises(TypeError, match=r"^measure: x: "):
        gk.measure(tensor)


def test_a_lazy_module_before_it_ran():
    model = torch.nn.Sequential(torch.nn.LazyLinear(3), torch.nn.Linear(3, 2))
    table = gk.measure_many(model)
    assert list(table) == ["1.weight", "1.bias"] and set(table.skipped) == {"0.weight", "0.bias"}
    model(torch.ones(1, 5))
    assert len(gk.measure_many(model)) == 4


def test_complex_and_integers_are_skipped():
    table = gk.measure_many(
        {"c": torch.ones(2, dtype=torch.complex64), "i": torch.arange(3), "b": np.array([True]), "w": torch.ones(1)}
    )
    assert set(table.skipped) == {"c", "i", "b"} and list(table) == ["w"]
