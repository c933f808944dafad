"""The page of `rmjax serve` in a real browser, in front of a real server."""

import json

import numpy as np
import pytest
from chromium import needs_browser, requested, set_screen
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from serving import running
from starlette.exceptions import HTTPException

from rmjax.inference.attributor import load

HOSTILE = "<img src=x onerror=alert(1)>.png"
LONG = "a-name-of-many-characters-without-any-space-in-it-" * 3 + ".png"
SECONDS = 120  # the first answers wait for a compiler

pytestmark = needs_browser

# Put a file into the page by an event, as dropping or pasting does.
SEND = """
const [kind, holder, name, bytes] = arguments, data = new DataTransfer();
data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
const event = new Event(kind, { bubbles: true, cancelable: true });
event[holder] = data;
document.getElementById("drop").dispatchEvent(event);
"""
# What of a page sticks out to the right.
OUTSIDE = """
return [...document.querySelectorAll("body *")].filter((e) =>
  e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80));
"""
# Contrast of every text with the ground below it, WCAG 2.2, 1.4.3.
CONTRASTS = """
const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
const light = (rgb) => rgb.slice(0, 3).map((x) => x / 255)
  .map((x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
  .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (e) => {
  const found = numbers(getComputedStyle(e).backgroundColor);
  return found.length < 4 || found[3] > 0 ? found : ground(e.parentElement);
};
const texts = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility()
  && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()));
return texts.map((e) => {
  const style = getComputedStyle(e);
  const ink = e.namespaceURI.endsWith("svg") ? style.fill : style.color;
  const [low, high] = [light(numbers(ink)), light(ground(e))].sort((a, b) => a - b);
  return [(high + 0.05) / (low + 0.05), e.outerHTML.slice(0, 80)];
});
"""


@pytest.fixture(scope="module")
def model(small_run):
    return load(small_run, num_devices=1)


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    """A small network with a gallery to be made; two images go into one request."""
    folder = tmp_path_factory.mktemp("gallery") / "gallery"
    with running(model, gallery=folder, max_images=2) as server:
        yield server


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Image files by name."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    made = {}
    for name in ("one.png", "two.png", "three.png", HOSTILE, LONG):
        pixels = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
        made[name] = folder / name
        Image.fromarray(pixels).save(made[name])
    made["broken.png"] = folder / "broken.png"
    made["broken.png"].write_bytes(b"no image")
    return made


@pytest.fixture
def page(browser, server):
    """The page, freshly loaded, wide and light."""
    set_media(browser)
    set_screen(browser, 1100)
    browser.get_log("browser")
    browser.get(f"{server.url}/")
    return browser


