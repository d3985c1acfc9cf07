"""Postgrad as a contestant: a folder with an evaluator, a base model and a time limit in; `final_model` out.

The contract is that of PostTrainBench (arXiv 2603.08640): nothing but the given base is tuned, no test
data is trained on, evaluator and templates stay as they are, and what lies in `final_model` at the end is evaluated.
"""

from postgrad.contest.entry import Entry, Order, OutOfTime
from postgrad.contest.state import State
from postgrad.contest.tasks import data_task

__all__ = ["Entry", "Order", "OutOfTime", "State", "data_task"]
