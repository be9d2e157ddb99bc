"""What is drawn where, and in which colour."""

from xml.etree import ElementTree

import pytest
from matplotlib.colors import to_hex

from rssearch.config.schema import Bound
from rssearch.front import gains, trials
from rssearch.report import figures
from rssearch.report.look import COLOURS, GREY, ends, look_of

TWO = {"val_accuracy": "max", "macs": "min"}


def trial(key, accuracy, macs, method="l1", status="finished", **more):
    row = {"key": key, "status": status, "method": method, "model": "resnet18", "val_accuracy": accuracy, "macs": macs}
    return {**row, "baseline_val_accuracy": 0.95, "baseline_macs": 100_000_000, **more}


def study():
    """On the front a and b; c is dominated, i too large, f failed; lfp has nothing on the front."""
    return [
        trial("a", 0.90, 20_000_000),
        trial("b", 0.94, 40_000_000, "compound"),
        trial("c", 0.88, 50_000_000, "lfp", model="vgg16_bn"),
        trial("i", 0.93, 70_000_000, "lfp"),
        trial("f", 0.91, 30_000_000, "l1", "failed"),
        trial("g", None, 30_000_000, "l1", "failed"),
    ]


LIMIT = {"macs": Bound(max=60e6)}


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_png_legend_gives_every_method_its_colour():
    figure = figures.draw(trials.fronts(study(), TWO, LIMIT), "s", LIMIT)
    assert labels(figure) == [
        *("Method", "compound", "l1", "lfp", "Model", "resnet18", "vgg16_bn", "Trials", "on the front", "dominated"),
        *("infeasible", "failed", "knee", "baseline", "front", "constraint"),
    ]
    handles = dict(zip(labels(figure), figure.legends[0].legend_handles, strict=True))
    colours = [handles[name].get_color() for name in ("compound", "l1", "lfp", "dominated")]
    assert colours == [*COLOURS[:3], GREY]
    panel = figure.axes[0]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("MACs (M)", "Validation accuracy (%)")


def collapsed():
    return [trial(str(i), a, 10_000_000 * (i + 1)) for i, a in enumerate((0.10, 0.92, 0.93, 0.94))]


def window(rows, objectives=TWO, **constraints):
    found = trials.fronts(rows, objectives, constraints)
    return look_of(found).window(found[0])


def test_a_collapsed_trial_does_not_stretch_the_axis():
    # best 95 (the baseline), median 93, so the fence is 95 - 5 * 2 = 85; a tenth of 95 - 92 below what is left
    assert window(collapsed()) == pytest.approx((91.7, 95.0))
    found = trials.fronts(collapsed(), TWO)
    places = look_of(found).places(found[0], found[0].members)
    assert [(row["key"], x, y, beyond) for row, x, y, beyond in places] == [
        ("0", 10.0, pytest.approx(91.7), True),
        ("1", 20.0, 92.0, False),
        ("2", 30.0, 93.0, False),
        ("3", 40.0, 94.0, False),
    ]
    figure = figures.draw(found, "s", {})
    assert figure.axes[0].get_ylim() == pytest.approx((91.7 - 3.3 * 0.04, 95 + 3.3 * 0.08))
    assert "beyond the axis" in labels(figure)


def test_infeasible_and_failed_trials_do_not_stretch_the_axis():
    rows = [
        *collapsed()[1:],
        trial("f", 0.1, 1_000_000, status="failed"),
        trial("i", 0.1, 1_000_000, status="infeasible"),
    ]
    assert window(rows) == pytest.approx((91.7, 95.0))


def test_an_even_spread_and_equal_values_are_shown_whole():
    even = [trial(str(i), i / 10, 10_000_000 * (i + 1)) for i in range(1, 10)]
    assert window(even) is None
    assert window([trial("a", 0.95, 10), trial("b", 0.95, 20), trial("c", 0.10, 5)]) is None
    assert window([]) is None


