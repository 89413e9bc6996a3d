"""From settings to record: training, answering, recording, one run or a sweep of them."""

from utils.experiments.generation import generate_answers, stop_ids
from utils.experiments.loss import AnswerTrainer, answer_loss
from utils.experiments.runs import answer_again, finished_record, record_run, run, sweep
from utils.experiments.training import fine_tune, tokenize_row, training_arguments

__all__ = [
    "AnswerTrainer", "answer_again", "answer_loss", "fine_tune", "finished_record", "generate_answers", "record_run", "run", "stop_ids",
    "sweep", "tokenize_row", "training_arguments",
]  # fmt: skip
