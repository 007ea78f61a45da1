"""A real browser without a window, spoken to over a pipe in the DevTools protocol: no package, no port, no network."""

import json
import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no chromium or google-chrome on the path (apt-get install chromium)"
)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--remote-debugging-pipe")
# What a script finds: controls are used as people use them, and the picture is there when "key" and "frame" are over.
TOOLS = """
const all = (selector) => [...document.querySelectorAll(selector)];
const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
const key = async (name) => {
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
  await frame();
};
const pixels = (number) => {
  const canvas = all("canvas")[number];
  return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
};
while (all("[id=explore][hidden], [id=filter][hidden]").length) {
  if (problems.length || performance.now() > 60000) throw new Error(`the page does not come to life: ${problems}`);
  await frame();
}
const seen = {};
"""


PROBLEMS = """
const problems = [];
addEventListener("error", (event) => problems.push(event.message));
addEventListener("unhandledrejection", (event) => problems.push(event.reason));
"""


class Browser:
    """A page of a browser that runs."""

    def __init__(self, write, read):
        self.write, self.read, self.number = write, read, 0
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Page.enable")
        self.ask("Page.addScriptToEvaluateOnNewDocument", source=PROBLEMS)
        self.ask("Emulation.setDeviceMetricsOverride", width=1200, height=900, deviceScaleFactor=1, mobile=False)

    def ask(self, method, **params):
        """Result of a command."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if hasattr(self, "session"):
            message["sessionId"] = self.session
        self.write.write(json.dumps(message).encode() + b"\0")
        self.write.flush()
        answer = self.wait(lambda message: message.get("id") == self.number)
        assert "error" not in answer, answer
        return answer["result"]

    def wait(self, wanted):
        """The next message that is wanted."""
        while True:
            message = bytearray()
            while not message.endswith(b"\0"):
                byte = self.read.read(1)
                assert byte, "the browser has gone"
                message += byte
            message = json.loads(message[:-1])
            if wanted(message):
                return message

    def evaluate(self, expression):
        """Value of an expression, or of what it promises."""
        found = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def open(self, html, folder):
        """Show a page from disk."""
        path = folder / "page.html"
        path.write_text(html, encoding="utf-8")
        self.ask("Page.navigate", url=path.as_uri())
        self.wait(lambda message: message.get("method") == "Page.loadEventFired")

    def use(self, html, folder, script):
        """What a script has put into ``seen`` after it has used a page; ``TOOLS`` are at hand."""
        self.open(html, folder)
        seen = self.evaluate(f"(async () => {{ {TOOLS} {script}; return seen; }})()")
        assert self.evaluate("problems.map(String)") == []
        return seen


@contextmanager
def browser(profile):
    """A browser with a profile of its own."""
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    command = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
    process = subprocess.Popen(
        ["bash", "-c", command, "bash", BROWSER, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        with os.fdopen(ours_out, "wb") as write, os.fdopen(ours_in, "rb") as read:
            yield Browser(write, read)
    finally:
        process.terminate()
        process.wait(timeout=60)
