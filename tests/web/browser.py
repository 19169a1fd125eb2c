"""A headless Chromium, spoken to over two pipes in its own protocol: no driver and no package needed."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from checks import Failure  # noqa: E402

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-default-browser-check", "--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows", "--hide-scrollbars", "--force-color-profile=srgb",
    "--enable-precise-memory-info", "--remote-debugging-pipe",
]
KEYS = {
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35,
    "Enter": 13, "Escape": 27, "Tab": 9, "PageDown": 34, "PageUp": 33, "Delete": 46, "F10": 121,
}
# What a key writes: without it a browser does not follow links and send forms.
TEXTS = {"Enter": "\r"}


class Browser:
    """A running Chromium with a profile of its own, which is gone when it ends."""

    def __init__(self, *more):
        self.profile = tempfile.mkdtemp(prefix="piecework-web-")
        to_read, self.to_write = os.pipe()
        self.from_read, from_write = os.pipe()
        # Above all numbers that the child is about to give away.
        their = [os.dup2(fd, fd + 100) for fd in (to_read, from_write)]

        def connect():
            os.dup2(their[0], 3)
            os.dup2(their[1], 4)

        self.log = open(os.path.join(self.profile, "chromium.log"), "wb")
        self.process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={self.profile}/profile", *more, "about:blank"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, close_fds=False, preexec_fn=connect,
            start_new_session=True,
        )
        for fd in (to_read, from_write, *their):
            os.close(fd)
        self.numbers = itertools.count(1)
        self.answers = {}
        self.pages = {}
        self.changed = threading.Condition()
        self.sending = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def close(self):
        try:
            self.call("Browser.close", seconds=5)
        except Failure:
            self.process.kill()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.to_write)
        self.log.close()
        shutil.rmtree(self.profile, ignore_errors=True)

    def page(self, url="about:blank", width=1280, height=860):
        target = self.call("Target.createTarget", {"url": "about:blank", "newWindow": True})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = Page(self, target, session)
        with self.changed:
            self.pages[session] = page
        for domain in ("Page", "Runtime", "Network", "Log", "Performance"):
            page.call(f"{domain}.enable")
        page.size(width, height)
        if url != "about:blank":
            page.goto(url)
        return page

    def send(self, method, params=None, session=None):
        """Says something without waiting for the answer; gives its number."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params or {}}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        with self.sending:
            while data:
                data = data[os.write(self.to_write, data):]
        return number

    def call(self, method, params=None, session=None, seconds=60):
        number = self.send(method, params, session)
        with self.changed:
            if not self.changed.wait_for(lambda: number in self.answers or self.answers is GONE, seconds):
                raise Failure(f"Chromium did not answer {method} within {seconds} s")
            if self.answers is GONE:
                raise Failure(f"Chromium ended: {self._last_words()}")
            answer = self.answers.pop(number)
        if "error" in answer:
            raise Failure(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _last_words(self):
        with open(os.path.join(self.profile, "chromium.log"), "rb") as log:
            return log.read()[-1500:].decode(errors="replace")

    def _read(self):
        rest = b""
        while True:
            chunk = os.read(self.from_read, 1 << 20)
            if not chunk:
                break
            *messages, rest = (rest + chunk).split(b"\0")
            for message in messages:
                message = json.loads(message)
                with self.changed:
                    if "id" in message:
                        self.answers[message["id"]] = message
                        self.changed.notify_all()
                    elif message.get("sessionId") in self.pages:
                        self.pages[message["sessionId"]].event(message["method"], message["params"])
        with self.changed:
            self.answers = GONE
            self.changed.notify_all()
        os.close(self.from_read)


GONE = {}


class Page:
    """A tab, and all it has said and asked for."""

    def __init__(self, browser, target, session):
        self.browser, self.target, self.session = browser, target, session
        self.errors = []
        self.requests = []
        self.expected = []
        self.asked_for_password = 0

    def call(self, method, params=None, seconds=60):
        return self.browser.call(method, params, self.session, seconds)

    def event(self, method, params):
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Fetch.requestPaused":
            self.browser.send("Fetch.continueRequest", {"requestId": params["requestId"]}, self.session)
        elif method == "Fetch.authRequired":
            self.asked_for_password += 1
            answer = {"requestId": params["requestId"], "authChallengeResponse": {"response": "CancelAuth"}}
            self.browser.send("Fetch.continueWithAuth", answer, self.session)
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(" ".join(str(arg.get("value", arg.get("description", ""))) for arg in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            text = params["entry"]["text"]
            # The advice about reading canvases is for whoever looks at them: the test.
            expected = "willReadFrequently" in text or any(f"status of {status} " in text for status in self.expected)
            if not expected:
                self.errors.append(f"{text} {params['entry'].get('url', '')}")

    def expect(self, *statuses):
        """From now on answers with these statuses are no errors."""
        self.expected = [status for status in statuses if status]

    def refuse_passwords(self):
        """From now on, whenever a password is asked for, somebody presses Cancel."""
        self.call("Fetch.enable", {"handleAuthRequests": True})

    def close(self):
        self.browser.call("Target.closeTarget", {"targetId": self.target})

    def goto(self, url):
        result = self.call("Page.navigate", {"url": url})
        if result.get("errorText"):
            raise Failure(f"{url}: {result['errorText']}")
        self.wait("document.readyState === 'complete'", f"{url} to load")

    def size(self, width, height, ratio=1, mobile=False):
        self.call("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": ratio, "mobile": mobile})
        self.call("Emulation.setTouchEmulationEnabled", {"enabled": mobile})

    def dark(self, on):
        self.call("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark" if on else "light"}]})

    def eval(self, expression, seconds=60):
        """What `expression`, which may be a promise, comes to."""
        result = self.call("Runtime.evaluate", {"expression": expression, "awaitPromise": True, "returnByValue": True, "userGesture": True}, seconds)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise Failure(f"`{expression[:200]}`: {details.get('exception', {}).get('description') or details['text']}")
        return result["result"].get("value")

    def wait(self, expression, what, seconds=20):
        """The first true value of `expression`."""
        deadline = time.monotonic() + seconds
        while True:
            value = self.eval(f"(() => {{ try {{ const it = ({expression}); return it instanceof Node ? true : it; }} catch {{ return null; }} }})()")
            if value:
                return value
            if time.monotonic() > deadline:
                text = self.eval("document.body?.innerText.slice(0, 1500)")
                raise Failure(f"waited {seconds} s for {what}; errors: {self.errors}; the page says:\n{text}")
            time.sleep(0.03)

    def text(self, selector):
        return self.eval(f"document.querySelector({json.dumps(selector)})?.innerText ?? null")

    def place(self, selector):
        """The middle of an element that can be clicked: in sight, at rest, and nothing above it."""
        quoted = json.dumps(selector)
        return self.wait(f"""(() => {{
            const node = document.querySelector({quoted});
            node.scrollIntoView({{ block: "center", behavior: "instant" }});
            const box = node.getBoundingClientRect();
            const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
            const [last, now] = [node.seenAt, performance.now()];
            // What is still loading above it would move it away from under the mouse.
            if (last?.x !== x || last.y !== y) node.seenAt = {{ x, y, since: now }};
            if (now - node.seenAt.since < 100) return null;
            const there = document.elementFromPoint(x, y);
            return box.width > 0 && !node.disabled && (node === there || node.contains(there)) ? [x, y] : null;
        }})()""", f"`{selector}` to be where it can be clicked")

    def mouse(self, kind, x, y, **more):
        self.call("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **more})

    def click(self, selector, at=None, button="left", ctrl=False, shift=False):
        x, y = at or self.place(selector)
        modifiers = 2 * ctrl + 8 * shift
        self.mouse("mouseMoved", x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button=button, clickCount=1, modifiers=modifiers)

    def mark(self, expression, what):
        """A selector of the element that `expression` comes to."""
        self.wait(f"""(() => {{
            for (const node of document.querySelectorAll('[data-marked]')) delete node.dataset.marked;
            const node = {expression};
            node.dataset.marked = '';
            return true;
        }})()""", what)
        return "[data-marked]"

    def key(self, name, shift=False, ctrl=False):
        """Presses a key: a name such as `Enter`, or the character that it writes."""
        text = TEXTS.get(name, name if len(name) == 1 and not ctrl else "")
        event = {"key": name, "code": "Space" if name == " " else name, "modifiers": 2 * ctrl + 8 * shift, "windowsVirtualKeyCode": KEYS.get(name) or ord(name.upper())}
        self.call("Input.dispatchKeyEvent", {"type": "keyDown" if text else "rawKeyDown", **event, **({"text": text} if text else {})})
        self.call("Input.dispatchKeyEvent", {"type": "keyUp", **event})

    def tab_to(self, selector, back=False, most=120):
        """Presses Tab until the element has the focus: so it can be reached without a mouse."""
        for _ in range(most):
            if self.eval(f"document.activeElement?.matches({json.dumps(selector)})"):
                return
            self.key("Tab", shift=back)
        raise Failure(f"`{selector}` is not reached in {most} tabs")

    def write(self, text):
        """Types into what has the focus, in place of what is there."""
        self.key("a", ctrl=True)
        self.eval("document.activeElement.select?.()")
        self.call("Input.insertText", {"text": text})

    def downloads(self, folder):
        """Has files that are downloaded kept there."""
        self.browser.call("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": folder})

    def type(self, selector, text):
        self.eval(f"document.querySelector({json.dumps(selector)}).focus()")
        self.call("Input.insertText", {"text": text})

    def drop(self, selector, *files):
        """Drops files from outside on an element."""
        x, y = self.place(selector)
        data = {"items": [], "files": [os.path.abspath(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", {"type": kind, "x": x, "y": y, "data": data})

    def screenshot(self, path, whole=False):
        params = {"format": "png", "captureBeyondViewport": whole}
        if path.endswith(".webp"):
            params |= {"format": "webp", "quality": 80}
        if whole:
            box = self.call("Page.getLayoutMetrics")["cssContentSize"]
            params["clip"] = {**box, "scale": 1}
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("Page.captureScreenshot", params)["data"]))

    def axe(self, source):
        """What axe-core finds wrong: rule, words, and where."""
        if not self.eval("typeof axe === 'object'"):
            self.call("Runtime.evaluate", {"expression": source})
        found = self.eval("axe.run(document, { resultTypes: ['violations'] }).then((all) => all.violations.map((one) => [one.id, one.help, one.nodes.map((node) => `${node.target} ${node.failureSummary}`).slice(0, 3)]))", 60)
        return found
