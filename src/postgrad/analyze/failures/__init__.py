"""Root causes of failures: `root_cause` reads what a failed job left, by rules and by numbers; no model is asked."""

from postgrad.analyze.failures.classify import root_cause
from postgrad.analyze.failures.experiment import cause_of

__all__ = ["cause_of", "root_cause"]
