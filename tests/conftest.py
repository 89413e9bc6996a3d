"""Shared by the tests: a tiny real model, a few bundled rows, and one sweep of the paper's grid on them."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests never ask the network; set before any Hugging Face import

import dataclasses

import pytest
import torch

from utils import environment as environments


@pytest.fixture(autouse=True)
def subnormal_numbers():
    """prepare() has this process take numbers below 1e-38 for zero; hypothesis draws them."""
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    environments.prepare()
    found = environments.detect("smoke")
    return dataclasses.replace(
        found, device="cpu", model="tiny-llama", dataset="bundled", runs=tmp_path_factory.mktemp("runs")
    )


@pytest.fixture(scope="session")
def data():
    from utils.data import load_qa

    return load_qa("bundled", train_rows=12, test_rows=6)


@pytest.fixture(scope="session")
def tokenizer():
    from utils.models import load_tokenizer

    return load_tokenizer("tiny-llama")


@pytest.fixture
def base(environment):
    from utils.models import load_base

    return load_base("tiny-llama", environment)


@pytest.fixture
def gradient_scaling(monkeypatch):
    """float16 as a GPU trains it, on the CPU: accelerate binds model.forward to autocast, and GradScaler scales."""
    from accelerate import Accelerator

    from utils.experiments import runs

    prepared, arguments = Accelerator.__init__, runs.training_arguments

    def with_scaler(self, *positional, **named):
        prepared(self, *positional, **named)
        assert self.state.mixed_precision == "fp16"
        self.native_amp, self.scaler = True, torch.amp.GradScaler("cpu", init_scale=scale[0])

    scale = [2.0**16]  # torch's own first scale; a test may ask for another
    monkeypatch.setattr(Accelerator, "__init__", with_scaler)
    monkeypatch.setattr(runs, "training_arguments", lambda *a: dataclasses.replace(arguments(*a), fp16=True))
    return scale


@pytest.fixture(scope="session")
def grid():
    from utils.config import RunConfig
    from utils.paper import table_3_grid, table_5_grid, table_6_grid

    fields = table_3_grid() + table_5_grid() + table_6_grid()
    configs = [RunConfig(model="tiny-llama", max_new_tokens=8, **f) for f in fields]
    return [configs[0].base(), *configs]


@pytest.fixture(scope="session")
def records(grid, data, environment):
    from utils.experiments import sweep

    return sweep(grid, data, environment, say=lambda line: None)


@pytest.fixture(scope="session")
def seeds_frame(grid, records, data, environment):
    """The same sweep with three seeds; the first one's runs are done."""
    from utils.experiments import sweep
    from utils.report.frame import as_frame, comparable

    return comparable(as_frame(sweep(grid, data, environment, say=lambda line: None, seeds=(0, 1, 2))))


@pytest.fixture(scope="session")
def frame(records):
    from utils.report.frame import as_frame, comparable

    return comparable(as_frame(records))
