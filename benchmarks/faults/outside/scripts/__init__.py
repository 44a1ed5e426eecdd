"""Trainings as people write them: plain Keras, and of cae only the callback.

Each script has ``images(folder)``, ``model()``, the arguments of ``fit``, and trains when it is started:
``python SCRIPT [FOLDER]``, where FOLDER has the image files.
"""
