"""Saved statistics: every bit comes back, and what was damaged or edited is refused by the name of the field."""

from __future__ import annotations

import copy
import gzip
import json
import pickle

import numpy as np
import pytest
from conftest import INF, NAN, SPECS
from tensor_truth import SOURCES, normal, random_bits

import gradkern as gk


@pytest.mark.parametrize("fmt", SOURCES)
def test_json_and_pickle_bring_every_bit_back(fmt):
    for x in (random_bits(fmt, 3000, 13), normal(fmt, 100, 14), np.zeros(0, SPECS[fmt].dtype)):
        stats = gk.measure(x, name="layer.0", scale=2.0**5)
        for again in (
            gk.TensorStats.from_dict(json.loads(json.dumps(stats.to_dict(), allow_nan=False))),
            pickle.loads(pickle.dumps(stats)),
        ):
            assert again.to_dict() == stats.to_dict()
            assert (again + stats).to_dict() == (stats + stats).to_dict()
            assert again.fit("float16") == stats.fit("float16")


def test_from_dict_names_what_is_missing():
    fields = gk.measure(np.ones(3)).to_dict()
    del fields["amax"]
    with pytest.raises(ValueError, match="'amax'"):
        gk.TensorStats.from_dict(fields)


def saved():
    """What JSON makes of a record with everything in it."""
    x = np.concatenate([normal("float32", 50, 1), np.array([0, NAN, INF, -INF, 1e-40, -3], np.float32)])
    return json.loads(json.dumps(gk.measure(x, name="w", scale=4.0).to_dict()))


ANYTHING = [
    None,
    "x",
    "nan",
    True,
    -1,
    2**70,
    1.5,
    [],
    {},
    [1],
    {"a": 1},
    {"3": 1},
    {"3": [1, 2]},
    NAN,
    "inf",
    -(10**30),
]


@pytest.mark.parametrize("field", sorted(saved()))
def test_a_field_of_another_kind_is_named_or_harmless(field):
    """Whatever stands in a field: the same statistics, valid ones, or a ValueError; never another exception."""
    good = saved()
    refused = 0
    for value in ANYTHING:
        try:
            again = gk.TensorStats.from_dict({**good, field: value})
        except ValueError as error:
            refused += 1
            assert str(error).startswith("from_dict: "), error
        else:
            (
                repr(again),
                again.fit("float16"),
                again.loss_scale_window("float16"),
                again + again,
                json.dumps(again.to_dict()),
            )
    assert refused >= len(ANYTHING) - 4, field
    if field != "binades":
        del good[field]
        with pytest.raises(ValueError, match=f"^from_dict: no field '{field}'"):
            gk.TensorStats.from_dict(good)


def without(key, field="cells"):
    def edit(fields):
        del fields[field][key(fields[field])]

    return edit


