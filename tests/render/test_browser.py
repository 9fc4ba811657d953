"""The pages in a real browser, opened from disk: quiet, readable without scripts, and fit for a phone."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.render.reports import KINDS, check_report, large_report, train_report
from tsguard.comparison import compare
from tsguard.render import html

pytestmark = [pytest.mark.browser]

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
SHOTS = Path(__file__).parent.parent.parent / "build" / "screenshots"
CONTRAST = 4.5
"""WCAG AA for text of ordinary size."""

MEASURE = (Path(__file__).parent / "legible.js").read_text(encoding="utf-8")

NAMES = (Path(__file__).parent / "named.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    if not (shutil.which(CHROMIUM) and shutil.which(DRIVER)):
        pytest.skip("NOT_RUN: Debian's chromium and chromedriver are not installed (apt-get install chromium-driver)")
    selenium = pytest.importorskip("selenium.webdriver", reason="NOT_RUN: selenium is not installed")
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-background-networking", "no-first-run", "hide-scrollbars",
        "disable-component-update", "disable-sync", f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    texts = {kind: html.page(make()) for kind, make in KINDS.items()}
    rows = [html.summary(train_report().with_(name=f"try-{n}"), "train.html") for n in range(5)]
    texts["index"] = html.index([{**row, "loss": (7 * n) % 5 + 0.5} for n, row in enumerate(rows)])
    texts["comparison"] = html.comparison(compare(train_report(), train_report().with_(metrics={"val_loss": 0.1})))
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return folder


ALL = [*KINDS, "index", "comparison"]


def violations(driver):
    """What axe-core finds against WCAG and its best practices, by rule and place."""
    script = pytest.importorskip("axe_core_python.base", reason="NOT_RUN: axe-core-python is not installed").AXE_SCRIPT
    driver.execute_script(script)
    found = driver.execute_async_script(
        "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(done)"
    )
    return [
        f"{rule['id']}: {node['target']} {node['html'][:120]} {node.get('failureSummary', '')[:200]}"
        for rule in found["violations"]
        for node in rule["nodes"][:3]
    ]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_with_everything_unfolded(driver, pages, name, scheme):
    show(driver, pages / f"{name}.html", scheme=scheme)
    driver.set_script_timeout(60)
    driver.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert violations(driver) == []


def show(driver, page, *, width=1150, height=1000, scripts=True, scheme="light"):
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get(page.as_uri())


def keep(driver, name):
    SHOTS.mkdir(parents=True, exist_ok=True)
    driver.save_screenshot(str(SHOTS / f"{name}.png"))


@pytest.mark.parametrize("name", ALL)
def test_a_page_is_quiet_named_legible_and_fits(driver, pages, name):
    page = pages / f"{name}.html"
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    for scheme in ("light", "dark"):
        show(driver, page, height=3000, scheme=scheme)
        assert driver.execute_script(NAMES) == []
        driver.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert driver.execute_script(MEASURE, CONTRAST) == []
        keep(driver, f"{name}-{scheme}")
    show(driver, page, width=360, height=3000)
    wide = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    keep(driver, f"{name}-phone")
    assert wide[0] <= wide[1] == 360
    complaints = [entry["message"] for entry in driver.get_log("browser")]
    assert complaints == []
    asked = {
        event["params"]["request"]["url"]
        for event in (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
        if event["method"] == "Network.requestWillBeSent"
    }
    foreign = [url for url in asked if not url.startswith(("data:", page.as_uri()))]
    assert foreign == []


def test_axe_would_find_what_is_wrong(driver, pages, tmp_path):
    page = tmp_path / "sick.html"
    page.write_text((pages / "train.html").read_text(encoding="utf-8").replace('role="img"', 'role="imgg"', 1), "utf-8")
    show(driver, page)
    driver.execute_script("document.querySelector('main').append(document.createElement('img'))")
    found = violations(driver)
    assert any(one.startswith("image-alt") for one in found)
    assert any("role" in one for one in found)


def test_everything_can_be_read_with_scripts_off(driver, pages):
    show(driver, pages / "check.html", scripts=False)
    text = driver.find_element("tag name", "body").text
    for words in ("Blocked", "What to do", "pad-leak-value", "the model does not claim to be causal"):
        assert words in text
    assert not driver.find_element("id", "filter").is_displayed()
    fold = driver.find_element("css selector", "#passed + details")
    fold.find_element("tag name", "summary").click()
    assert "the loss of 8 batches is finite" in fold.text
    show(driver, pages / "index.html", scripts=False)
    assert driver.find_element("tag name", "table").text.count("try-") == 5


def test_the_filter_leaves_what_matches(driver, pages):
    show(driver, pages / "train.html")
    cards = driver.find_elements("css selector", "article.card")
    assert [card.is_displayed() for card in cards] == [True, True]
    box = driver.find_element("id", "filter")
    box.send_keys("LR-too")
    assert [card.is_displayed() for card in cards] == [True, False]
    box.clear()
    box.send_keys(" ")
    assert [card.is_displayed() for card in cards] == [True, True]


def test_the_toggle_turns_the_theme_both_ways(driver, pages):
    show(driver, pages / "train.html", scheme="dark")
    ground = "return getComputedStyle(document.body).backgroundColor"
    dark = driver.execute_script(ground)
    button = driver.find_element("id", "theme")
    button.click()
    light = driver.execute_script(ground)
    assert light != dark
    button.click()
    assert driver.execute_script(ground) == dark


def test_anchors_lead_to_their_place_and_the_contents_stay_in_sight(driver, pages):
    show(driver, pages / "train.html", height=700)
    for link in driver.find_elements("css selector", "nav a"):
        link.click()
        name = re.search("#(.+)", link.get_attribute("href"))[1]
        place = driver.execute_script("return document.getElementById(arguments[0]).getBoundingClientRect().top", name)
        end = driver.execute_script("return scrollY + innerHeight >= document.documentElement.scrollHeight - 2")
        assert -2 <= place < 60 or end, name
        assert link.is_displayed()


def test_columns_of_the_index_sort_as_numbers(driver, pages):
    show(driver, pages / "index.html")
    heads = driver.find_elements("css selector", "th")
    loss = next(head for head in heads if head.text == "loss")

    def values():
        return [float(cell.text) for cell in driver.find_elements("css selector", "tbody td.loss")]

    loss.find_element("tag name", "button").click()
    assert values() == sorted(values())
    assert loss.get_attribute("aria-sort") == "ascending"
    loss.find_element("tag name", "button").click()
    assert values() == sorted(values(), reverse=True)


def test_hostile_names_run_nothing(driver, pages):
    from selenium.common.exceptions import NoAlertPresentException

    show(driver, pages / "hostile.html")
    with pytest.raises(NoAlertPresentException):
        _ = driver.switch_to.alert
    assert driver.execute_script("return JSON.parse(document.getElementById('report').textContent).name").startswith(
        "</"
    )


def test_a_remedy_can_be_copied(driver, pages):
    show(driver, pages / "check.html")
    button = driver.find_element("css selector", "#verdict .copy")
    button.click()
    from selenium.webdriver.support.ui import WebDriverWait

    # Where the clipboard is refused, the remedy is selected instead, ready for the keyboard.
    selected = "return String(getSelection())"
    WebDriverWait(driver, 10).until(lambda _: button.text == "Copied" or driver.execute_script(selected))
    assert check_report().causes[0].remedy in driver.find_element("id", "verdict").text.replace("`", "")


@pytest.mark.slow
def test_a_large_page_is_painted_soon(driver, tmp_path):
    page = tmp_path / "large.html"
    page.write_text(html.page(large_report(steps=3000)), encoding="utf-8")
    times = []
    for _ in range(3):
        show(driver, page)
        driver.set_script_timeout(20)
        paint = "return performance.getEntriesByName('first-contentful-paint').map(e => e.startTime)[0] || null"
        driver.execute_async_script("const done = arguments[0]; requestAnimationFrame(() => setTimeout(done, 200))")
        times.append(driver.execute_script(paint))
    assert min(time for time in times if time is not None) < 5000, "ten times the figure of the benchmark"


def test_a_report_in_a_notebook_is_styled_and_changes_nothing_around_it(driver, tmp_path):
    outside = "<h1>Mine</h1><p class='lead'>text</p><table><tr><td>1</td></tr></table><pre>x</pre><code>y</code>"
    before, after = tmp_path / "before.html", tmp_path / "after.html"
    frame = "<!doctype html><html lang='en'><title>n</title><body><main>{}<div id='here'></div></main></body></html>"
    before.write_text(frame.format(outside), encoding="utf-8")
    shown = html.first_screen(check_report()) + html.first_screen(train_report())
    after.write_text(frame.format(outside).replace("<div id='here'></div>", shown), encoding="utf-8")
    look = """
        const skip = e => e.closest('.tsguard-report');
        const all = [...document.querySelectorAll('body, main, h1, p, table, td, pre, code')];
        return all.filter(e => !skip(e)).map(e => {
          const s = getComputedStyle(e);
          return [e.tagName, s.color, s.font, s.margin, s.padding, s.backgroundColor, s.display].join(';');
        });
    """
    show(driver, before)
    plain = driver.execute_script(look)
    show(driver, after, height=1200)
    keep(driver, "notebook")
    assert driver.execute_script(look) == plain
    box = driver.find_element("css selector", ".tsguard-report")
    assert box.value_of_css_property("border-left-color") == "rgba(201, 55, 44, 1)"
    assert "Blocked" in box.text
    assert driver.execute_script("return document.querySelectorAll('.tsguard-report [id]').length") == 0
    assert not [one for one in violations(driver) if "tsguard" in one]


def test_a_page_prints_whole_on_paper(driver, pages):
    show(driver, pages / "check.html")
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert not driver.find_element("css selector", "nav").is_displayed()
        assert not driver.find_element("id", "theme").is_displayed()
        driver.execute_script("dispatchEvent(new Event('beforeprint'))")
        assert "the loss of 8 batches is finite" in driver.find_element("tag name", "main").text
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
