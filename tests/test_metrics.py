"""Numbers and names for people."""

import pytest

from rssearch.metrics import axis, human, title_of


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("val_accuracy", 0.9144, "91.4 %"),
        ("test_miou", 0.5, "50.0 %"),
        ("macs_ratio", 0.25, "25.0 %"),
        ("macs", 12_345_678, "12.3 M"),
        ("macs", 999_900, "1 M"),
        ("macs", 1_377_300_000, "1.38 G"),
        ("baseline_params", 999, "999"),
        ("macs", 0, "0"),
        ("rate", 0.5, "0.5"),
        ("seed", 3, "3"),
        ("flag", True, "True"),
        ("method", "l1", "l1"),
        ("reason", None, ""),
        ("val_accuracy", float("nan"), ""),
    ],
)
def test_human(name, value, expected):
    assert human(name, value) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("val_accuracy", "Validation accuracy"),
        ("macs", "MACs"),
        ("macs_ratio", "MACs left"),
        ("test_miou", "Test mIoU"),
        ("latency_ms", "Latency (ms)"),
        ("params", "Parameters"),
    ],
)
def test_title(name, expected):
    assert title_of(name) == expected


def test_axis_units_follow_the_smallest_value():
    assert axis("macs", [2e6, 1.4e9]) == ("MACs (M)", 1e-6)
    assert axis("macs", [0.3e9, 4e9]) == ("MACs (G)", 1e-9)
    assert axis("params", [12]) == ("Parameters", 1.0)
    assert axis("macs", []) == ("MACs", 1.0)
    assert axis("val_accuracy", [0.9]) == ("Validation accuracy (%)", 100.0)
    assert axis("macs_ratio", [0.9]) == ("MACs left (% of the baseline)", 100.0)
    assert axis("latency_ms", [3.0]) == ("Latency (ms)", 1.0)


def test_compute_has_large_units() -> None:
    assert human("compute", 3.21e15) == "3.21 P"
    assert human("compute", 45e12) == "45 T"
    assert human("macs", 45e12) == "45000 G"
    assert title_of("compute") == "Compute (MACs)"
    assert axis("compute", [2e12, 3e15]) == ("Compute (T MACs)", 1e-12)
    assert axis("compute", [2]) == ("Compute (MACs)", 1.0)
