"""The fault benchmark: how often the diagnosis is right, and whether its fixes work.

    cases -> trainings -> verdicts -> ablation and other tools -> fixes and random controls -> scores

A case is a fault that is built in on purpose, a healthy configuration, or an unusual but harmless one.
Its trainings are run, and the verdict of the diagnosis is compared with what the case expects. Start
reading in `benchmark.run`.
"""
