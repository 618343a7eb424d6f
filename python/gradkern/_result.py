"""What every result has in common: `to_dict`, `to_frame`, a table for a terminal and one for a notebook."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gradkern._text import printable

if TYPE_CHECKING:
    import pandas


def plain(value: Any) -> Any:
    """Reduce a value to what JSON holds; non-finite floats become strings."""
    kind = type(value)
    if value is None or kind is int or kind is str or kind is bool:  # most of what there is
        return value
    if kind is float:
        return value if math.isfinite(value) else repr(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.repr}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


def floats(value: Any) -> Any:
    """Undo what `plain` did to non-finite floats, in what holds no text that reads like one."""
    if isinstance(value, dict):
        return {k: floats(v) for k, v in value.items()}
    if isinstance(value, list):
        return [floats(v) for v in value]
    return float(value) if value in ("nan", "inf", "-inf") else value


class Result:
    """Base of the frozen dataclasses that gradkern returns."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain Python values that JSON can hold."""
        return dict(plain(self))

    def to_frame(self) -> pandas.DataFrame:
        """Return the fields as a one-row pandas DataFrame (pandas is loaded here)."""
        import pandas

        return pandas.DataFrame([self.to_dict()])

    def __repr__(self) -> str:
        """Return one line per field."""
        fields = self.to_dict()
        width = max(map(len, fields), default=0)
        shown = {name: printable(value) for name, value in fields.items() if not isinstance(value, list)}
        lines = [f"  {name:<{width}}  {value}" for name, value in shown.items()]
        return "\n".join([type(self).__name__, *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{html.escape(str(k))}</th><td>{html.escape(printable(v))}</td></tr>"
            for k, v in self.to_dict().items()
        )
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"
