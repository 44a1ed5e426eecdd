"""report.html: one self-contained file that shows what a run learned. A reader of the run folder.

A section is a module in `sections` with a template and a function under ``@section``. The file asks
nothing of the network (its content security policy forbids it), shows everything without JavaScript,
and is the same to the byte when it is written again.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import import_module
from pathlib import Path

import numpy as np
from markupsafe import Markup

from cae_cli.report.figures.catalogue import RunData
from cae_cli.report.page.content import SECTIONS, Content, environment
from cae_cli.runs.folder import Run

HERE = Path(__file__).parent
# In the order in which a reader needs them.
MODULES = ("verdict", "filters", "reconstructions", "latent", "tests", "training", "rules", "again")
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


def content_of(run: Run, data: RunData) -> Content:
    """Reads what the page shows; arguments and errors as for `write`."""
    return Content(
        name=run.folder.name,
        data=data,
        views=run.read_arrays(run.views) if run.views.exists() else {},
        summary=run.summary(),
        setup=run.setup(),
        training=run.training(),
    )


def html(content: Content) -> str:
    """The page as text."""
    templates = environment()
    with np.errstate(all="ignore"):  # networks that diverged
        sections = [(entry, entry.render(content, templates)) for entry in SECTIONS]
    script, style = ((HERE / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src 'sha256-{digest}'"
    )
    plain = json.dumps(content.summary, indent=1, sort_keys=True).encode()
    return templates.get_template("page.html").render(
        content=content,
        sections=[(entry, text) for entry, text in sections if text],
        policy=policy,
        script=script,
        style=style + "".join(sprite.css() for sprite in content.sprites.values()),
        epochs=content.epochs,
        download=Markup(base64.b64encode(plain).decode()),
    )
