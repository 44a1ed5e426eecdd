"""What trials prove, from their numbers alone."""

import math

import pytest

from cae_cli.diagnosis.finding import Diagnosis, Finding, Fix, Safety, Severity
from cae_cli.diagnosis.trials import Trial, Trials, after_trials
from cae_cli.report.sections import Section
from cae_cli.report.terminal import as_text
from cae_cli.report.trials import section
from cae_cli.runs.json_files import plain


def trial(name, *explained, codes=(), cut=False):
    return Trial(name, f"what {name} does", codes, explained, f"old {name}", f"new {name}", 3.0, cut)


def trials(unchanged, *edits, controls=(), given=math.nan, linear=0.78):
    return Trials(trial("unchanged", *unchanged), edits, controls, given, linear, steps=200)


def proven(*args, **words):
    return [t.name for t in trials(*args, **words).proven]


FAILED = (-0.49, -0.48)  # with two seeds


def test_a_change_that_makes_up_what_a_failing_training_lacks_is_proven():
    fixed, other = trial("a", 0.74, 0.73), trial("b", -0.4)
    assert proven(FAILED, other, fixed) == ["a"]
    assert proven((0.12, 0.1), trial("a", 0.74, 0.72), other) == ["a"]
    # Of the whole training it is known that it fails, so the criterion is the goal.
    assert proven((0.49, 0.54), trial("a", 0.76, 0.75), other, given=0.62) == ["a"]
    assert proven((-0.36, -0.36), trial("a", 0.31, 0.3), other, given=-0.35, linear=0.35) == ["a"]


def test_nothing_is_the_cause_in_a_healthy_training():
    assert proven((0.74, 0.73), trial("rate", 0.8, 0.8), given=0.85) == []
    assert proven((0.74, 0.73), trial("rate", 0.84, 0.84)) == []
    # Trials are shorter than the training, which learned in the end.
    assert proven(FAILED, trial("a", 0.77, 0.76), given=0.88) == []
    # A copy of the image explains nearly all: that others explain more is no cause.
    assert proven((0.97, 0.97), trial("rate", 0.99, 0.99), linear=0.8) == []
    found = trials((0.74, 0.73), trial("rate", 0.8, 0.8), given=0.85)
    assert found.verdict().startswith("no change is needed")


def test_a_short_trial_alone_does_not_make_a_larger_rate_the_cause():
    assert proven((0.62, 0.6), trial("rate", 0.72, 0.72)) == []


def test_a_gain_must_exceed_what_seeds_differ_by():
    assert proven((0.1, -0.2), trial("a", 0.72, 0.2)) == []
    assert proven((0.55, 0.0), trial("a", 0.72, 0.75), given=0.3) == []
    # How far two seeds are below the mean image says nothing.
    assert proven((-5.2, 0.01), trial("a", 0.89, 0.88), given=-0.01) == ["a"]
    assert proven((-math.inf, math.nan), trial("a", 0.89, 0.88)) == ["a"]


def test_what_mends_is_reported_before_what_helps_and_nothing_with_one_seed():
    mends, helps = trial("ReLU", 0.74, 0.72), trial("ELU", 0.5, 0.49)
    alone, nothing = trial("rate", 0.6), trial("bce", 0.06, 0.05)
    others = [trial(name, 0.06, 0.05) for name in "abc"]
    found = trials((0.05, 0.05), nothing, helps, mends, alone, *others, given=0.05, linear=0.8)
    assert [t.name for t in found.helping] == ["ReLU", "ELU"] and found.best is mends
    assert trials((0.05, 0.05), nothing, alone, given=0.05).helping == ()
    most = trials((0.05, 0.05), helps, helps, nothing, given=0.05, linear=0.8)
    assert most.helping == ()  # nearly everything helps


def test_a_gain_counts_beside_the_error_that_is_left():
    wider, alike = trial("wider", 0.97, 0.972), trial("rate", 0.954, 0.955)
    found = trials((0.95, 0.951), alike, wider, alike, given=0.949, linear=0.9)
    assert [t.name for t in found.helping] == ["wider"] and not found.proven
    assert found.verdict() == (
        "no change is needed, but wider helps: it explains 0.97 of the variance instead of 0.95, "
        "59% of the error is left"
    )
    assert "+ new wider" in as_text([section(found)])


