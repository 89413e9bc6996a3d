"""Work that goes on while the notebook stays usable: a thread works and only sets state, whoever shows it looks."""

import threading
import time
from collections.abc import Callable, Sequence

from datasets import DatasetDict
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback

from utils.config import RunConfig
from utils.data import fingerprint
from utils.environment import Environment
from utils.experiments import finished_record, run
from utils.generation import generate_answers
from utils.models import load_base, load_tokenizer, remove_lora
from utils.panel_state import Settings, with_quantization


class BaseModel:
    """The one base model in memory, for all panels of a notebook; `lock` is held by the work that uses it.

    Example: shelf = BaseModel(); panel = HyperparameterPanel(settings, environment, shelf); Playground(…, shelf)
    """

    def __init__(self):
        """Start empty; the first work that needs a model loads it."""
        self.lock = threading.Lock()
        self._held, self._pair = None, None

    def get(self, name: str, environment: Environment) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
        """Return the model and its tokenizer; another model, or another quantization, takes the place of the one held."""
        wanted = (name, environment.quantization, environment.device, environment.dtype)
        if self._held != wanted:
            self._held, self._pair = None, None  # let go first: two may not fit
            self._pair = (load_base(name, environment), load_tokenizer(name))
            self._held = wanted
        return self._pair


class Job:
    """Work in a thread of its own. `phase` and `message` say where it stands; `stop` asks it to end.

    Example: job.start(); job.running -> True; job.stop(); job.wait(); job.phase -> "stopped"
    """

    def __init__(self):
        """Set the job up; nothing runs before `start`."""
        self.phase, self.message = "waiting", ""
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._guarded, daemon=True)

    @property
    def running(self) -> bool:
        """Whether the work goes on."""
        return self._thread.is_alive()

    def start(self) -> "Job":
        """Begin, and return at once."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ask the work to end; it does so after the step it is in."""
        self.stopping.set()

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the end; for tests and scripts, never for a callback."""
        self._thread.join(seconds)

    def work(self) -> None:
        """Do the work, looking at `stopping` now and then."""
        raise NotImplementedError

    def _guarded(self) -> None:
        try:
            self.work()
        except Exception as error:  # whatever it is, the panel must say it: nobody sees a thread's traceback
            self.phase, self.message = "failed", f"{type(error).__name__}: {error}"


class TrainingJob(Job):
    """One run: base model loaded, adapter trained, questions answered, record saved. A stop keeps what was learnt.

    Example: job = TrainingJob(settings, environment, BaseModel()).start(); job.wait(); job.record["status"] -> "finished"
    """

    def __init__(self, settings: Settings, environment: Environment, base: BaseModel):
        """Take the run's settings; `environment` gives the folder of its record."""
        super().__init__()
        self.settings, self.base = settings, base
        self.environment = with_quantization(environment, settings.quantization)
        self.step, self.steps, self.began = 0, 0, 0.0
        self.losses: list[tuple[int, float]] = []
        self.record: dict | None = None

    def work(self) -> None:
        """Do the run; asked to stop before the first step, it ends without a record."""
        self.phase = "loading"
        data = self.settings.load_data()
        with self.base.lock:
            model, tokenizer = self.base.get(self.settings.config.model, self.environment)
            if self.stopping.is_set():
                self.phase, self.message = "stopped", "Stopped before the first step: nothing was learnt or recorded."
                return
            self.record = run(self.settings.config, data, self.environment, model, tokenizer, [_Watch(self)])
        self.phase = self.record["status"]

    def pace(self) -> tuple[float, float]:
        """Return the rows per second so far and the seconds of training that are left.

        Example: job.pace() -> (8.2, 14.0)
        """
        seconds = time.perf_counter() - self.began
        if not self.step or seconds <= 0:
            return 0.0, 0.0
        rows = self.settings.config.batch_size * self.step / seconds
        return rows, (self.steps - self.step) * seconds / self.step


class AnswerJob(Job):
    """One question put to the base model and to saved adapters; `answers` fills as they come.

    Example: AnswerJob(row, config, {"rank 2": folder}, environment, base).start()
    """

    def __init__(self, row: dict, config: RunConfig, adapters: dict, environment: Environment, base: BaseModel):
        """Take text and question as a row, and the adapters' folders by the names that are shown."""
        super().__init__()
        self.row, self.config, self.adapters, self.environment, self.base = row, config, adapters, environment, base
        self.answers: list[dict] = []

    def work(self) -> None:
        """Answer with the base model first, then with one adapter after the other."""
        with self.base.lock:
            self.phase = "loading"
            model, tokenizer = self.base.get(self.config.model, self.environment)
            self.phase = "answering"
            for name, folder in {"base model": None, **self.adapters}.items():
                adapted = model if folder is None else PeftModel.from_pretrained(model, folder)
                try:
                    start = time.perf_counter()
                    prediction = generate_answers(adapted, tokenizer, [self.row], self.config)[0]
                    seconds = time.perf_counter() - start
                finally:
                    if folder is not None:
                        remove_lora(adapted)
                tokens = len(tokenizer(prediction.generation, add_special_tokens=False).input_ids)
                self.answers.append({"model": name, "answer": prediction.answer, "tokens_per_second": tokens / seconds})
        self.phase = "finished"


class SweepJob(Job):
    """Runs one after the other; what is finished is skipped, and a stop leaves the run it is in unrecorded.

    Example: SweepJob(configs, data, environment, base).start()
    """

    def __init__(
        self, configs: Sequence[RunConfig], load: Callable[[], DatasetDict], environment: Environment, base: BaseModel
    ):
        """Take the configurations of one model, and what loads their rows."""
        super().__init__()
        self.configs, self.load, self.environment, self.base = configs, load, environment, base
        self.states: dict[str, str] = {}
        self.step, self.steps, self.began = 0, 0, 0.0
        self.losses: list[tuple[int, float]] = []

    def work(self) -> None:
        """Do what is not finished; a loss that is not a number marks its run and the sweep goes on."""
        self.phase = "running"
        data = self.load()
        for config in self.configs:
            if finished_record(config, fingerprint(data), self.environment):
                continue
            self.step, self.losses = 0, []
            self.states[config.run_id] = "running"
            try:
                with self.base.lock:
                    model, tokenizer = self.base.get(config.model, self.environment)
                    run(config, data, self.environment, model, tokenizer, [_Watch(self, abandon=True)])
                del self.states[config.run_id]
            except FloatingPointError as error:
                self.states[config.run_id], self.message = "failed", str(error)
            except _Abandoned:
                del self.states[config.run_id]
            if self.stopping.is_set():
                self.phase = "stopped"
                return
        self.phase = "finished"


class _Abandoned(Exception):
    """Ends a run of a stopped sweep; experiments.run then gives the base model back as it was."""


class _Watch(TrainerCallback):
    def __init__(self, job: TrainingJob | SweepJob, abandon: bool = False):
        self.job, self.abandon = job, abandon

    def on_train_begin(self, args, state, control, **kwargs):
        job = self.job
        job.phase, job.step, job.steps, job.losses, job.began = "training", 0, state.max_steps, [], time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.job.step = state.global_step
        if self.job.stopping.is_set():
            if self.abandon:
                raise _Abandoned
            control.should_training_stop = True

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.job.losses.append((state.global_step, float(logs["loss"])))

    def on_train_end(self, args, state, control, **kwargs):
        self.job.phase = "answering"
