"""Metrics over answers in words: the contract and hand-computed cases of each."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec

import pytest

from postgrad.errors import UserError
from postgrad.metrics import TEXT_METRICS, code_box
from postgrad.metrics.base import TextMetric
from postgrad.testing.text_metric import TextCase, TextMetricContract

NAN = math.nan
# They need RDKit; `test_chem_metrics.py` has their suites.
CHEMICAL = {"mechanism_score", "molecule_valid", "tomg_success"}


def get(name: str) -> TextMetric:
    return TEXT_METRICS.get(name)


class TestExactMatch(TextMetricContract):
    metric = get("exact_match")
    references = ("Paris", "Rome", "the Nile")
    cases = (
        TextCase((("Paris", " Paris\n"), ("Paris", "paris"), ("Rome", "Rome."), ("", "")), value=2 / 4),
        TextCase((("a", "a"), ("b", "c")), value=3 / 4, weights=(3, 1)),
        TextCase((("a", "a"),), value=NAN, weights=(0,)),
    )


class TestNormalisedMatch(TextMetricContract):
    metric = get("normalised_match")
    references = ("Paris", "Rome", "the Nile")
    cases = (TextCase((("the Nile", "A  NILE!"), ("Rome", "Rome, Italy"), ("U.S.", "us"), ("a", "the")), value=3 / 4),)


class TestTokenF1(TextMetricContract):
    metric = get("token_f1")
    references = ("the cat sat", "a dog ran off", "birds")
    cases = (
        # {cat, sat} against {cat, sat, down}: 2*2/5; {b, b} against {b}: 2*1/3; nothing against something: 0.
        TextCase(
            (("the cat sat", "Cat sat down."), ("b", "b b"), ("birds", ""), ("", "")), value=(4 / 5 + 2 / 3 + 1) / 4
        ),
    )


class TestChoiceLetter(TextMetricContract):
    metric = get("choice_letter")
    references = ("A", "(B)", "c", "J")
    unreadable = ("A or B", "none", "")
    cases = (
        TextCase((("B", "The answer is (B)."), ("B", "b"), ("B", "A or B"), ("A", "It is a cat.")), value=2 / 4),
        TextCase((("none", "B"), ("B", "B")), value=1.0),
    )


class TestNumericMatch(TextMetricContract):
    metric = get("numeric_match")
    references = ("42", "-3", "1,234.5", "2/3", "50%")
    unreadable = ("none", "", "1e999", "3/0")
    cases = (
        TextCase((("42", "So it is 40 + 2 = 42."), ("42", "42, of 100"), ("50%", "0.5"), ("0.5", "50 %")), value=3 / 4),
        # Within a millionth of the reference, and no more.
        TextCase((("1000000", "1000000.9"), ("1000000", "1000001.1"), ("0", "1e-10"), ("0", "1e-8")), value=2 / 4),
    )


class TestPrAuc(TextMetricContract):
    metric = get("pr_auc")
    references = ("1", "0")
    unreadable = ("2", "yes", "")
    cases = (
        # From the top: right, wrong, right: 1/2 * 1/1 + 1/2 * 2/3.
        TextCase((("1", "0.9"), ("0", "0.8"), ("1", "0.7"), ("0", "0.1")), value=1 / 2 + 1 / 3),
        # A tie is one step; no number comes last.
        TextCase((("1", "0.5"), ("0", "0.5")), value=1 / 2),
        TextCase((("1", "no idea"), ("0", "-1e300")), value=1 / 2),
        TextCase((("1", "0.9"), ("0", "0.8"), ("1", "0.7")), value=3 / 4 + 1 / 4 * 4 / 6, weights=(3, 2, 1)),
        TextCase((("0", "0.9"),), value=NAN),
    )


class TestLabelSetExact(TextMetricContract):
    metric = get("label_set_exact")
    references = ("red, blue", '["green"]', "[]", "blue")
    unreadable = ("[red", '{"a": 1}')
    cases = (
        TextCase((("red, blue", "Blue; red"), ("red", "red, blue"), ("[]", ""), ("a", "Labels: a.")), value=3 / 4),
    )


class TestLabelSetMicroF1(TextMetricContract):
    metric = get("label_set_micro_f1")
    references = ("red, blue", '["green"]', "[]", "blue")
    unreadable = ("[red", '{"a": 1}')
    cases = (
        # Right: red, green. Answered: red, pink, green. Expected: red, blue, green.
        TextCase((("red, blue", "red, pink"), ('["green"]', "- Green")), value=2 * 2 / (3 + 3)),
        TextCase((("[]", "[]"),), value=1.0),
        TextCase((("[]", "red"),), value=0.0),
    )


class TestLabelSetMacroF1(TextMetricContract):
    metric = get("label_set_macro_f1")
    references = ("red, blue", '["green"]', "[]", "blue")
    unreadable = ("[red", '{"a": 1}')
    cases = (
        # red 2*1/(1+2), blue 0, green 1; pink is in no reference.
        TextCase((("red, blue", "red, pink"), ('["green"]', "green, red")), value=(2 / 3 + 0 + 1) / 3),
        # A label without weight does not occur.
        TextCase((("red", "red"), ("blue", "red")), value=1.0, weights=(1, 0)),
        TextCase((("[]", "[]"),), value=NAN),
    )


class TestRouge1(TextMetricContract):
    metric = get("rouge1")
    references = ("the cat sat on the mat", "dogs running fast", "one")
    unreadable = ("", "猫が座った")
    cases = (
        # cat, sat shared: 2*2/(3+3), and stems: run = runs.
        TextCase((("the cat sat", "a cat sat"), ("he running", "he runs")), value=(2 / 3 + 1) / 2),
    )


class TestRouge2(TextMetricContract):
    metric = get("rouge2")
    references = ("the cat sat on the mat", "dogs running fast")
    unreadable = ("", "one", "猫が座った")
    cases = (TextCase((("the cat sat down", "the cat sat up"), ("a b", "b a")), value=(2 / 3 + 0) / 2),)


class TestRougeL(TextMetricContract):
    metric = get("rougeL")
    references = ("the cat sat on the mat", "dogs running fast", "one")
    unreadable = ("", "猫が座った")
    # Lin 2004, section 3.1: "police the gunman" has two of "police killed the gunman" in order... of three and four.
    cases = (TextCase((("police killed the gunman", "the gunman kill police"),), value=2 * 2 / 8),)


class TestBleu(TextMetricContract):
    metric = get("bleu")
    references = ("the cat sat on the mat", "dogs are running fast today", "one more sentence of six words")
    scale_matters = True
    cases = (
        # Precisions 5/6, 4/5, 3/4, 2/3: their product is 1/3.
        TextCase((("a b c d e f", "a b c d e x"),), value=(1 / 3) ** 0.25),
        # As many words as match, four of six: exp(1 - 6/4).
        TextCase((("a b c d e f", "a b c d"),), value=math.exp(-0.5)),
        # 2/4, 1/3, then none of 2 and none of 1: 1/(2*2) and 1/(4*1).
        TextCase((("a b c d", "a b x y"),), value=(2 / 4 * 1 / 3 * 1 / 4 * 1 / 4) ** 0.25),
        TextCase((("a b c d", ""),), value=0.0),
    )


class TestChrf(TextMetricContract):
    metric = get("chrf")
    references = ("the cat sat on the mat", "dogs running fast", "one")
    unreadable = ("", " \n")
    cases = (
        # "ab" against "ac": 1/2 of the characters, 0 of the pairs, no longer orders: P = R = 1/4.
        TextCase((("ac", "a b"),), value=0.25),
        # Precision (1 + 1) / 2, recall (2/3 + 1/2) / 2 = 7/12, F2 = 5 * 7/12 / (4 + 7/12).
        TextCase((("abc", "ab"),), value=5 * (7 / 12) / (4 + 7 / 12)),
    )


class TestOrderExact(TextMetricContract):
    metric = get("order_exact")
    references = ("A, C, B, D", '["x", "y"]', "one > two > three")
    unreadable = ("", "A, B, A", "[1")
    cases = (
        TextCase(
            (("A, C, B", "The order is: a; c; b."), ("A, C", "1. A\n2. C"), ("A, C", "A, B, C"), ("A", "")), value=0.5
        ),
    )


class TestOrderTau(TextMetricContract):
    metric = get("order_tau")
    references = ("A, C, B, D", '["x", "y"]', "one > two > three")
    unreadable = ("", "A", "A, B, A", "[1")
    cases = (
        TextCase(
            (("A, B, C", "C, B, A"), ("A, B, C", "A -> C -> B"), ("A, B, C", "A, C, C")), value=(0 + 2 / 3 + 1 / 3) / 3
        ),
        # Of six pairs, A before B only; strangers do not count.
        TextCase((("A, B, C, D", '["A", "E", "B"]'),), value=1 / 6),
    )


class TestJsonValid(TextMetricContract):
    metric = get("json_valid")
    references = ('{"a": 1}', "[1, 2]")
    cases = (
        TextCase((("", '{"a": 1}'), ("", '```json\n{"a": [1]}\n```'), ("", "Sure: {}"), ("", "[NaN]")), value=2 / 4),
        TextCase((("", "5"), ("", '{"a": 1}}'), ("", "[" * 99 + "]" * 99)), value=0.0),
    )


class TestJsonFieldF1(TextMetricContract):
    metric = get("json_field_f1")
    references = ('{"a": 1, "b": {"c": "x"}}', '{"names": ["Ann", "Bob"]}', "{}", '{"n": null, "t": true, "e": []}')
    unreadable = ("", "[1]", '{"a": NaN}', "{" * 9)
    cases = (
        # Right: a and b.c. Answered: a, b.c, d. Expected: a, b.c, e.
        TextCase(
            (('{"a": 1, "b": {"c": "New York"}, "e": true}', 'Here: {"b": {"c": " new  york"}, "a": 1.0, "d": 2} ok'),),
            value=2 * 2 / (3 + 3),
        ),
        TextCase((('{"a": 1}', "no"), ('{"a": [1, 2]}', '{"a": [1, 3, 4]}')), value=2 * 1 / (3 + 3)),
        TextCase((("{}", "nothing"),), value=1.0),
        # A whole number that no float can hold.
        TextCase((('{"a": 1.5}', '{"a": 1' + "0" * 1_000 + "}"),), value=0.0),
    )


class TestJsonExact(TextMetricContract):
    metric = get("json_exact")
    references = ('{"a": 1, "b": {"c": "x"}}', '["Ann", "Bob"]', '{"n": null, "t": true, "e": []}')
    unreadable = ("", "word", "5")
    cases = (
        TextCase((('{"a": 1, "b": 2}', 'x {"b": 2.0, "a": 1}'), ('{"a": 1}', '{"a": "1"}'), ("[]", "{}")), value=1 / 3),
        TextCase((('{"a": true}', '{"a": 1}'), ('{"a": []}', '{"a": {}}'), ("{}", "{}"), ("{}", "")), value=1 / 4),
    )


class _Retrieval(TextMetricContract):
    references = ("d1", '["d2"]', '{"d3": 2, "d4": 0}')
    unreadable = ("", "[]", '{"d1": 0}', '{"d1": "much"}', '{"d1": -1}', "[d")

    def perfect(self, reference: str) -> str:
        return '["d3"]' if "d3" in reference else reference


class TestRecallAt1(_Retrieval):
    metric = get("recall_at_1")
    cases = (TextCase((("d1, d2", "d2\nd1"), ("d1", "d2, d1")), value=(1 / 2 + 0) / 2),)


class TestRecallAt5(_Retrieval):
    metric = get("recall_at_5")
    cases = (TextCase((("d1, d2", "1. d9\n2. d2\n3. d9\n4. x\n5. y\n6. d1"), ("f", "a, b, c, d, e, f")), value=0.5),)


class TestRecallAt10(_Retrieval):
    metric = get("recall_at_10")
    cases = (TextCase((("d1; d2", '["d3", "d1", "d1"]'), ("D1", "d1")), value=(1 / 2 + 0) / 2),)


class TestMrr(_Retrieval):
    metric = get("mrr")
    cases = (TextCase((("d1, d2", "x, y, d2, d1"), ("d1", "d1"), ("d1", "")), value=(1 / 3 + 1 + 0) / 3),)


class TestNdcgAt10(_Retrieval):
    metric = get("ndcg_at_10")
    cases = (
        # (1/log2(2) + 3/log2(3)) / (3/log2(2) + 1/log2(3)).
        TextCase((('{"a": 3, "b": 1}', "b, a"),), value=(1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3))),
        TextCase((("a", ", ".join("0123456789a")), ("a", "x, x, a")), value=(0 + 1 / math.log2(3)) / 2),
    )


class TestCostError(TextMetricContract):
    metric = get("cost_error")
    references = ('{"label": "fraud", "cost": 10}', '{"label": "fine", "cost": 0.5}', '{"label": 3, "cost": 1}')
    unreadable = ("fraud", '{"label": "fraud"}', '{"label": "a", "cost": -1}', '{"label": [], "cost": 1}')

    def perfect(self, reference: str) -> str:
        return str(json.loads(reference)["label"])

    cases = (
        TextCase((('{"label": "a", "cost": 9}', " A."), ('{"label": "b", "cost": 1}', "a")), value=1 - 1 / 10),
        TextCase(
            (('{"label": "a", "cost": 9}', "b"), ('{"label": "b", "cost": 1}', "b")), value=2 / 11, weights=(1, 2)
        ),
        TextCase((('{"label": "a", "cost": 0}', "a"),), value=NAN),
    )


class TestBrevity(TextMetricContract):
    metric = get("brevity")
    references = ("a", "b")

    def perfect(self, reference: str) -> str:
        return ""

    cases = (
        TextCase((("", "a"), ("", ""), ("", "c")), value=(0.5 + 1 + 0) / 3, tokens=(1023, 0, 10**30)),
        # An answer that nobody counted.
        TextCase((("", "words"), ("", "a")), value=0.95, tokens=(0, 1)),
    )


class TestLawLabel(TextMetricContract):
    metric = get("law_label")
    references = ("争议焦点类别：责任认定。", "婚姻家庭", "罪名:寻衅滋事;开设赌场")
    unreadable = ("", "罪名:", "。")
    cases = (
        TextCase(
            (
                ("婚姻家庭", "[类别]婚姻家庭<eoa>"),
                ("争议焦点类别：违约。", "违约"),
                ("罪名:盗窃;诈骗", "罪名:诈骗；盗窃"),
                ("婚姻家庭", "婚姻家庭;侵权"),
            ),
            value=3 / 4,
        ),
    )


class TestLawLabelF1(TextMetricContract):
    metric = get("law_label_f1")
    references = ("罪名:盗窃", "罪名:寻衅滋事;开设赌场", "拐卖妇女、儿童")
    unreadable = ("", "罪名:")
    cases = (
        # {a} against {a, b}: 2*1/3; a charge with a comma-like mark is one label; nothing answered is 0.
        TextCase(
            (("罪名:盗窃", "[罪名]盗窃;诈骗<eoa>"), ("拐卖妇女、儿童", "罪名:拐卖妇女、儿童"), ("盗窃", "")),
            value=(2 / 3 + 1 + 0) / 3,
        ),
    )


class TestLawArticleF1(TextMetricContract):
    metric = get("law_article_f1")
    references = ("法条:刑法第264条", "法条:刑法第128条、刑法第341条", "第二百六十六条")
    unreadable = ("", "法条:", "刑法")
    cases = (
        # Chinese digits; paragraphs are not articles; the second number of a part does not count.
        TextCase(
            (
                ("法条:刑法第264条", "刑法第二百六十四条第一款"),
                ("法条:刑法第128条、刑法第341条", "[法条]刑法第128条<eoa>"),
                ("刑法第20条", "第十二条"),
                ("刑法第20条", "第二十条和第30条"),
            ),
            value=(1 + 2 / 3 + 0 + 1) / 4,
        ),
    )


class TestLawReadingF1(TextMetricContract):
    metric = get("law_reading_f1")
    references = ("回答:21万元借款", "二轮摩托车", "abc")
    unreadable = ("", "回答:", "。、")
    cases = (
        # {甲, 乙, 丙} against {乙, 甲}: 2*2/5, whatever the order and the marks.
        TextCase((("回答:甲乙丙", "乙,甲。"), ("A1", "回答:a 1"), ("甲", "")), value=(4 / 5 + 1 + 0) / 3),
    )


class TestLawRougeL(TextMetricContract):
    metric = get("law_rougeL")
    references = ("回答:可以协商还款。", "不能", "a b c")
    unreadable = ("", "回答:")
    cases = (
        # 甲乙丙丁 and 乙甲丁 have two in common in order: 2*2/7.
        TextCase((("甲乙丙丁", "乙甲丁"), ("不能", "不能。")), value=(4 / 7 + 1) / 2),
    )


def steps(*given: tuple[str, str, float]) -> str:
    return json.dumps([{"subtype": s, "intermediate_smiles": m, "step_weight": w} for s, m, w in given])


class TestMechanismSteps(TextMetricContract):
    metric = get("mechanism_steps")
    references = (
        steps(("a", "C", 0.2), ("b", "CC", 0.8)),
        steps(("a", "C", 1)),
        steps(("b", "C", 0.5), ("c", "O", 0.5)),
    )
    unreadable = ("", "[]", "a", '[{"subtype": "a"}]', steps(("a", "C", 0)), steps(("a", "C", -1)))
    three = steps(("a", "C", 0.2), ("b", "CC", 0.5), ("a", "O", 0.3))
    cases = (
        # b alone is worth more than a; in order, a and a are worth 0.5 of 1; a malformed step spoils the answer.
        TextCase(((three, "[ANSWER]" + steps(("b", "?", 0)) + "[/ANSWER]"),), value=0.5),
        TextCase(((three, steps(("a", "", 0), ("x", "", 0), ("a", "", 0))),), value=0.5),
        TextCase(((three, steps(("b", "", 0), ("a", "", 0), ("b", "", 0))),), value=0.8),
        TextCase(((three, '[{"subtype": "a", "intermediate_smiles": "C"}, "b"]'), (three, three)), value=0.5),
    )


@pytest.mark.skipif(find_spec("reasoning_gym") is None, reason="the extra gym is not installed")
class TestReasoningGym(TextMetricContract):
    metric = get("reasoning_gym")
    references = ("5", "-12", "1234")
    unreadable = ("", "  ")
    cases = (
        # Signs, zeros and white space do not matter; what only holds the answer is worth its share of the letters.
        TextCase((("5", " 5\n"), ("5", "+05.0"), ("5", "6"), ("5", "")), value=2 / 4),
        TextCase((("1234", "is 1234"), ("-12", "-12")), value=(4 / 7 + 3) / 4, weights=(1, 3)),
    )

    def check(self, reference: str) -> str:
        return json.dumps({"generator": "chain_sum", "options": {}, "entry": {"answer": reference, "metadata": {}}})


@pytest.mark.skipif(not any(not code_box._problem(box) for box in code_box._boxes()), reason="no sandbox works here")
class TestCodeTests(TextMetricContract):
    metric = get("code_tests")
    references = ("f(-2) == 2", "f('ab') == 2")
    unreadable = ("", "f(")
    cases = (
        TextCase(
            (("f(-2) == 2", "f = abs"), ("f(-2) == 2", "```python\nf = abs\n```"), ("f('ab')", "f = abs")), value=2 / 3
        ),
        # Of two tests, one.
        TextCase((("f(3) == 3; assert f('ab') == 2", "f = len"), ("", "f = len")), value=1 / 2),
    )

    def perfect(self, reference: str) -> str:
        return "f = abs" if "-2" in reference else "f = len"

    def check(self, reference: str) -> str:
        return f"assert {reference}"


class Judged(TextMetricContract):
    """An answer that ends as the reference does wins in both orders; of any other the judge takes the first."""

    references = ("Paris", "Rome", "the Nile")
    unreadable = ("", "  ")

    def verdicts(self, reference: str, answer: str) -> tuple[float, ...]:
        return (1.0, 1.0) if answer.endswith(reference) else (1.0, 0.0)


class TestJudge(Judged):
    metric = get("judge")
    cases = (
        # Won, lost, and four times neither: the orders differ, or one or both of them saw no difference.
        TextCase((("a", "b"),) * 6, value=3 / 6, verdicts=((1, 1), (0, 0), (1, 0), (0, 1), (0.5, 0.5), (1, 0.5))),
        TextCase((("a", "b"), ("a", "c")), value=(3 * 1 + 0.5) / 4, weights=(3, 1), verdicts=((1, 1), (1, 0))),
        # Nobody was asked, or there is no reference.
        TextCase((("a", "b"), ("", "c"), ("a", "d")), value=0.0, verdicts=((), (1, 1), (0, 0))),
        TextCase((("a", "b"),), value=NAN, verdicts=((),)),
    )


class TestJudgeAgreement(Judged):
    metric = get("judge_agreement")
    cases = (
        TextCase((("a", "b"),) * 5, value=3 / 5, verdicts=((1, 1), (0, 0), (1, 0), (0.5, 0.5), (1, 0.5))),
        TextCase((("a", "b"),), value=NAN, verdicts=((),)),
    )


class TestJudgeFirst(Judged):
    metric = get("judge_first")
    cases = (
        # The answer first: 1 is for the first place. The reference first: 0 is.
        TextCase((("a", "b"),) * 4, value=(2 + 0 + 1 + 1) / 8, verdicts=((1, 0), (0, 1), (1, 1), (0, 0))),
        TextCase((("a", "b"),), value=(0.5 + 1) / 2, verdicts=((0.5, 0),)),
    )

    def verdicts(self, reference: str, answer: str) -> tuple[float, ...]:
        return (1.0, 0.0) if answer.endswith(reference) else (1.0, 1.0)


def test_every_text_metric_goes_through_the_suite() -> None:
    tested = {value.metric.name for value in globals().values() if hasattr(value, "cases") and hasattr(value, "metric")}
    assert tested == set(TEXT_METRICS.names()) - CHEMICAL


def test_names_in_the_table_are_the_names_of_the_metrics() -> None:
    for name in set(TEXT_METRICS.names()) - CHEMICAL:
        assert get(name).name == name
        assert get(name).dear == (name in ("code_tests", "reasoning_gym"))


def test_an_unknown_text_metric_names_the_nearest() -> None:
    with pytest.raises(UserError, match="Unknown text metric.*Did you mean 'rouge1'"):
        TEXT_METRICS.get("rouge_1")
