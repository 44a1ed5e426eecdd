"""How to make the run again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cae_cli.errors import to_paste
from cae_cli.report.numbers import value
from cae_cli.report.page.content import Content, section
from cae_cli.runs.command import fit_to_paste

TEMPLATE = """\
{% if command %}<p>The command of this run:</p>{{ parts.copy(command) }}
{% else %}<p>This model was trained elsewhere; its training is not known in full.</p>{% endif %}
<div class="scroll"><table class="data stack"><tbody>
{% for name, text in facts %}<tr><th scope="row">{{ name }}</th><td>{{ text }}</td></tr>{% endfor %}
</tbody></table></div>
{% if options %}
<details><summary>All options{% if changed %}, those that the command set in bold{% endif %}</summary>
<pre>{% for key, text, bold in options %}{% if bold %}<b>{{ key }}={{ text }}</b>{% else %}{{ key }}={{ text }}{% endif %}

{% endfor %}</pre></details>
{% endif %}
"""


@section("again", "How to make it again", TEMPLATE)
def again(content: Content) -> Mapping[str, Any]:
    """The command, the config, the images, the versions and the machine."""
    setup, training = content.setup, content.training
    command = fit_to_paste(setup.get("command"))
    words = [word.lstrip("+~").partition("=")[0] for word in command[2:]]
    data, network = setup.get("data", {}), training["network"]
    layer = network.get("latent_layer")
    counts = [f"{data[k]:,} {k}" for k in ("train", "validation", "test") if data.get(k)]
    facts = [
        ("images", f"{data.get('source', 'unknown')}: {', '.join(counts)}"),
        ("size of an image", "x".join(map(str, network["image_shape"]))),
        ("fingerprint of the images", f"{data.get('fingerprint', 'unknown')} (equal for equal images)"),
        ("latent code", "x".join(map(str, network["latent_shape"])) + (f" ({layer})" if layer else "")),
        ("weights", f"{training['weights']:,}" if training.get("weights") else "unknown"),
        ("device", training.get("device") or "unknown"),
        ("packages", ", ".join(f"{k} {v}" for k, v in setup.get("packages", {}).items())),
        ("git commit of the code", (setup.get("git") or {}).get("commit") or "unknown"),
    ]
    options = [
        (key, text, any(key == w or key.startswith(f"{w}.") for w in words))
        for key, text in _flat(setup.get("config") or {})
    ]
    return {
        "command": to_paste(*command) if command else "",
        "facts": facts,
        "options": options,
        "changed": any(bold for _, _, bold in options),
    }


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, content in tree.items():
        if isinstance(content, Mapping) and content:
            yield from _flat(content, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value({} if isinstance(content, Mapping) else content)