def set_media(browser, **features):
    listed = [
        {"name": f"prefers-{name.replace('_', '-')}", "value": value}
        for name, value in ({"color_scheme": "light"} | features).items()
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": listed})


def wait(browser, condition):
    return WebDriverWait(browser, SECONDS, 0.05).until(lambda _: condition())


def choose(browser, *paths):
    files = browser.find_element(By.ID, "files")
    files.send_keys("\n".join(str(path) for path in paths))


def answers(browser, count):
    """Wait for so many cards to be answered; return them."""

    def done():
        cards = browser.find_elements(By.CSS_SELECTOR, ".card")
        texts = [card.find_element(By.CLASS_NAME, "answer").text for card in cards]
        return len(cards) == count and not any("Waiting" in text for text in texts)

    wait(browser, done)
    return browser.find_elements(By.CSS_SELECTOR, ".card")


def explain(browser, card):
    card.find_element(By.CLASS_NAME, "why").click()
    wait(browser, lambda: card.find_elements(By.CSS_SELECTOR, ".explanation svg"))


def test_many_images_are_answered_in_chunks_and_errors_are_their_own(
    page, pictures, model
):
    names = ["one.png", "broken.png", HOSTILE, "two.png", "three.png"]
    choose(page, *(pictures[name] for name in names))
    cards = answers(page, len(names))
    for card, name in zip(cards, names, strict=True):
        assert card.find_element(By.CLASS_NAME, "name").text == name
        assert ("failed" in card.get_attribute("class")) == (name == "broken.png")
    assert "5 of 5" in page.find_element(By.ID, "status").text
    assert not page.find_element(By.ID, "progress").is_displayed()
    # Each says what the network says of its image, names as text.
    said = [name for name in model.source_names if name in cards[0].text]
    assert said and "C2PA" in cards[0].text and "not calibrated" in cards[0].text
    assert not page.find_elements(By.CSS_SELECTOR, "img[src=x]")
    assert page.get_log("browser") == []


@pytest.mark.parametrize(
    "kind, holder", [("drop", "dataTransfer"), ("paste", "clipboardData")]
)
def test_images_are_dropped_and_pasted(page, pictures, kind, holder):
    content = list(pictures["one.png"].read_bytes())
    page.execute_script(SEND, kind, holder, HOSTILE, content)
    (card,) = answers(page, 1)
    assert card.find_element(By.CLASS_NAME, "name").text == HOSTILE
    assert card.find_element(By.CLASS_NAME, "why").is_displayed()


def test_why_draws_a_map_and_spectra(page, pictures, server):
    choose(page, pictures["one.png"])
    (card,) = answers(page, 1)
    explain(page, card)
    canvas = card.find_element(By.CSS_SELECTOR, "canvas.map")
    assert canvas.get_attribute("role") == "img" and canvas.get_attribute("aria-label")
    # It shows something: not one colour.
    colours = page.execute_script(
        "const c = arguments[0]; const d = c.getContext('2d').getImageData(0, 0, c.width, "
        "c.height).data; return new Set(new Uint32Array(d.buffer)).size",
        canvas,
    )
    assert colours > 100
    points = card.find_element(By.CSS_SELECTOR, "polyline.own").get_attribute("points")
    assert len(points.split()) > 10
    assert len(card.find_elements(By.CSS_SELECTOR, ".lines dd")) == 4
    picture = card.find_element(By.CSS_SELECTOR, ".pictures img")
    assert page.execute_script("return arguments[0].naturalWidth", picture) == 32
    # Asked once, it is shown and hidden from then on.
    why = card.find_element(By.CLASS_NAME, "why")
    for shown in (False, True):
        why.click()
        assert card.find_element(By.CLASS_NAME, "explanation").is_displayed() == shown
        assert why.get_attribute("aria-expanded") == str(shown).lower()
    assert page.get_log("browser") == []
    asked = requested(page, f"{server.url}/")
    assert asked
    assert all(url.startswith((f"{server.url}/", "blob:", "data:")) for url in asked)


def test_a_generator_that_was_enrolled_is_answered(page, pictures):
    page.find_element(By.CSS_SELECTOR, "#gallery summary").click()
    page.find_element(By.NAME, "generator").send_keys("<b>new</b>")
    paths = "\n".join(str(pictures[name]) for name in ("two.png", "three.png"))
    page.find_element(By.NAME, "images").send_keys(paths)
    page.find_element(By.CSS_SELECTOR, "#enrol button").click()
    enrolled = page.find_element(By.ID, "generators")
    said = page.find_element(By.ID, "enrolled")
    wait(page, lambda: said.text and "…" not in said.text)
    assert "<b>new</b>: 2 images" in enrolled.text, said.text
    choose(page, pictures["two.png"])
    (card,) = answers(page, 1)
    assert "<b>new</b>" in card.text
    # The same image once more: the server's reason is shown.
    page.find_element(By.NAME, "generator").send_keys("other")
    page.find_element(By.NAME, "images").send_keys(str(pictures["two.png"]))
    page.find_element(By.CSS_SELECTOR, "#enrol button").click()
    wait(page, lambda: "two.png" in said.text)
    assert "other" not in enrolled.text


def test_the_keyboard_is_enough(page, pictures):
    def press(key):
        ActionChains(page).send_keys(key).perform()

    def focused():
        return page.switch_to.active_element

    press(Keys.TAB)
    assert focused().get_attribute("id") == "files"
    label = page.find_element(By.CSS_SELECTOR, "#drop label")
    assert label.value_of_css_property("outline-style") == "solid"
    choose(page, pictures["one.png"])  # what the browser's own dialog would do
    (card,) = answers(page, 1)
    press(Keys.TAB)
    assert focused() == card.find_element(By.CLASS_NAME, "why")
    assert focused().value_of_css_property("outline-style") == "solid"
    press(Keys.ENTER)
    wait(page, lambda: card.find_elements(By.CSS_SELECTOR, ".explanation svg"))
    press(Keys.TAB)
    press(Keys.ENTER)
    assert page.find_element(By.ID, "gallery").get_attribute("open")
    press(Keys.TAB)
    assert focused().get_attribute("name") == "generator"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read(page, pictures, scheme):
    set_media(page, color_scheme=scheme, reduced_motion="reduce")
    set_screen(page, 400)
    choose(page, pictures[LONG], pictures["broken.png"])
    cards = answers(page, 2)
    explain(page, cards[0])
    page.execute_script("document.getElementById('gallery').open = true")
    assert page.execute_script("return document.documentElement.scrollWidth") == 400
    assert page.execute_script(OUTSIDE) == []
    contrasts = page.execute_script(CONTRASTS)
    assert len(contrasts) > 30
    assert [found for found in contrasts if found[0] < 4.5] == []
    ground = page.find_element(By.TAG_NAME, "body").value_of_css_property(
        "background-color"
    )
    assert (sum(json.loads(f"[{ground[ground.index('(') + 1 : -1]}]")[:3]) < 300) == (
        scheme == "dark"
    )


def test_a_busy_server_is_asked_again(page, pictures, server, monkeypatch):
    calls, attribute = [], server.service.attribute

    async def busy_at_first(files):
        calls.append(len(files))
        if len(calls) == 1:
            raise HTTPException(503, "busy", {"Retry-After": "1"})
        return await attribute(files)

    monkeypatch.setattr(server.service, "attribute", busy_at_first)
    choose(page, pictures["one.png"])
    (card,) = answers(page, 1)
    assert calls == [1, 1] and "failed" not in card.get_attribute("class")


def test_the_token_is_asked_for_once(browser, model, pictures):
    with running(model, token="open sesame") as server:
        browser.get(f"{server.url}/")
        dialog = browser.find_element(By.ID, "ask-token")
        for text in ("wrong", "open sesame"):
            wait(browser, dialog.is_displayed)
            browser.find_element(By.ID, "token").send_keys(text + Keys.ENTER)
        network = browser.find_element(By.ID, "model")
        wait(browser, lambda: model.name in network.text)
        choose(browser, pictures["one.png"])
        (card,) = answers(browser, 1)
        assert "failed" not in card.get_attribute("class")
        assert not dialog.is_displayed()
        # This server has no gallery: it says so to whoever looks for it.
        browser.find_element(By.CSS_SELECTOR, "#gallery summary").click()
        said = browser.find_element(By.ID, "enrolled")
        wait(browser, lambda: "--gallery" in said.text)
        assert not browser.find_element(By.ID, "enrol").is_displayed()
