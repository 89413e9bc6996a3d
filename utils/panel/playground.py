"""The playground: your own text and question, answered by the base model and by saved adapters side by side."""

import html

import ipywidgets
import pandas as pd

from utils.data.rows import load_qa
from utils.environment import Environment
from utils.panel.jobs import AnswerJob, saved_adapters
from utils.panel.settings import Settings
from utils.panel.view import MUTED, WRONG, View, button, said
from utils.report.style import styled

OWN = "your own text"


class Playground(View):
    """Ask anything of a Romanian text; see each model's answer, where it stands in the text, and the prompt sent.

    The settings give the model, the prompt's language and the decoding; no model is loaded before Ask.
    Example: Playground(settings, environment)
    """

    def __init__(self, settings: Settings, environment: Environment):
        super().__init__()
        self.config, self.environment = settings.config, environment
        # A test question for every topic: no run was trained on them.
        self.examples = {row["topic"]: row for row in reversed(list(load_qa("bundled")["test"]))}
        wide = {"style": {"description_width": "6em"}, "layout": {"width": "98%", "max_width": "56em"}}
        self.example = ipywidgets.Dropdown(description="example", options=[OWN, *self.examples], **wide)
        self.text = ipywidgets.Textarea(description="text", rows=5, placeholder="It holds the answer", **wide)
        self.question = ipywidgets.Text(description="question", placeholder="Ce, cine, unde, când …?", **wide)
        self.adapters = ipywidgets.SelectMultiple(description="adapters", rows=4, **wide)
        self.ask = button("Ask", "Put the question to the base model and the chosen adapters", self._ask, "primary")
        self.status, self.output = ipywidgets.HTML(), ipywidgets.HTML()
        self.example.observe(self._fill, "value")
        for widget in (self.text, self.question):
            widget.observe(self._edited, "value")
        title = ipywidgets.HTML(f"<b>Ask {html.escape(self.config.model)}</b>")
        parts = [title, self.example, self.text, self.question, self.adapters, self.ask, self.status, self.output]
        self.box = ipywidgets.VBox(parts)
        self.example.value = next(iter(self.examples))
        self.reload()

    def reload(self) -> None:
        """Look for saved adapters again; those that were chosen stay chosen.

        Example: panel.on_record.append(playground.reload)
        """
        found, first = saved_adapters(self.config, self.environment), not self.adapters.options
        chosen = [folder for folder in self.adapters.value if folder in found.values()]
        self.adapters.options = list(found.items())
        self.adapters.value = tuple(list(found.values())[:2] if first else chosen)
        self.adapters.layout.display = None if found else "none"
        none = "No adapter of this model is saved yet: only the base model answers. Train one in the panel above."
        self.status.value = said("Several adapters: hold Ctrl or Shift." if len(found) > 1 else "" if found else none)

    def answers(self) -> pd.DataFrame:
        """Return the answers so far, a row for each model; empty before the first question.

        Example: playground.answers().loc[0, "model"] -> "base model"
        """
        return pd.DataFrame(self.job.answers if self.job else [], columns=("model", "answer", "tokens_per_second"))

    def static(self) -> str:
        """Return the text, the question and the answers so far as HTML."""
        row = self.job.row if self.job else next(iter(self.examples.values()))
        asked = f"<p>{html.escape(row['text'])}</p><p><b>{html.escape(row['question'])}</b></p>"
        return asked + (styled(self.answers()).to_html() if self.job else "")

    def refresh(self) -> None:
        """Show the answers that have come."""
        job = self.job
        self.ask.disabled = self.busy
        states = {"waiting": "Waiting: a run is using the model.", "loading": "Loading the base model."}
        states |= {"answering": f"Answering: {len(job.answers)} of {1 + len(job.adapters)}.", "failed": job.message}
        told = states.get(job.phase, f"{len(job.answers)} answers.")
        self.status.value = said(told, WRONG if job.phase == "failed" else MUTED)
        self.output.value = _answers_html(job)

    def _fill(self, change) -> None:
        if row := self.examples.get(change["new"]):
            self.text.value, self.question.value = row["text"], row["question"]

    def _edited(self, change) -> None:
        row = self.examples.get(self.example.value, {})
        if change["new"] not in (row.get("text"), row.get("question")):
            self.example.value = OWN  # what stands there is no longer the example

    def _ask(self) -> None:
        if self.busy:
            return
        self.reload()  # a run of another notebook may have saved one
        if not (self.text.value.strip() and self.question.value.strip()):
            missing = "Write a question about the text." if self.text.value.strip() else "Paste a Romanian text first."
            self.status.value, self.output.value = said(missing, WRONG), ""
            return
        row = {"text": self.text.value, "question": self.question.value, "answer": ""}
        chosen = {name: folder for name, folder in self.adapters.options if folder in self.adapters.value}
        self.follow(AnswerJob(row, self.config, chosen, self.environment))


def marked(text: str, answer: str | None) -> str:
    """Return the text as HTML with the answer marked where it is a span of it; case, cedillas, a full stop forgiven.

    Example: marked("a < b", "B.") -> "a &lt; <mark>b</mark>"
    """
    wanted = _comparable(answer or "").strip(" .,;:!?„”\"'")
    start = _comparable(text).find(wanted) if wanted else -1
    if start < 0:
        return html.escape(text)
    end = start + len(wanted)
    return f"{html.escape(text[:start])}<mark>{html.escape(text[start:end])}</mark>{html.escape(text[end:])}"


def _comparable(text: str) -> str:
    folded = text.translate(str.maketrans("şţŞŢ", "șțȘȚ"))
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in folded)  # a letter stays one letter: places hold


def _answers_html(job: AnswerJob) -> str:
    card = "flex: 1 1 20em; min-width: 0; border: 1px solid var(--jp-border-color1, #bdbdbd); padding: 8px; line-height: 1.4"
    cards = []
    for one in job.answers:
        answer, place = one["answer"] or "(no answer)", marked(job.row["text"], one["answer"])
        cards.append(
            f"<section style='{card}'>"
            f"<div style='color: {MUTED}'>{html.escape(one['model'])}, {one['tokens_per_second']:.0f} tokens/s</div>"
            f"<div style='font-size: 115%; overflow-wrap: anywhere'><b>{html.escape(answer)}</b></div>"
            f"<p style='margin: 4px 0'>{place if '<mark>' in place else 'Not a span of the text.'}</p></section>"
        )
    sent = f"<pre style='white-space: pre-wrap'>{html.escape(job.prompt)}</pre>"
    answers = f"<div style='display: flex; flex-wrap: wrap; gap: 8px; margin: 8px 0'>{''.join(cards)}</div>"
    return f"{answers}<details><summary>The prompt that was sent</summary>{sent}</details>"
