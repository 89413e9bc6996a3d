import dataclasses
import os
import signal
import sys

import pytest
import torch
from datasets import DatasetDict

from utils.config import RunConfig
from utils.experiments import sweep
from utils.experiments.cluster import SETTINGS
from utils.records import load_records

RUNS = [RunConfig("tiny-llama", rank=rank, epochs=1, max_new_tokens=4) for rank in (1, 2)]
RUNS.insert(0, RUNS[0].base())


class Deadly(DatasetDict):
    """Rows that kill the worker which asks for the test questions, after its training, the first few times."""

    def __getitem__(self, split):
        if split == "test" and os.getpid() != self.driver:
            for death in range(self.deaths):
                try:
                    (self.folder / str(death)).touch(exist_ok=False)
                except FileExistsError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(split)


@pytest.fixture(scope="module")
def address():
    """A Ray of two machines with a core each, both on this one and listening to it alone."""
    ray = pytest.importorskip("ray")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import a test
    os.environ |= SETTINGS
    from ray.cluster_utils import Cluster

    there = {"num_cpus": 1, "node_ip_address": "127.0.0.2"}
    cluster = Cluster(initialize_head=True, head_node_args={**there, "include_dashboard": False})
    cluster.add_node(**there)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="module")
def plain(tmp_path_factory, environment, data):
    """The records of the plain sweep, on one thread as a worker of one core has it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield sweep(RUNS, data, dataclasses.replace(environment, runs=tmp_path_factory.mktemp("plain")))
    torch.set_num_threads(threads)


def deadly(data, folder, deaths):
    rows = Deadly(data)
    rows.driver, rows.folder, rows.deaths = os.getpid(), folder, deaths
    return rows


def assert_same(records, expected):
    for record, other in zip(records, expected, strict=True):
        told = ("run_id", "config", "data", "model", "environment", "predictions", "table_4", "metrics")
        assert {name: record[name] for name in told} == {name: other[name] for name in told}
        losses = [[step["loss"] for step in one["training"]] for one in (record, other)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_without_ray_one_sentence_says_how_to_get_it(tmp_path, environment, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    there = dataclasses.replace(environment, runs=tmp_path)
    with pytest.raises(ImportError, match=r"^cluster needs Ray: run pip install .* -r requirements-cluster\.txt$"):
        sweep(RUNS, data, there, cluster="local")
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_a_killed_worker_is_replaced_and_the_records_are_the_plain_sweeps(
    tmp_path, environment, data, plain, address, monkeypatch
):
    there, said = dataclasses.replace(environment, runs=tmp_path / "runs"), []
    first = sweep(RUNS[:1], data, there, say=said.append)
    monkeypatch.chdir(tmp_path)  # as a notebook starts in another folder than the repository's
    records = sweep(RUNS, deadly(data, tmp_path, 1), there, cluster=address, say=said.append)
    assert (tmp_path / "0").exists()  # one worker died
    assert said[1] == f"1 of 3 runs are finished and are read: {RUNS[0].run_id}"
    assert [line for line in said if "try 1 of 2: its worker died in mid-run." in line] == [said[2]]
    assert len(said) == 5  # and the two runs, each once
    assert records[0]["timing"] == first[0]["timing"]  # read, not run
    assert_same(records, plain)
    saved, complaints = load_records(tmp_path / "runs" / "records")
    assert (len(saved), complaints, len(list((tmp_path / "runs" / "adapters").iterdir()))) == (3, [], 2)
    monkeypatch.setitem(sys.modules, "ray", None)  # nothing left to run, nothing to connect to
    assert_same(sweep(RUNS, data, there, cluster=address, say=said.append), plain)


@pytest.mark.long
def test_what_fails_twice_is_recorded_as_failed_and_the_sweep_goes_on(tmp_path, environment, data, plain, address):
    there, said = dataclasses.replace(environment, runs=tmp_path / "runs"), []
    greedy = RunConfig("tiny-llama", rank=None, shots=13, max_new_tokens=4)  # of 12 rows
    records = sweep([greedy, *RUNS[1:]], data, there, cluster=address, say=said.append)
    assert_same(records[1:], plain[1:])
    error = "ValueError: 13 examples were asked for; the training rows hold"
    assert records[0]["status"] == "failed"
    assert records[0]["error"].startswith(error)
    assert [line.split(": ", 1)[0] for line in said if error in line] == [
        f"{greedy.run_id}, try 1 of 2", f"{greedy.run_id}, try 2 of 2", greedy.run_id,
    ]  # fmt: skip
    killed = sweep(RUNS[:1], deadly(data, tmp_path, 2), there, cluster=address, say=said.append)
    assert (killed[0]["status"], killed[0]["error"]) == ("failed", "its worker died in mid-run.")
    saved = {record["run_id"]: record.get("status") for record in load_records(tmp_path / "runs" / "records")[0]}
    assert saved == {config.run_id: "finished" for config in RUNS[1:]} | dict.fromkeys(
        (greedy.run_id, RUNS[0].run_id), "failed"
    )
    assert sweep(RUNS[:1], data, there, cluster=address)[0]["status"] == "finished"  # and it is run again


@pytest.mark.long
def test_a_ray_of_its_own_runs_on_this_machine(tmp_path, environment, data, plain):
    ray = pytest.importorskip("ray")
    records = sweep(RUNS, data, dataclasses.replace(environment, runs=tmp_path), cluster="local")
    assert [record["run_id"] for record in records] == [config.run_id for config in RUNS]
    assert [r["predictions"] for r in records] == [r["predictions"] for r in plain]
    assert not ray.is_initialized()


def test_a_wrong_address_or_a_base_that_cannot_be_loaded_is_said(tmp_path, environment, data):
    pytest.importorskip("ray")
    there = dataclasses.replace(environment, runs=tmp_path)
    for address in ("127.0.0.1:1", "nowhere"):
        with pytest.raises(ConnectionError, match=f"No Ray at '{address}' .*; expected 'local' or host:port"):
            sweep(RUNS, data, there, cluster=address)
