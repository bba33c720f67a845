"""The report as PDF: the HTML as Chromium prints it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from raykd.scenario.errors import RaykdError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
TIMEOUT_S = 180


def find_browser() -> str:
    """The command of Chromium or Chrome; "" where there is none."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), "")


def write_pdf(html: str, file: Path) -> None:
    """Print a page.

    Raises:
        RaykdError: there is no Chromium, or it fails.
    """
    browser = find_browser()
    if not browser:
        raise RaykdError(
            "a PDF is printed by Chromium, and none is installed: install it (Debian: apt-get install chromium) or take "
            "--format html, which any browser prints"
        )
    with tempfile.TemporaryDirectory() as folder:
        page, printed = Path(folder) / "report.html", Path(folder) / "report.pdf"
        page.write_text(html, encoding="utf-8")
        command = [browser, "--headless", "--disable-gpu", "--no-pdf-header-footer", f"--user-data-dir={folder}/profile"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append("--no-sandbox")  # Chromium's sandbox refuses to start for root; the page is ours and loads nothing
        try:
            done = subprocess.run(
                [*command, f"--print-to-pdf={printed}", page.as_uri()],
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RaykdError(
                f"{browser} did not print the report within {TIMEOUT_S} s; take --format html and print that"
            ) from None
        if not printed.is_file():
            reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
            raise RaykdError(f"{browser} did not print the report ({reason}); take --format html and print that")
        shutil.copyfile(printed, file)
