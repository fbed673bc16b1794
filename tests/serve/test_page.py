"""The page in a real browser; needs selenium, chromium and chromedriver, which the locked requirements do not hold."""

import json
import shutil
import subprocess
import sys
import time

import pytest
from skimage import data

from .conftest import as_file

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    command = [sys.executable, "-m", "moir", "serve", "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path_factory.mktemp("server"))
    yield next(line.split("serving at ")[1].split()[0] for line in process.stderr if "serving at" in line)
    process.terminate()
    process.wait(60)
    process.stderr.close()


@pytest.fixture
def open_page(url, tmp_path):
    browsers = []

    def start(width, height, phone=False):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--window-size={width},{height}", f"--user-data-dir={tmp_path / 'profile'}"):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "downloads")})
        if phone:
            metrics = {"width": width, "height": height, "pixelRatio": 2.0, "touch": True}
            options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        browser = webdriver.Chrome(service=webdriver.ChromeService(DRIVER), options=options)
        browsers.append(browser)
        browser.get(url)
        until(lambda: browser.find_elements("name", "task"))
        return browser

    yield start
    for browser in browsers:
        browser.quit()


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def text(browser, name):
    return browser.find_element("id", name).text


def style(browser):
    return browser.find_element("css selector", "#viewer .after").get_attribute("style")


def shown(browser):
    image = browser.find_element("css selector", "#viewer .after")
    return until(lambda: int(image.get_property("naturalWidth") or 0) and "inset" in style(browser))


def test_upload_slider_download_and_a_text_file(open_page, url, tmp_path):
    picture, note = tmp_path / "face.png", tmp_path / "note.txt"
    picture.write_bytes(as_file(data.astronaut()[:120, 150:310]))
    note.write_text("hello")
    browser = open_page(1280, 900)
    files = browser.find_element("id", "files")
    files.send_keys(str(picture))
    shown(browser)
    assert "ound" in text(browser, "summary")
    assert len(browser.find_elements("css selector", "#findings li")) == 7

    divider = browser.find_element("css selector", "#viewer .divider-range")
    divider.send_keys("\ue011")  # Home
    left = style(browser)
    divider.send_keys("\ue010")  # End
    assert left != style(browser)
    bar = browser.find_element("css selector", "#viewer .bar")
    before = bar.location["x"]
    webdriver.ActionChains(browser).click_and_hold(bar).move_by_offset(-200, 0).release().perform()
    assert bar.location["x"] == pytest.approx(before - 200, abs=5)
    browser.find_elements("css selector", "#viewer .zooms button")[1].click()
    ratio = browser.execute_script("return devicePixelRatio")
    stage = browser.find_element("css selector", "#viewer .stage")
    assert (stage.size["width"] * ratio, stage.size["height"] * ratio) == (160, 120)

    browser.find_element("id", "download").click()
    saved = tmp_path / "downloads" / "face_restored.png"
    until(saved.exists)
    assert saved.read_bytes().startswith(b"\x89PNG")

    files.send_keys(str(note))
    until(lambda: "1 done, 1 not" in text(browser, "batch-text"))
    assert "not a picture that moir reads" in text(browser, "pictures")

    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert any(a.startswith(url) for a in asked)
    assert [a for a in asked if a.startswith(("http", "ws")) and not a.startswith(url)] == []


def test_a_phone_sized_window(open_page, tmp_path):
    picture = tmp_path / "face.jpg"
    picture.write_bytes(as_file(data.astronaut()[:120, 150:310], "JPEG"))
    browser = open_page(390, 844, phone=True)
    browser.find_element("id", "files").send_keys(str(picture))
    shown(browser)
    width, visible = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width <= visible == 390
