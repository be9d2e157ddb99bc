"""Fronts as tables: on the console, in LaTeX and in Markdown."""

import csv
import io

import pytest

from rssearch.report import files, tables
from tests.support.fronts import TWO, shown, study, trial, two_datasets


def test_table_fits_a_terminal_and_speaks_to_people():
    rows = [{**row, "key": row["key"] * 16, "val_loss": row["macs"] / 1e9, "split_hash": "e" * 64} for row in study()]
    text = shown(files.format_front(rows, TWO, "table", study="eurosat-methods"))
    assert [" ".join(line.split()) for line in text.splitlines()] == [
        "eurosat-methods",
        "Val. MACs",
        "Method acc. Diff. MACs left Key",
        "─" * 73,
        "baseline 95.0 % 100 M 100.0 %",
        f"l1 60.0 % −35.0 10 M 10.0 % {'a' * 8}",
        f"★ l1 90.0 % −5.0 25 M 25.0 % {'c' * 8}",
        f"lfp 94.0 % −1.0 80 M 80.0 % {'d' * 8}",
        "★ knee",
        "Difference: percentage points to the baseline, the network before pruning",
        "★ against its baseline: validation accuracy −5.0 points, 25.0 % of the",
        "MACs, 25.0 % of the parameters",
        "Compute: unknown, as trials (5) do not say what they took",
        "The same in all trials: Dataset eurosat, Model resnet18, Rate 0.5, Seed 0",
    ]
    assert "ucmerced" in shown(files.format_front(two_datasets(), TWO, "table", study="s"))


def test_a_dimension_that_varies_in_the_study_keeps_its_column_on_a_front_of_one_method():
    text = shown(files.format_front(study()[1:4], TWO, "table", study="s"))
    assert text.count("l1") == 2
    assert "Method" in text


def gained(key, latency, wide, **more):
    """A trial that is measured beside its baseline."""
    whole = {"test_accuracy": 0.7, "latency_ms": 3.0, "latency_iqr_ms": 0.2, "bytes": 40_000_000}
    row = trial(key, 0.6, 10_000_000, test_accuracy=0.68, latency_ms=latency, latency_iqr_ms=wide, bytes=4_000_000)
    return row | {f"baseline_{name}": value for name, value in whole.items()} | more


def test_table_of_a_study_where_all_varies_folds_no_word_and_no_number():
    rows = [
        gained(f"{i:08x}" * 2, 1.5 + i, 0.2, val_accuracy=0.5 + i / 10, macs=10_000_000 + i, seed=i, dataset="ds")
        | {"model": ("resnet18", "mobilenet_v3_large")[i % 2], "method": ("compound", "lfp")[i % 2], "rate": i / 10}
        for i in range(4)
    ]
    for width, words in ((100, ("mobilenet_v3_large ", "compound ")), (80, ("mob… ", "com… "))):
        text = shown(files.format_front(rows, TWO, "table", study="s"), width).replace("\u00a0", " ")
        lines = text.splitlines()
        assert max(map(len, lines)) <= width
        assert lines.index("★ knee".ljust(len(lines[0]))) == 1 + 2 + 1 + 2 + 4  # title, head, line, baselines, members
        for whole in (*words, " 68.0 %", " −2.0 ", " 1.5 (0.2)‡ ", " 0.667× 00000003"):
            assert whole in text


def test_a_narrow_console_shows_what_was_asked_for_rather_than_what_follows_from_other_columns():
    rows = [
        gained(f"{i:08x}" * 2, 1.5 + i, 0.2, val_accuracy=0.5 + i / 10, macs=10_000_000 + i, method=name, rate=i / 10)
        | {"seed": 1000 + i, "model": f"network_{i}"}
        for i, name in enumerate(("compound", "slimming"))
    ]

    def text(columns, **more):
        return shown(files.format_front(rows, TWO, "table", study="s", **more), columns).replace("\u00a0", " ")

    assert "Speed-" in text(100)
    assert "Speed-" in text(100, width=100)
    assert "Speed-" in text(80)  # who does not say how wide the console is has all columns
    assert "compound" not in text(80)
    narrow = text(80, width=80)
    assert "Speed-" not in narrow
    assert "compound " in narrow
    assert "network_1 " in narrow


