"""Metrics: one line here each.

Two tables, because metrics over labels and metrics over answers in words are asked in different ways, and whoever asks
knows which of the two a task has.
"""

from postgrad.errors import UserError
from postgrad.metrics.base import Metric, TextMetric
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

TEXT_METRICS: Registry[TextMetric] = Registry(
    "text metric",
    "postgrad.text_metrics",
    {
        "exact_match": "postgrad.metrics.texts:ExactMatch",
        "normalised_match": "postgrad.metrics.texts:NormalisedMatch",
        "token_f1": "postgrad.metrics.texts:TokenF1",
        "choice_letter": "postgrad.metrics.texts:ChoiceLetter",
        "numeric_match": "postgrad.metrics.numbers:NumericMatch",
        "pr_auc": "postgrad.metrics.numbers:PrAuc",
        "label_set_exact": "postgrad.metrics.label_sets:LabelSetExact",
        "label_set_micro_f1": "postgrad.metrics.label_sets:LabelSetMicroF1",
        "label_set_macro_f1": "postgrad.metrics.label_sets:LabelSetMacroF1",
        "rouge1": "postgrad.metrics.overlap:Rouge1",
        "rouge2": "postgrad.metrics.overlap:Rouge2",
        "rougeL": "postgrad.metrics.overlap:RougeL",
        "bleu": "postgrad.metrics.overlap:Bleu",
        "chrf": "postgrad.metrics.overlap:Chrf",
        "order_exact": "postgrad.metrics.sequences:OrderExact",
        "order_tau": "postgrad.metrics.sequences:OrderTau",
        "json_valid": "postgrad.metrics.structured:JsonValid",
        "json_field_f1": "postgrad.metrics.structured:JsonFieldF1",
        "json_exact": "postgrad.metrics.structured:JsonExact",
        "recall_at_1": "postgrad.metrics.retrieval:RecallAt1",
        "recall_at_5": "postgrad.metrics.retrieval:RecallAt5",
        "recall_at_10": "postgrad.metrics.retrieval:RecallAt10",
        "mrr": "postgrad.metrics.retrieval:MRR",
        "ndcg_at_10": "postgrad.metrics.retrieval:NdcgAt10",
        "cost_error": "postgrad.metrics.costs:CostError",
        "brevity": "postgrad.metrics.costs:Brevity",
        "law_label": "postgrad.metrics.lawbench:LawLabel",
        "law_label_f1": "postgrad.metrics.lawbench:LawLabelF1",
        "law_article_f1": "postgrad.metrics.lawbench:LawArticleF1",
        "law_reading_f1": "postgrad.metrics.lawbench:LawReadingF1",
        "law_rougeL": "postgrad.metrics.lawbench:LawRougeL",
        "mechanism_steps": "postgrad.metrics.mechanisms:MechanismSteps",
        "mechanism_score": "postgrad.metrics.molecules:MechanismScore",
        "molecule_valid": "postgrad.metrics.molecules:MoleculeValid",
        "tomg_success": "postgrad.metrics.molecules:TomgSuccess",
        "judge": "postgrad.metrics.judged:JudgeWins",
        "judge_agreement": "postgrad.metrics.judged:JudgeAgreement",
        "judge_first": "postgrad.metrics.judged:JudgeFirst",
        "code_tests": "postgrad.metrics.code:CodeTests",
        "reasoning_gym": "postgrad.metrics.gym:ReasoningGym",
    },
)


#: Who says a number that is no metric of ours: a referee's can be certified, a printed one is a script's own word.
SAID_BY = ("referee", "printed")


def is_given(name: str) -> bool:
    """True for the name of such a number: "referee:accuracy", "printed:-val_bpb"."""
    return ":" in name and name.partition(":")[0] in SAID_BY


def metric_of(name: str) -> Metric | TextMetric:
    """The metric of this name, from whichever table has it.

    Raises:
        UserError: the name is in neither.
    """
    if is_given(name):
        from postgrad.metrics.given import Given

        return Given(name)
    in_words = not METRICS.is_own(name) and (TEXT_METRICS.is_own(name) or name in TEXT_METRICS.names())
    return TEXT_METRICS.get(name) if in_words else METRICS.get(name)


def reads_verdicts(name: str) -> bool:
    """True for a metric over answers in words that counts what a judge said: without a judge it scores nothing. False
    for one whose library is missing, which whoever wants to grade with it is told."""
    if not (TEXT_METRICS.is_own(name) or name in TEXT_METRICS.names()):
        return False
    try:
        return bool(getattr(TEXT_METRICS.get(name), "reads_verdicts", False))
    except UserError:
        return False
