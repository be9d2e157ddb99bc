"""What is drawn where, and in which colour."""

import pytest

from rssearch import figures, fronts, page
from rssearch.config import Bound
from rssearch.figures import COLOURS, GREY, look_of

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


def html(rows, objectives=TWO, constraints=LIMIT):
    """The traces with points and the legend of the page."""
    data = page.draw(fronts.fronts(rows, objectives, constraints), "s", constraints).data
    return [t for t in data if t.mode == "markers" and t.text and t.legendgroup != "knee"], {
        t.name: t for t in data if t.showlegend
    }


def test_html_colours_the_front_alone():
    points, legend = html(study())
    drawn = {
        (text.split("<b>")[1].split("</b>")[0], trace.marker.color, symbol, x, y)
        for trace in points
        for text, symbol, x, y in zip(trace.text, trace.marker.symbol, trace.x, trace.y, strict=True)
    }
    assert drawn == {
        ("on the front", COLOURS[1], "circle", 20.0, 90.0),
        ("on the front", COLOURS[0], "circle", 40.0, 94.0),
        ("dominated", GREY, "square", 50.0, 88.0),
        ("infeasible", GREY, "circle-open", 70.0, 93.0),
        ("failed", GREY, "x-thin", 30.0, 91.0),
        ("baseline", "black", "circle", 100.0, 95.0),
        ("baseline", "black", "square", 100.0, 95.0),
    }
    assert {name: legend[name].marker.color for name in ("compound", "l1", "lfp")} == {
        "compound": COLOURS[0],
        "l1": COLOURS[1],
        "lfp": GREY,
    }
    assert {"infeasible", "failed", "knee", "baseline", "front", "constraint"} < set(legend)
    assert "beyond the axis" not in legend
    assert {trace.marker.opacity for trace in points} == {1}  # Plotly's default for sizes in a list is 0.7


def test_a_click_on_a_method_hides_its_grey_trials_too():
    points, legend = html(study())
    assert {t.legendgroup for t in points if "dominated" in t.text[0]} == {legend["lfp"].legendgroup}


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_png_legend_explains_the_greys():
    figure = figures.draw(fronts.fronts(study(), TWO, LIMIT), "s", LIMIT)
    assert labels(figure) == [
        *("Method", "compound", "l1", "lfp", "Model", "resnet18", "vgg16_bn", "Trials", "on the front", "dominated"),
        *("infeasible", "failed", "knee", "baseline", "front", "constraint"),
    ]
    handles = dict(zip(labels(figure), figure.legends[0].legend_handles, strict=True))
    colours = [handles[name].get_color() for name in ("compound", "l1", "lfp", "dominated")]
    assert colours == [COLOURS[0], COLOURS[1], GREY, GREY]
    panel = figure.axes[0]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("MACs (M)", "Validation accuracy (%)")


def collapsed():
    return [trial(str(i), a, 10_000_000 * (i + 1)) for i, a in enumerate((0.10, 0.92, 0.93, 0.94))]


def window(rows, objectives=TWO, **constraints):
    found = fronts.fronts(rows, objectives, constraints)
    return look_of(found).window(found[0])


def test_a_collapsed_trial_does_not_stretch_the_axis():
    # best 95 (the baseline), median 93, so the fence is 95 - 5 * 2 = 85; a tenth of 95 - 92 below what is left
    assert window(collapsed()) == pytest.approx((91.7, 95.0))
    found = fronts.fronts(collapsed(), TWO)
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


def test_html_moves_a_collapsed_trial_to_the_edge_and_tells_its_value():
    points, legend = html(collapsed(), constraints={})
    front = next(t for t in points if "on the front" in t.text[0])
    assert front.y == pytest.approx((91.7, 92, 93, 94))
    assert front.marker.symbol == ("arrow-bar-down", "circle", "circle", "circle")
    assert "Validation accuracy: <b>10.0 %</b>" in front.text[0]
    assert "beyond the axis" in legend


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
    assert figures.ends((worst, best)) == pytest.approx((1 - 2.2 * 0.08, 3.2 + 2.2 * 0.04))


def test_a_single_objective_is_cut_too():
    assert window(collapsed(), {"val_accuracy": "max"}) == pytest.approx((91.7, 95.0))


def test_trials_without_a_method_have_the_first_colour():
    rows = [{"key": "a", "status": "finished", "score": 1.0, "size": 2}]
    look = look_of(fronts.fronts(rows, {"score": "max", "size": "min"}))
    assert look.colour(rows[0]) == COLOURS[0]
    assert look.legend() == {}