def test_table_says_what_was_lost_and_gained():
    rows = [gained("a", 1.5, 0.1), gained("b", 2.0, 0.1, val_accuracy=0.8, macs=50_000_000)]
    text = " ".join(shown(files.format_front(rows, TWO, "table", study="s"), 100).split())
    assert "baseline 95.0 % 70.0 % 100 M 100.0 % 3 (0.2) 1×" in text
    assert "★ 60.0 % −35.0 68.0 % −2.0 10 M 10.0 % 1.5 (0.1) 2× a" in text
    assert (
        "★ against its baseline: validation accuracy −35.0 points, test accuracy −2.0 points, 10.0 % of the MACs, "
        "10.0 % of the parameters, 4 MB instead of 40 MB, 2× as fast"
    ) in text
    assert "‡" not in text  # all spreads are below a tenth
    assert "Latency: median (interquartile range)" in text
    assert "Size: float32" not in text  # there is no such column
    lines = files.format_front(rows, TWO, "md", study="s").splitlines()
    assert "Size: float32" in lines[-1]
    assert lines[4].startswith(
        "| baseline | 95.0 % |  | 70.0 % |  | 100 M | 100.0 % | 10 M | 100.0 % | 40 MB | 3 (0.2) |"
    )
    frame = list(csv.DictReader(io.StringIO(files.format_front(rows, TWO, "csv", study="s"))))
    assert float(frame[0]["speedup"]) == 2.0
    assert float(frame[0]["test_accuracy_difference"]) == pytest.approx(-0.02)
    assert float(frame[0]["baseline_test_accuracy"]) == 0.7
    assert float(frame[0]["bytes_ratio"]) == 0.1


def test_a_difference_is_that_of_the_printed_values():
    rows = [gained("a", 1.5, 0.1, val_accuracy=0.4733, baseline_val_accuracy=0.6267)]
    text = " ".join(shown(files.format_front(rows, TWO, "table", study="s"), 100).split())
    assert "62.7 %" in text
    assert "47.3 % −15.4" in text
    assert "validation accuracy −15.4 points" in text


def test_a_disturbed_latency_is_marked_and_explained_everywhere():
    rows = [gained("a", 1.5, 0.2), gained("b", 2.0, 0.1, val_accuracy=0.8, macs=50_000_000)]
    for name in ("table", "md"):
        made = files.format_front(rows, TWO, name, study="s")
        text = made if name == "md" else shown(made, 100).replace("\u00a0", " ")
        assert "1.5 (0.2)‡" in text
        assert "2×‡" in text  # the speed-up rests on it
        assert "2 (0.1)‡" not in text
        assert "1.5×‡" not in text
        assert "‡ interquartile range above a tenth of the median" in text
    assert r"1.5 (0.2)$\ddagger$" in files.format_front(rows, TWO, "tex", study="s")


def test_without_a_baseline_there_is_nothing_to_compare():
    rows = [
        {"key": f"k{i}", "status": "finished", "model": "m", "val_miou": 0.5 + i / 10, "macs": 10 * i, "params": 5}
        for i in (1, 2)
    ]
    rows = [row | {"latency_ms": 1.0, "latency_iqr_ms": 0.01, "bytes": 10} for row in rows]
    text = files.format_front(rows, {"val_miou": "max", "macs": "min"}, "md", study="s")
    assert "|  | Validation mIoU | MACs | Latency (ms) |" in text
    for word in ("baseline", "Difference", "Speed", "Size", "Parameters"):
        assert word not in text


def test_a_long_table_is_cut_for_a_description():
    rows = [gained(f"k{i:03}", 1.5, 0.1, val_accuracy=0.5 + i / 1000, macs=10_000_000 + i) for i in range(200)]
    text = files.format_front(rows, TWO, "md", study="s")
    short = tables.cut_table(text, 4000)
    assert 3500 < len(short) <= 4000
    lines = short.splitlines()
    (said,) = (line for line in lines if "more rows" in line)
    assert len([line for line in lines if line.startswith("| ")]) - 2 + int(said.split()[0]) == 201
    assert lines[-1].startswith("★ knee")
    assert tables.cut_table(text, len(text)) == text


