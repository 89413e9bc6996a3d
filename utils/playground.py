"""The playground: your own text and question, answered by the base model and by saved adapters side by side."""

import html

import ipywidgets
import pandas as pd

from utils.environment import Environment
from utils.live import AnswerJob, BaseModel
from utils.panel_costs import asked_problem
from utils.panel_runs import load_history, saved_adapters
from utils.panel_state import Settings, example_rows
from utils.panel_views import marked, table_html
from utils.prompt import build_prompt
from utils.views import MUTED, WRONG, View, button, choose, said

OWN = "your own text"


class Playground(View):
    """Ask anything of a Romanian text; see each model's answer, where it stands in the text, and the prompt sent.

    The settings give the model, the prompt's language and the decoding; `base` is shared with the notebook's panel.

    Example: Playground(settings, environment, panel.base)
    """

    def __init__(self, settings: Settings, environment: Environment, base: BaseModel | None = None):
        """Offer an example of every topic; no model is loaded before Ask."""
        super().__init__()
        self.settings, self.environment, self.base = settings, environment, base or BaseModel()
        self.job: AnswerJob | None = None
        self._filling = False
        self.examples = example_rows()
        wide = {"style": {"description_width": "6em"}, "layout": {"width": "98%", "max_width": "56em"}}
        self.example = ipywidgets.Dropdown(description="example", options=[OWN, *self.examples], **wide)
        self.text = ipywidgets.Textarea(
            description="text", rows=5, placeholder="A Romanian text that holds the answer", **wide
        )
        self.question = ipywidgets.Text(description="question", placeholder="Ce, cine, unde, când …?", **wide)
        self.adapters = ipywidgets.SelectMultiple(description="adapters", rows=4, **wide)
        self.ask = button("Ask", "Put the question to the base model and the chosen adapters", self._ask, "primary")
        self.status, self.output = ipywidgets.HTML(), ipywidgets.HTML()
        self.example.observe(self._fill, "value")
        for widget in (self.text, self.question):
            widget.observe(self._edited, "value")
        title = ipywidgets.HTML(f"<b>Ask {html.escape(settings.config.model)}</b>")
        parts = [title, self.example, self.text, self.question, self.adapters, self.ask, self.status, self.output]
        self.box = ipywidgets.VBox(parts)
        choose(self.example, next(iter(self.examples)))
        self.reload()

    def reload(self) -> None:
        """Look for saved adapters again; those that were chosen stay chosen.

        Example: panel.on_record.append(playground.reload)
        """
        records, _ = load_history([self.environment.runs / "records"])
        found = saved_adapters(records, self.settings.config.model, self.environment)
        chosen = [folder for folder in self.adapters.value if folder in found.values()]
        self.adapters.options = list(found.items())
        self.adapters.value = tuple(chosen or list(found.values())[:2])
        self.adapters.layout.display = None if found else "none"
        hint = "Several adapters: hold Ctrl or Shift." if len(found) > 1 else ""
        none = "No adapter of this model is saved yet: only the base model answers. Train one in the panel above."
        self.status.value = said(hint if found else none)

    def answers(self) -> pd.DataFrame:
        """Return the answers so far, a row for each model; empty before the first question.

        Example: playground.answers().loc[0, "model"] -> "base model"
        """
        return pd.DataFrame(self.job.answers if self.job else [], columns=("model", "answer", "tokens_per_second"))

    def static(self) -> str:
        """Return the text, the question and the answers so far as HTML."""
        row = self.job.row if self.job else next(iter(self.examples.values()))
        asked = f"<p>{html.escape(row['text'])}</p><p><b>{html.escape(row['question'])}</b></p>"
        return asked + (table_html(self.answers(), precision=1) if self.job else "")

    def refresh(self) -> None:
        """Show the answers that have come; called twice a second while a question is being answered, and once after."""
        job = self.job
        self.ask.disabled = job.running
        if job.phase == "failed":
            self.status.value = said(job.message, WRONG)
        elif job.running:
            states = {"waiting": "Waiting: a run is using the model.", "loading": "Loading the base model."}
            self.status.value = said(
                states.get(job.phase, f"Answering: {len(job.answers)} of {1 + len(job.adapters)}.")
            )
        else:
            self.status.value = said(f"{len(job.answers)} answers.")
        self.output.value = self._answers_html(job)

    def _fill(self, change) -> None:
        if row := self.examples.get(change["new"]):
            self._filling = True
            self.text.value, self.question.value = row["text"], row["question"]
            self._filling = False

    def _edited(self, _change) -> None:
        if not self._filling:
            self.example.value = OWN  # what stands there is no longer the example

    def _ask(self) -> None:
        if self.job and self.job.running:
            return
        self.reload()  # a run of another notebook may have saved one
        text, question, config = self.text.value, self.question.value, self.settings.config
        if problem := asked_problem(text, question, config):
            self.status.value, self.output.value = said(problem, WRONG), ""
            return
        row = {"text": text, "question": question, "answer": ""}
        names = {folder: name for name, folder in self.adapters.options}
        chosen = {names[folder]: folder for folder in self.adapters.value}
        self.job = AnswerJob(row, config, chosen, self.environment, self.base).start()
        self.refresh()
        self.follow(self.job, self.refresh)

    def _answers_html(self, job: AnswerJob) -> str:
        cards = []
        for one in job.answers:
            answer = "(no answer)" if one["answer"] is None else one["answer"]
            where = marked(job.row["text"], one["answer"])
            place = (
                f"<p style='margin: 4px 0'>{where}</p>"
                if "<mark>" in where
                else "<p style='margin: 4px 0'>Not a span of the text.</p>"
            )
            cards.append(
                "<section style='flex: 1 1 20em; min-width: 0; border: 1px solid var(--jp-border-color1, #bdbdbd); padding: 8px; line-height: 1.4'>"
                f"<div style='color: {MUTED}'>{html.escape(one['model'])}, {one['tokens_per_second']:.0f} tokens/s</div>"
                f"<div style='font-size: 115%; overflow-wrap: anywhere'><b>{html.escape(answer)}</b></div>{place}</section>"
            )
        prompt = html.escape(build_prompt(job.row["text"], job.row["question"], job.config.prompt_language))
        sent = f"<details><summary>The prompt that was sent</summary><pre style='white-space: pre-wrap'>{prompt}</pre></details>"
        return f"<div style='display: flex; flex-wrap: wrap; gap: 8px; margin: 8px 0'>{''.join(cards)}</div>{sent}"
