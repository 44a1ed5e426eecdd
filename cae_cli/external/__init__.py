"""Diagnoses models that this tool did not train: saved Keras files, and the user's own ``model.fit``."""
