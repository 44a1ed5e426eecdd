"""report.html: one self-contained file that shows what a run learned. A reader of the run folder.

A section is a module in `sections` with a template and a function under ``@section``. The file asks
nothing of the network (its content security policy forbids it), shows everything without JavaScript,
and is the same to the byte when it is written again.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from cae_cli.report import trials
from cae_cli.report.figures.catalogue import RunData
from cae_cli.report.page.content import SECTIONS, Content, environment
from cae_cli.report.page.sprites import Sprite
from cae_cli.runs.folder import Run
from cae_cli.runs.reader import id_of
from cae_cli.system.guarded import GuardedPath

HERE = Path(__file__).parent
# In the order in which a reader needs them.
MODULES = (
    "verdict", "trials", "filters", "reconstructions", "latent", "tests", "training", "rules", "words",
    "again",
)  # fmt: skip
for _name in MODULES:
    import_module(f"cae_cli.report.page.sections.{_name}")


def write(run: Run, data: RunData) -> Path:
    """Writes report.html of a run that was diagnosed.

    Args:
        run: a folder with summary.json, run.json and training.json. What filters respond to is shown if
            there is views.npz.
        data: of the run, see `figures.read`.

    Returns:
        The file.

    Raises:
        UserError: a file cannot be read.
        LookupError, TypeError, ValueError: the files contradict each other.
    """
    text = html(content_of(run, data))
    with run.page.atomic() as path:
        path.write_text(text, encoding="utf-8")
    return run.page.shown


def framed(page: GuardedPath) -> str | None:
    """A page as a frame for a notebook; None where there is none."""
    try:
        text = page.read_text()
    except FileNotFoundError:
        return None
    return (
        '<iframe style="width:100%;height:80vh;border:1px solid #888" '
        f'title="report.html" sandbox="allow-scripts allow-downloads" srcdoc="{escape(text)}"></iframe>'
    )


def content_of(run: Run, data: RunData) -> Content:
    """Reads what the page shows; arguments and errors as for `write`."""
    return Content(
        name=run.folder.name,
        id=id_of(run.folder),
        data=data,
        views=run.read_arrays(run.views) if run.views.exists() else {},
        summary=run.summary(),
        setup=run.setup(),
        training=run.training(),
        trials=trials.read(run),
    )


def html(content: Content) -> str:
    """The page of a run as text."""
    templates = environment()
    with np.errstate(all="ignore"):  # networks that diverged
        sections = [(e.anchor, e.title, e.render(content, templates)) for e in SECTIONS]
    return shell(
        content.name,
        [(anchor, title, text) for anchor, title, text in sections if text],
        sprites=content.sprites.values(),
        epochs=content.epochs,
        download=("summary.json", content.summary),
    )


def shell(
    title: str,
    sections: Sequence[tuple[str, str, Markup]],
    *,
    sprites: Iterable[Sprite] = (),
    epochs: Sequence[int] = (),
    download: tuple[str, Mapping[str, Any]] | None = None,
) -> str:
    """A page with its styles, its script and the policy that forbids everything else.

    Args:
        title: of the page.
        sections: address, heading and content of each.
        sprites: the pictures that the content uses.
        epochs: for the slider; fewer than two give none.
        download: name and content of a file for machines.
    """
    script, style = ((HERE / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src 'sha256-{digest}'"
    )
    name, plain = download or ("", {})
    data = json.dumps(plain, indent=1, sort_keys=True).encode() if download else b""
    return (
        environment()
        .get_template("page.html")
        .render(
            title=title,
            sections=sections,
            policy=policy,
            script=script,
            style=style + "".join(sprite.css() for sprite in sprites),
            epochs=epochs,
            file=name,
            download=Markup(base64.b64encode(data).decode()),
        )
    )
