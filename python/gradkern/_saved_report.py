"""Reports in files: JSON, gzip where the name says so."""

from __future__ import annotations

import dataclasses
import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from gradkern import _core
from gradkern.arithmetic import arithmetic
from gradkern.report import ChainReport

_VERSION = 2


def write(report: ChainReport, path: Path) -> None:
    """Write a report without its kept tensors; see `ChainReport.save`."""
    fields = {f.name: getattr(report, f.name) for f in dataclasses.fields(report) if f.name != "records"}
    fields["arithmetic"] = str(report.arithmetic)
    records = [{k: v for k, v in r.items() if k not in ("tensor", "truth")} for r in report.records]
    text = json.dumps({"gradkern_report": _VERSION, **fields, "records": records}, default=lambda o: o.tolist())
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    else:
        path.write_text(text, encoding="utf-8")


def read(path: Path) -> ChainReport:
    """Read what `write` wrote; see `ChainReport.load`."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        fields = json.loads(raw)
        version = fields.pop("gradkern_report")
        if version != _VERSION:
            raise ValueError(f"version {version}, this gradkern reads version {_VERSION}")
        summaries = [record.get(key) for record in fields["records"] for key in ("stored", "reference")]
        for summary in [*summaries, *fields.get("shares", {}).get("truth", ())]:
            _restore_cells(summary)
        return _kind_of(fields)(**{**fields, "arithmetic": arithmetic(fields["arithmetic"])})
    except (OSError, ValueError, KeyError, AttributeError, TypeError, EOFError, zlib.error) as error:
        raise ValueError(f"ChainReport.load: {path} is not a saved report ({error})") from None


def _restore_cells(summary: dict[str, Any] | None) -> None:
    if summary:
        summary["cells"] = np.array(summary["cells"], dtype=np.int64).reshape(-1, len(_core.cell_edges))


def _kind_of(fields: dict[str, Any]) -> type[ChainReport]:
    """Say whose fields these are: an RNN's report has shares."""
    if "shares" not in fields:
        return ChainReport
    from gradkern.recurrent_report import RecurrentReport

    return RecurrentReport
