"""rssearch.cost.compute: MACs times images, forward and backward, by hand."""

from __future__ import annotations

from rssearch.cost.compute import TRAINING, Work, compute, training


def test_work_adds_up():
    assert compute([]) == 0
    assert compute([(10, 3, 1), Work(100, 2), Work(5, 4, TRAINING)]) == 30 + 200 + 60


def test_a_training_counts_forward_backward_and_evaluations():
    work = training(10, epochs=2, images=30, validated=5)
    assert compute(work) == 10 * (2 * 30 * 3 + 2 * 5)
    taught = training(10, epochs=2, images=30, validated=5, teacher_macs=100, recalibrated=16)
    assert compute(taught) - compute(work) == 100 * 2 * 30 + 10 * 16
    assert compute(training(10, epochs=0, images=30, validated=5)) == 0
