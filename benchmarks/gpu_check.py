"""What only a GPU can say: bits, matrix units, speed. Writes one JSON and one table; see ``gpu_check.sh``.

``python benchmarks/gpu_check.py --out FOLDER [--tests JUNIT_XML] [--only bits,units,speed] [--device simt]``
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import traceback
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import gpu_bits
import gpu_speed

import gradkern as gk

SECTIONS = {"bits": gpu_bits.bits, "units": gpu_bits.units, "speed": gpu_speed.speed}


def tests_of(path: Path | None) -> dict[str, Any]:
    """Counts of a JUnit report, and the names of what failed."""
    if path is None or not path.exists():
        return {}
    suite = next(ElementTree.parse(path).getroot().iter("testsuite"))
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    return {**counts, "failed": failed}


def table_of(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [f"Device: {report['device']}; gradkern {report['version']}", ""]
    if report["tests"]:
        t = report["tests"]
        lines += [
            f"Tests marked gpu: {t['tests']} run, {t['failures'] + t['errors']} failed, {t['skipped']} skipped",
            "",
        ]
    for section in ("bits", "units"):
        rows = report.get(section, [])
        if rows:
            lines += [f"| {section} | values | differ |", "| --- | --- | --- |"]
            lines += [f"| {r['what']} | {r['values']:,} | {r['differ']:,}{r.get('note', '')} |" for r in rows]
            lines.append("")
    rows = report.get("speed", [])
    if rows:
        lines += [
            "| kernel | time | rate | rival | ratio | share of the roof |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for r in rows:
            share = f"{r['share']:.2f}" if r.get("share") else ""
            ratio = f"{r['ratio']:.2f}" if r.get("ratio") else ""
            lines.append(f"| {r['what']} | {r['ms']:.3f} ms | {r['rate']} | {r['rival']} | {ratio} | {share} |")
        lines.append("")
    for name, error in report["failed"].items():
        lines += [f"{name} failed:", "```", error, "```"]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tests", type=Path)
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--device", default="cuda", choices=["cuda", "simt"], help="simt tries the script on any host")
    options = parser.parse_args()
    info = gk.info()
    report: dict[str, Any] = {
        "device": info.devices[options.device], "version": info.version, "python": platform.python_version(),
        "isa": info.isa, "tests": tests_of(options.tests), "failed": {}, "seconds": {},
    }  # fmt: skip
    for name in options.only.split(","):
        start = time.perf_counter()
        report[name] = []
        for row in SECTIONS[name](options.device):
            try:
                report[name].append(row())
            except Exception:
                report["failed"][f"{name}: {row.what}"] = traceback.format_exc(limit=-3)
        report["seconds"][name] = round(time.perf_counter() - start, 1)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu_check.json").write_text(json.dumps(report, indent=1) + "\n")
    table = table_of(report)
    (options.out / "gpu_check.md").write_text(table)
    print(table)
    differ = sum(r["differ"] for section in ("bits", "units") for r in report.get(section, []))
    bad_tests = report["tests"].get("failures", 0) + report["tests"].get("errors", 0)
    return int(bool(differ or report["failed"] or bad_tests))


if __name__ == "__main__":
    raise SystemExit(main())
