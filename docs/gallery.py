"""Trains three runs and takes pictures of their pages, in light and dark: `make gallery`.

Needs Chromium, and a folder with mnist.npz and fashion_mnist.npz.
"""

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent / "images"
REFERENCE = ["experiment=reference_1_baseline", "data.train=8192"]
RUNS = {
    "page": [*REFERENCE, "data=fashion_mnist"],
    "page_black": [*REFERENCE, "data=mnist"],
    "page_bypassed": [*REFERENCE, "data=fashion_mnist", "model=unet"],
}
WIDTH, HEIGHT = 1200, 900


def main() -> int:
    """Writes docs/images/page*.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    data = parser.parse_args().data.absolute()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("error: Chromium is not installed")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for name, options in RUNS.items():
            source = next(o for o in options if o.startswith("data=")).removeprefix("data=")
            # The names of both are on the page.
            file, home = Path(folder) / f"{source}.npz", f"hydra.run.dir={name}"
            if not file.exists():
                file.symlink_to(data / file.name)
            path = f"data.path={file.name}"
            command = [sys.executable, "-m", "cae_cli", "train", *options, path, home]
            subprocess.run(command, cwd=folder, check=True)
            for scheme in ("light", "dark"):
                page = chromium.new_page(
                    viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme
                )
                page.goto((Path(folder) / name / "report.html").as_uri())
                suffix = "" if scheme == "light" else "_dark"
                save(page.screenshot(), IMAGES / f"{name}{suffix}.png")
                if name == "page":
                    page.locator("#encoder_2").scroll_into_view_if_needed()
                    page.evaluate("document.querySelector('#encoder_2').scrollIntoView()")
                    save(page.screenshot(), IMAGES / f"{name}_filters{suffix}.png")
                page.close()
        chromium.close()
    return 0


def save(picture: bytes, path: Path) -> None:
    """In 256 colours: a quarter of the size, and no difference to be seen."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
