"""A real browser goes the analyst's way: a name, an event, its hash, who else had the file, a filter, the export.

Arguments: the console's URL, a JSON file with the lake's rows, axe.min.js, a folder for pictures. The environment names
chromium and chromedriver.
"""

import csv
import io
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

console, told, axe, pictures = sys.argv[1:]
with open(told, encoding="utf-8") as file:
    rows = json.load(file)
with open(axe, encoding="utf-8") as file:
    axe_source = file.read()
os.makedirs(pictures, exist_ok=True)

options = Options()
options.binary_location = os.environ["CHROMIUM"]
for switch in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"]:
    options.add_argument(switch)
options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
driver = webdriver.Chrome(options=options, service=Service(os.environ["CHROMEDRIVER"]))


def css(selector):
    return driver.find_element(By.CSS_SELECTOR, selector)


def body():
    return css("body").text


def patiently(act):
    end = time.monotonic() + 10
    while True:
        try:
            return act()
        except (AssertionError, WebDriverException):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def says(*texts):
    def act():
        page = body()
        for text in texts:
            assert text in page, f"the page lacks `{text}`:\n{page}"

    patiently(act)


def click(text):
    def act():
        for tag in ["button", "a", "summary"]:
            for element in driver.find_elements(By.TAG_NAME, tag):
                if element.is_displayed() and element.text.strip().startswith(text):
                    element.click()
                    return
        raise AssertionError(f"no `{text}` on the page: {body()}")

    patiently(act)


