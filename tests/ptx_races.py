"""Races in shared memory: two threads touch a byte, one of them writes, and no barrier lies between.

Of every byte the last writer is known, and who has read it since the last barrier of the block, but for those whom a later
reader has waited for. Threads of a warp are also ordered by bar.warp.sync, among the lanes of its mask. Atomics do not
race with one another.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from ptx_parse import PtxError

Array = NDArray[Any]
NOBODY, SEVERAL = -1, -2  # as a writer; as the warp of readers


class RaceError(PtxError):
    """Two threads at one byte without an order."""


class Races:
    """What has happened to each byte since the block began."""

    def __init__(self, size: int, threads: int) -> None:
        self.threads = threads
        self.epoch = 0  # barriers of the block so far
        self.turns = np.zeros(threads, np.int64)  # warp barriers of each thread so far
        self.met = np.zeros((threads, 32), np.int64)  # the turns of a lane of the warp when a thread last met it
        self.writer = np.full(size, NOBODY, np.int64)
        self.write_epoch, self.write_turn = np.full(size, -1, np.int64), np.zeros(size, np.int64)
        self.atomic = np.zeros(size, bool)
        self.read_epoch, self.read_turn = np.full(size, -1, np.int64), np.zeros(size, np.int64)
        self.reading_warp, self.reading_lanes = np.full(size, NOBODY, np.int64), np.zeros(size, np.uint32)

    def barrier(self) -> None:
        """Of the block."""
        self.epoch += 1

    def warp_barrier(self, threads: Array) -> None:
        """Of some threads of a warp."""
        self.turns[threads] += 1
        self.met[np.ix_(threads, threads % 32)] = self.turns[threads]

    def note(self, threads: Array, offsets: Array, size: int, how: str) -> None:
        """An access of each of some threads: a read, a write or an atomic."""
        places = (offsets[:, None] + np.arange(size)).ravel()
        who = np.repeat(threads, size)
        self.check_writer(who, places, how)
        if how == "read":
            return self.add_readers(who, places)
        self.check_readers(who, places)
        self.writer[places], self.write_epoch[places], self.write_turn[places] = who, self.epoch, self.turns[who]
        self.atomic[places] = how == "atomic"
        if how != "atomic" and (self.writer[places] != who).any():
            self.fail(places, self.writer[places] != who, who, self.writer[places], "written", "write")
        return None

    def check_writer(self, who: Array, places: Array, how: str) -> None:
        """Against the last writer of each byte."""
        last = self.writer[places]
        recent = (self.write_epoch[places] == self.epoch) & (last != who)
        if how == "atomic":
            recent &= ~self.atomic[places]
        if recent.any():
            same_warp = last // 32 == who // 32
            ordered = same_warp & (self.met[who, last % 32] > self.write_turn[places])
            if (recent & ~ordered).any():
                self.fail(places, recent & ~ordered, who, last, "written", how)

    def check_readers(self, who: Array, places: Array) -> None:
        """Against those who have read each byte."""
        recent = self.read_epoch[places] == self.epoch
        if not recent.any():
            return
        others = self.reading_lanes[places][:, None] >> np.arange(32, dtype=np.uint32) & 1 != 0
        others[np.arange(len(who)), who % 32] = False
        unordered = (others & (self.met[who] <= self.read_turn[places][:, None])).any(axis=1)
        warp = self.reading_warp[places]
        bad = recent & np.where(warp == who // 32, unordered, True)
        if bad.any():
            self.fail(places, bad, who, warp * 32, "read", "write")

    def after_readers(self, who: Array, places: Array) -> Array:
        """Whether all who read a byte so far come before these: whoever waits for these has waited for those."""
        readers = self.reading_lanes[places][:, None] >> np.arange(32, dtype=np.uint32) & 1 != 0
        before = (~readers | (self.met[who] > self.read_turn[places][:, None])).all(axis=1)
        before &= self.reading_warp[places] == who // 32
        return before & ~np.isin(places, places[~before])

    def add_readers(self, who: Array, places: Array) -> None:
        """These have read them, too."""
        old = places[(self.read_epoch[places] != self.epoch) | self.after_readers(who, places)]
        self.reading_warp[old], self.reading_lanes[old], self.read_turn[old] = NOBODY, 0, 0
        self.read_epoch[places] = self.epoch
        warp = who // 32
        several = (self.reading_warp[places] != NOBODY) & (self.reading_warp[places] != warp)
        self.reading_warp[places] = warp
        several |= self.reading_warp[places] != warp
        self.reading_warp[places[several]] = SEVERAL
        np.bitwise_or.at(self.reading_lanes, places, np.uint32(1) << (who % 32).astype(np.uint32))
        np.maximum.at(self.read_turn, places, self.turns[who])

    def fail(self, places: Array, bad: Array, who: Array, other: Array, done: str, how: str) -> None:
        """The first of the bad ones, in words."""
        i = int(np.argmax(bad))
        whom = f"thread {int(other[i])}" if done == "written" else "another thread"
        access = f"thread {int(who[i])} has a {how} of byte {int(places[i])} of shared memory"
        raise RaceError(f"{access} that {whom} has {done}, no barrier between")
