"""Metrics: one line here each."""

from postgrad.metrics.base import Metric
from postgrad.registry import Registry

METRICS: Registry[Metric] = Registry(
    "metric",
    "postgrad.metrics",
    {
        "accuracy": "postgrad.metrics.classification:Accuracy",
        "macro_f1": "postgrad.metrics.classification:MacroF1",
        "weighted_f1": "postgrad.metrics.classification:WeightedF1",
        "mcc": "postgrad.metrics.classification:MCC",
        "in_scope_accuracy": "postgrad.metrics.classification:InScopeAccuracy",
        "unthresholded_accuracy": "postgrad.metrics.classification:UnthresholdedAccuracy",
        "out_of_scope_recall": "postgrad.metrics.classification:OutOfScopeRecall",
        "auroc": "postgrad.metrics.classification:AUROC",
    },
)