def test_where_less_is_better_the_upper_end_is_cut():
    rows = [{"key": str(i), "status": "finished", "loss": v, "size": 10 - i} for i, v in enumerate((1, 2, 3, 90))]
    worst, best = window(rows, {"loss": "min", "size": "min"})
    assert (worst, best) == (pytest.approx(3.2), 1)
    assert ends((worst, best)) == pytest.approx((1 - 2.2 * 0.08, 3.2 + 2.2 * 0.04))


def test_a_single_objective_is_cut_too():
    assert window(collapsed(), {"val_accuracy": "max"}) == pytest.approx((91.7, 95.0))


def test_trials_without_a_method_have_the_first_colour():
    rows = [{"key": "a", "status": "finished", "score": 1.0, "size": 2}]
    look = look_of(trials.fronts(rows, {"score": "max", "size": "min"}))
    assert look.colour(rows[0]) == COLOURS[0]
    assert look.colours == {}


def painted(panel):
    """The colours of all points, with their opacity."""
    faces = [(to_hex(c), round(c[3], 2)) for drawn in panel.collections for c in drawn.get_facecolors() if c[3]]
    edges = [
        (to_hex(c), 1) for drawn in panel.collections if not len(drawn.get_facecolors()) for c in drawn.get_edgecolors()
    ]
    return {*faces, *edges}


def test_every_trial_has_the_colour_of_its_method():
    panel = figures.draw(trials.fronts(study(), TWO, LIMIT), "s", LIMIT).axes[0]
    compound, l1, lfp = (colour.lower() for colour in COLOURS[:3])
    assert painted(panel) >= {
        (compound, 1),
        (l1, 1),
        (lfp, figures.PALE),
        (lfp, 1),
    }  # on the front, dominated, infeasible
    assert GREY.lower() not in {colour for colour, _ in painted(panel)}
    three = figures.draw(trials.fronts(study(), {**TWO, "baseline_macs": "min"}), "s", {}).axes[0]
    assert (GREY.lower(), figures.PALE) in painted(three)  # the third objective has the colours


def test_more_methods_than_colours_have_shades_of_their_own():
    rows = [trial(f"k{i:02}", 0.5 + i / 100, 1_000_000 * (i + 1), f"method{i:02}") for i in range(30)]
    colours = look_of(trials.fronts(rows, TWO)).colours
    assert len(set(colours.values())) == len(colours) == 30


def test_the_knee_says_what_it_lost_and_gained():
    rows = [gains.compared(row) for row in study()]
    panel = figures.draw(trials.fronts(rows, TWO, LIMIT), "s", LIMIT).axes[0]
    assert panel.get_title().endswith("knee: validation accuracy −5.0 points, 20.0 % of the MACs")
    lines = [line for line in panel.lines if line.get_linestyle() == ":"]
    assert [line.get_ydata()[0] for line in lines] == [95.0, 95.0]  # the quality of the two models' baselines


def test_a_latency_on_an_axis_has_its_interquartile_range_as_bar():
    rows = [
        trial("a", 0.9, 10, latency_ms=2.0, latency_iqr_ms=0.4),
        trial("b", 0.95, 20, latency_ms=3.0, latency_iqr_ms=0.2),
    ]
    found = trials.fronts(rows, {"val_accuracy": "max", "latency_ms": "min"})
    look = look_of(found)
    assert [look.bar(look.x, row) for row in found[0].members] == [0.2, 0.1]
    figure = figures.draw(found, "s", {})
    (first, *_) = [
        bar for bar in figure.axes[0].collections if len(bar.get_paths()) and type(bar).__name__ == "LineCollection"
    ]
    assert first.get_segments()[0][:, 0].tolist() == pytest.approx([1.8, 2.2])
    assert "bars of the latency: interquartile range" in figure.axes[0].get_title()


def test_svg_is_the_same_each_time_and_needs_no_font():
    found = trials.fronts(study(), TWO, LIMIT)
    text = figures.svg(found, "a & b", LIMIT).decode()
    assert text == figures.svg(found, "a & b", LIMIT).decode()
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("viewBox") == "0 0 720 432"  # 10 x 6 inches in points
    assert not list(root.iter("{http://www.w3.org/2000/svg}text"))
    assert next(root.iter("{http://purl.org/dc/elements/1.1/}title")).text == "a & b"
    assert COLOURS[0].lower() in text
