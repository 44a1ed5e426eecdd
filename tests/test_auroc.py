"""The area under the ROC curve, compared with counted pairs and with scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cae_cli.errors import UserError
from cae_cli.features.score import threshold
from cae_cli.statistics.auroc import auroc, difference


def test_the_area_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    for n, m in ((1, 1), (3, 7), (40, 25)):
        normal, others = rng.integers(0, 6, n), rng.integers(1, 8, m)  # with ties
        pairs = [(o > x) + (o == x) / 2 for o in others for x in normal]
        found = auroc(normal, others)
        assert found.value == pytest.approx(np.mean(pairs))
        expected = roc_auc_score(np.repeat([0, 1], [n, m]), np.concatenate([normal, others]))
        assert found.value == pytest.approx(expected)
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_scores_that_do_not_overlap_keep_an_interval():
    found = auroc(np.arange(50), np.arange(100, 110))
    assert found.value == found.high == 1
    assert 0.65 < found.low < 0.8  # Wilson's for 10 of 10
    assert auroc([1.0, 2.0], [math.nan]).value == 1  # an error that is no number is the largest


def test_the_intervals_contain_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    truth = 0.7602  # two normal distributions one standard deviation apart: Phi(1 / sqrt(2))
    inside = paired = narrower = 0
    for _ in range(300):
        normal, others = rng.normal(0, 1, 60), rng.normal(1, 1, 40)
        found = auroc(normal, others)
        inside += found.low <= truth <= found.high
        noisy = [x + rng.normal(0, 0.3, len(x)) for x in (normal, others)]
        further = [x + rng.normal(0, 0.3, len(x)) for x in (normal, others)]
        ahead, margin = difference((noisy[0], further[0]), (noisy[1], further[1]))
        paired += abs(ahead) <= margin
        narrower += margin < (found.high - found.low) / 2
    assert 0.91 < inside / 300 < 0.985
    assert 0.91 < paired / 300 < 0.985
    assert narrower > 290  # the same images: what they share cancels
    assert difference((normal, normal), (others, others)) == (0, 0)


def test_no_more_false_alarms_than_were_asked_for():
    rng = np.random.default_rng(2)
    above = [rng.normal() > threshold(rng.normal(size=40).astype(np.float32), 0.1) for _ in range(4000)]
    assert 0.075 < np.mean(above) < 0.115  # (40 + 1 - 37) / 41 = 0.098
    assert threshold(np.arange(19, dtype=np.float32), 0.05) == 18
    with pytest.raises(UserError, match="needs 19 held-out images, the run has 18"):
        threshold(np.arange(18, dtype=np.float32), 0.05)