CONTRADICTIONS = {
    "size": lambda f: f.update(size=f["size"] + 1), "nan": lambda f: f.update(nan=2), "zero": lambda f: f.update(zero=0),
    "negative": lambda f: f.update(negative=53), "subnormal": lambda f: f.update(subnormal=53),
    "finite": lambda f: f.update(finite=f["finite"] + 1), "amax": lambda f: f.update(amax=2 * f["amax"]),
    "amin": lambda f: f.update(amin=f["amin"] / 2), "amin inf": lambda f: f.update(amin="inf"),
    "first_nonfinite": lambda f: f.update(first_nonfinite=56), "first_nonfinite None": lambda f: f.update(first_nonfinite=None),
    "std": lambda f: f.update(std=f["std"] * 1.001), "l2": lambda f: f.update(l2=0.0),
    "log2_l2": lambda f: f.update(log2_l2=f["log2_l2"] + 1), "scale": lambda f: f.update(scale=8.0),
    "exponent": lambda f: f.update(exponent=-3), "dtype": lambda f: f.update(dtype="float12"),
    "cells": without(min), "cells outermost": without(max), "binades": without(min, "binades"),
    "cells far": lambda f: f["cells"].update({"100000000": [1, 0, 0, 0, 0, 0]}),
    "cells negative": lambda f: f["cells"].update({min(f["cells"]): [2, -1, 0, 0, 0, 0]}),
    "cells twice": lambda f: f["cells"].update({" " + min(f["cells"]): [1, 0, 0, 0, 0, 0]}),
    "deviations": lambda f: f.update(deviations=[0.0, -1.0, 0.0]), "squares": lambda f: f.update(squares=[0.0, "x", 0.0]),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_fields_that_contradict_each_other(case):
    fields = copy.deepcopy(saved())
    CONTRADICTIONS[case](fields)
    with pytest.raises(ValueError, match=r"^from_dict: \w+"):
        gk.TensorStats.from_dict(fields)


@pytest.mark.parametrize("value", [None, [], 3, "x", [("size", 1)]])
def test_what_is_no_record(value):
    with pytest.raises(ValueError, match="statistics must be a mapping, got"):
        gk.TensorStats.from_dict(value)


def test_a_table_with_a_damaged_record_is_no_table():
    table = gk.measure_many({"a": np.ones(3)}).to_dict()
    table["tensors"]["a"]["size"] = 4
    with pytest.raises(ValueError, match="from_dict: size must be the sum of"):
        gk.StatsTable.from_dict(table)


@pytest.mark.parametrize("ending", [".json", ".json.gz", ".npz"])
@pytest.mark.parametrize("fmt", SOURCES)
def test_files_bring_every_bit_back(tmp_path, fmt, ending):
    for x in (random_bits(fmt, 2000, 2), normal(fmt, 100, 3), np.zeros(0, SPECS[fmt].dtype)):
        stats, path = gk.measure(x, name="w/\u00e4", scale=0.25), tmp_path / f"w{ending}"
        stats.save(str(path))
        again = gk.TensorStats.load(path)
        assert again.to_dict() == stats.to_dict() and again.scale == 0.25
        assert (again + stats).to_dict() == (stats + stats).to_dict()


def test_files_of_a_total_and_of_a_reference_chain(tmp_path):
    report = gk.probe(gk.MLP.random(depth=3, width=4, activation="tanh"), np.full((2, 4), 1e-3), arithmetic="float16")
    records = [row.reference for row in report.layers if row.reference is not None]
    total = gk.measure_many({"a": np.ones(3), "b": np.ones(2, np.float16)}).total
    for stats in [*records, *(row.stats for row in report.layers), total]:
        stats.save(tmp_path / "s.json")
        assert gk.TensorStats.load(tmp_path / "s.json").to_dict() == stats.to_dict()


def test_damaged_files(tmp_path):
    """Any byte changed or cut: statistics that agree with themselves, or a ValueError that names the file."""
    stats, rng = gk.measure(normal("float32", 200, 4), name="w"), np.random.default_rng(0)
    for ending in (".json", ".json.gz", ".npz"):
        path, refused = tmp_path / f"s{ending}", 0
        stats.save(path)
        whole = path.read_bytes()
        for trial in range(150):
            data = bytearray(whole)
            for where in rng.integers(0, len(whole), 2):
                data[where] = rng.integers(0, 256)
            path.write_bytes(data if trial % 3 else whole[: rng.integers(0, len(whole))])
            try:
                gk.TensorStats.load(path).fit("float16")
            except ValueError as error:
                refused += 1
                assert str(error).startswith(f"TensorStats.load: {path} holds no saved TensorStats (")
        assert refused > 100


def test_files_of_another_kind(tmp_path):
    with pytest.raises(ValueError, match=r"save: the name must end in \.json, \.json\.gz or \.npz, got 's\.txt'"):
        gk.measure(np.ones(3)).save(tmp_path / "s.txt")
    gk.measure_many([np.ones(3)]).save(tmp_path / "t.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "v2.json").write_text('{"gradkern_stats": 2}')
    (tmp_path / "x.json.gz").write_bytes(gzip.compress(b"3"))
    np.savez(tmp_path / "x.npz", x=np.ones(3))
    for name in ("t.json", "deep.json", "v2.json", "x.json.gz", "x.npz"):
        with pytest.raises(ValueError, match=f"TensorStats.load: .*{name} holds no saved TensorStats"):
            gk.TensorStats.load(tmp_path / name)


@pytest.mark.parametrize("kind", [gk.TensorStats, gk.StatsTable, gk.ChainReport, gk.Comparison, gk.Trajectory])
def test_files_that_are_missing(kind, tmp_path):
    for name in ("absent.json", "absent.json.gz", "absent.npz"):
        with pytest.raises(ValueError, match=rf"^{kind.__name__}\.load: .*{name}: no such file$"):
            kind.load(tmp_path / name)
    with pytest.raises(ValueError, match=rf"^{kind.__name__}\.load: .*: not a file$"):
        kind.load(tmp_path)
