"""Tables and summaries on terminals of any width, in pipes and as files."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import pytest

from cae_cli.diagnosis import RULES, Severity, Skipped, diagnose, health
from cae_cli.metrics.sample import Sample
from cae_cli.report import numbers, terminal, treatment
from cae_cli.report.sections import Column, Command, Section, Table, as_csv, line, markdown, table_lines
from cae_cli.report.summary import findings, summary
from cae_cli.statistics.interval import Interval
from tests.test_diagnosis import CASES, CONFIG, healthy

ROWS = [("a long name of a row", "1.00", "12"), ("b", "-10.50", "3")]
COLUMNS = [
    Column("name", cut=True),
    Column("value", unit="dB", right=True),
    Column("n", right=True, spare=1),
]


def text_of(table, room=None):
    return ["".join(text for text, _ in spans) for spans in table_lines(table, room)]


# -- tables ------------------------------------------------------------------------------------------


def test_a_table_is_as_wide_as_its_cells_without_spaces_at_line_ends():
    assert text_of(Table.of(COLUMNS, ROWS)) == [
        "name                  value / dB   n",
        "a long name of a row        1.00  12",
        "b                         -10.50   3",
    ]


def test_cells_are_shortened_and_where_that_is_not_enough_spare_columns_are_left_out():
    table = Table.of(COLUMNS, ROWS)
    assert text_of(table, 36) == text_of(table)
    assert text_of(table, 30)[1] == "a long name o…        1.00  12"
    assert text_of(table, 25)[:2] == ["name           value / dB", "a long name …        1.00"]
    for room in range(22, 60):
        assert max(map(len, text_of(table, room))) <= room
        assert ("n" in text_of(table, room)[0].split()) == (room >= 26)


def test_of_spare_columns_the_largest_goes_first_and_of_equal_ones_the_last():
    columns = [Column("a"), *(Column(f"s{n}{k}", spare=n) for k in "xy" for n in (1, 2))]
    table = Table.of(columns, [["1"] * 5])
    shown = [text_of(table, room)[0].split() for room in (16, 13, 9, 5, 1)]
    assert shown == [
        ["a", "s1x", "s2x", "s1y"],
        ["a", "s1x", "s1y"],
        ["a", "s1x"],
        ["a"],
        ["a"],
    ]


def test_a_row_of_limits_is_below_the_table():
    columns = [Column("layer"), Column("inactive", right=True, limit="< 40%"), Column("p", right=True)]
    assert text_of(Table.of(columns, [("one", "3", "0.02")])) == [
        "layer  inactive     p",
        "one           3  0.02",
        "limit     < 40%",
    ]


def test_starred_cells_keep_numbers_aligned_and_empty_columns_are_not_shown():
    table = Table([Column("x", ["1", "22"], right=True, starred=frozenset([1])), Column("y", ["", ""])])
    assert text_of(table) == [" x", " 1", "22*"]


def test_wide_letters_count_twice():
    table = Table([Column("name", ["日本語", "abcdef"]), Column("n", ["1", "2"])])
    assert [text.index(n) for text, n in zip(text_of(table)[1:], "12", strict=True)] == [5, 8]


def test_a_repeated_text_stands_once_in_plain_text():
    table = Table(
        [Column("key", ["a", "a", "b"], repeated=frozenset([1])), Column("x", ["1", "2", "3"])]
    )
    assert text_of(table) == ["key  x", "a    1", "     2", "b    3"]


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("12 s", 12), ("3:07", 187), ("1:00:30", 3630), ("-0.02 ± 0.01", -0.02), ("84.3%", 84.3),
        ("1,024", 1024), ("1.5e+06", 1.5e6), ("3 (19%)", 3), ("–", None), ("", None), ("[16,8]", None),
    ],
)  # fmt: skip
def test_cells_are_sorted_by_the_number_that_they_begin_with_and_durations_by_their_seconds(
    cell, number
):
    assert numbers.first_number(cell) == number


def test_the_best_score_of_a_treatment_has_a_star_also_where_a_training_diverged():
    def row(score):
        figures = {name: Interval(score, math.nan, math.nan, 1) for name in treatment.DIGITS}
        return treatment.Row("before", "", "", "", False, figures, (), (), ())

    scores = treatment.treatment([row(math.nan), row(0.4), row(0.6)]).columns[4]
    assert scores.title == "score" and scores.starred == {2}


def test_control_characters_are_shown_and_not_sent():
    table = Table([Column("a\x1b[31m", ["\x1b[2J"], cut=True)])
    assert not any("\x1b" in text for text in text_of(table)) and "\\x1b[2J" in text_of(table)[1]


def test_control_characters_in_sentences_are_shown_and_not_sent(capsys, monkeypatch):
    evil = "a\x1b[2J\u202e"
    whole = line(evil, whole=True)
    parts = [evil, line(evil), whole, Command(evil), Section(evil, [evil])]
    assert terminal.as_text([evil, line(evil)]) == "a\\x1b[2J\\u202e\n" * 2
    monkeypatch.setenv("FORCE_COLOR", "1")
    terminal.show(parts)
    shown = capsys.readouterr().out
    assert shown.count(r"a\x1b[2J\u202e") == 6 and evil not in shown
    monkeypatch.delenv("FORCE_COLOR")
    terminal.show([terminal.folder(Path("a\xa0b"))])
    assert capsys.readouterr().out == "a\xa0b\n"  # a script reads it


def test_markdown_and_csv_have_the_same_cells():
    assert markdown(("a", "b"), [("x|y", "1")]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"
    assert as_csv(("a", "b"), [("x,y", None), ("z", 0.1)]) == 'a,b\n"x,y",\nz,0.1\n'


# -- results -----------------------------------------------------------------------------------------


PARTS = [
    "a sentence of words that is wrapped between words where the terminal is narrow",
    line(
        ("error ", "bold red"), "a line to copy that is never wrapped, whatever the width is", whole=True
    ),
    Section("Title", [Command("cae train loss=bce optimizer.learning_rate=0.001 model=wide", indent=4)]),
    line("an indented sentence of words that is wrapped as well", indent=4),
]


def test_sentences_are_wrapped_and_what_is_copied_is_not():
    lines = terminal.as_text(PARTS, 40).splitlines()
    assert "error a line to copy that is never wrapped, whatever the width is" in lines
    assert "    cae train loss=bce optimizer.learning_rate=0.001 model=wide" in lines
    others = [text for text in lines if not text.startswith(("error", "    cae"))]
    assert max(map(len, others)) <= 40 and all(text == text.rstrip() for text in lines)
    assert [text for text in lines if text.startswith("    an")] == [
        "    an indented sentence of words that"
    ]


class Tty(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("tty", "no_color", "styled"), [(True, "", True), (True, "1", False), (False, "", False)]
)
def test_colours_are_for_terminals_without_no_color(monkeypatch, tty, no_color, styled):
    stream = Tty() if tty else io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    terminal.show(PARTS)
    text = stream.getvalue()
    assert ("\x1b[1;31m" in text) == styled
    if not tty:
        assert "\x1b" not in text and PARTS[0] in text.splitlines()  # a pipe wraps nothing


def summary_of(metrics, *, verbose=True, **options):
    verdict = diagnose(metrics, {**CONFIG, **options})
    return verdict, summary(metrics, verdict, "test", ["cae", "train"], verbose=verbose)


@pytest.mark.parametrize("code", [None, *CASES])
def test_a_summary_fits_on_a_screen(code):
    """Of 80 columns and 24 lines: the page and the folder take two, and the first is empty."""
    metrics = healthy() if code is None else CASES[code][0]
    verdict, parts = summary_of(metrics, verbose=False)
    lines = terminal.as_text(parts, 80).rstrip().splitlines()
    shown = [f for f in verdict.findings if f.consequence_of is None and f.severity is not Severity.NOTE]
    assert len(lines) - 1 <= 22 + 12 * max(0, len(shown) - 1), "\n".join(lines)
    assert "summary diagnosis: " in lines[1]


@pytest.mark.parametrize(("command", "shows"), [(["cae", "train"], "--verbose"), ([], "cae report RUN")])
def test_the_summary_names_what_shows_the_rules_that_were_not_checked(command, shows):
    skipped = (Skipped("CAE301", "", "no images"), Skipped("CAE302", "", "no steps"))
    verdict = replace(diagnose(healthy(), CONFIG), skipped=skipped)
    assert f"· 2 rules not checked; {shows} says why" in findings(verdict, command)


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("code", [None, "CAE301", "CAE401", "CAE502", "CAE503"])
def test_tables_of_a_summary_fit_narrow_terminals(code, width):
    metrics = healthy() if code is None else CASES[code][0]
    _, parts = summary_of(metrics)
    sections = [part for part in parts if isinstance(part, Section)][:3]
    assert [part.title.split(" (")[0] for part in sections] == [
        "Baselines",
        "Layers",
        "Perturbation tests",
    ]
    for part in sections:
        assert max(map(len, terminal.as_text(part.parts, width).splitlines())) <= width


def test_ranges_of_the_perturbation_tests_are_those_of_the_criteria_and_rules():
    metrics = replace(
        healthy(), perturbation=replace(healthy().perturbation, latent_swap=0.911, noise_gain=0.07)
    )
    _, parts = summary_of(metrics)
    [section] = [p for p in parts if isinstance(p, Section) and p.title == "Perturbation tests"]
    rows = {row.split("  ")[0]: row for row in terminal.as_text(section.parts, 100).splitlines()}
    criteria = {criterion.name: criterion for criterion in health.criteria(metrics, {})}
    copies = next(rule for rule in RULES if rule.code == "CAE503")
    assert f"above {criteria['latent swap'].least:g}" in rows["latent swap"]
    assert "  0.91  " in rows["latent swap"]
    assert f"below {criteria['pixel copy'].most:g}" in rows["pixel copy"]
    noise = max(copies.most_noise, healthy().network.most_copied)
    assert f"below {noise:g}" in rows["noise gain"] and "  0.07  " in rows["noise gain"]


def test_healthy_ranges_of_layers_are_the_thresholds_of_the_run():
    for threshold in (0.4, 0.6):
        _, parts = summary_of(healthy(), rules={"CAE401": {"threshold": threshold}})
        text = terminal.as_text(parts)
        assert f"< {threshold:.0%}" in text and " 0 (0%) " in text
    _, parts = summary_of(healthy(), rules={"CAE401": {"enabled": False}})
    assert "< 40%" not in terminal.as_text(parts)


def test_a_notebook_shows_lines_and_files_have_their_text(monkeypatch, capsys):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    screen = terminal.Screen()
    screen.say("a line")
    terminal.show(["a result"])
    assert not screen.live and terminal.as_text(["a text"]) == "a text\n"
    assert capsys.readouterr() == ("a result\n", "a line\n")
    silent = terminal.Screen(silent=True)
    silent.say("nothing")
    assert capsys.readouterr() == ("", "")


def test_a_gap_to_training_images_that_were_not_scored_is_not_checked():
    whole = diagnose(healthy(), CONFIG)
    metrics = replace(
        healthy(),
        quality=replace(healthy().quality, train_explained_variance=math.nan),
        perturbation=replace(healthy().perturbation, linear_train=math.nan),
        sample=Sample(16, 0, 16, 16, ablation=0),
    )
    verdict = diagnose(metrics, CONFIG)
    assert {s.code for s in verdict.skipped} - {s.code for s in whole.skipped} == {"CAE109", "CAE501"}
    assert {s.reason for s in verdict.skipped if s.code in ("CAE109", "CAE501")} == {
        "the network is too large to measure training images after so short a training"
    }
    assert verdict.findings == whole.findings
    shown = terminal.as_text(summary(metrics, verdict, "test", ["cae", "train"]), 200)
    note = "not measured (a large network after a short training): training images, prunable filters"
    assert note in shown
    assert note not in terminal.as_text(summary(healthy(), whole, "test", ["cae", "train"]), 200)
