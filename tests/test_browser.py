"""Pages of reports in a real browser: whole, still, and readable on a phone."""

import base64
from pathlib import Path

import pytest
from chromium import needs_browser, requested, set_screen
from results_sample import sample_results, write_answers, write_run
from sweep_sample import sample_findings

from rmjax.report.comparison import write_comparison
from rmjax.report.page import write_report
from rmjax.sweep.report import write_sweep

LONG = "a-source-with-a-name-of-sixty-characters-without-any-space-in"

pytestmark = needs_browser


@pytest.fixture(scope="module", params=["report", "comparison", "sweep"])
def page(request, tmp_path_factory):
    """Address of a page with every section, and names that would burst it."""
    folder = tmp_path_factory.mktemp("run") / LONG
    sources = ["real", LONG, "<script>alert(1)</script>", "cips"]
    results = sample_results(sources=sources, seen=["cat", LONG], unseen=["bus"])
    results["run"]["workdir"] = LONG
    results["mistakes"][0]["path"] = f"{LONG}/{LONG}.png"
    if request.param == "sweep":
        found = sample_findings(folder, results)
        return write_sweep(folder, found)["report"].as_uri()
    write_answers(write_run(folder, results), results, 0.6)
    if request.param == "report":
        return write_report(folder)["report"].as_uri()
    paths = write_comparison([folder, folder], out=folder / "out")
    return paths["comparison"].as_uri()


def of_page(page, **by_kind):
    """What belongs to the kind of a page, after which its file is named."""
    return by_kind[Path(page).stem]


def test_page_loads_whole_and_asks_for_nothing(browser, page):
    browser.get(page)
    asked = requested(browser, page)
    assert {url for url in asked if not url.startswith("data:")} == {page}
    assert browser.get_log("browser") == []
    assert not browser.find_elements("tag name", "script")
    pictures = browser.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth, i.alt])"
    )
    assert len(pictures) == of_page(page, report=35, comparison=2, sweep=9)
    assert all(done and width > 0 and alt for done, width, alt in pictures)


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_screen(browser, page, width):
    set_screen(browser, width)
    browser.get(page)
    for details in browser.find_elements("tag name", "details"):
        browser.execute_script("arguments[0].open = true", details)
    inner, whole = browser.execute_script(
        "return [innerWidth, document.documentElement.scrollWidth]"
    )
    assert inner == width and whole <= width
    # What is wider scrolls in a box of its own; nothing else sticks out.
    out = browser.execute_script(
        "return [...document.querySelectorAll('body *')].filter(e => "
        "!e.closest('.scroll, pre') && e.getBoundingClientRect().right > innerWidth + 1)"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert out == []
    # What decides is on the screen before anything is scrolled.
    head = of_page(
        page,
        report="false alarms, %",
        comparison="excludes 0",
        sweep="unseen − reference",
    )
    ends = browser.execute_script(
        "return [...document.querySelectorAll('th')].filter(e => "
        "e.textContent == arguments[0]).map(e => e.getBoundingClientRect().right)",
        head,
    )
    assert ends and max(ends) <= width


def test_page_is_the_same_without_javascript(browser, page):
    set_screen(browser, 400)
    shots = []
    for off in (False, True):
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": off})
        browser.get(page)
        shots.append(browser.execute_cdp_cmd("Page.captureScreenshot", {})["data"])
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert shots[0] == shots[1]


def test_page_prints(browser, page):
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get(page)
    printed = base64.b64decode(browser.print_page())
    assert printed.startswith(b"%PDF") and len(printed) > 20_000