def test_one_seed_a_trial_that_was_ended_and_a_majority_prove_nothing():
    alone = trials(FAILED, trial("a", 0.74))
    assert not alone.proven and "no time for a second seed" in alone.verdict()
    uneven = trials(FAILED, trial("b", 0.95, 0.0), trial("a", 0.65))  # b helps with one seed only
    assert uneven.verdict().startswith("a seems to mend it, but there was no time for a second seed")
    assert proven(FAILED, trial("a", 0.74, 0.74, cut=True)) == []
    three = [trial(name, 0.74, 0.74) for name in "abc"]
    every = trials(FAILED, *three, trial("d", -0.4))
    assert every.undecided and not every.proven and "does not tell the cause" in every.verdict()
    few = trials(FAILED, *three, *(trial(name, -0.4) for name in "defg"))
    assert [t.name for t in few.alike] == ["a", "b", "c"] and "a or b or c mends it" in few.verdict()


def finding(code, **words):
    return Finding(code, f"problem of {code}", Severity.ERROR, "", (), **words)


@pytest.fixture
def diagnosis():
    findings = (finding("CAE1"), finding("CAE2", consequence_of="CAE1"), finding("CAE3"))
    return Diagnosis("the verdict", findings, (), (), (), False, {})


def test_confirmed_findings_lead_and_those_tried_in_vain_come_last(diagnosis):
    found = trials(FAILED, trial("a", -0.4, codes=("CAE1",)), trial("b", 0.74, 0.7, codes=("CAE3",)))
    after = after_trials(diagnosis, found)
    assert [f.code for f in after.findings] == ["CAE3", "CAE1", "CAE2"]
    assert [f.confidence for f in after.causes] == ["high", "low"]
    assert found.verdict(after).startswith(
        "confirmed: problem of CAE3; b mends it, 0.72 of the variance"
    )
    unnamed = trials(FAILED, trial("b", 0.74, 0.7))
    assert [f.code for f in after_trials(diagnosis, unnamed).findings] == ["CAE1", "CAE2", "CAE3"]
    assert unnamed.verdict(diagnosis).startswith("a fault that no rule knows; b mends it")
    in_vain = trials(FAILED, trial("b", -0.4, codes=("CAE3",)))
    assert in_vain.verdict(diagnosis).startswith("b, the only change tried, does not mend it: it")
    assert trials(FAILED).verdict() == "no change was tried: none applies to this training"


def test_fixes_come_in_the_order_of_what_they_brought_and_say_it():
    names = ("in vain", "untried", "good", "better")
    fixes = tuple(Fix((), f"why {name}", Safety.SAFE, edit=name) for name in names)
    told = Diagnosis("", (finding("CAE1", fixes=fixes),), (), (), (), False, {})
    found = trials(
        FAILED,
        *(trial(n, *e, codes=("CAE1",)) for n, e in [("in vain", (-0.48,)), ("good", (0.5, 0.52))]),
        trial("better", 0.7, 0.72, codes=("CAE1",)),
    )
    (after,) = after_trials(told, found).findings
    assert [fix.edit for fix in after.fixes] == ["better", "good", "untried", "in vain"]
    assert after.fixes[0].why == "why better; tried: it explains 0.71 instead of -0.48"
    assert after.fixes[2].why == "why untried"
    assert after.fixes[3].why.endswith("it explains -0.48 instead of -0.49")  # with the same seed


def test_a_change_that_mends_far_more_than_the_fix_of_a_finding_does_not_confirm_it(diagnosis):
    fix, best = trial("b", 0.4, 0.42, codes=("CAE3",)), trial("a", 0.85, 0.86)
    found = trials(FAILED, fix, best, trial("c", -0.4), trial("d", -0.4), given=-0.4)
    assert not found.confirms(diagnosis.findings[2])
    assert found.verdict(diagnosis).startswith("a fault that no rule knows; a mends it, 0.85")


def test_trials_are_what_their_json_says():
    found = trials(FAILED, trial("a", 0.74, -math.inf), controls=(trial("random", 0.1),))
    content = plain(found.content())
    assert Trials.of(content).content() | {"given": 0} == found.content() | {"given": 0}
    for broken in (
        {},
        {**content, "edits": 3},
        {**content, "edits": [{**content["unchanged"], "explained": []}]},
    ):
        with pytest.raises(ValueError, match="no trials"):
            Trials.of(broken)


def test_the_section_shows_the_best_changes_and_the_code():
    edits = [trial(f"edit {n}", -0.4) for n in range(12)] + [trial("a", 0.74, 0.7)]
    found = trials(FAILED, *edits, controls=(trial("random", 0.1),))
    short, long = (section(found, verbose=v) for v in (False, True))
    assert isinstance(short, Section)
    text = as_text([short])
    rows = text.splitlines()
    assert rows[0] == "Fixes tried (200 steps each, up to 2 seeds, 0 s)"
    assert rows[2].startswith("unchanged") and "-0.49 -0.48" in rows[2]
    assert rows[3].startswith("a ") and "0.74 0.70" in rows[3] and "mends it" in rows[3]
    assert "    - old a" in text and "    + new a" in text and "edit 11" not in text
    assert "edit 11" in as_text([long])
