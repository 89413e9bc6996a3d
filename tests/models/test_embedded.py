import hashlib
import platform
import subprocess
import sys

import pytest
import torch

from utils.experiments.generation import stop_ids
from utils.models import embedded, load_base, load_tokenizer
from utils.models.embedded import gemma_folder, load_llama3_tokenizer, tiny_tokenizer


@pytest.fixture
def packaged(monkeypatch, tmp_path):
    """A stand-in package of two parts, and an empty cache."""
    (tmp_path / "a").write_bytes(b"GG")
    (tmp_path / "b").write_bytes(b"UF")
    (tmp_path / "standin.py").write_text(
        f"from pathlib import Path\ndef chunk_paths(): return [Path({str(tmp_path)!r}) / n for n in 'ab']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path / "cache" / "romanian-qa-lora"
    sys.modules.pop("standin", None)


def test_a_wrong_checksum_is_an_error_and_leaves_nothing_behind(packaged):
    with pytest.raises(ValueError, match=r"expected 0{64}.*reinstall"):
        gemma_folder("standin", "0" * 64)
    assert list(packaged.iterdir()) == []


def test_an_interrupted_conversion_is_never_taken_for_a_model(packaged, monkeypatch):
    def interrupted(gguf, target):
        target.mkdir()
        (target / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, "_convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gemma_folder("standin", hashlib.sha256(b"GGUF").hexdigest())
    assert list(packaged.iterdir()) == []


def test_a_killed_conversion_is_cleared_away_and_done_again(packaged, monkeypatch):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    for name in ("joinedx", "gemma-3-270m-00000000"):
        (packaged / f"{name}.{gone.stdout.strip()}-{platform.node()}.unfinished").mkdir(parents=True)

    def converted(gguf, target):
        target.mkdir()
        (target / "model.safetensors").write_bytes(gguf.read_bytes())

    monkeypatch.setattr(embedded, "_convert", converted)
    folder = gemma_folder("standin", hashlib.sha256(b"GGUF").hexdigest())
    assert list(packaged.iterdir()) == [folder]
    assert (folder / "model.safetensors").read_bytes() == b"GGUF"


def test_a_missing_package_says_what_to_install(packaged):
    with pytest.raises(ModuleNotFoundError, match=r"no-such-package.*requirements-dev\.txt"):
        gemma_folder("no_such_package", "1" * 64)


def test_gemma_is_converted_once_and_loads_whole(environment, monkeypatch):
    folder = gemma_folder()
    monkeypatch.setattr(embedded, "_convert", None)  # a second conversion would fail
    model = load_base("gemma-3-270m", environment)
    assert model.num_parameters() == 268_098_176
    assert model.dtype == torch.float32
    assert (folder / "model.safetensors").stat().st_size == pytest.approx(2 * 268_098_176, rel=0.001)  # two bytes each


def test_gemmas_tokenizer_has_one_bos_its_own_padding_and_33_stops():
    tokenizer = load_tokenizer("gemma-3-270m")
    ids = tokenizer("Context: ș").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    stops = stop_ids(tokenizer)
    assert len(stops) == 33  # 32 tokens with a newline, and the end token
    assert tokenizer.eos_token_id in stops
    assert all("\n" in tokenizer.decode([i]) for i in stops if i != tokenizer.eos_token_id)
    assert tokenizer("a\nb").input_ids[2] in stops


def test_the_llama_3_tokenizer_is_the_real_one():
    tokenizer = load_llama3_tokenizer()
    assert len(stop_ids(tokenizer)) == 2256  # 2,255 tokens with a newline, and the end token
    assert len(tokenizer) == 128_256
    assert tokenizer("Hello world").input_ids == [128000, 9906, 1917]  # as published for Llama 3
    assert tokenizer.convert_tokens_to_ids(["<|end_of_text|>", "<|finetune_right_pad_id|>", "<|eot_id|>"]) == [
        128001,
        128004,
        128009,
    ]
    for text in ("ăâîșțĂÂÎȘȚ", "şţŞŢ", "„Vulturul pleșuv”"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_the_tiny_tokenizer_is_the_same_every_time():
    text = "Vulturul pleșuv trăiește în America."
    assert tiny_tokenizer()(text).input_ids == tiny_tokenizer()(text).input_ids
    assert len(tiny_tokenizer()) == 1000
