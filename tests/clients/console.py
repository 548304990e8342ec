"""A real browser adds a connection, goes through consent, and sees each failure with its remedy.

Arguments: the console's URL, the lake, the simulator's announcement (JSON), a CSV of users, axe.min.js, a folder for
pictures. The environment names waybill (WAYBILL_BIN), chromium and chromedriver.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By

console, lake, announcement, csv, axe, pictures = sys.argv[1:]
tenant = json.loads(announcement)
axe_source = open(axe, encoding="utf-8").read()
os.makedirs(pictures, exist_ok=True)


def browser():
    options = Options()
    options.binary_location = os.environ["CHROMIUM"]
    for switch in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"]:
        options.add_argument(switch)
    # Whatever a page of the console asks another host for would be in this log.
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(os.environ["CHROMEDRIVER"]))


driver = browser()


def css(selector):
    return driver.find_element(By.CSS_SELECTOR, selector)


def patiently(act):
    """A page may be on its way still, and go away while it is read."""
    end = time.monotonic() + 10
    while True:
        try:
            return act()
        except (AssertionError, WebDriverException):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def click(text):
    def act():
        for tag in ["button", "a"]:
            for element in driver.find_elements(By.TAG_NAME, tag):
                if element.text.strip() == text:
                    element.click()
                    return
        raise AssertionError(f"no `{text}` on the page: {body()}")

    patiently(act)


def body():
    return css("body").text


def says(*texts):
    def act():
        page = body()
        for text in texts:
            assert text in page, f"the page lacks `{text}`:\n{page}"

    patiently(act)


def accessible(name):
    """Nothing serious, in light and dark, wide and narrow; and a picture of each for a person to look at."""
    for scheme in ["light", "dark"]:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        for width in [1280, 380]:
            metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            driver.save_screenshot(os.path.join(pictures, f"{name}-{scheme}-{width}.png"))
            driver.execute_script(axe_source)
            found = driver.execute_async_script("const done = arguments[0]; axe.run().then(done, error => done({error: String(error)}));")
            assert "violations" in found, found
            serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
            assert not serious, f"{name}, {scheme}, {width}: {json.dumps(serious, indent=1)[:3000]}"
            wider = driver.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wider <= 0, f"{name}, {scheme}, {width}: the page is {wider} pixels too wide"
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def run():
    command = [os.environ["WAYBILL_BIN"], "--lake", lake, "run", "--all"]
    return subprocess.run(command, capture_output=True, check=False).returncode


def faults(rules):
    request = urllib.request.Request(f"{tenant['login']}/_simulator/faults", json.dumps(rules).encode(), method="POST")
    urllib.request.urlopen(request).read()


def send():
    """Each user sends a file now; the feed brings it at once."""
    for user in tenant["users"]:
        mail = f"From: {user}\r\nTo: x@y.example\r\nSubject: s\r\nMessage-ID: <{time.time_ns()}@t>\r\n"
        mail += "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhi\r\n--b\r\n"
        mail += "Content-Disposition: attachment; filename=plan.txt\r\n\r\ncontent\r\n--b--\r\n"
        request = urllib.request.Request(f"{tenant['login']}/_simulator/messages?sent=now", mail.encode(), method="POST")
        urllib.request.urlopen(request).read()


def fill(name, value):
    element = driver.find_element(By.NAME, name)
    element.clear()
    element.send_keys(value)


def choose(name, value):
    css(f"input[name={name}][value={value}]").click()


try:
    driver.get(console)
    says("There is no connection yet")
    accessible("empty")

    click("Add data connection")
    accessible("add")
    fill("name", "Contoso mail")
    fill("tenant", "not an id")
    fill("client_id", tenant["client_id"])
    fill("variable", "WAYBILL_SECRET_TEST")
    choose("scope", "users")
    click("Preview")
    says("The connection was not added", "Choose the CSV")
    fill("tenant", tenant["tenant_id"])
    driver.find_element(By.NAME, "csv").send_keys(csv)
    click("Preview")
    # Nobody has consented, so the directory cannot be asked; the list is shown all the same.
    says("Whom the scope means cannot be asked yet", "entries")
    accessible("preview")
    click("Add connection")
    says("Contoso mail", "initializing", "Export users as CSV", "added")
    accessible("added")

    click("Authorize")
    patiently(lambda: css("#cancel").click())
    says("The administrator declined", "consent-refused")
    driver.get(console)
    click("Contoso mail")
    click("Authorize")
    patiently(lambda: css("#accept").click())
    says("authorized", "an administrator of the tenant consented")

    assert run() == 12
    driver.get(console)
    says("Contoso mail is not monitored", "Consent was given 0 minutes ago", "up to an hour", "error", "consent-pending")
    accessible("pending")
    send()
    # Consent has spread by then.
    time.sleep(4)
    assert run() == 0, run()
    driver.get(console)
    says("monitoring")
    assert "not monitored" not in body()
    accessible("monitoring")
    click("Contoso mail")
    says("Recent runs", "Status history", "consent-pending", "monitoring")
    accessible("detail")

    for rules, code, remedy in [
        ([{"on": "token", "do": {"error": "7000215"}}], "secret-refused", "Put the secret's value"),
        ([{"on": "token", "do": {"error": "7000222"}}], "secret-expired", "Create a new client secret"),
        ([{"on": "token", "do": {"error": "700016"}}], "application-missing", "Check the client id"),
        ([{"on": "token", "do": "no_roles"}], "consent-pending", "Microsoft takes up to an hour"),
        ([{"on": "subscriptions", "do": "auditing_disabled"}], "auditing-disabled", "Set-AdminAuditLogConfig"),
        ([{"on": "token", "do": {"error": "90002"}}], "tenant-unknown", "Check the tenant id"),
    ]:
        faults(rules)
        assert run() != 0
        driver.get(console)
        says("Contoso mail is not monitored", code, remedy)
        row = css("tr.failing")
        assert "Contoso mail" in row.text, row.text
        tint = row.find_element(By.TAG_NAME, "td").value_of_css_property("background-color")
        assert tint != css("body").value_of_css_property("background-color"), tint
        driver.save_screenshot(os.path.join(pictures, f"failure-{code}.png"))
        faults([])
        assert run() == 0
    driver.get(console)
    click("Contoso mail")
    click("Check now")
    says("Checks, in order", "sign-in", "mailboxes")
    accessible("check")
    driver.back()
    click("Change scope")
    choose("scope", "all")
    click("Preview")
    says("every mailbox of the tenant")
    click("Change scope")
    says("rescoped")
    click("Pause")
    says("paused")
    click("Resume")
    says("resumed")
    click("Deauthorize")
    says("deauthorized")
    click("Remove")
    says("There is no connection yet")

    # The keyboard alone reaches the content and the first thing to do.
    driver.switch_to.active_element.send_keys("\ue004")
    assert driver.switch_to.active_element.text == "Skip to the content", driver.switch_to.active_element.text

    hosts = set()
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            hosts.add(message["params"]["request"]["url"].split("/")[2])
    allowed = {console.split("/")[2], tenant["login"].split("/")[2]}
    assert hosts and hosts <= allowed, hosts
    refused = [entry["message"] for entry in driver.get_log("browser") if "Content Security Policy" in entry["message"]]
    assert not refused, refused
    print("the browser saw all of it")
except Exception:
    driver.save_screenshot(os.path.join(pictures, "failed.png"))
    print(driver.current_url)
    raise
finally:
    driver.quit()
