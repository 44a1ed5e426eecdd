"""Fixes in the words of a Keras script."""

import ast

import pytest

from cae_cli.diagnosis import diagnose, forecast
from tests.test_diagnosis import CASES, CONFIG, FORECAST


@pytest.mark.parametrize("code", sorted({**CASES, **FORECAST}))
def test_every_fix_of_a_keras_script_reads_as_code(code):
    if code in CASES:
        findings = diagnose(CASES[code][0], CONFIG).findings
    else:
        findings = forecast(*FORECAST[code][0]).findings
    for fix in (fix for finding in findings for fix in finding.fixes):
        ast.parse(fix.keras)
