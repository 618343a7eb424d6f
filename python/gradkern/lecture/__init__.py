"""The gallery: what lectures say of vanishing and exploding gradients, what is right, and the numbers, computed live.

Each topic is a page ``<topic>.md``, whose blocks of Python run when the page is asked for, and ``<topic>.py``, which draws
what the first block computed.
"""

from __future__ import annotations

from gradkern.lecture._lecture import Claim, Lecture, lecture, topics

__all__ = ["Claim", "Lecture", "lecture", "topics"]
