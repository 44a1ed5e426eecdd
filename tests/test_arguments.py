"""The words behind a command."""

import pytest

from cae_cli.commands import arguments
from cae_cli.diagnosis import Diagnosis, Finding, Severity
from cae_cli.errors import UserError


def test_words_from_a_file_load_no_code(tmp_path):
    rules = tmp_path / "rules.py"
    rules.write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()")
    words = ["loss=bce", "--rules", str(rules)]
    for spelling in (words, ["loss=bce", "--rul", str(rules)], ["loss=bce", f"--rules={rules}"]):
        with pytest.raises(UserError):
            arguments.parse("cae train", spelling, trusted=False)
    assert not (tmp_path / "ran").exists()
    arguments.parse("cae train", words)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("flag", ["--frozen-encoder", "--json", "--latent=x", "--range=0,1"])
def test_a_flag_that_a_command_does_not_have_is_refused(flag):
    with pytest.raises(UserError, match="unrecognized"):
        arguments.parse("cae train", [flag])
    assert arguments.parse("cae diagnose", [flag])


@pytest.mark.parametrize(
    ("command", "words", "code"),
    [
        ("cae train", [], 0),
        ("cae train", ["--fail-on", "warning"], 1),
        ("cae diagnose", ["--fail-on", "error"], 0),
        ("cae treat", [], 0),  # it has no --fail-on
    ],
)
def test_findings_set_the_exit_code_only_where_they_are_asked_for(command, words, code):
    finding = Finding("CAE401", "dead filters", Severity.WARNING, "", ())
    diagnosis = Diagnosis("", (finding,), (), (), (), False, {})
    assert arguments.exit_code(arguments.parse(command, words), diagnosis) == code


@pytest.mark.parametrize("text", ["1", "a,b", "1,1", "0,1,2", "0,1,2,2"])
def test_a_range_is_two_numbers_or_four(text):
    with pytest.raises(UserError, match="two different numbers"):
        arguments.parse("cae diagnose", [f"--range={text}"])
    assert arguments.parse("cae diagnose", ["--range=-1,1"]).range == ((-1, 1), (-1, 1))
    assert arguments.parse("cae diagnose", ["--range=0,255,1,0"]).range == ((1, 0), (0, 255))


def test_the_same_experiment_again_keeps_its_configs():
    flags = arguments.parse("cae check", ["-cd", "mine", "-cn", "own", "rules.CAE401.threshold=.5"])
    assert arguments.train_command(flags) == [
        "cae",
        "train",
        "-cd",
        "mine",
        "-cn",
        "own",
        "rules.CAE401.threshold=.5",
    ]
