"""Work that goes on while the notebook stays usable: a thread works and only sets state, whoever shows it looks."""

import threading
import time
from pathlib import Path

from peft import PeftModel
from transformers import TrainerCallback

from utils.config import PROFILES, RunConfig
from utils.environment import Environment
from utils.experiments.generation import generate_answers
from utils.experiments.runs import run
from utils.models.adapter import has_adapter, remove_lora
from utils.models.base import IN_USE, held_base
from utils.panel.settings import Settings, describe
from utils.prompt import build_prompt
from utils.records import adapter_folder, identity_of, load_records, record_path


class Job(threading.Thread):
    """Work in a thread of its own: `phase` and `message` say where it stands, `stopping` asks it to end.

    Example: job.start(); job.stopping.set(); job.join(); job.phase -> "stopped"
    """

    def __init__(self):
        super().__init__(daemon=True)
        self.phase, self.message, self.stopping = "waiting", "", threading.Event()

    def run(self) -> None:
        """Do the work on the base model, alone; an error becomes the job's message, for nobody sees a traceback here."""
        try:
            with IN_USE:  # one at a time, and no cell beside it
                self.phase = "loading"
                self.work()
        except Exception as error:  # whatever it is, the panel must say it
            self.phase, self.message = "failed", f"{type(error).__name__}: {error}"


class TrainingJob(Job, TrainerCallback):
    """One run: base model loaded, adapter trained, questions answered, record saved. A stop keeps what was learnt.

    It follows its own training as the Trainer's callback; `environment` gives the folder of its record.
    Example: job = TrainingJob(settings, environment); job.start(); job.join(); job.record["status"] -> "finished"
    """

    def __init__(self, settings: Settings, environment: Environment):
        super().__init__()
        self.settings, self.environment = settings, environment
        self.step, self.steps, self.began, self.losses = 0, 0, 0.0, []  # losses: a (step, loss) pair each
        self.record: dict | None = None

    def work(self) -> None:
        """Do the run; asked to stop before the first step, it ends without a record."""
        data, config = self.settings.load_data(), self.settings.config
        model, tokenizer = held_base(config.model, self.environment)
        if self.stopping.is_set():
            self.phase, self.message = "stopped", "Stopped before the first step: nothing was learnt or recorded."
            return
        self.record = run(config, data, self.environment, model, tokenizer, [self])
        self.phase = self.record["status"]

    def on_train_begin(self, args, state, control, **kwargs):
        """Start from nothing: a run that ran out of memory begins again."""
        self.phase, self.step, self.steps, self.losses = "training", 0, state.max_steps, []
        self.began = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        """Tell the step, and end the training where that was asked for."""
        self.step = state.global_step
        control.should_training_stop = control.should_training_stop or self.stopping.is_set()

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Keep the step's loss for the curve."""
        if logs and "loss" in logs:
            self.losses.append((state.global_step, float(logs["loss"])))

    def on_train_end(self, args, state, control, **kwargs):
        """The test questions come next."""
        self.phase = "answering"


class AnswerJob(Job):
    """One question put to the base model and to saved adapters; `answers` fills as they come.

    `row` holds text and question; `adapters` are folders by the names that are shown.
    Example: AnswerJob(row, config, {"r 2 q,v 1e-4": folder}, environment).start()
    """

    def __init__(self, row: dict, config: RunConfig, adapters: dict[str, Path], environment: Environment):
        super().__init__()
        self.row, self.config, self.adapters, self.environment = row, config, adapters, environment
        self.prompt = build_prompt(row["text"], row["question"], config.prompt_language)
        self.answers: list[dict] = []

    def work(self) -> None:
        """Answer with the base model first, then with one adapter after the other; a text too long is not asked."""
        model, tokenizer = held_base(self.config.model, self.environment)
        limit = PROFILES[self.environment.profile].prompt_tokens
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2 * limit
        limit = min(limit, positions - self.config.max_new_tokens)
        if (tokens := len(tokenizer(self.prompt).input_ids)) > limit:
            advice = f"Please shorten the text by about {100 * (tokens - limit) // tokens + 1} %."
            self.phase, self.message = "failed", f"This is {tokens:,} tokens, the limit is {limit:,}. {advice}"
            return
        self.phase = "answering"
        for name, folder in {"base model": None, **self.adapters}.items():
            adapted = model if folder is None else PeftModel.from_pretrained(model, folder)
            start = time.perf_counter()
            prediction = generate_answers(adapted, tokenizer, [self.row], self.config)[0]
            seconds = time.perf_counter() - start
            remove_lora(adapted)  # after an error held_base does it
            tokens = len(tokenizer(prediction.generation, add_special_tokens=False).input_ids)
            self.answers.append({"model": name, "answer": prediction.answer, "tokens_per_second": tokens / seconds})
        self.phase = "finished"


def earlier_runs(environment: Environment) -> tuple[list[dict], list[str]]:
    """Return the adapted runs recorded here, the latest first, and a sentence for each file that cannot be read.

    Example: earlier_runs(environment)[0][0]["status"] -> "finished"
    """
    records, complaints = load_records(folder := environment.runs / "records")

    def written(record: dict) -> float:
        path = record_path(folder, record["run_id"], identity_of(record))
        return path.stat().st_mtime if path.exists() else 0  # renamed by hand: last

    adapted = [record for record in records if record["config"]["rank"] is not None and "metrics" in record]
    return sorted(adapted, key=written, reverse=True), complaints


def saved_adapters(config: RunConfig, environment: Environment) -> dict[str, Path]:
    """Return the folders of the adapters saved for a model and a prompt, by the names of their runs; the latest first.

    Example: list(saved_adapters(RunConfig("tiny-llama"), environment)) -> ["r 2 q,v 1e-4, 3 epochs, seed 0"]
    """
    found, asked = {}, config.as_dict()
    for record in earlier_runs(environment)[0]:
        folder = adapter_folder(environment.runs, record["run_id"], identity_of(record))
        same = all(record["config"][name] == asked[name] for name in ("model", "prompt_language"))
        if same and has_adapter(folder):
            name = describe(record["config"], record["status"])
            found[name if name not in found else f"{name}, {folder.name}"] = folder
    return found
