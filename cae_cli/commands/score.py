"""``cae score``: how unusual images are to the network of a run, and what that is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cae_cli.commands import arguments, models, networks
from cae_cli.errors import UserError, counted
from cae_cli.options import key_of
from cae_cli.report import terminal
from cae_cli.report.sections import Column, Part, Table
from cae_cli.system.files import typed

if TYPE_CHECKING:
    from cae_cli.features.network import Network
    from cae_cli.features.score import Scores

HELP = f"""\
usage: cae score RUN [data=…] [anomalies=…] --out scores.csv

Scores images by the error of their reconstruction. Those with a larger error
than the threshold are called anomalies; it comes from held-out images of the
run, of which at most the given share exceeds it. Draws the images with the
largest and the smallest errors into scores.png.

Without data=…, the held-out images of the run are scored; of a source with a
test part, only that is. If anomalies are known, the area under the ROC curve
(AUROC) says how well the score tells them, beside that of two scores that need
no network: the distance from the mean training image, and the error of
principal components.

  anomalies=mnist         further images, which are all anomalies; keys as in
                          data=…: anomalies.path=…, anomalies.test=1000
  --normal LABEL,…        labels of the normal images; all others are anomalies
  --false-alarms SHARE    of normal images; the default is 0.05
  --out FILE              a table: scores.csv, or scores.parquet (needs pyarrow)

{networks.IMAGES_HELP}
{arguments.RUN_HELP}
flags:
{arguments.TRUST_HELP}{arguments.RUNS_HELP}"""
KEY = "anomalies"


def main(args: list[str]) -> int:
    """Scores images."""
    flags = arguments.parse("cae score", args)
    if flags.help:
        print(HELP, end="")
        return 0
    from cae_cli.features import score, sheets, tables
    from cae_cli.features.source import Source

    example = "cae score last anomalies=mnist --out scores.csv"
    others = [w for w in flags.overrides if key_of(w) == KEY or key_of(w).startswith(f"{KEY}.")]
    flags.overrides = [word for word in flags.overrides if word not in others]
    subject, words = networks.subject(flags, "cae score", example)
    if models.is_model(typed(subject)):
        raise UserError(
            "a model file does not say which images it was trained on, so there is no threshold",
            where=subject,
            hint="name a run of cae train",
        )
    out = networks.output(flags, "cae score", example)
    tables.check(out)
    with networks.opened(subject, flags) as network:
        own = networks.images(network, [], flags)
        given = networks.images(network, words, flags) if words else Source(own.parts[-1:])
        renamed = [f"data{word[len(KEY) :]}" for word in others]
        anomalies = networks.images(network, renamed, flags) if others else Source(())
        given, anomalies = score.unseen(given), score.unseen(anomalies)
        screen = terminal.Screen()
        with screen.passing("scoring", len(given) + len(anomalies)) as done:
            scores = score.score(
                network,
                own,
                given,
                anomalies,
                normal=flags.normal,
                false_alarms=flags.false_alarms,
                done=done,
            )
        tables.write(out, scores.table(), scores.about(network))
        picture = out.with_suffix(".png")
        with screen.doing("drawing …"):
            parts = [*given.parts, *anomalies.parts]
            sheets.draw_scored(picture, network, parts, score.ends(scores), *score.captions(scores))
    terminal.show(_summary(scores, network))
    terminal.show([terminal.folder(out), terminal.folder(picture)])
    return 0


def _summary(scores: Scores, network: Network) -> list[Part]:
    alarms, count = int(scores.alarms.sum()), len(scores.alarms)
    parts: list[Part] = [
        f"{alarms:,} of {counted(count, 'image')} above the threshold {scores.threshold:.5f} (at most "
        f"{scores.false_alarms:.1%} false alarms, from {len(scores.held_out):,} held-out images)"
    ]
    if network.warning:
        parts.insert(0, f"this network is not to be trusted: {network.warning}")
    if scores.anomalous is not None:
        known = int(scores.anomalous.sum())
        caught = int((scores.alarms & scores.anomalous).sum())
        parts.append(
            f"{caught:,} of {known:,} anomalies, {alarms - caught:,} of {count - known:,} others"
        )
        rows = [
            (name, f"{a.value:.3f}", f"{a.low:.3f} to {a.high:.3f}") for name, a in scores.aurocs.items()
        ]
        columns = [Column("score"), Column("AUROC", right=True), Column("95 % interval")]
        parts += ["", Table.of(columns, rows)]
    return [*parts, "", scores.worth]
