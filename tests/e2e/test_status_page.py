"""HTTP for people: the status page, which runs nothing but its own script, and /api/status, which it asks."""

import html.parser
import http.client
import json
import os
import re
import shutil
import subprocess

import pytest
from weirtest.net import free_port, wait_until

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def fetch(weir, path, method="GET"):
    """(status, headers, body)"""
    connection = http.client.HTTPConnection("127.0.0.1", weir.http_port, timeout=5)
    try:
        connection.request(method, path)
        reply = connection.getresponse()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
    finally:
        connection.close()


class Page(html.parser.HTMLParser):
    """Every element with its attributes, and what lies in scripts and styles."""

    VOID = {"meta", "link", "br", "hr", "img", "input"}

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.inside = [], [], {"script": "", "style": ""}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, "badly nested: </%s>" % tag

    def handle_data(self, data):
        if self.open and self.open[-1] in self.inside:
            self.inside[self.open[-1]] += data


def policy_of(headers):
    return dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))


def test_api_status(start, relay):
    weir = start({"r1": {"address": relay, "weight": 4}, "r2": "127.0.0.1:%d" % free_port()})
    weir.deliver()
    wait_until(lambda: weir.status()["delivered"] == 1, 5, "the message is counted")
    status, headers, body = fetch(weir, "/api/status")
    assert status == 200 and headers["content-type"] == "application/json" and headers["cache-control"] == "no-store"
    told = json.loads(body)
    asked = weir.ask("status")
    assert set(told) == set(asked) | {"backends"} and told["pid"] == weir.pid
    assert [set(one) for one in told["backends"]] == [set(one) for one in weir.ask("backends")]
    assert [one["name"] for one in told["backends"]] == ["r1", "r2"] and told["backends"][0]["weight"] == 4
    weir.order("drain", "r1")
    assert weir.status()["backends"][0]["admin"] == "drain" and weir.status()["ready"] is False
    weir.order("weight", "r1", "7")
    assert weir.status()["backends"][0]["weight"] == 7
    weir.order("ready", "r1")
    assert fetch(weir, "/api/status", "HEAD")[0] == 200 and fetch(weir, "/api/status", "POST")[0] == 405
    assert fetch(weir, "/api/status/")[0] == 404 and fetch(weir, "/api/drain")[0] == 404


def test_the_page_is_all_there_is(weir):
    status, headers, body = fetch(weir, "/")
    assert status == 200 and headers["content-type"] == "text/html; charset=utf-8" and headers["x-content-type-options"] == "nosniff"
    page = Page(body.decode())
    assert page.open == [], "every element is closed"
    # Nothing from elsewhere.
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            value = attributes.get(name)
            assert value is None or value == "data:," or re.fullmatch(r"[a-z/]+", value) and "//" not in value, (tag, name, value)
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
    assert "url(" not in page.inside["style"] and "@import" not in page.inside["style"]
    # Only its own script and style run.
    policy = policy_of(headers)
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    nonces = {attributes["nonce"] for tag, attributes in page.elements if tag in ("script", "style")}
    assert len(nonces) == 1 and re.fullmatch(r"[0-9a-f]{32}", min(nonces))
    assert policy["script-src"] == policy["style-src"] == "'nonce-%s'" % min(nonces) and policy["connect-src"] == "'self'"
    assert not re.search(rb"unsafe|@NONCE@", body + headers["content-security-policy"].encode())
    assert policy_of(fetch(weir, "/")[1])["script-src"] != policy["script-src"], "new each time"
    # What peers said goes in as text.
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(|DOMParser", page.inside["script"])
    assert ("meta", "viewport") in [(tag, attributes.get("name")) for tag, attributes in page.elements]
    assert "prefers-color-scheme: dark" in page.inside["style"]


@pytest.mark.skipif(not BROWSER, reason="no chromium")
def test_in_a_browser(start, relay, tmp_path):
    """It shows what /api/status says, as text, and the browser has nothing to complain about."""
    weir = start({"r1": {"address": relay, "weight": 4}, "gone": "127.0.0.1:%d" % free_port()},
                 top={"hostname": "weir.test", "redis": {"url": "redis://:geheim@127.0.0.1:1"}})
    weir.wait_log(event="counters", level="warning")
    weir.deliver()
    weir.order("drain", "r1")
    done = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=%s" % tmp_path,
                           "--virtual-time-budget=5000", "--enable-logging=stderr", "--dump-dom", "http://127.0.0.1:%d/" % weir.http_port],
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=50, env=dict(os.environ, HOME=str(tmp_path)))
    dom, err = done.stdout.decode(), done.stderr.decode("utf-8", "replace")
    assert not [line for line in err.splitlines() if "CONSOLE" in line], err
    text = re.sub(r"<(script|style)\b.*?</\1>|<[^>]*>", " ", dom, flags=re.S)
    for word in ("r1", "gone", "drain (up)", "down", "refused", "no backend is usable", "weir.test", "local", "connection refused (redis://127.0.0.1:1)"):
        assert word in text, (word, text)
    assert "geheim" not in dom
    assert "No answer" not in text
    weir.order("ready", "r1")
