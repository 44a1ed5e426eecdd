"""Which problems follow from which, and which look alike: one graph of rule codes.

Every line reads "cause: what follows from it". `docs/rules.md` draws the graph.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from cae_cli.diagnosis.finding import Finding, confidence

# What a network shows that did not learn: nothing learned, a constant output, no better than the mean
# image, worse than linear, dead filters, duplicate filters.
NOT_LEARNED = "CAE202 CAE301 CAE302 CAE303 CAE401 CAE402"
# The same where the training as a whole is at fault: it ended early, the latent code seems too small.
NEVER_LEARNED = f"{NOT_LEARNED} CAE211 CAE602"
# What a network shows that cannot represent the images: blur, dead filters, a constant output.
LIMITED = "CAE211 CAE302 CAE303 CAE304"
UNREACHED = f"{LIMITED} CAE205 CAE301 CAE401 CAE402"

# What a network shows on images that it was not trained on, whatever it can.
UNKNOWN_IMAGES = (
    f"{NEVER_LEARNED} CAE204 CAE205 CAE210 CAE215 CAE304 CAE305 CAE501 CAE502 CAE503 CAE601 CAE603 "
    "CAE604 CAE605"
)

CONSEQUENCES = {
    # images
    "CAE101": f"{NOT_LEARNED} CAE105 CAE106 CAE108 CAE113 CAE205 CAE211 CAE501 CAE503 CAE602",  # repeats
    "CAE102": f"{NOT_LEARNED} CAE204 CAE205 CAE207 CAE211 CAE304 CAE502",  # range of the output
    "CAE103": f"{NOT_LEARNED} CAE104 CAE211 CAE304 CAE501 CAE502",  # target is another image
    "CAE104": f"{NOT_LEARNED} CAE105 CAE113 CAE211 CAE501 CAE602",  # noise
    "CAE105": f"{LIMITED} CAE113 CAE501 CAE602",  # noisy images
    "CAE108": f"{NEVER_LEARNED} CAE207 CAE304 CAE501",  # images in an order
    # held-out images of another kind: no figure on them tells anything
    "CAE109": UNKNOWN_IMAGES,
    "CAE110": f"{LIMITED} CAE104 CAE105 CAE202 CAE301 CAE501 CAE602",  # noise in the target
    # pixels in the wrong places
    "CAE111": f"{NEVER_LEARNED} CAE104 CAE105 CAE112 CAE113 CAE304 CAE305 CAE501 CAE503 CAE604",
    # prepared otherwise, images of another kind: no figure on them tells anything of the network
    "CAE112": f"{UNKNOWN_IMAGES} CAE102 CAE113 CAE214",
    "CAE113": UNKNOWN_IMAGES,
    # training
    "CAE201": f"{NEVER_LEARNED} CAE207 CAE501",  # diverged
    "CAE202": "CAE302 CAE303 CAE401",  # nothing learned
    "CAE203": f"{NEVER_LEARNED} CAE204 CAE205 CAE207 CAE208 CAE209 CAE502",  # softmax
    "CAE204": NEVER_LEARNED,  # range of the loss
    "CAE205": f"{NEVER_LEARNED} CAE207 CAE208 CAE209",  # dead at initialisation
    "CAE206": f"{NEVER_LEARNED} CAE208 CAE209 CAE501 CAE214",  # penalty
    "CAE207": f"{NEVER_LEARNED} CAE304 CAE305 CAE501 CAE503 CAE214",  # learning rate too high
    "CAE208": f"{NEVER_LEARNED} CAE304",  # learning rate too low
    "CAE209": "CAE202 CAE211 CAE302 CAE303 CAE602",  # frozen layers
    "CAE210": f"{NEVER_LEARNED} CAE501 CAE502",  # running averages
    "CAE211": "CAE302 CAE303 CAE304",  # ended too early
    "CAE212": f"{NEVER_LEARNED} CAE205 CAE207 CAE208 CAE209 CAE304 CAE214",  # saturated hidden layers
    "CAE213": f"{NEVER_LEARNED} CAE201 CAE205 CAE207 CAE208 CAE209 CAE210 CAE304 CAE214",  # half
    "CAE214": f"{NEVER_LEARNED} CAE304",  # dropout
    "CAE215": f"{NEVER_LEARNED} CAE205 CAE207 CAE208 CAE304",  # loss smallest elsewhere
    # output
    "CAE301": f"{LIMITED} CAE202 CAE401 CAE402 CAE501 CAE502 CAE602 CAE604",  # constant
    "CAE302": "CAE303 CAE304",  # no better than the mean image
    # latent code
    "CAE502": "CAE401 CAE503 CAE602",  # bypassed
    "CAE505": f"{NEVER_LEARNED} CAE206 CAE304",  # posterior collapse: the penalty is the divergence
    # capacity
    "CAE601": f"{UNREACHED} CAE602 CAE603 CAE604 CAE605",  # kernels of one pixel
    "CAE602": LIMITED,  # latent code too small
    "CAE603": f"{UNREACHED} CAE605",  # too narrow
    "CAE604": "CAE503",  # too shallow
    "CAE605": f"{UNREACHED} CAE202 CAE208 CAE602",  # too deep
    "CAE606": f"{LIMITED} CAE305",  # pixels unread
    # new images are reconstructed worse: last, because of several causes of a problem the first counts
    "CAE501": "CAE302 CAE303",
}

# Causes that make a network poor whatever its size.
NOT_CAPACITY = "CAE103 CAE105 CAE206 CAE207 CAE208 CAE209 CAE210 CAE301"

# Finding: other causes that would look like it.
ALTERNATIVES = {
    "CAE205": "CAE207 CAE212",
    "CAE206": "CAE207 CAE208",
    "CAE207": "CAE205 CAE206",
    "CAE208": "CAE205 CAE206 CAE209",
    "CAE209": "CAE208 CAE213",
    "CAE210": "CAE207 CAE208",
    "CAE211": "CAE103 CAE105 CAE206 CAE208 CAE601 CAE603",
    "CAE301": "CAE103 CAE203 CAE205 CAE206 CAE207 CAE209 CAE211 CAE212 CAE214 CAE505",
    "CAE302": "CAE103 CAE105 CAE206 CAE207 CAE208 CAE211",
    "CAE303": "CAE105 CAE206 CAE207 CAE208 CAE211 CAE602 CAE604",
    "CAE304": "CAE206 CAE211",
    "CAE401": "CAE205 CAE206 CAE207",
    "CAE501": "CAE103 CAE210",
    "CAE502": "CAE301 CAE503",
    "CAE503": "CAE502",
    "CAE505": "CAE207",
    "CAE601": NOT_CAPACITY,
    "CAE602": NOT_CAPACITY,
    "CAE603": f"{NOT_CAPACITY} CAE211 CAE602",
    "CAE604": "CAE502",
    "CAE605": f"{NOT_CAPACITY} CAE211 CAE602 CAE603",
}


def codes(table: Mapping[str, str], code: str) -> tuple[str, ...]:
    """The entry of a rule in one of the tables; () if it has none."""
    return tuple(table.get(code, "").split())


def place(code: str) -> tuple[int, str]:
    """Where a rule stands among the causes; those without an entry come last, by their code."""
    known = list(CONSEQUENCES)
    return (known.index(code) if code in known else len(known)), code


def order(
    findings: Sequence[Finding],
    consequences: Mapping[str, Collection[str]],
    alternatives: Mapping[str, Collection[str]],
    passed: Collection[str],
    near: Collection[str] = (),
) -> list[Finding]:
    """Puts causes first, each followed by its consequences, and states how certain each finding is.

    The most severe cause comes first, among equals the one whose code is first.

    Args:
        findings: of the rules.
        consequences: of every rule that was checked, by code, causes in order.
        alternatives: the same.
        passed: codes of the rules that found nothing.
        near: those of them that may have missed their problem.
    """
    fired = {finding.code for finding in findings}
    cause: dict[str, str] = {}
    for code, following in consequences.items():
        if code in fired:
            for consequence in following:
                cause.setdefault(consequence, code)  # the first cause counts

    def root(code: str) -> str:
        return root(cause[code]) if code in cause else code

    severest = {
        first: min((f.severity for f in findings if root(f.code) == first), key=lambda s: s.rank)
        for first in map(root, fired)
    }

    def rank(finding: Finding) -> tuple[int, str, bool, str]:
        first = root(finding.code)
        return severest[first].rank, first, finding.code in cause, finding.code

    def completed(finding: Finding) -> Finding:
        others = [code for code in alternatives[finding.code] if code in alternatives]
        left = [c for c in others if c not in passed and cause.get(c) != finding.code]
        # A fix of a cause that is ruled out is none. Where all are, the causes are not ruled out.
        clear = [code for code in others if code in passed and code not in near]
        fixes = tuple(fix for fix in finding.fixes if fix.mends not in clear)
        if not fixes:
            fixes = finding.fixes
            clear = [code for code in clear if code not in {fix.mends for fix in fixes}]
        unseen = tuple(code for code in others if code in passed and code not in clear)
        excess = finding.evidence[0].excess if finding.evidence else math.inf
        return replace(
            finding,
            # A cause is as severe as what follows from it.
            severity=severest.get(finding.code, finding.severity),
            consequence_of=root(finding.code) if finding.code in cause else None,
            fixes=fixes,
            ruled_out=tuple(clear),
            unseen=unseen,
            open=tuple(left),
            confidence=confidence(excess, alternatives_open=bool(left or unseen)),
        )

    return [completed(finding) for finding in sorted(findings, key=rank)]
