"""Okabe and Ito's colours, which colour-blind readers can tell apart, where several pictures give them one meaning."""

from __future__ import annotations

# What becomes of entries that are stored, by magnitude.
FATE_COLOURS = {"flushed": "#D55E00", "subnormal": "#F0E442", "kept": "#56B4E9", "overflow": "#000000"}
# Of lines, in turn.
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