def accessible(name):
    """Nothing serious, in light and dark, wide and narrow; and a picture of each for a person to look at."""
    for scheme in ["light", "dark"]:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        for width in [1280, 380]:
            metrics = {"width": width, "height": 1100, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            driver.save_screenshot(os.path.join(pictures, f"{name}-{scheme}-{width}.png"))
            driver.execute_script(axe_source)
            found = driver.execute_async_script("const d = arguments[0]; axe.run().then(d, e => d({error: String(e)}));")
            assert "violations" in found, found
            serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
            assert not serious, f"{name}, {scheme}, {width}: {json.dumps(serious, indent=1)[:3000]}"
            root = "document.documentElement"
            wider = driver.execute_script(f"return {root}.scrollWidth - {root}.clientWidth")
            assert wider <= 0, f"{name}, {scheme}, {width}: the page is {wider} pixels too wide"
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def fetch(path):
    """The status and the text of an address, for what no browser would send."""
    try:
        with urllib.request.urlopen(console + path) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


try:
    driver.get(console + "/search")
    says("Forensic Search", "events", "Last 7 days", "Export all")
    accessible("search")

    click("Add filter")
    patiently(lambda: css("input[name=v]"))
    assert "edit=1" in driver.current_url
    name = rows[0]["file_name"]
    css("input[name=v]").send_keys(name.replace("*", "?"))
    click("Search")
    same = [row for row in rows if row["file_name"].lower() == name.lower()]
    says("1 event" if len(same) == 1 else f"{len(same)} events")
    css("table.events tbody th a").click()
    says("Risk", "SHA-256", "Who else had this file?", "Back to the results")
    accessible("event")

    click("Who else had this file?")
    says("Who sent it", "Who received it", "Under which names")
    hash_ = driver.current_url.split("hash=")[1]
    having = [row for row in rows if row["sha256"] == hash_]
    assert having, hash_
    for row in having:
        assert row["sender"] in body(), row
    accessible("holders")

    click(having[0]["sender"])
    of_sender = [row for row in having if row["sender"] == having[0]["sender"]]
    says("1 event" if len(of_sender) == 1 else f"{len(of_sender)} events")
    link = css("a[download]").get_attribute("href")
    with urllib.request.urlopen(link) as answer:
        exported = list(csv.DictReader(io.StringIO(answer.read().decode())))
    assert len(exported) == len(of_sender), (exported, of_sender)
    assert {row["sender"] for row in exported} == {having[0]["sender"]}, exported

    # Everything, not only the page.
    status, text = fetch("/search/export.csv?range=all&c=event.id&c=file.name&f=file.hash.sha256&o=EXISTS")
    exported = list(csv.DictReader(io.StringIO(text)))
    assert status == 200 and {row["event_id"] for row in exported} == {row["event_id"] for row in rows}, status

    click("The same search in SQL")
    says("FROM", "sender")
    click("Save this search")
    css("#name").send_keys("From one sender")
    click("Save search")
    says("Saved searches", "From one sender")
    accessible("saved")
    click("From one sender")
    says("1 event" if len(of_sender) == 1 else f"{len(of_sender)} events")
    driver.get(console + "/search/saved")
    click("Rename or delete")
    field = css("input[name=name]")
    field.clear()
    field.send_keys("Renamed")
    click("Rename")
    patiently(lambda: css("table"))
    says("Renamed")
    assert "From one sender" not in body()
    click("Rename or delete")
    click("Delete")
    says("Nothing is saved yet")

    # Groups: by buttons alone.
    driver.get(console + "/search?range=all")
    click("Add group")
    patiently(lambda: css("select[name=g]"))
    fields = driver.find_elements(By.CSS_SELECTOR, "input[name=v]")
    assert len(fields) == 2, len(fields)
    fields[0].send_keys(name.replace("*", "?"))
    fields[1].send_keys("no such file")
    accessible("groups")
    click("Search")
    says("1 event" if len(same) == 1 else f"{len(same)} events")

    # Columns, order and pages: each event once, there and back.
    driver.get(console + "/search?range=all&c=event.id&c=source.email.sender&s=source.email.sender&d=asc")
    seen = []
    while True:
        cells = driver.find_elements(By.CSS_SELECTOR, "table.events tbody th code")
        seen.append([cell.get_attribute("title") or cell.text for cell in cells])
        following = driver.find_elements(By.CSS_SELECTOR, "a[rel=next]")
        if not following:
            break
        driver.get(following[0].get_attribute("href"))
    every = [id_ for page in seen for id_ in page]
    assert len(seen) > 1 and len(every) == len(set(every)) >= len(rows), (len(seen), len(every), len(rows))
    driver.get(css("a[rel=prev]").get_attribute("href"))
    cells = driver.find_elements(By.CSS_SELECTOR, "table.events tbody th code")
    assert [cell.get_attribute("title") for cell in cells][-1] == seen[-2][-1]

    # A bar narrows the range.
    driver.get(console + "/search?range=30d")
    bar = css(".histogram a")
    target = bar.get_attribute("href")
    target = target["baseVal"] if isinstance(target, dict) else target
    driver.get(urllib.parse.urljoin(console, target))
    assert "range=custom" in driver.current_url, driver.current_url

    driver.get(console + "/search?f=file.hash.md5&o=IS&v=123")
    says("The search cannot be asked like this", "MD5")
    accessible("wrong")
    driver.get(console + "/search?f=file.name&o=IS&v=no%20such%20file")
    says("0 events", "No event matches")
    accessible("nothing")

    quote = urllib.parse.quote
    for path, codes in [
        ("/search?f=" + quote("file.name' OR 1=1 --") + "&o=IS&v=x", {422}),
        ("/search?f=file.name&o=" + quote("IS; DROP TABLE") + "&v=x", {422}),
        ("/search?f=file.name&o=IS&v=" + quote("' OR '1'='1"), {200}),
        ("/search?f=file.name&o=IS&v=" + quote("<script>alert(1)</script>"), {200}),
        ("/search?f=file.name&o=IS&v=%00%ff%fe", {200, 422}),
        ("/search?f=file.name&o=IS&v=" + "x" * 3000, {422}),
        ("/search?f=file.name&o=IS&v=" + "x" * 40000, {400}),
        ("/search?" + "g=AND&" * 50 + "f=file.name&v=x", {400}),
        ("/search?" + "f=file.name&v=x&" * 200, {400}),
        ("/search?range=custom&from=yesterday", {422}),
        ("/search?range=custom&from=2026-02-30&to=9999-99-99", {422}),
        ("/search?after=nonsense", {400}),
        ("/search?before=00000000-0000-0000-0000-000000000000", {400}),
        ("/search?s=" + quote("1; DROP") + "&c=" + quote("* FROM runs"), {200}),
        ("/search/event/nonsense", {404}),
        ("/search/event/00000000-0000-0000-0000-000000000000", {404}),
        ("/search/event/" + quote("../../etc/passwd", safe=""), {404}),
        ("/search/file?hash=" + quote("' OR 1=1"), {422}),
        ("/search/export.csv?f=file.hash.md5&o=IS&v=123", {400}),
        ("/search/saved/nonsense", {404}),
    ]:
        status, text = fetch(path)
        assert status in codes, (path[:100], status, text[:600])
        assert "<script>alert" not in text and "panicked" not in text, path[:100]
    assert fetch("/search")[0] == 200

    hosts = set()
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            _, far, rest = message["params"]["request"]["url"].partition("://")
            # Pictures within the style sheet are of no host.
            if far:
                hosts.add(rest.split("/")[0])
    assert hosts == {console.split("/")[2]}, hosts
    refused = [entry["message"] for entry in driver.get_log("browser") if "Content Security Policy" in entry["message"]]
    assert not refused, refused
    print("the browser saw all of it")
except Exception:
    driver.save_screenshot(os.path.join(pictures, "failed.png"))
    print(driver.current_url)
    raise
finally:
    driver.quit()
