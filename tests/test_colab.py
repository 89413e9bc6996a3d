"""What only stock Colab's versions can show; `make test-colab` runs this first, in an environment made of them."""

import importlib.metadata
import importlib.util
import json
import subprocess
import sys

import pytest

from utils.environment import ROOT, in_colab

pytestmark = pytest.mark.skipif(not in_colab(), reason="needs Colab's packages and its google.colab: make test-colab")

ADD_LORA = """
import sys; sys.path.insert(0, {root!r})
from transformers import LlamaConfig, LlamaForCausalLM
from peft import LoraConfig, get_peft_model
config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
print(get_peft_model(LlamaForCausalLM(config), LoraConfig(r=2)).get_nb_trainable_parameters())
"""


def python(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT / "notebooks", capture_output=True, text=True)


def version(package):
    importlib.invalidate_caches()
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def test_1_plain_lora_fails_on_stock_colab():
    if version("torchao") is None:
        pytest.skip("torchao is gone: the setup cell has run here already")
    assert version("torchao") == "0.10.0"
    done = python(ADD_LORA.format(root=str(ROOT)))
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert "torchao" in done.stderr


def test_2_the_setup_cell_mends_it_and_touches_nothing_else():
    before = {package: version(package) for package in ("torch", "numpy", "transformers", "peft", "ipywidgets")}
    notebook = json.loads((ROOT / "notebooks" / "02_fine_tuning.ipynb").read_text(encoding="utf-8"))
    setup = "".join(next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")["source"])
    done = python(setup + ADD_LORA.format(root=str(ROOT)))
    assert done.returncode == 0, done.stderr
    assert version("torchao") is None
    assert version("bitsandbytes") is not None
    assert {package: version(package) for package in before} == before
    again = python(setup + "\nimport utils.colab as e\ne._pip = None\ne.prepare()\nprint('quiet')")
    assert again.stdout == "quiet\n", again.stderr  # nothing left to do: pip is not even called
