import dataclasses
import math

import pytest
import torch
from tokenizers import processors
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForSeq2Seq,
    Gemma2Config,
    Gemma3TextConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    TrainerCallback,
)

from utils.config import RunConfig
from utils.environment import detect
from utils.experiments import training
from utils.experiments.generation import generate_answers
from utils.experiments.loss import IGNORED, AnswerTrainer, answer_loss
from utils.experiments.training import is_out_of_memory, tokenize_row, training_arguments
from utils.models import add_lora, load_base, load_tokenizer


def fine_tune(model, tokenizer, rows, config, callbacks=()):
    where = dataclasses.replace(detect("smoke"), device="cpu")
    return training.fine_tune(model, tokenizer, rows, config, training_arguments(config, where), callbacks)


CONFIG = RunConfig("tiny-llama", rank=8, target_modules=("q", "v", "o", "up", "down"), learning_rate=1e-2, epochs=12)


@pytest.mark.parametrize("name", ["tiny-llama", "gemma-3-270m"])
def test_the_loss_is_on_the_answer_and_its_end_token(name, data):
    tokenizer = load_tokenizer(name)
    for row in data["train"]:
        tokens = tokenize_row(row, tokenizer, CONFIG)
        learnt = [t for t, label in zip(tokens["input_ids"], tokens["labels"], strict=True) if label != IGNORED]
        assert tokenizer.decode(learnt[:-1]) == " " + row["answer"]
        assert learnt[-1] == tokenizer.eos_token_id
        assert tokens["input_ids"].count(tokenizer.bos_token_id) == 1
        assert tokens["input_ids"][0] == tokenizer.bos_token_id


def test_loss_on_text_learns_everything_but_the_bos(data, tokenizer):
    tokens = tokenize_row(data["train"][0], tokenizer, RunConfig("tiny-llama", loss_on="text"))
    assert tokens["labels"] == [IGNORED, *tokens["input_ids"][1:]]


def test_a_tokenizer_without_a_bos_token_works(base, data):
    tokenizer = load_tokenizer("tiny-llama")
    tokenizer.bos_token, tokenizer.backend_tokenizer.post_processor = None, processors.ByteLevel(trim_offsets=False)
    with_bos, rows = load_tokenizer("tiny-llama"), data["train"].select(range(4))
    for row in rows:
        expected = tokenize_row(row, with_bos, CONFIG)
        tokens = tokenize_row(row, tokenizer, CONFIG)
        assert tokens["input_ids"] == expected["input_ids"][1:]
        assert tokens["labels"] == expected["labels"][1:]
        assert (
            tokenize_row(row, tokenizer, dataclasses.replace(CONFIG, loss_on="text"))["labels"] == tokens["input_ids"]
        )
    config = RunConfig("tiny-llama", epochs=1, max_new_tokens=2)
    model = add_lora(base, config)
    assert len(fine_tune(model, tokenizer, rows, config).loss) == 1
    assert len(generate_answers(model, tokenizer, data["test"], config)) == 6


def batch_of(rows, tokenizer, config):
    examples = [tokenize_row(row, tokenizer, config) for row in rows]
    return DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED)(examples)


def test_several_gpus_do_not_share_a_batch(base, environment):
    arguments = training_arguments(CONFIG, environment)
    arguments._n_gpu = 2  # what TrainingArguments finds on a machine with two
    trainer = AnswerTrainer(model=add_lora(base, CONFIG), args=arguments)
    assert (trainer.args.n_gpu, trainer._train_batch_size) == (1, CONFIG.batch_size)


