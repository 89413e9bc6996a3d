"""The way of the 3B model as far as it goes without its weights: a Llama checkpoint with the real Llama 3 tokenizer."""

import dataclasses
import json
import os

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from utils.config import RunConfig
from utils.experiments import finished_record, run
from utils.experiments.loss import IGNORED
from utils.experiments.training import tokenize_row
from utils.models import load_base, load_tokenizer
from utils.models.adapter import LLAMA_3B
from utils.models.embedded import load_llama3_tokenizer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Llama's architecture, vocabulary and tokenizer, narrow and shallow; saved in bfloat16 as Llama 3.2 is."""
    folder = tmp_path_factory.mktemp("llama")
    small = dict(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**(LLAMA_3B | small))).to(torch.bfloat16).save_pretrained(folder)
    load_llama3_tokenizer().save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    return str(folder)


def test_the_number_format_is_the_environments_not_the_checkpoints(checkpoint, environment):
    assert load_base(checkpoint, environment).dtype == torch.float32
    assert load_base(checkpoint, dataclasses.replace(environment, dtype="float16")).dtype == torch.float16
    assert load_base(checkpoint, dataclasses.replace(environment, dtype="bfloat16")).dtype == torch.bfloat16


def test_a_row_in_llama_3_tokens(checkpoint, data):
    tokenizer = load_tokenizer(checkpoint)
    for row in data["train"]:
        tokens = tokenize_row(row, tokenizer, RunConfig(checkpoint))
        assert tokens["input_ids"][0] == 128000
        assert tokens["input_ids"][-1] == tokens["labels"][-1] == 128001
        learnt = [label for label in tokens["labels"][:-1] if label != IGNORED]
        assert tokenizer.decode(learnt) == " " + row["answer"]
    assert tokenizer.pad_token_id == 128004


@pytest.mark.parametrize(
    ("dtype", "quantization"),
    [
        ("float32", "none"),
        ("bfloat16", "none"),
        ("float16", "none"),
        pytest.param("bfloat16", "nf4", marks=pytest.mark.long),
    ],
)
def test_load_adapt_train_answer_score_record(
    checkpoint, data, environment, tmp_path, monkeypatch, request, dtype, quantization
):
    if dtype == "float16":
        request.getfixturevalue("gradient_scaling")
    secret = "hf_" + "secret" * 5
    monkeypatch.setenv("HF_TOKEN", secret)
    there = dataclasses.replace(environment, dtype=dtype, quantization=quantization, runs=tmp_path)
    config = RunConfig(checkpoint, rank=2, epochs=1, max_new_tokens=4)
    base, tokenizer = load_base(checkpoint, there), load_tokenizer(checkpoint)
    linear = base.model.layers[0].self_attn.q_proj
    assert (type(linear).__name__ == "Linear4bit") == (quantization == "nf4")
    record = run(config, data, there, base, tokenizer)
    # q: 64 in + 64 out, v: 64 in + 32 out, rank 2, two layers
    assert record["model"]["trainable"] == 2 * 2 * (128 + 96)
    assert record["model"]["total"] == pytest.approx(
        128256 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128), rel=0.01
    )
    assert len(record["training"]) == 3  # 12 rows, batch 4, one epoch
    assert all(torch.isfinite(torch.tensor(entry["loss"])) for entry in record["training"])
    assert record["metrics"]["n"] == 6
    assert record["skipped_steps"] == 0
    assert record["environment"]["quantization"] == quantization
    assert finished_record(config, data, there) is not None
    other = dataclasses.replace(there, dtype="float32" if dtype == "float16" else "float16")
    assert finished_record(config, data, other) is None  # other numbers, other work
    assert type(base.model.layers[0].self_attn.q_proj) is type(linear)  # the base model is as it was
    assert not any(secret in path.read_text(errors="ignore") for path in tmp_path.rglob("*") if path.is_file())
    assert os.environ["HF_TOKEN"] == secret
