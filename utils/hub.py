"""The Hugging Face Hub: whether it answers, whether this user may have a model, and sharing a trained adapter."""

import huggingface_hub
from huggingface_hub import HfApi, errors


def hub_reachable() -> bool:
    """Return whether the Hugging Face Hub answers: one short request, where its libraries would retry for a minute.

    Example: hub_reachable() -> False on a machine without a network, or with HF_HUB_OFFLINE set
    """
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    try:
        huggingface_hub.utils.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=10)
    except Exception:  # the session is requests or httpx, by version; whatever it raises means: no answer
        return False
    return True


def check_access(repository: str) -> None:
    """Raise an error that says what to click where the model cannot be had; return at once where it can.

    The token is taken the way huggingface_hub takes it (the environment's HF_TOKEN, a Colab secret of that name, a
    login) and is never shown. A model that is in the cache needs neither a token nor a network.

    Example: check_access("meta-llama/Llama-3.2-3B") raises PermissionError where no token is set
    """
    page = f"{huggingface_hub.constants.ENDPOINT}/{repository}"
    if not hub_reachable():
        if isinstance(huggingface_hub.try_to_load_from_cache(repository, "config.json"), str):
            return
        raise ConnectionError(
            f"No network: the Hub, which holds {repository}, cannot be reached, and no copy is in the cache. Check the "
            "connection, or take a model that needs none: MODEL = 'gemma-3-270m', or a folder of your own."
        )
    try:
        HfApi().auth_check(repository)
    except errors.GatedRepoError:
        if huggingface_hub.get_token() is None:
            raise PermissionError(
                f"No token: {repository} is gated. 1. Accept its licence on {page}. 2. Make a token that can read at "
                f"{huggingface_hub.constants.ENDPOINT}/settings/tokens. 3. In Colab click the key on the left, add it as "
                "the secret HF_TOKEN and allow this notebook; elsewhere run 'hf auth login'. 4. Run this cell again. "
                "Or name an ungated copy: MODEL = 'unsloth/Llama-3.2-3B'."
            ) from None
        raise PermissionError(
            f"A token without access: your account may not read {repository} yet. Accept the licence on {page} with the "
            "account that the token belongs to, wait for the mail that grants it, and check that the token may read gated "
            "repositories. Or name an ungated copy: MODEL = 'unsloth/Llama-3.2-3B'."
        ) from None
    except errors.RepositoryNotFoundError:
        raise ValueError(
            f"The Hub has no model {repository}, or it is private and your token may not read it."
        ) from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no status")
        raise ConnectionError(
            f"The Hub refused {repository} with status {status}: try again, or check the token."
        ) from None


def model_card(record: dict) -> str:
    """Return the README of a shared adapter, filled from its run's record: base model, data, scores with n, limits.

    Example: model_card(record).splitlines()[0] -> "---"
    """
    config, data, metrics = record["config"], record["data"], record["metrics"]
    modules = ", ".join(config["target_modules"])
    answer_label = "Answer:" if config["prompt_language"] == "en" else "Răspuns:"
    return f"""---
base_model: {record["model"]["id"]}
library_name: peft
language: ro
pipeline_tag: text-generation
tags: [lora, question-answering]
---

# {record["run_id"]}

A LoRA adapter that answers a question about a Romanian text with a span of the text.

| | |
|---|---|
| base model | {record["model"]["id"]}, revision {record["model"]["revision"] or "unknown"} |
| adapter | rank {config["rank"]}, alpha {config["alpha"]:g}, modules {modules}: {record["model"]["trainable"]:,} parameters |
| training | {data["train_rows"]} rows of {data["name"]}, {config["epochs"]} epochs, batch {config["batch_size"]}, learning rate {config["learning_rate"]:g}, seed {config["seed"]}, loss on {config["loss_on"]} |
| exact match | {metrics["em_strict"]:.3f} strict, {metrics["em_ro"]:.3f} ignoring case, punctuation and cedilla |
| token F1 | {metrics["f1_strict"]:.3f} strict, {metrics["f1_ro"]:.3f} ignoring case, punctuation and cedilla |
| measured on | n = {metrics["n"]} test rows of {data["name"]}, fingerprint {data["fingerprint"]} |

## Prompt

Three lines: `Context: ` and the text, the question with its label, `{answer_label}` with nothing after it. Decode greedily; the
answer is what comes before the first newline.

## Limits

Trained and measured on short, clean, encyclopedic Romanian texts, one run. It copies spans; it does not say when the text
holds no answer. The base model's licence and limits apply.
"""
