import dataclasses

import pytest
import torch

from utils.config import RunConfig
from utils.experiments import generation
from utils.experiments.generation import generate_answers, stop_ids
from utils.models import load_base, load_tokenizer


@pytest.fixture(scope="module")
def gemma(environment):
    return load_base("gemma-3-270m", environment), load_tokenizer("gemma-3-270m")


@pytest.mark.long
def test_batches_of_one_and_of_many_give_the_same_answers_in_float32(gemma, data, monkeypatch):
    model, tokenizer = gemma
    assert model.dtype == torch.float32
    config = RunConfig("gemma-3-270m", rank=None, max_new_tokens=12)
    monkeypatch.setitem(generation.TOKEN_BUDGET, "cpu", 1)
    alone = generate_answers(model, tokenizer, data["test"], config)
    monkeypatch.setitem(generation.TOKEN_BUDGET, "cpu", 512)
    together = generate_answers(model, tokenizer, data["test"], config)
    assert [p.generation for p in alone] == [p.generation for p in together]
    assert [p.index for p in together] == list(range(6))
    assert [p.references[0] for p in together] == data["test"]["answer"]
    assert any(p.answer for p in alone)


@pytest.mark.long
def test_gemma_answers_a_plain_question_and_stops_at_the_newline(gemma):
    model, tokenizer = gemma
    row = {
        "text": "Bucureștiul este capitala României.",
        "question": "Care este capitala României?",
        "answer": "București",
    }
    prediction = generate_answers(model, tokenizer, [row], RunConfig("gemma-3-270m", rank=None))[0]
    assert prediction.answer == "București"
    assert prediction.generation == " București\n"


def test_every_token_with_a_newline_stops(tokenizer):
    stops = stop_ids(tokenizer)
    assert tokenizer.eos_token_id in stops
    assert set(tokenizer("\n", add_special_tokens=False).input_ids) <= set(stops)
    assert tokenizer("a", add_special_tokens=False).input_ids[0] not in stops


def test_the_limit_of_new_tokens_is_kept(base, tokenizer, data):
    config = RunConfig("tiny-llama", rank=None, max_new_tokens=3)
    for prediction in generate_answers(base, tokenizer, data["test"], config):
        assert len(tokenizer(prediction.generation, add_special_tokens=False).input_ids) <= 3


def test_sampling_repeats_with_its_draw_and_a_temperature_near_zero_is_greedy(base, tokenizer, data):
    greedy = RunConfig("tiny-llama", rank=None, max_new_tokens=4)
    hot = RunConfig("tiny-llama", rank=None, max_new_tokens=4, temperature=1.0, top_p=0.9)

    def said(config, **changes):
        asked = dataclasses.replace(config, **changes)
        return [p.generation for p in generate_answers(base, tokenizer, data["test"], asked)]

    assert said(hot, draw=1) == said(hot, draw=1) != said(hot, draw=2)
    assert said(hot, temperature=1e-4) == said(greedy)
    assert said(hot, top_p=1e-6) == said(greedy)  # the likeliest token alone is left


def test_greedy_stays_greedy_whatever_the_model_itself_asks_for(base, tokenizer, data):
    config = RunConfig("tiny-llama", rank=None, max_new_tokens=4)
    greedy = generate_answers(base, tokenizer, data["test"], config)
    asked = {"do_sample": True, "temperature": 5.0, "top_p": 0.99, "repetition_penalty": 5.0, "num_beams": 2}
    base.generation_config.update(**asked, no_repeat_ngram_size=1)
    assert generate_answers(base, tokenizer, data["test"], config) == greedy


def test_the_heads_input_is_contiguous_so_that_its_weights_are_never_copied(base, tokenizer, data):
    seen = []
    base.get_output_embeddings().register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].is_contiguous())
    )
    generate_answers(base, tokenizer, data["test"], RunConfig("tiny-llama", rank=None, max_new_tokens=2))
    assert seen
    assert all(seen)


def test_out_of_memory_answers_fewer_rows_at_once(base, tokenizer, data, monkeypatch):
    config = RunConfig("tiny-llama", rank=None, max_new_tokens=3)
    expected = generate_answers(base, tokenizer, data["test"], config)
    generate, sizes = base.generate, []

    def fits_two_rows(input_ids, **named):
        sizes.append(len(input_ids))
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return generate(input_ids=input_ids, **named)

    monkeypatch.setattr(base, "generate", fits_two_rows)
    assert generate_answers(base, tokenizer, data["test"], config) == expected
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1]


def test_a_batch_holds_no_more_prompt_tokens_than_the_budget(base, tokenizer, data, monkeypatch):
    sizes, generate = [], base.generate
    monkeypatch.setattr(base, "generate", lambda **named: sizes.append(named["input_ids"].shape) or generate(**named))
    config = RunConfig("tiny-llama", rank=None, max_new_tokens=1)
    monkeypatch.setitem(generation.TOKEN_BUDGET, "cpu", 700)
    answers = generate_answers(base, tokenizer, data["test"], config)
    assert sum(rows for rows, _ in sizes) == 6
    assert 1 < len(sizes) < 6
    assert all(rows * tokens <= 700 for rows, tokens in sizes)
    assert [p.question for p in answers] == data["test"]["question"]


def test_logits_that_are_not_numbers_are_an_error_and_no_answer(base, tokenizer, data):
    with torch.no_grad():
        base.model.layers[0].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not numbers.*DTYPE"):
        generate_answers(base, tokenizer, data["test"], RunConfig("tiny-llama", rank=None, max_new_tokens=2))
