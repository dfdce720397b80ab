"""A real headless Chromium, driven through Debian's chromedriver (W3C WebDriver: JSON over loopback HTTP)."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1200,800",
]  # fmt: skip
# run before any script of a page: what the server sends to the terminal, which draws on a canvas, can be read here
LISTEN = """
window.received = "";
const Plain = window.WebSocket;
window.WebSocket = class extends Plain {
  constructor(...given) {
    super(...given);
    const text = new TextDecoder();
    this.addEventListener("message", e => {
      if (typeof e.data !== "string") window.received += text.decode(e.data, {stream: true});
    });
  }
};
"""


class Browser:
    """One session of the browser."""

    def __init__(self, driver: str, profile: Path) -> None:
        options = {"binary": shutil.which("chromium"), "args": [*FLAGS, f"--user-data-dir={profile}"]}
        self._base = driver
        wanted = {
            "capabilities": {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
        }
        self._base = f"{driver}/session/{self._call('POST', '/session', wanted)['sessionId']}"
        self._call(
            "POST", "/goog/cdp/execute", {"cmd": "Page.addScriptToEvaluateOnNewDocument", "params": {"source": LISTEN}}
        )

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()[:500]) from None

    def open(self, url: str) -> None:
        """Go to a page."""
        self._call("POST", "/url", {"url": url})

    @property
    def url(self) -> str:
        """Where the browser is."""
        return str(self._call("GET", "/url"))

    def run(self, script: str) -> Any:
        """The value of a script's return statement."""
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def received(self) -> str:
        """What has reached the terminal in this page, without escape sequences."""
        return re.sub(r"\x1b\[[0-9;?<>=]*[A-Za-z]", "", self.run("return window.received || ''"))

    def forget(self) -> None:
        """Let `received` begin anew."""
        self.run("window.received = ''")

    def press(self, keys: str) -> None:
        """Press keys, one after the other; \\ue007 is Enter."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def screenshot(self) -> bytes:
        """The page as PNG."""
        return base64.b64decode(self._call("GET", "/screenshot"))

    def console(self) -> list[str]:
        """What the page complained about."""
        found = self._call("POST", "/se/log", {"type": "browser"})
        return [f"{e['level']} {e['message']}" for e in found]

    def close(self) -> None:
        """End the browser."""
        self._call("DELETE", "")


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """A browser with a new profile."""
    driver = subprocess.Popen(
        [str(shutil.which("chromedriver")), "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert driver.stdout is not None
        port = next(m[1] for line in driver.stdout if (m := re.search(r"started successfully on port (\d+)", line)))
        browser = Browser(f"http://127.0.0.1:{port}", profile)
        try:
            yield browser
        finally:
            browser.close()
    finally:
        driver.terminate()
        driver.wait()
