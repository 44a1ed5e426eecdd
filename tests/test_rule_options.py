"""What a person may say of rules, rules of one's own, and how sure a finding is."""

import math
import re
import textwrap
from dataclasses import replace

import pytest

from cae_cli.config.compose import checked
from cae_cli.config.schema import plain
from cae_cli.diagnosis import RULES, Severity, diagnose, forecast
from cae_cli.diagnosis.catalogue import load_rules
from cae_cli.diagnosis.finding import Confidence, Evidence, confidence
from cae_cli.errors import UserError
from tests.conftest import ROOT
from tests.test_diagnosis import DEAD, changed, healthy, known, layer, seen

INF = math.inf


def config(*words):
    return known(plain(checked(words)[1]))


def refused(*words):
    with pytest.raises(UserError) as caught:
        config(*words)
    return caught.value


@pytest.mark.parametrize(
    ("value", "threshold", "range_", "excess"),
    [
        (0.4, 0.4, (0, 0.25), 0),
        (0.475, 0.4, (0, 0.25), 0.5),
        (0.55, 0.4, (0, 0.25), 1),
        (0.7, 0.4, (0, 0.25), 2),
        (-0.11, -0.06, (-0.01, 0.38), 1),  # below what is healthy
        (-0.62, -1.0, (-INF, -1.38), 1),
        (0.5, 1.0, (2.0, INF), 0.5),
        (17, 0, (0, 0), INF),  # nothing between the line and what is healthy
        (3, 0, (-INF, INF), INF),
    ],
)
def test_the_excess_is_the_distance_from_the_line_in_lengths_of_the_way_to_it(
    value, threshold, range_, excess
):
    assert Evidence("x", value, threshold, range_).excess == pytest.approx(excess)


@pytest.mark.parametrize(
    ("range_", "words"),
    [
        ((0, 0.25), "0 to 0.25"),
        ((-INF, -1.38), "below -1.38"),
        ((128, INF), "above 128"),
        ((-INF, INF), "any"),
        ((1, 1), "1"),
        ((0.12345, 12345), "0.123 to 12,345"),
    ],
)
def test_the_healthy_range_in_words(range_, words):
    assert Evidence("x", 0, 0, range_).healthy_text == words


@pytest.mark.parametrize(
    ("excess", "alone", "with_alternatives"),
    [
        (INF, "high", "medium"),
        (1, "high", "medium"),
        (0.89, "medium", "low"),
        (0.25, "medium", "low"),
        (0.24, "low", "low"),
        (0, "low", "low"),
    ],
)
def test_a_finding_is_surer_the_farther_and_the_fewer_its_rivals(excess, alone, with_alternatives):
    assert confidence(excess, alternatives_open=False) is Confidence(alone)
    assert confidence(excess, alternatives_open=True) is Confidence(with_alternatives)


def fired(metrics, *words):
    return [finding.code for finding in diagnose(metrics, config(*words)).findings]


def test_a_threshold_of_ones_own_changes_what_fires():
    dead, fewer = (replace(healthy(), layers=layers) for layers in (DEAD, (layer(dead=5),)))
    assert fired(dead) == ["CAE401"]  # 7 of 16
    assert fired(dead, "rules.CAE401.threshold=.5") == []
    assert fired(fewer) == []  # 5 of 16
    assert fired(fewer, "rules.CAE401.threshold=.3") == ["CAE401"]
    assert fired(dead, "rules.CAE401.threshold=null") == ["CAE401"]
    found = diagnose(fewer, config("rules.CAE401.threshold=.3")).findings[0]
    assert found.evidence[0].threshold == 0.3
    changed = diagnose(fewer, config("rules.CAE401.threshold=.3", "rules.CAE302.enabled=false"))
    assert changed.thresholds["CAE401"] == 0.3 and changed.thresholds["CAE301"] == 0.05
    assert "CAE302" not in changed.thresholds and "CAE001" not in changed.thresholds
    assert next(rule.threshold for rule in RULES if rule.code == "CAE401") == 0.4  # as it was


def test_a_threshold_of_ones_own_changes_what_is_forecast():
    dataset, network, _ = seen(black=-0.6)
    words = ["loss=mse", "data=npz"]
    assert "CAE001" in [f.code for f in forecast(dataset, network, config(*words)).findings]
    changed = forecast(dataset, network, config(*words, "rules.CAE001.threshold=-.5"))
    assert "CAE001" in changed.passed


def test_a_disabled_rule_is_not_checked_and_listed_as_disabled():
    dead = replace(healthy(), layers=DEAD)
    diagnosis = diagnose(dead, config("rules.CAE401.enabled=false"))
    assert diagnosis.disabled == ("CAE401",) and diagnosis.findings == ()
    assert "CAE401" not in {*diagnosis.passed, *(s.code for s in diagnosis.skipped)}
    assert diagnose(dead, config("rules.CAE401.enabled=true")).disabled == ()
    several = diagnose(dead, config("rules.CAE501.enabled=false", "rules.CAE302.enabled=false"))
    assert several.disabled == ("CAE302", "CAE501")


def test_a_disabled_cause_cannot_be_ruled_out():
    dead = replace(healthy(), layers=(layer(dead=16),))
    whole = diagnose(dead, config()).findings[0]
    disabled = diagnose(dead, config("rules.CAE206.enabled=false")).findings[0]
    assert whole.code == disabled.code == "CAE401"
    assert "CAE206" in whole.ruled_out and whole.confidence is Confidence.HIGH
    assert "CAE206" in disabled.open and disabled.confidence is Confidence.MEDIUM


