"""Makes the picture in the README: the page with a drawn 3, after a training from zero."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

from mnist37_client.local_server import LocalServer
from PIL import Image
from playwright.sync_api import sync_playwright
from support.browser import start_chromium
from support.drawings import three
from support.local_web import LocalWeb
from support.web_page import WebPage

SIZE: Any = {"width": 1280, "height": 752}  # the upper part, to the end of the curve


def main(file: Path) -> None:
    with (
        LocalServer() as server,
        LocalWeb(server.address) as web,
        sync_playwright() as playwright,
        start_chromium(playwright) as browser,
    ):
        context = browser.new_context(viewport=SIZE, locale="en-US", color_scheme="light")
        page = WebPage(context, web.url)
        page.open()
        page.click("forget-zero")
        page.train(1000, 0.02)
        page.wait_for("#run", "is finished", seconds=60)
        page.draw(three())
        page.wait_for("#sentence", "It is a 3")
        page.page.wait_for_timeout(1500)
        image = Image.open(io.BytesIO(page.page.screenshot())).convert("RGB")
    image.save(file, optimize=True)
    print(f"{file}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
