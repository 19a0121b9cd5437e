"""A headless Chromium for tests of pages; tests skip where none is installed, or fail with BROWSER_REQUIRED=1."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str:
    """Where Chromium is; the test is skipped without one."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if found:
        return found
    reason = "no Chromium here: apt-get install chromium, or name one in CHROMIUM"
    if os.environ.get("BROWSER_REQUIRED"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def browsing(url: str, token: str, *, dark: bool = False, width: int = 1440, height: int = 900) -> Iterator[Any]:
    """A page of a browser that is logged in to Airflow; its errors end up in `page.faults`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        context.add_cookies([{"name": "_token", "value": token, "url": url}])
        page: Any = context.new_page()
        page.set_default_timeout(20_000)
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("console", lambda line: page.faults.append(line.text) if line.type == "error" else None)
        if dark:
            page.add_init_script("localStorage.setItem('theme', 'dark')")
        try:
            yield page
        finally:
            browser.close()


def picture(page: Any, name: str) -> None:
    """A screenshot, where SCREENSHOTS names a folder for them."""
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))
