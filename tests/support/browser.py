"""A headless Chromium for tests that look at pages: import the fixture ``browser``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = Path(os.environ.get("RSSEARCH_CHROMIUM", "/usr/bin/chromium"))
# Chromium refuses root its sandbox, and asks its makers for news; both would end a test that is offline and in CI.
OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a module's tests; skipped where there is no Chromium."""
    if not CHROMIUM.is_file():
        pytest.skip(f"{CHROMIUM} is not there: apt-get install chromium, or name one in RSSEARCH_CHROMIUM")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS, timeout=120_000)
        yield started
        started.close()
