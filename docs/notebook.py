"""Writes and executes docs/notebook.ipynb; needs ``pip install nbclient ipykernel ai-edge-litert``.

python docs/notebook.py
"""

import os
import re
import sys
import tempfile
from pathlib import Path

NOTEBOOK = Path(__file__).parent / "notebook.ipynb"

# Text is Markdown; what begins with >>> is code.
CELLS = [
    """\
# From a Keras script to an encoder that is used

This notebook diagnoses an autoencoder in a plain Keras script, mends it, and uses it: latent codes for
a classifier, and a file that needs neither cae nor Keras. `python docs/notebook.py` wrote and executed
it; on two cores it takes about a minute.

The images are scikit-learn's handwritten digits, 8x8 pixels, as bytes from 0 to 255.
""",
    """>>>
import numpy as np
from sklearn.datasets import load_digits

images, labels = load_digits(return_X_y=True)
x = np.rint(images.reshape(-1, 8, 8, 1) * 255 / 16).astype(np.uint8)
np.savez("digits.npz", x_train=x[:1500], y_train=labels[:1500], x_test=x[1500:], y_test=labels[1500:])
""",
    """\
## The script, with a common mistake

Only the callback `Diagnosis` is added to what people write.
""",
    """>>>
import keras
from cae_cli import Diagnosis
from keras import layers


def trained(images):
    keras.utils.set_random_seed(0)
    hidden = {"padding": "same", "activation": "relu"}
    model = keras.Sequential(
        [
            layers.Conv2D(16, 3, **hidden),
            layers.MaxPooling2D(),
            layers.Conv2D(4, 3, **hidden, name="code"),
            layers.UpSampling2D(),
            layers.Conv2D(16, 3, **hidden),
            layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
        ]
    )
    model.compile("adam", "mse")
    watch = Diagnosis(images)
    model.fit(images, images, epochs=20, validation_split=0.1, verbose=0, callbacks=[watch])
    return model, watch


model, watch = trained(x[:1500].astype(np.float32))
""",
    """\
## The same with the fix

The sigmoid ends at 1, and the images were left at 0 to 255.
""",
    """>>>
model, watch = trained(x[:1500] / np.float32(255))
""",
    """>>>
from IPython.display import Image

Image(str(watch.folder / "reconstructions.png"))
""",
    """\
## Latent codes

The saved model is enough for the commands.
""",
    """>>>
model.save("digits.keras")
""",
    """>>>
%%bash
cae encode digits.keras data=npz data.path=digits.npz --flat --out codes.npz
""",
    """>>>
from sklearn.linear_model import LogisticRegression

table = np.load("codes.npz")
test = table["split"] == "test"
print({name: table[name].shape for name in table.files if name != "about"})


def accuracy(values):
    values = values / values.std()
    classifier = LogisticRegression(max_iter=2000).fit(values[~test], table["label"][~test])
    return classifier.score(values[test], table["label"][test])


pixels = x.reshape(len(x), -1).astype(np.float32)
print(f"linear classifier on codes {accuracy(table['codes']):.3f}, on pixels {accuracy(pixels):.3f}")
""",
    """\
## A file that needs neither cae nor Keras

The exported encoder takes bytes: the scale of the images is inside. The command runs it and compares
it with the network.
""",
    """>>>
%%bash
cae export digits.keras --format litert --part encoder data=npz data.path=digits.npz
""",
    """>>>
from ai_edge_litert.interpreter import Interpreter

encoder = Interpreter("encoder.tflite").get_signature_runner()
codes = encoder(images=x)["output_0"].reshape(len(x), -1)
print(f"largest difference from cae encode: {np.abs(codes - table['codes']).max():.1e}")
""",
]
# What TensorFlow and LiteRT say of the machine, and progress.
LEFT_OUT = re.compile(
    r"^(?:[IWE]0000 |WARNING: All log messages|To enable |INFO: |\W*[\u2800-\u28ff] |.*\u2501).*\n?",
    re.MULTILINE,
)
CODES_OF_A_TERMINAL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def cells():
    """(kind, source) of each cell."""
    for text in CELLS:
        code = text.startswith(">>>\n")
        yield ("code" if code else "markdown"), text.removeprefix(">>>\n").rstrip("\n")


def cleaned(outputs):
    """Outputs of a cell: pictures, and text as one stream without progress and colours."""
    text = ""
    for output in outputs:
        data = output.get("data", {})
        if "image/png" in data:
            yield {**output, "data": {"image/png": data["image/png"]}}
        else:
            text += output.get("text", data.get("text/plain", "") + "\n" * bool(data))
    text = LEFT_OUT.sub("", CODES_OF_A_TERMINAL.sub("", text.replace("\r", "")))
    text = "".join(f"{line.rstrip()}\n" for line in text.splitlines() if line.strip())
    if text:
        yield {"output_type": "stream", "name": "stdout", "text": text}


def main() -> None:
    """Executes the cells in an empty folder."""
    import nbformat
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

    made = {"code": new_code_cell, "markdown": new_markdown_cell}
    notebook = new_notebook(
        cells=[made[kind](text, id=f"cell-{i}") for i, (kind, text) in enumerate(cells())],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}})
        client.execute()
    for cell in notebook.cells:
        cell.metadata.clear()  # when it was executed
        if "outputs" in cell:
            cell.outputs = [new_output(**output) for output in cleaned(cell.outputs)]
    notebook.metadata.pop("language_info", None)  # the version of Python
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
