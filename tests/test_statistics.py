"""Intervals against the longest way: sacrebleu's own scores of resampled test sets, one by one."""

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from hf_editable import EditableValueError, EditReport
from hf_editable.measures.corpus_scores import CorpusBleu, CorpusChrf
from hf_editable.measures.statistics import (
    SentenceBootstrap,
    bootstrap_interval,
    compare_reports,
    percentile_interval,
    scores_from_counts,
    two_level_interval,
)


WORDS = ["the", "dog", "sees", "a", "red", "ball", "."]


@pytest.fixture(scope="module")
def texts():
    """References, translations, and those after three edits, of forty sentences."""
    rng = np.random.default_rng(0)
    references = [" ".join(rng.choice(WORDS, size=rng.integers(5, 12))) for _ in range(40)]

    def noisy(sentences, rate):
        return [
            " ".join(word if rng.random() > rate else rng.choice(WORDS) for word in text.split()) for text in sentences
        ]

    translations = noisy(references, 0.3)
    edited = [list(translations) for _ in range(3)]
    for texts, count in zip(edited, (1, 7, 20), strict=True):
        texts[:count] = noisy(texts[:count], 0.5)
    return references, translations, edited


def changes_of(score, edited):
    return [[index, score.translations[index], edited[index]] for index in score.changed(edited)]


def make(kind, references, translations):
    return CorpusBleu(references, translations, "none") if kind == "bleu" else CorpusChrf(references, translations)


@pytest.mark.parametrize(
    "metric",
    [
        BLEU(tokenize="none"),
        BLEU(tokenize="none", max_ngram_order=2),
        BLEU(tokenize="none", smooth_method="floor"),
        BLEU(tokenize="none", effective_order=True),
        CHRF(),
        CHRF(word_order=2, beta=3),
        CHRF(eps_smoothing=True),
    ],
    ids=["bleu", "bleu-2", "bleu-floor", "bleu-effective", "chrf", "chrf++", "chrf-eps"],
)
def test_scores_from_counts_are_those_of_sacrebleu(metric, texts):
    references, translations, edited = texts
    # Empty, short and unrelated translations too: sums of counts with zeros in them.
    translations = [*translations, "", "ball", "xx yy zz qq", "the red dog sees"]
    metric._ref_cache = metric._cache_references([[*references, "a", "ball", "a dog", "the red dog sees"]])
    counts = np.array(
        [metric._compute_segment_statistics(text, cached) for text, cached in zip(translations, metric._ref_cache)]
    )
    rng = np.random.default_rng(1)
    sums = [counts[rng.integers(len(counts), size=size)].sum(0) for size in (1, 2, 5, 40) for _ in range(50)]
    sums = np.array([*counts, *sums])
    expected = [metric._compute_score_from_stats(list(row)).score for row in sums.tolist()]
    assert scores_from_counts(metric, sums).tolist() == expected
    assert min(expected) < 1e-9 and max(expected) > 50


@pytest.mark.parametrize("kind", ["bleu", "chrf"])
def test_differences_are_those_of_resampled_test_sets(kind, texts):
    references, translations, edited = texts
    score = make(kind, references, translations)
    rng = np.random.default_rng(5)
    drawn = [rng.integers(40, size=40) for _ in range(20)]
    for after in edited:
        expected = []
        for indices in drawn:
            resampled = make(kind, [references[i] for i in indices], [translations[i] for i in indices])
            expected.append(resampled.score - resampled.score_of([after[i] for i in indices]))
        differences = score.resampled_differences(changes_of(score, after), resamples=20, seed=5)
        assert differences.tolist() == expected and np.ptp(differences) > 0
        assert score.difference_interval(changes_of(score, after), 20, 5) == percentile_interval(expected)
    assert score.difference_interval([]) == [0.0, 0.0]
    low, high = score.difference_interval(changes_of(score, edited[2]))
    assert low < score.score - score.score_of(edited[2]) < high


def test_mean_drawdown_over_edits_and_sentences(texts):
    references, translations, edited = texts
    score = make("bleu", references, translations)
    changes = [changes_of(score, after) for after in edited] * 7
    differences = np.array([score.resampled_differences(each, 200, 3) for each in changes])
    assert score.mean_difference_interval(changes, 200, 3) == two_level_interval(differences, 3)
    same = score.mean_difference_interval(changes[:1] * 20, 200, 3)
    assert same == pytest.approx(percentile_interval(differences[0]))


