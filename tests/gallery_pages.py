"""The pages of the gallery, each computed once a test run."""

from __future__ import annotations

from functools import cache

import gradkern as gk
from gradkern.lecture import Claim, Lecture, lecture, topics


@cache
def page(topic: str) -> Lecture:
    threads = gk.get_num_threads()
    gk.set_num_threads(1)  # the networks are small: waking a thread takes longer than a layer
    try:
        return lecture(topic)
    finally:
        gk.set_num_threads(threads)


def pages() -> list[Lecture]:
    return [page(topic) for topic in topics()]


@cache
def claims() -> dict[int, tuple[Lecture, Claim]]:
    """The page and the section of each claim, by its number."""
    return {row: (found, claim) for found in pages() for claim in found.claims for row in claim.rows}
