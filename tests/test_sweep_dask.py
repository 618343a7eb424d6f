"""Sweeps on a real cluster of dask.distributed: the same rows, and none lost when a worker is killed."""

from __future__ import annotations

import json
import os
import signal

import pytest

import gradkern as gk

distributed = pytest.importorskip("distributed")


@pytest.fixture
def client(tmp_path):
    options = {
        "n_workers": 2,
        "threads_per_worker": 1,
        "processes": True,
        "dashboard_address": None,
        "host": "127.0.0.1",
    }
    with (
        distributed.LocalCluster(**options, local_directory=str(tmp_path), silence_logs=50) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def worker_pids(client) -> dict[str, int]:
    return client.run(os.getpid)


def test_a_cluster_loses_a_worker_and_no_result(client, tmp_path) -> None:
    """A worker is killed with SIGKILL while it works; the cluster starts another and computes again what it held."""
    points = 1000
    grid = {"depth": [3, 4], "width": 6, "activation": ["tanh", "relu"], "batch": 2, "seed": range(points // 4)}
    path, before = tmp_path / "rows.jsonl", worker_pids(client)
    assert len(before) == 2
    killed = []

    def kill_one(done: int, total: int) -> None:
        if done == points // 6:
            killed.append(next(iter(before.values())))
            os.kill(killed[0], signal.SIGKILL)

    result = gk.sweep(grid, client.get_executor(), progress=kill_one, path=path, in_flight=32)
    assert len(killed) == 1 and killed[0] not in worker_pids(client).values()
    assert len(result) == points and result.failed == ()
    lines = [json.loads(line)["key"] for line in path.read_text().splitlines()]
    assert len(lines) == len(set(lines)) == points
    few = {**grid, "seed": range(10)}
    assert json.dumps(gk.sweep(few, path=path).to_dict()) == json.dumps(gk.sweep(few).to_dict())
