"""Rewrite the table of compiled kernels in docs/performance.md and the list of entries in docs/cuda.md.

`python docs/cuda_table.py`, where nvcc, cuobjdump and nvdisasm are on PATH; nothing runs on a GPU.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests"))

import cubins  # noqa: E402
from cubins import ARCHITECTURES, Kernel  # noqa: E402

# Bytes that one entry moves, s being those of its storage format and w those of its wide one (4, or 8 for float64).
BYTES = {
    "activation.cu": "forward s + w, backward 2 s + w to 3 s + 2 w",
    "clip.cu": "survey s, scale 2 s",
    "clip_value.cu": "2 s",
    "convert.cu": "source + s",
    "elementary.cu": "8, float64 16",
    "errors.cu": "s + 8",
    "matvec.cu": "s",
    "mma_pack.cu": "source + s",
    "patterns.cu": "s",
    "statistics.cu": "s",
    "update.cu": "2 s + gradient",
}


def family(kernel: Kernel) -> tuple[str, str]:
    """What kernels of one line share."""
    if kernel.name.startswith("mma_product_kernel"):
        found = re.search(r"MmaShape<(\d+), (\d+), .*?>, (\d)>", kernel.name)
        assert found
        layout = ("k, k", "k, columns", "rows, columns", "packed")[int(found[3])]
        return kernel.file, f"{found[1]} x {found[2]} ({layout})"
    found = re.match(r"product_tiled<Lane(\w+)(<\w+>)?, TileShape<(\d+), (\d+)", kernel.name)
    if found:
        inner = found[2][1:-1] if found[2] else found[1].lower()
        return kernel.file, f"{found[3]} x {found[4]} {inner}"
    return kernel.file, kernel.name.split("<")[0]


def spread(values: Iterable[float], digits: int = 0) -> str:
    """Smallest to largest."""
    low, high = min(values := list(values)), max(values)
    return (
        f"{low:.{digits}f}" if f"{low:.{digits}f}" == f"{high:.{digits}f}" else f"{low:.{digits}f} to {high:.{digits}f}"
    )


def rooflines(kernels: list[Kernel]) -> list[cubins.Roofline]:
    """Of the loops with HMMA."""
    return [cubins.roofline(k, loop) for k in kernels for loop in k.loops_with("HMMA")]


def per_architecture(kernels: list[Kernel], text: str, form: str) -> str:
    """One cell: what holds for each architecture, or for both."""
    cells = []
    for architecture in ARCHITECTURES:
        mine = [k for k in kernels if k.architecture == architecture]
        roofs = rooflines(mine)
        values = {
            "registers": [k.registers for k in mine],
            "occupancy": [100 * k.occupancy(k.max_threads) for k in mine if k.max_threads],
            "per_hmma": [r.instructions_per_hmma for r in roofs],
            "share": [100 * r.tensor_share for r in roofs],
        }[text]
        cells.append(spread(values, 1 if form == "1" else 0) if values else "")
    return cells[0] if cells[0] == cells[1] else " / ".join(cells)


def resource_table(kernels: list[Kernel]) -> str:
    """Registers, occupancy and rooflines, one line a family."""
    lines = [
        "| kernels | entries | bytes an entry | threads | registers | occupancy, % | instructions per HMMA | tensor share, % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (file, name), group in groupby(sorted(kernels, key=family), key=family):
        mine = list(group)
        lines.append(
            f"| {file} {name} | {len(mine) // len(ARCHITECTURES)} | {BYTES.get(file, '')} "
            f"| {spread(k.max_threads or 0 for k in mine)} | {per_architecture(mine, 'registers', '0')} "
            f"| {per_architecture(mine, 'occupancy', '0')} | {per_architecture(mine, 'per_hmma', '1')} "
            f"| {per_architecture(mine, 'share', '0')} |"
        )
    return "\n".join(lines)


def entry_table(kernels: list[Kernel]) -> str:
    """Every entry with its parameters."""
    lines = ["| file | entry | parameters: offset + bytes |", "|---|---|---|"]
    first = [k for k in kernels if k.architecture == ARCHITECTURES[0]]
    for k in sorted(first, key=lambda k: (k.file, k.name)):
        layout = ", ".join(f"{offset} + {size}" for offset, size in k.parameters)
        lines.append(f"| {k.file} | `{k.name}` | {layout} |")
    return "\n".join(lines)


def rewrite(page: Path, marker: str, text: str) -> None:
    """Put text between a page's markers."""
    before, found, rest = page.read_text().partition(f"<!-- {marker} -->\n")
    _, end, after = rest.partition(f"<!-- end of {marker} -->")
    if not found or not end:
        raise SystemExit(f"{page}: no markers of {marker}")
    page.write_text(f"{before}{found}{text}\n{end}{after}")


def main() -> None:
    """Compile, read, rewrite."""
    if missing := cubins.missing_tools():
        raise SystemExit(missing)
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(2) as pool:
        read = pool.map(cubins.read_cubin, cubins.compile_all(Path(directory)))
        kernels = [k for each in read for k in each]
    rewrite(DOCS / "performance.md", "compiled kernels", resource_table(kernels))
    rewrite(DOCS / "cuda.md", "entries", entry_table(kernels))


if __name__ == "__main__":
    main()
