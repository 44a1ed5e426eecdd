"""report.html in a real browser; skipped where there is none."""

import shutil

import pytest

from cae_cli.report.page import shell
from cae_cli.report.page.parts import as_html
from cae_cli.report.sections import Column, Table
from tests.pages import make_page_run, try_fixes, written

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")


@pytest.fixture(scope="module")
def browser():
    with pytest.importorskip("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    run = make_page_run(tmp_path_factory.mktemp("page") / "run", black=True, filters=(5, 12))
    try_fixes(run)
    written(run)
    return run.page.shown.as_uri()


def opened(browser, file, **context):
    """The page, and what it complained about or asked for."""
    page = browser.new_context(viewport={"width": 1200, "height": 800}, **context).new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url))
    page.goto(file)
    return page, complaints


def test_it_opens_without_a_request_or_an_error(browser, file):
    _, complaints = opened(browser, file)
    assert [c for c in complaints if c != file and not c.startswith("data:")] == []


@pytest.mark.parametrize("width", [360, 1600])
def test_nothing_is_wider_than_the_window(browser, file, width):
    page, _ = opened(browser, file)
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible(browser, file, scheme):
    """By the rules of axe-core: contrast, names, headings, roles."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page, _ = opened(browser, file, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    violations = axe.run(page).response["violations"]
    assert [(v["id"], [n["html"][:200] for n in v["nodes"]][:3]) for v in violations] == []


def test_one_slider_moves_all_pictures_through_the_epochs(browser, file):
    page, _ = opened(browser, file)
    slider = page.locator("[data-epochs]")
    tile = page.locator(".filter .tile").first
    before = tile.evaluate("(t) => getComputedStyle(t).backgroundPosition")
    slider.focus()
    page.keyboard.press("Home")
    after = tile.evaluate("(t) => getComputedStyle(t).backgroundPosition")
    assert page.locator(".epochs output").inner_text() == "0"
    assert page.locator("[data-epoch]").inner_text() == "0"
    assert before != after and after.endswith(" 0px")


def test_filters_are_sorted_by_what_is_chosen(browser, file):
    page, _ = opened(browser, file)
    page.locator("[data-sorts]").first.select_option("filter")
    cards = page.locator("#list-encoder_1 .filter")
    numbers = [cards.nth(i).get_attribute("data-filter") for i in range(cards.count())]
    assert numbers == sorted(numbers, key=int)


def test_more_than_eight_filters_are_shown_on_demand_and_every_address_works(browser, file):
    page, _ = opened(browser, file)
    cards = page.locator("#list-encoder_2 .filter")
    assert sum(cards.nth(i).is_visible() for i in range(cards.count())) == 8
    hidden = cards.nth(11).get_attribute("id")
    page.goto(f"{file}#{hidden}")
    assert cards.nth(11).is_visible()
    page.locator("#encoder_2 .all").check()
    assert sum(cards.nth(i).is_visible() for i in range(cards.count())) == 12


def test_the_address_of_a_rule_opens_the_table_of_rules(browser, file):
    page, _ = opened(browser, file)
    assert not page.locator("#rule-CAE103").is_visible()
    page.locator(".card a[href='#rule-CAE103']").first.click()
    assert page.locator("#rule-CAE103").is_visible()


def test_a_command_is_copied(browser, file):
    page, _ = opened(browser, file)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = page.locator("[data-copy]").first
    button.click()
    page.wait_for_function("document.querySelector('[data-copy]').textContent === 'Copied'")


def test_everything_is_there_without_javascript(browser, file):
    page, _ = opened(browser, file, java_script_enabled=False)
    assert page.locator(".sentence").is_visible()
    assert page.locator("#reconstructions .tile").first.is_visible()
    assert page.locator("#filters .tile").first.is_visible()
    assert not page.locator("[data-epochs]").is_visible()


def test_a_table_is_sorted_by_its_numbers_and_what_is_empty_comes_last(browser, tmp_path):
    cells = ["3:07", "–", "12 s", "unknown", "1:00:30"]
    table = Table([Column("duration", cells, right=True)])
    path = tmp_path / "table.html"
    path.write_text(shell("table", [("table", "Table", as_html([table]))]))
    page, _ = opened(browser, path.as_uri())
    button = page.locator("th button")

    def sorted_cells():
        button.click()
        return page.locator("tbody td").all_inner_texts()

    assert sorted_cells() == ["12 s", "3:07", "1:00:30", "unknown", "–"]
    assert sorted_cells() == ["unknown", "1:00:30", "3:07", "12 s", "–"]


def test_it_is_printed(browser, file):
    page, _ = opened(browser, file)
    assert len(page.pdf()) > 10_000
