"""The part *outside*: published fault operators on trainings that are plain Keras scripts.

    scripts -> operators -> a draw of mutants -> trainings with several seeds -> killed or not
            -> diagnoses -> figures

Neither the kinds of faults nor their strengths come from the authors of the rules. Start reading in
`run.run`.
"""