@pytest.mark.parametrize("loss_on", ["answer", "text"])
def test_the_answer_only_head_gives_the_loss_and_gradients_of_the_full_one(base, tokenizer, data, loss_on):
    config = RunConfig("tiny-llama", loss_on=loss_on)
    model = add_lora(base, config)
    with torch.no_grad():  # away from B = 0, where the gradient of A would be zero
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
    batch = batch_of(list(data["train"])[:4], tokenizer, config)
    ours = answer_loss(model.get_base_model(), batch)
    full = model(**batch).loss  # Hugging Face's own: all logits, then the mean over label tokens
    assert ours.item() == pytest.approx(full.item(), rel=1e-5)
    parameters = [p for p in model.parameters() if p.requires_grad]
    for a, b in zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(full, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_padding_is_masked_and_never_the_end_token(data, tokenizer):
    batch = batch_of(list(data["train"])[:4], tokenizer, CONFIG)
    padding = batch["attention_mask"] == 0
    assert padding.any()
    assert (batch["labels"][padding] == IGNORED).all()
    assert (batch["input_ids"][padding] == tokenizer.pad_token_id).all()
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert (batch["labels"] == tokenizer.eos_token_id).sum() == 4  # one end token learnt a row


def test_training_lowers_the_loss_logs_each_step_and_repeats_exactly(environment, tokenizer, data):
    rows, results = data["train"].select(range(4)), []
    for _ in range(2):
        model = add_lora(load_base("tiny-llama", environment), CONFIG)
        results.append(fine_tune(model, tokenizer, rows, CONFIG))
    first = results[0]
    assert [entry["step"] for entry in first.loss] == list(range(1, 13))  # 4 rows, batch 4, 12 epochs
    assert first.samples == 48
    assert first.loss[-1]["loss"] < 0.9 * first.loss[0]["loss"]
    assert first.loss[0]["loss"] == pytest.approx(math.log(1000), rel=0.05)  # random weights: as good as guessing
    rates = [entry["learning_rate"] for entry in first.loss]
    assert rates == pytest.approx([1e-2 * (12 - i) / 12 for i in range(12)])  # linear, no warm-up
    assert results[1].loss == first.loss


def test_a_loss_that_is_not_a_number_stops_the_run_with_advice(base, tokenizer, data):
    model = add_lora(base, CONFIG)
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_A" in name).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"step 1.*learning rate \(0.01\)"):
        fine_tune(model, tokenizer, data["train"], CONFIG)


def test_a_callback_can_stop_training_after_a_step(base, tokenizer, data):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 2

    result = fine_tune(add_lora(base, CONFIG), tokenizer, data["train"], CONFIG, callbacks=[Stop()])
    assert [entry["step"] for entry in result.loss] == [1, 2]


def test_out_of_memory_halves_the_batch_and_keeps_the_optimizers_steps(
    environment, tokenizer, data, monkeypatch, capsys
):
    config = RunConfig("tiny-llama", rank=4, learning_rate=1e-2, epochs=1)
    whole = add_lora(load_base("tiny-llama", environment), config)
    expected = fine_tune(whole, tokenizer, data["train"], config)
    assert (expected.batch_size, expected.accumulation) == (4, 1)
    compute_loss = AnswerTrainer.compute_loss

    def fits_two_rows(self, model, inputs, *arguments, **named):
        if len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return compute_loss(self, model, inputs, *arguments, **named)

    monkeypatch.setattr(AnswerTrainer, "compute_loss", fits_two_rows)
    halved = add_lora(load_base("tiny-llama", environment), config)
    result = fine_tune(halved, tokenizer, data["train"], config)
    assert (result.batch_size, result.accumulation) == (2, 2)
    assert "with 2 rows at once" in capsys.readouterr().out
    assert [e["step"] for e in result.loss] == [e["step"] for e in expected.loss] == [1, 2, 3]
    for a, b in zip(whole.parameters(), halved.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_single_row_that_does_not_fit_is_an_error_with_advice(base, tokenizer, data, monkeypatch):
    def never_fits(*arguments, **named):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(AnswerTrainer, "compute_loss", never_fits)
    with pytest.raises(MemoryError, match="single row.*nf4"):
        fine_tune(add_lora(base, CONFIG), tokenizer, data["train"], CONFIG)


def test_no_rows_is_an_error(base, tokenizer, data):
    with pytest.raises(ValueError, match="no training rows"):
        fine_tune(add_lora(base, CONFIG), tokenizer, data["train"].select([]), CONFIG)


def test_half_precision_on_a_cpu_is_trained_without_scaling(environment):
    for dtype in ("float16", "bfloat16"):
        arguments = training_arguments(CONFIG, dataclasses.replace(environment, dtype=dtype))
        assert (arguments.fp16, arguments.bf16) == (False, False)  # the weights are 16 bits wide already


def test_every_wording_of_out_of_memory_is_known():
    for said in (
        "CUDA error: out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate",
        "CUDA out of memory.",
    ):
        assert is_out_of_memory(RuntimeError(said))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_an_adapter_is_never_trained_twice(base, tokenizer, data):
    model = add_lora(base, CONFIG)
    fine_tune(model, tokenizer, data["train"].select(range(4)), CONFIG)
    with pytest.raises(ValueError, match="trained already"):
        fine_tune(model, tokenizer, data["train"].select(range(4)), CONFIG)


FAMILIES = {
    "Llama": (LlamaConfig, {}), "Mistral": (MistralConfig, {}), "Qwen2": (Qwen2Config, {}),
    "Qwen3": (Qwen3Config, {"head_dim": 8}), "Gemma2": (Gemma2Config, {"head_dim": 8, "final_logit_softcapping": 0.05}),
    "Gemma3": (Gemma3TextConfig, {"head_dim": 8}), "Phi3": (Phi3Config, {}),
    "Granite": (GraniteConfig, {"logits_scaling": 8.0}),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_the_models_own_whatever_it_does_to_its_logits(family):
    kind, special = FAMILIES[family]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        kind(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2, **special)
    ).float().eval()  # fmt: skip
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)  # away from the flat start, where a cap would not bite
    ids = torch.randint(3, 64, (3, 12))
    labels = torch.where(torch.arange(12) > 7, ids, IGNORED)
    labels[0, 10:] = IGNORED
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    with torch.no_grad():
        assert answer_loss(model, batch).item() == pytest.approx(model(**batch).loss.item(), abs=1e-5)


def test_fused_projections_are_refused_by_name():
    model = AutoModelForCausalLM.from_config(
        Phi3Config(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            pad_token_id=0,
        )
    )
    with pytest.raises(
        ValueError, match=r"no projections q, v; its linear layers are .*fused in gate_up_proj, qkv_proj"
    ):
        add_lora(model, RunConfig("phi"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_vocabulary_matrix_is_never_copied(environment, tokenizer, data, dtype):
    """torch copies a frozen bf16 head for every row where its input is a slice: it shows as bmm and copy_."""
    there = dataclasses.replace(environment, dtype=dtype)
    model, config = load_base("tiny-llama", there), RunConfig("tiny-llama", epochs=1, max_new_tokens=4)
    vocabulary, hidden = model.get_output_embeddings().weight.shape
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        adapted = add_lora(model, config)
        fine_tune(adapted, tokenizer, data["train"], config)
        generate_answers(adapted, tokenizer, data["test"], config)
    shapes = [(e.name, shape) for e in seen.events() for shape in e.input_shapes if len(shape) >= 2]
    assert any(name == "aten::mm" and shape == [hidden, vocabulary] for name, shape in shapes)  # the head was used
    assert not [
        (name, shape) for name, shape in shapes
        if name in ("aten::bmm", "aten::copy_") and math.prod(shape) % (vocabulary * hidden) == 0
    ]  # fmt: skip