def test_of_fewer_than_20_there_is_no_interval(texts):
    values = np.random.default_rng(0).exponential(size=20)
    assert all(bootstrap_interval(values[:count]) is None for count in range(20))
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    assert two_level_interval(np.ones((19, 50))) is None and two_level_interval(np.ones((20, 50))) == [1.0, 1.0]
    references, translations, edited = texts
    for sentences in (1, 19, 20):
        score = make("bleu", references[:sentences], translations[:sentences])
        changes = changes_of(score, edited[0][:sentences])
        assert (score.difference_interval(changes) is None) == (sentences < 20)
        assert (score.mean_difference_interval([changes] * 20) is None) == (sentences < 20)
        assert score.mean_difference_interval([changes] * 19) is None and score.mean_difference_interval([]) is None
    for count in (1, 19, 20):
        compared = compare_reports(report("a", 1 + values[:count]), report("b", values[:count]))
        assert compared.difference == pytest.approx(1.0) and compared.ratio < 1
        intervals = (compared.difference_interval, compared.ratio_interval)
        assert [each is None for each in intervals] == [count < 20] * 2


def test_two_levels_add_their_variances():
    rng = np.random.default_rng(0)
    edits, resamples = 400, 4000
    sentences = rng.normal(0, 0.1, resamples)
    values = rng.normal(1, 2, edits)
    low, high = two_level_interval(values[:, None] + sentences, seed=1)
    expected = 1.96 * np.sqrt(values.var() / edits + 0.01)
    assert (high - low) / 2 == pytest.approx(expected, rel=0.05)
    assert (high + low) / 2 == pytest.approx(values.mean(), abs=0.02)
    # Without either source of variance, the other's is left.
    assert two_level_interval(np.tile(sentences, (20, 1))) == pytest.approx(percentile_interval(sentences))
    narrow, wide = two_level_interval(np.tile(values[:, None], resamples)), bootstrap_interval(values)
    assert narrow == pytest.approx(wide, abs=0.03)


def test_changes_of_other_translations_raise(texts):
    references, translations, _ = texts
    score = make("bleu", references, translations)
    for change in ([0, "other", "x"], [40, "a", "b"], [-1, translations[-1], "b"]):
        with pytest.raises(EditableValueError, match=r"is not of translation -?\d+ of these 40"):
            score.difference_interval([change])
    with pytest.raises(EditableValueError, match="0 resamples of 40 test sentences"):
        score.difference_interval([], resamples=0)
    with pytest.raises(EditableValueError, match="1000 resamples of 0 test sentences"):
        SentenceBootstrap(BLEU(), np.zeros((0, 10)))


def report(name, drawdowns, indices=None):
    indices = range(len(drawdowns)) if indices is None else indices
    rows = [
        {"index": index, "source": f"s{index}", "target": "t", "drawdown": value}
        for index, value in zip(indices, drawdowns, strict=True)
    ]
    return EditReport(summary={"name": name}, rows=rows)


def test_two_models_are_compared_edit_by_edit():
    rng = np.random.default_rng(2)
    first = rng.normal(1.0, 0.2, 300)
    second = 0.4 * first + rng.normal(0, 0.01, 300)
    second[0] = first[0]
    order = rng.permutation(300)
    compared = compare_reports(report("baseline", first), report("editable", second[order], order.tolist()))
    assert (compared.first, compared.second, compared.num_edits) == ("baseline", "editable", 300)
    assert compared.difference == pytest.approx((first - second).mean())
    assert compared.difference_interval == pytest.approx(bootstrap_interval(first - second))
    assert (compared.milder, compared.harsher) == (299 / 300, 0.0)
    assert compared.ratio == pytest.approx(second.mean() / first.mean())
    low, high = compared.ratio_interval
    # Drawn jointly: what the edits share does not widen the interval.
    assert low < compared.ratio < high and high - low < 0.01


def test_a_ratio_needs_a_drawdown_above_zero():
    some = compare_reports(report("a", [1.0, -0.5, 0.1] * 7), report("b", [0.5] * 21))
    assert some.ratio == pytest.approx(2.5) and some.ratio_interval is None
    none = compare_reports(report("a", [0.0, -0.5] * 10), report("b", [0.5] * 20))
    assert none.ratio is None and none.ratio_interval is None and none.harsher == 1.0


@pytest.mark.parametrize("other", [report("b", [1.0]), report("b", [1.0, 2.0], [0, 5]), report("b", [])])
def test_other_edits_raise(other):
    with pytest.raises(EditableValueError, match="'a' was measured on 2 edits and 'b' on"):
        compare_reports(report("a", [1.0, 2.0]), other)