@pytest.mark.parametrize("code", ["CAE001", "CAE101", "CAE401"])
def test_a_disabled_rule_is_disabled_before_training_too(code):
    asked = forecast(*seen()[:2], config(f"rules.{code}.enabled=false"))
    assert asked.disabled == (() if code == "CAE401" else (code,))  # that one is asked afterwards


@pytest.mark.parametrize(
    ("word", "what", "hint"),
    [
        ("rules.MINE01.enabled=false", "rules.MINE01 is not a rule", "cae rules"),
        ("rules.CAE41.enabled=false", "rules.CAE41 is not a rule", "did you mean CAE401?"),
        ("rules.cae401.enabled=false", "rules.cae401 is not a rule", "did you mean CAE401?"),
        (
            "rules.CAE401.treshold=.5",
            "rules.CAE401.treshold is not an option",
            "did you mean threshold?",
        ),
        (
            "rules.CAE401.threshold=high",
            "rules.CAE401.threshold must be a number, got 'high'",
            "threshold",
        ),
        ("rules.CAE401.threshold=nan", "rules.CAE401.threshold must be a finite number", "threshold"),
        (
            "rules.CAE401.threshold=true",
            "rules.CAE401.threshold must be a number, got True",
            "threshold",
        ),
        ("rules.CAE401.enabled=1", "rules.CAE401.enabled must be true or false, got 1", "checked"),
        ("rules.CAE401=.5", "rules.CAE401 must name an option, got 0.5", "rules.CAE401.enabled=false"),
        ("rules.CAE401=null", "rules.CAE401 must name an option, got None", "threshold=…"),
    ],
)
def test_what_is_wrong_is_refused_with_the_next_step(word, what, hint):
    error = refused("model=l2", word)
    assert error.what.startswith(what) and hint in (error.hint or "")
    if "is not a rule" not in what:
        assert error.where is not None and error.where.endswith(word)


MINE = '''
from cae_cli.diagnosis import RULES, Evidence, Rule, Severity


@RULES.add
class TooBright(Rule):
    """It hurts the eyes."""

    code = "MINE01"
    problem = "the output is too bright"
    severity = Severity.WARNING
    measured = "mean of all output pixels"
    threshold = 0.9
    source = "taste"

    def check(self, case):
        bright = case.metrics.quality.output_mean
        if bright <= self.threshold:
            return None
        evidence = Evidence("mean of the output", bright, self.threshold, (0, 0.2))
        return self.finding(f"the mean is {bright:.2f}", evidence, advice="a darker room")
'''


@pytest.fixture
def rules():
    """The catalogue, left as it was found."""
    before = list(RULES)
    yield RULES
    RULES[:] = before


def written(folder, text, name="my rules.py"):
    path = folder / name
    path.write_text(text)
    return path


def test_rules_of_ones_own_are_checked_like_any_other(tmp_path, rules):
    assert refused("rules.MINE01.threshold=.2").what == "rules.MINE01 is not a rule"
    load_rules(written(tmp_path, MINE))
    assert [rule.code for rule in rules] == sorted(rule.code for rule in rules)
    assert "MINE01" in diagnose(healthy(), config()).passed
    diagnosis = diagnose(healthy(), config("rules.MINE01.threshold=.2"))  # the mean is .29
    assert [f.code for f in diagnosis.findings] == ["MINE01"]
    assert diagnosis.findings[0].advice and diagnosis.reaches(Severity.WARNING)
    assert diagnose(healthy(), config("rules.MINE01.enabled=false")).disabled == ("MINE01",)
    with pytest.raises(UserError, match="rule MINE01 exists already"):
        load_rules(written(tmp_path, MINE, "again.py"))


def test_the_rule_of_the_contributing_guide_works_from_a_file_of_its_own(tmp_path, rules):
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    blocks = [textwrap.dedent(b) for b in re.findall(r"```python\n(.*?)```", guide, re.DOTALL)]
    rule, imports = (next(b for b in blocks if b.startswith(start)) for start in ("@RULES", "import"))
    load_rules(written(tmp_path, imports + rule))
    assert fired(changed("latent", dead=0.9)) == ["CAE504"] and fired(changed("latent", dead=0.3)) == []


def test_a_file_of_rules_may_hold_dataclasses(tmp_path, rules):
    dataclass = "@dataclasses.dataclass\nclass Limits:\n    most: float\n"
    load_rules(
        written(tmp_path, f"from __future__ import annotations\nimport dataclasses\n{dataclass}{MINE}")
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import nowhere_to_be_found", "ModuleNotFoundError"),
        ("class Broken(", "SyntaxError"),
        (MINE.replace("MINE01", "CAE401"), "rule CAE401 exists already"),
    ],
)
def test_a_file_of_rules_that_fails_is_named(tmp_path, rules, text, what):
    path = written(tmp_path, text)
    before = list(rules)
    with pytest.raises(UserError) as caught:
        load_rules(path)
    assert what in caught.value.what and caught.value.where == str(path)
    assert list(rules) == before


@pytest.mark.parametrize("name", ["nowhere.py", "rules.txt", "."])
def test_a_file_of_rules_must_be_a_python_file(tmp_path, name):
    (tmp_path / "rules.txt").write_text(MINE)
    with pytest.raises(UserError, match="no such Python file"):
        load_rules(tmp_path / name)
