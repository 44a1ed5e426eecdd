"""report.html: what it shows and what it never does. A browser opens it in `test_page_in_a_browser`."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from cae_cli.report import figures, page
from cae_cli.report.figures.treatment import Panel
from cae_cli.report.page import charts, comparison, sweep, treatment
from cae_cli.report.page.content import SECTIONS
from cae_cli.report.page.parts import as_html
from cae_cli.report.page.sprites import Sprite, picture, strip
from cae_cli.report.sections import Column, Command, Section, Table, line
from cae_cli.statistics.interval import Interval
from cae_cli.system.guarded import guard
from tests.pages import make_page_run, try_fixes, written
from tests.test_figures import rewrite

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Elements with their attributes, and the text without scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def test_the_page_has_every_section_and_is_the_same_when_written_again(tmp_path):
    run = make_page_run(tmp_path / "run")
    try_fixes(run)
    text = written(run)
    parsed = Page(text)
    ids = [attrs["id"] for _, attrs in parsed.elements if "id" in attrs]
    assert {entry.anchor for entry in SECTIONS} <= set(ids)
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for a in parsed.all("a") if a["href"].startswith("#")}
    assert targets <= set(ids)
    assert written(run) == text and len(text) < 3e6


def test_a_denoiser_shows_what_it_was_given(tmp_path):
    run = make_page_run(tmp_path / "run")
    one = Page(written(run))
    arrays = run.read_arrays(run.arrays)
    given = {f"{of}_inputs": 1 - arrays[f"{of}_images"] for of in ("example", "chosen")}
    run.write_arrays(run.arrays, arrays | given)
    other = Page(written(run))
    named = [[a.get("aria-label", "") for _, a in page.elements] for page in (one, other)]
    for name in ("input, best", "target, best", "input 1", "target 1"):
        found = [any(label.startswith(name) for label in labels) for labels in named]
        assert found == [False, True], name


def test_a_faulty_run_says_what_is_wrong_and_what_mends_it(tmp_path):
    parsed = Page(written(make_page_run(tmp_path / "run", black=True)))
    assert "the output is the same for every image" in parsed.text
    copied = [attrs["data-copy"] for attrs in parsed.all("button") if "data-copy" in attrs]
    assert "cae train data=mnist 'model.filters=[16,8]' loss=bce" in copied
    assert "What follows from it" in parsed.text
    assert "cae treat run --short" in copied


def test_fixes_are_to_be_compared_by_the_id_of_the_run_and_where_there_is_a_problem_only(tmp_path):
    def copied(run):
        buttons = Page(written(run)).all("button")
        return [attrs["data-copy"] for attrs in buttons if "treat" in attrs.get("data-copy", "")]

    sweep_folder = tmp_path / "2024-05-01_10-00-00_k3fa"
    run = make_page_run(sweep_folder / "loss=mse,seed=0", black=True)
    assert copied(run) == ["cae treat k3fa/loss=mse,seed=0 --short"]
    summary = run.summary()
    for finding in summary["diagnosis"]["findings"]:
        finding["severity"] = "note"
    run.write_summary({k: v for k, v in summary.items() if k != "schema"}, "text")
    assert copied(run) == []


def test_tables_tell_a_page_what_they_are_sorted_by():
    table = Table(
        [
            Column("key", ["loss", "loss"], repeated=frozenset([1])),
            Column("duration", ["1:00:30", "12 s"], right=True),
        ]
    )
    parsed = Page(as_html([table]))
    assert parsed.text.count("loss") == 2
    assert [a["data-value"] for a in parsed.all("td") if "data-value" in a] == ["3630", "12.0"]


def test_alternatives_that_were_not_seen_are_not_called_ruled_out(tmp_path):
    run = make_page_run(tmp_path / "run", black=True)
    summary = run.summary()
    [first, *_] = summary["diagnosis"]["findings"]
    first["ruled_out"], first["unseen"] = ["CAE206"], ["CAE207"]
    run.write_summary({k: v for k, v in summary.items() if k != "schema"}, "text")
    text = Page(written(run)).text
    assert "ruled out: the penalty outweighs the reconstruction ( CAE206 )" in text
    assert "was not seen, yet is not ruled out: the learning rate is too high ( CAE207 )" in text


def test_a_channel_that_changes_nothing_is_not_said_to_draw(tmp_path):
    """Its picture has a scale of its own, which would make anything of rounding errors."""
    run = make_page_run(tmp_path / "run")
    views = run.read_arrays(run.views)
    views["atom"] *= 1e-4
    views["atom"][3, 5, 5] = -0.25
    views["atom_channel"] = np.arange(8)[::-1]
    run.write_arrays(run.views, views)
    text = Page(written(run)).text
    assert text.count("draws nothing") == 7 + 1 and "channel 4 -0.25" in text  # one in the explanation


def test_each_filter_says_what_is_lost_without_it(tmp_path):
    run = make_page_run(tmp_path / "run")
    arrays = run.read_arrays(run.arrays)
    arrays["utility/encoder_1"] = np.array([1.5, 0.25, 0.0, np.nan, 0.01])
    run.write_arrays(run.arrays, arrays)
    text = Page(written(run)).text
    assert text.count("without it the output is worse than the mean image") == 1
    assert "without it 25.0% of the explained variance" in text and "without it almost nothing" in text


def test_the_page_asks_nothing_of_the_network(tmp_path):
    text = written(make_page_run(tmp_path / "run"))
    parsed = Page(text)
    policy = next(a["content"] for a in parsed.all("meta") if "http-equiv" in a)
    assert "default-src 'none'" in policy and "img-src data:;" in policy
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy
    for _, attrs in parsed.elements:
        for name in ("src", "href", "action", "srcset", "data", "poster"):
            assert attrs.get(name, "#").startswith(("#", "data:")), attrs
    assert not re.search(r"url\((?!data:)|@import|https?://(?!www\.w3\.org)", text)


HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a' onmouseover='alert(1)",
    "x" * 10_000,
    "‮⁦right to left⁩",
    "{{ 7 * 7 }}{% for x in y %}",
    "-->]]><!--",
    "bell\x07 nul\x00 esc\x1b[31m",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_of_strangers_are_only_text(tmp_path, text):
    """In the name of a layer, of the folder, in messages, commands, options and versions."""
    run = make_page_run(tmp_path / "run", layer=text.replace("/", "_")[:100])
    setup, summary = run.setup(), run.summary()
    setup["command"] = ["cae", "train", f"task_name={text}", f"data.path={text}"]
    setup["config"] = {text: {text: text}, "data": {"path": text}}
    setup["packages"] = {text: text}
    setup["data"] = {"source": text, "fingerprint": text}
    finding = {
        "code": text, "problem": text, "severity": "error", "message": text, "evidence": [],
        "fixes": [], "advice": text, "confidence": text, "picture": None, "ruled_out": [text],
        "open": [], "consequence_of": None,
    }  # fmt: skip
    summary["diagnosis"]["findings"] = [finding]
    summary["diagnosis"]["verdict"] = text
    run.write_setup(setup)
    run.write_summary({k: v for k, v in summary.items() if k != "schema"}, "text")
    content = page.content_of(run, figures.read(run))
    object.__setattr__(content, "name", text)
    html = page.html(content)
    parsed, plain = Page(html), Page(written(make_page_run(tmp_path / "plain")))
    assert len(parsed.all("script")) == len(plain.all("script")) == 1
    assert {tag for tag, _ in parsed.elements} <= {tag for tag, _ in plain.elements} | {"b"}
    assert not any(name.startswith("on") for _, attrs in parsed.elements for name in attrs)
    assert all(c.isprintable() or c == "\n" for c in html)
    assert "49" not in re.findall(r"\b49\b", parsed.text[:200])
    if len(text) < 2000 and text.isprintable():
        assert text in parsed.text or " ".join(text.split()) in parsed.text
    assert len(html) < 3e6


@pytest.mark.parametrize(
    "build",
    [
        {"filters": (1,)},
        {"filters": (512, 4)},
        {"channels": 5},
        {"channels": 3, "side": (31, 20)},
        {"side": 256, "filters": (4,), "channels": 3},
        {"labels": False, "dense": True},
        {"views": False},
    ],
    ids=str,
)
def test_runs_of_any_build_have_a_page(tmp_path, build):
    run = make_page_run(tmp_path / "run", **build)
    text = written(run)
    assert len(text) < 3e6
    cards = Page(text).all("article")
    assert len(cards) == sum(min(32, count) for count in build.get("filters", (5, 12)))
    if "512" in str(build):
        assert "the 32 most used of 512 are shown" in Page(text).text


def test_a_run_whose_numbers_are_not_finite_has_a_page(tmp_path):
    run = make_page_run(tmp_path / "run")
    rewrite(run, lambda k, v: np.full_like(v, np.nan) if v.dtype.kind == "f" else v)
    own = {
        k: np.full_like(v, np.inf) if v.dtype.kind == "f" else v
        for k, v in run.read_arrays(run.views).items()
    }
    run.write_arrays(run.views, own)
    for path in run.snapshots().values():
        run.write_arrays(path, {k: np.full_like(v, np.nan) for k, v in run.read_arrays(path).items()})
    assert "NaN" not in Page(written(run)).text


def test_a_run_that_was_not_recorded_has_a_page(tmp_path):
    run = make_page_run(tmp_path / "run")
    run.metrics.shown.unlink()
    for path in run.snapshots().values():
        path.unlink()
    rewrite(run, lambda k, v: None if k.startswith(("dynamics/", "look_", "initial_")) else v)
    parsed = Page(written(run))
    assert "training" not in [attrs.get("id") for attrs in parsed.all("section")]
    assert not [a for a in parsed.all("input") if "data-epochs" in a]


def test_the_values_of_a_diagnosis_are_those_of_the_run(tmp_path):
    """Other numbers in the files give other numbers on the page: none is typed into it."""
    run = make_page_run(tmp_path / "run", black=True)
    before = Page(written(run)).text
    summary = run.summary()
    summary["metrics"]["score"]["value"] = 0.123
    summary["metrics"]["perturbation"]["latent_swap"] = 12.34
    summary["diagnosis"]["findings"][0]["evidence"][0]["value"] = 0.0321
    summary["diagnosis"]["thresholds"]["CAE401"] = 0.7346
    run.write_summary({k: v for k, v in summary.items() if k != "schema"}, "text")
    after = Page(written(run)).text
    for number in ("0.12 of 1", "12.34", "0.032", "0.735"):
        assert number in after and number not in before


def test_a_rule_that_found_nothing_shows_its_value_on_a_bar(tmp_path):
    run = make_page_run(tmp_path / "run")
    summary = run.summary()
    summary["diagnosis"]["values"]["CAE401"]["value"] = 0.1234
    assert "CAE401" in summary["diagnosis"]["passed"]

    def row():
        run.write_summary({k: v for k, v in summary.items() if k != "schema"}, "text")
        return re.search(r'<tr id="rule-CAE401">.*?</tr>', written(run), re.S)[0]

    assert "0.123" in row() and 'class="meter"' in row() and "0 to 0.25" in row()
    del summary["diagnosis"]["values"]  # of an older version
    assert "✓ fine" in row() and "meter" not in row()


def test_fixes_that_were_tried_are_shown_with_their_code_and_pictures(tmp_path):
    run = make_page_run(tmp_path / "run", black=True)
    assert not [a for a in Page(written(run)).all("section") if a["id"] == "trials"]
    try_fixes(run)
    parsed = Page(written(run))
    shown = parsed.text
    assert "Fixes tried" in shown and "trained for 200 steps" in shown
    assert "0.70 0.72" in shown and "mends it" in shown and "random: kernels" in shown
    copied = [a["data-copy"] for a in parsed.all("button")]
    assert any('activation="linear")' in text for text in copied)
    labels = [a["aria-label"] for a in parsed.all("i")]
    assert "with the best fix, image 8" in labels and "target, image 1" not in labels


def test_healthy_ranges_of_the_tests_are_those_of_the_terminal(tmp_path):
    """They depend on the size of the latent code."""
    run = make_page_run(tmp_path / "run")
    summary = run.summary()
    summary["metrics"]["network"]["latent_shape"] = [14, 14, 3]  # 588 of 784 values
    run.write_summary({k: v for k, v in summary.items() if k != "schema"}, "text")
    bars = [a for a in Page(written(run)).all("rect") if a.get("class") == "healthy"]
    most = (1 + 588 / 784) / 2
    assert f"{200 * (most + 0.2) / 1.4:.1f}" in [a["width"] for a in bars]


# -- parts ---------------------------------------------------------------------------------------------


def decoded(url):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))


def test_a_sprite_holds_each_picture_at_its_place():
    rng = np.random.default_rng(0)
    rows = [[rng.integers(0, 256, (4, 6, 3), np.uint8) for _ in range(3)] for _ in range(2)]
    sprite = Sprite(rows)
    canvas = decoded(sprite.url)
    assert (sprite.rows, sprite.columns, sprite.width, sprite.height) == (2, 3, 6, 4)
    for r, row in enumerate(rows):
        for c, one in enumerate(row):
            assert np.array_equal(canvas[4 * r : 4 * r + 4, 6 * c : 6 * c + 6], one)


def test_a_large_photograph_is_kept_small():
    y, x = np.mgrid[:600, :600]
    smooth = np.stack([x % 251, y % 241, (x * y // 97) % 239], axis=2).astype(np.uint8)
    noisy = smooth + np.random.default_rng(0).integers(0, 9, smooth.shape, np.uint8)
    assert len(Sprite([[noisy]]).url) < 600 * 600


def test_pictures_are_enlarged_by_whole_factors_and_strips_have_gaps():
    image = np.array([[[0.0], [1.0]], [[0.5], [2.0]]], np.float32)
    large = picture(image, 9)
    assert large.shape == (8, 8, 3) and large[0, 0, 0] == 0 and large[0, 7, 0] == 255 == large[7, 7, 0]
    two = strip([large, large], 3)
    assert two.shape == (8, 28, 3) and (two[:, 8:10] == 128).all() and (two[:, 20:] == 128).all()


@pytest.mark.parametrize(("value", "place"), [(-5, 0), (0, 0), (0.5, 100), (1, 200), (7, 200)])
def test_a_meter_shows_where_a_value_is(value, place):
    text = charts.meter(value, 0, 1, healthy=(0.25, None), threshold=0.75)
    assert f"M{place:.1f} 8l" in text
    assert 'class="healthy" x="50.0" y="5.0" width="150.0"' in text and "M150.0 1V15" in text


def test_a_meter_of_nothing_has_no_needle():
    assert "needle" not in charts.meter(None, 0, 1) and "not measured" in charts.meter(
        float("nan"), 0, 1
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [((0.012, 0.17), ["0.02", "0.05", "0.1"]), ((0.002, 30), ["0.01", "0.1", "1", "10"])],
)
def test_a_logarithmic_axis_has_plain_numbers(values, expected):
    x = np.array([1.0, 10.0, 640.0])
    line = charts.Series("a", x, np.array([values[0], values[1], values[0]]))
    drawn = charts.lines("t", "x", [line], logarithmic=True, logarithmic_across=True)
    assert re.findall(r'class="tick end"[^>]*>([^<]+)<', drawn) == expected
    assert re.findall(r'class="tick mid"[^>]*>([^<]+)<', drawn) == ["1", "10", "100"]


def test_lines_are_broken_where_values_are_not_finite():
    x = np.arange(5.0)
    drawn = charts.lines("t", "x", [charts.Series("a", x, np.array([1, 2, np.nan, 4, 5.0]))])
    [path] = re.findall(r'class="line c0" d="([^"]+)"', drawn)
    assert path.count("M") == 2 and path.count("L") == 2
    assert charts.lines("t", "x", [charts.Series("a", x, np.full(5, np.nan))]) is None


def test_the_content_for_machines_is_the_summary(tmp_path):
    run = make_page_run(tmp_path / "run")
    [link] = [a for a in Page(written(run)).all("a") if a.get("download") == "summary.json"]
    assert json.loads(base64.b64decode(link["href"].partition(",")[2])) == run.summary()


def test_a_notebook_shows_the_same_page_in_a_frame(tmp_path):
    run = make_page_run(tmp_path / "run")
    assert page.framed(run.page) is None
    text = written(run)
    [frame] = Page(page.framed(run.page)).all("iframe")
    assert frame["srcdoc"] == text and "allow-same-origin" not in frame["sandbox"]


# -- pages of sweeps and treatments --------------------------------------------------------------------


def tile(name, href="", black=False, **arrays):
    images = np.random.default_rng(0).random((6, 8, 8, 1), dtype=np.float32)
    made = np.zeros_like(images) if black else images
    return sweep.Tile(
        (name, "12.3 dB"), href, **{"kernel": None, "images": images, "outputs": made, **arrays}
    )


def test_the_page_of_a_sweep_has_its_table_its_effects_and_a_link_to_each_run(tmp_path):
    table = Table.of(
        [Column("model"), Column("PSNR", unit="dB", right=True)], [("deep", "20.1"), ("<b>", "9")]
    )
    effects = {
        "PSNR": [
            ("model=deep instead of <b>", Interval(3.0, 0.5, 1.0, 3)),
            ("x", Interval(0.1, 1, 2.0, 3)),
        ]
    }
    jobs = [
        tile("model=deep", "model%3Ddeep/report.html", kernel=np.ones((3, 3, 1, 4), np.float32)),
        tile("failed: <script>", images=None, outputs=None),
        tile(
            "other size",
            images=np.ones((2, 30, 20, 3), np.float32),
            outputs=np.ones((2, 30, 20, 3), np.float32),
        ),
    ]
    path = guard(tmp_path) / "report.html"
    sweep.write(path, "sweep", ["2 jobs", Section("ranked", [table])], effects, jobs, {"jobs": 2})
    parsed = Page(path.read_text())
    assert "20.1" in parsed.text and "PSNR / dB" in parsed.text and "<b>" in parsed.text
    links = [a["href"] for a in parsed.all("a") if not a["href"].startswith(("#", "data:"))]
    assert links == ["model%3Ddeep/report.html"]
    assert len(parsed.all("script")) == 1 and len(parsed.all("article")) == 3
    bars = [a["class"] for a in parsed.all("path") if a.get("class", "").startswith("bar")]
    assert bars == ["bar c0", "bar c7"]  # only the first interval excludes 0
    assert len(parsed.all("i")) == 2


def test_the_page_of_a_treatment_shows_the_same_images_before_and_after(tmp_path):
    images = np.random.default_rng(0).random((8, 6, 6, 1), dtype=np.float32)
    panels = [
        Panel(
            "before",
            "the output is black",
            False,
            {"example_images": images, "example_outputs": 0 * images},
        ),
        Panel("after: loss=bce", "", True, {"example_images": images, "example_outputs": images}),
        Panel("control: x=1", "no diagnosis", False, None),
    ]
    path = guard(tmp_path) / "report.html"
    parts = [line(("fixed by loss=bce", "bold")), Command("cae train loss=bce")]
    treatment.write(path, "treatment", parts, panels, {})
    parsed = Page(path.read_text())
    assert "fixed by loss=bce" in parsed.text and "✗ the output is black" in parsed.text
    assert "✓ healthy" in parsed.text and "control:" not in parsed.text
    assert [a["data-copy"] for a in parsed.all("button") if "data-copy" in a] == ["cae train loss=bce"]
    assert len(parsed.all("i")) == 3 * 8 + 2 * 8  # images, before, after, and the wipe


def test_filters_are_paired_by_what_they_respond_to():
    rng = np.random.default_rng(0)
    maps = rng.random((8, 5, 5, 6)).astype(np.float32)
    order = rng.permutation(6)
    noisy = 3 * maps[..., order] + 0.01 * rng.random(maps.shape).astype(np.float32)
    found = comparison.paired(maps, noisy[..., :5])
    assert len(found) == 5 and all(order[b] == a and r > 0.99 for a, b, r in found)
    dead = np.zeros_like(maps)
    assert all(r == 0 for *_, r in comparison.paired(maps, dead))
    assert len(comparison.paired(maps, np.full_like(maps, np.nan))) == 6


def test_the_page_of_a_comparison(tmp_path):
    """Pictures need the same images, pairs two runs."""
    runs = []
    for name in ("a", "b", "c"):
        run = make_page_run(tmp_path / name)
        runs.append(comparison.Compared(name, run.read_arrays(run.arrays), run.read_arrays(run.views)))
    images = runs[0].arrays["example_images"]
    other = Page(comparison.html("two", ["a table"], runs[:2]))
    assert not other.all("i")
    for run in runs[1:]:
        run.arrays["example_images"] = images
    parsed = Page(comparison.html("two", ["a table"], runs[:2]))
    assert "Filters in pairs" in parsed.text and "median correlation" in parsed.text
    assert len(parsed.all("i")) == 3 * 8 + 2 * (5 + 12)
    assert "Filters in pairs" not in Page(comparison.html("three", [], runs)).text


def test_the_page_says_what_was_not_measured_and_compares_with_no_untrained_network_then(tmp_path):
    run = make_page_run(tmp_path / "run", views=False)
    assert "Not measured" not in Page(written(make_page_run(tmp_path / "whole"))).text
    content = run.summary()
    sample = {"scored": 64, "trained": 64, "perturbed": 32, "mapped": 32, "filters": 0, "ablation": 0}
    run.write_summary(content | {"metrics": content["metrics"] | {"sample": sample}}, "text")
    text = Page(written(run)).text
    left_out = "patches and gratings of filters, prunable filters"
    assert f"the network is large and its training was short: {left_out}." in text
    assert "What looks alike in both rows" not in text
