"""Models and trainings from elsewhere: files, and the Keras callback."""
