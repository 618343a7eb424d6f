"""`ChainReport` in a file, and out of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from gradkern import _core, _saved_file
from gradkern._result import floats, plain
from gradkern.arithmetic import arithmetic
from gradkern.report import ChainReport

_KEY, _VERSION = "gradkern_report", 2


def write(report: ChainReport, path: Path) -> None:
    """Write a report without its kept tensors; see `ChainReport.save`."""
    fields = {f.name: getattr(report, f.name) for f in dataclasses.fields(report) if f.name != "records"}
    fields["arithmetic"] = str(report.arithmetic)
    records = [{k: v for k, v in r.items() if k not in ("tensor", "truth")} for r in report.records]
    _saved_file.write(path, _KEY, plain({**fields, "records": records}), _VERSION)


def read(path: Path) -> ChainReport:
    """Read what `write` wrote; see `ChainReport.load`."""
    return _saved_file.read(path, _KEY, "ChainReport", _build, _VERSION)


def _build(saved: dict[str, Any]) -> ChainReport:
    fields = floats(saved)
    summaries = [record.get(key) for record in fields["records"] for key in ("stored", "reference")]
    for summary in [*summaries, *fields.get("shares", {}).get("truth", ())]:
        _restore_cells(summary)
    return _kind_of(fields)(**{**fields, "arithmetic": arithmetic(fields["arithmetic"])})


def _restore_cells(summary: dict[str, Any] | None) -> None:
    if summary:
        summary["cells"] = np.array(summary["cells"], dtype=np.int64).reshape(-1, len(_core.cell_edges))


def _kind_of(fields: dict[str, Any]) -> type[ChainReport]:
    """Say whose fields these are: an RNN's report has shares."""
    if "shares" not in fields:
        return ChainReport
    from gradkern.recurrent_report import RecurrentReport

    return RecurrentReport