def test_table_shows_the_dimensions_of_a_trial_of_ones_own():
    rows = [
        {"key": f"k{i}", "status": "finished", "score": float(i), "size": i, "width": 8 * i, "same": 1, "tag": "[red]"}
        for i in (1, 2)
    ]
    text = shown(tables.table(rows, {"score": "max", "size": "min"}, dimensions=["width", "same", "tag", "absent"]))
    head, _, first, _, _, *notes = text.splitlines()
    assert head.split() == ["Width", "Score", "Size", "Key"]
    assert first.split() == ["8", "1", "1", "k1"]
    assert " ".join(" ".join(notes).split()) == "The same in all trials: Same 1, Tag [red]"


HOSTILE = r"a_b & 50% #1 {x} \y ~ ^ $z$ <b>|[l](u)*`"


def test_latex_is_a_table_of_booktabs():
    text = files.format_front(study(), TWO, "tex", study="my_study")
    assert text.splitlines() == [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        r"\caption{Pareto front of the study my\_study. $\star$ knee. Difference: percentage points to the baseline, "
        r"the network before pruning. $\star$ against its baseline: validation accuracy $-$5.0 points, 25.0~\% of the "
        r"MACs, 25.0~\% of the parameters. Compute: unknown, as trials (5) do not say what they took. The same in all "
        r"trials: Dataset eurosat, Model resnet18, Rate 0.5, Seed 0.}",
        r"\begin{tabular}{llrrrrrr}",
        r"\toprule",
        r" & Method & Validation accuracy & Difference (points) & MACs & MACs left & Parameters & Parameters left \\",
        r"\midrule",
        r" & baseline & 95.0~\% &  & 100~M & 100.0~\% & 10~M & 100.0~\% \\",
        r" & l1 & 60.0~\% & $-$35.0 & 10~M & 10.0~\% & 1~M & 10.0~\% \\",
        r"$\star$ & l1 & 90.0~\% & $-$5.0 & 25~M & 25.0~\% & 2.5~M & 25.0~\% \\",
        r" & lfp & 94.0~\% & $-$1.0 & 80~M & 80.0~\% & 8~M & 80.0~\% \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_latex_escapes_what_is_special():
    text = files.format_front([trial("a", 0.9, 1, method=HOSTILE), *study()], TWO, "tex", study="s")
    (line,) = (line for line in text.splitlines() if "a\\_b" in line)
    assert line.split(" & ")[1] == (
        r"a\_b \& 50\% \#1 \{x\} \textbackslash{}y \textasciitilde{} \textasciicircum{} \$z\$ "
        r"\textless{}b\textgreater{}\textbar{}[l](u)*`"
    )


def test_markdown_is_a_table():
    text = files.format_front(study(), TWO, "md", study="my_study")
    assert text.splitlines() == [
        "# my\\_study",
        "",
        "|  | Method | Validation accuracy | Difference (points) | MACs | MACs left | Parameters | Parameters left |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "|  | baseline | 95.0 % |  | 100 M | 100.0 % | 10 M | 100.0 % |",
        "|  | l1 | 60.0 % | −35.0 | 10 M | 10.0 % | 1 M | 10.0 % |",
        "| ★ | l1 | 90.0 % | −5.0 | 25 M | 25.0 % | 2.5 M | 25.0 % |",
        "|  | lfp | 94.0 % | −1.0 | 80 M | 80.0 % | 8 M | 80.0 % |",
        "",
        "★ knee. Difference: percentage points to the baseline, the network before pruning. ★ against its baseline: "
        "validation accuracy −5.0 points, 25.0 % of the MACs, 25.0 % of the parameters. "
        "Compute: unknown, as trials (5) do not say what they took. "
        "The same in all trials: Dataset eurosat, Model resnet18, Rate 0.5, Seed 0.",
    ]


def test_markdown_escapes_what_is_special():
    text = files.format_front([trial("a", 0.9, 1, method=HOSTILE + "\n\n# no"), *study()], TWO, "md", study="s")
    (line,) = (line for line in text.splitlines() if "a\\_b" in line)
    cell = r"a\_b \& 50% \#1 {x} \\y \~ ^ \$z\$ \<b\>\|\[l\](u)\*\` \# no"
    assert line == f"| ★ | {cell} | 90.0 % | −5.0 | 1 | 0.0 % | 0 | 0.0 % |"


def test_texts_of_an_empty_front_say_so():
    for name in ("tex", "md"):
        assert "No finished and feasible trial: the front is empty." in files.format_front([], TWO, name, study="s")
