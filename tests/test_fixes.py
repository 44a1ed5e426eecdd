"""Fixes in the words of a Keras script."""

import ast

import pytest

from cae_cli.diagnosis import diagnose, forecast
from tests.test_diagnosis import CASES, CONFIG, FORECAST, SCRIPT


def read_as_code(findings):
    for fix in (fix for finding in findings for fix in finding.fixes):
        ast.parse(fix.keras)


@pytest.mark.parametrize("config", [CONFIG, SCRIPT], ids=["run", "script"])
@pytest.mark.parametrize("code", sorted(CASES))
def test_every_fix_of_a_keras_script_reads_as_code(code, config):
    read_as_code(diagnose(CASES[code][0], config).findings)


@pytest.mark.parametrize("code", sorted(FORECAST))
def test_every_fix_of_a_risk_reads_as_code(code):
    read_as_code(forecast(*FORECAST[code][0]).findings)


@pytest.mark.parametrize("code", ["CAE212", "CAE213", "CAE214"])
def test_causes_whose_fixes_are_for_scripts_have_some(code):
    assert diagnose(CASES[code][0], SCRIPT).findings[0].fixes
