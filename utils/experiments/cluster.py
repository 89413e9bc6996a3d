"""Configurations in, records out, on several GPUs or machines: Ray workers that hold the base and write to one folder."""

import os
import socket
import sys
from contextlib import chdir
from dataclasses import replace

import torch
from datasets import DatasetDict
from tqdm.auto import tqdm

from utils.environment import ROOT, Environment, detect, prepare
from utils.experiments.record import about_run
from utils.experiments.runs import finished_record, run, scores
from utils.models.adapter import check_modules
from utils.models.base import held_base
from utils.records import save_record

TRIES = 2  # the first may be bad luck: a machine switched off, memory that another program took
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}  # no telemetry, no warning
SETTINGS |= {"RAY_worker_register_timeout_seconds": "600", "RAY_prestart_worker_first_driver": "0"}  # a busy machine


def sweep_on(cluster: str, configs: list, data: DatasetDict, environment: Environment, say=tqdm.write) -> dict:
    """Run every configuration on Ray, return {configuration: record}; a worker has a GPU, or its share of the CPU cores.

    `cluster` is "local" or a head node's host:port; its machines share environment.runs and this repository's path. A
    run that breaks or loses its worker is done again by a new one; the second time its record says "failed".
    Example: sweep_on("local", [config], data, environment)[config]["status"] -> "finished"
    """
    ray, connection = _connected(cluster)
    with connection, tqdm(total=len(configs), desc="runs", unit="run") as bar:
        kind, has = "GPU" if environment.device == "cuda" else "CPU", ray.cluster_resources()
        if not (count := min(len(configs), int(has.get(kind, 0)))):
            raise ValueError(f"These runs need a {kind}, and the cluster has none: start a node that has one.")
        largest = max(int(node["Resources"].get("CPU", 1)) for node in ray.nodes())  # no worker spans two machines
        cores = 1 if kind == "GPU" else min(int(has["CPU"]) // count, largest)
        actor = ray.remote(num_cpus=cores, num_gpus=int(kind == "GPU"))(_Worker)
        held = configs, ray.put(data), environment, cores
        waiting, free, running, done, errors = configs[::-1], [], {}, {}, {config: [] for config in (None, *configs)}
        while len(done) < len(configs):
            for worker in [actor.remote(*held) for _ in range(count - len(free) - len(running))]:
                running[worker.work.remote(None, [])] = worker, None
            while free and waiting:
                worker, config = free.pop(), waiting.pop()
                running[worker.work.remote(config, errors[config])] = worker, config
            worker, config = running.pop(future := ray.wait(list(running))[0][0])
            try:
                record = ray.get(future)
            except ray.exceptions.RayError as error:
                cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else None
                if (cause and not config) or len(errors[config]) == TRIES:  # nothing can be run, or be recorded
                    raise cause or RuntimeError(f"Worker after worker dies: {str(error).splitlines()[-1]}") from None
                errors[config].append(f"{type(cause).__name__}: {cause}" if cause else "its worker died in mid-run.")
                ray.kill(worker)  # also one that still answers: an error of CUDA's stays with its process
                if config:
                    waiting.append(config)
                    say(f"{config.run_id}, try {len(errors[config])} of {TRIES}: {errors[config][-1]}")
                continue
            free, errors[None] = [*free, worker], []
            if config:
                done[config] = record
                bar.update()
                say(f"{config.run_id}: {'failed. ' + record['error'] if 'error' in record else scores(record)}")
    return done


class _Worker:
    def __init__(self, configs: list, data: DatasetDict, environment: Environment, cores: int) -> None:
        prepare()
        torch.set_num_threads(cores)
        self.configs, self.data = configs, data  # and a record names the machine that it was made on
        self.environment = replace(environment, gpu=environment.gpu and detect(environment.profile).gpu)

    def work(self, config, errors: list[str]) -> dict | list:
        """Return a run's record, done or failed; without a run load the base and check that all configurations fit it."""
        model, tokenizer = held_base(self.configs[0].model, self.environment)  # the first call, without a run, loads it
        if not config:
            return [check_modules(model, one) for one in self.configs if not one.is_base]
        if (found := finished_record(config, self.data, self.environment)) or len(errors) < TRIES:
            return found or run(config, self.data, self.environment, model, tokenizer)
        failed = {**about_run(config, self.data, self.environment, model), "status": "failed", "error": errors[-1]}
        save_record(failed, self.environment.runs / "records")
        return failed


def _connected(cluster: str) -> tuple:
    os.environ |= SETTINGS
    ip = "127.0.0.2" if cluster == "local" and sys.platform == "linux" else None  # Ray makes a public one of 127.0.0.1
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error", "_node_ip_address": ip}
    try:
        import ray

        if cluster != "local":  # Ray itself tries a wrong address for minutes
            socket.create_connection(((at := cluster.rpartition(":"))[0], int(at[2])), timeout=20).close()
        with chdir(ROOT):  # a worker imports from where its driver was when it connected
            return ray, ray.init(cluster, **quiet)
    except ImportError:
        raise ImportError("A cluster needs Ray: pip install -c constraints.txt -r requirements-cluster.txt") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise ConnectionError(f"No Ray at {cluster!r} ({error}); expected 'local' or host:port of a head.") from None
