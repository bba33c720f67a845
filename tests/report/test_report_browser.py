"""The report in a real browser: headless Chromium of the system, driven by Playwright."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raykd.report.pdf import find_browser, write_pdf

playwright = pytest.importorskip("playwright.sync_api", reason="THE REPORT IS NOT TESTED IN A BROWSER: pip install playwright")
BROWSER = find_browser()
pytestmark = pytest.mark.skipif(not BROWSER, reason="THE REPORT IS NOT TESTED IN A BROWSER: apt-get install chromium")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def file(html: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("browser") / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = driver.chromium.launch(executable_path=BROWSER, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def open_report(browser: Any, file: Path) -> Iterator[Callable[..., Any]]:
    """A page with the report; whatever its console complains of fails the test."""
    complaints: list[str] = []
    pages = []

    def open_(viewport: dict[str, int] = DESKTOP, **options: Any) -> Any:
        page = browser.new_page(viewport=viewport, **options)
        page.set_default_timeout(20_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
        page.goto(file.as_uri())
        pages.append(page)
        return page

    yield open_
    for page in pages:
        page.close()
    assert complaints == []


def rows_of(page: Any, caption: str) -> list[str]:
    """The first words of the rows of a table that are seen."""
    rows = page.get_by_role("region", name=caption, exact=True).locator("tbody tr:visible th")
    return list(rows.all_inner_texts())


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_its_window_and_is_read_with_ease(open_report: Callable[..., Any], viewport: dict[str, int], scheme: str) -> None:
    page = open_report(viewport, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    ratios = page.evaluate(
        """() => {
          const probe = document.body.appendChild(document.createElement("p"));
          const light = (name) => {
            probe.style.color = `var(--${name})`;
            const [r, g, b] = getComputedStyle(probe).color.match(/[\\d.]+/g).map((c) => c / 255)
              .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
          return ["ink", "soft", "accent"].flatMap((ink) => ["paper", "raised"].map((paper) => ratio(ink, paper)));
        }"""
    )
    assert min(ratios) >= 4.5  # WCAG 2.2, contrast (minimum), level AA


def test_a_filter_hides_rows_marks_and_pictures_and_says_so(open_report: Callable[..., Any]) -> None:
    page = open_report()
    caption = "Methods, their quality and their cost"
    assert rows_of(page, caption) == ["dual_kd", "fedprox", "fedavg", "local"]
    marks, slices = page.locator("#time g[data-method=local]"), page.locator("#slices figure[data-site=rural]")
    assert marks.first.is_visible() and slices.is_visible()
    page.get_by_text("Filter").click()
    for facet, value in (("method", "local"), ("site", "rural"), ("structure", "tibial cartilage")):
        page.get_by_role("group", name=facet, exact=True).get_by_label(value, exact=True).uncheck()
    assert rows_of(page, caption) == ["dual_kd", "fedprox", "fedavg"]
    assert not marks.first.is_visible() and not slices.is_visible()
    assert page.locator("#filtered").inner_text() == "3 of 4 methods shown, 3 of 4 sites shown, 2 of 3 structures shown"
    page.get_by_text("The numbers: mean ± standard deviation over scans").click()
    assert len(rows_of(page, "Every site, structure and method")) == 3 * 3 * 2
    assert "rural" in page.locator("#answer").inner_text()  # the answer stays what it is
    page.get_by_role("button", name="Show everything").click()
    playwright.expect(page.locator("#filtered")).to_have_text("")
    assert len(rows_of(page, "Every site, structure and method")) == 4 * 4 * 3 and slices.is_visible()


def test_a_heading_sorts_by_number_with_mouse_or_keyboard(open_report: Callable[..., Any]) -> None:
    page = open_report()
    caption = "Methods, their quality and their cost"
    heading = page.get_by_role("region", name=caption, exact=True).get_by_role("button", name="Time of the rounds")
    heading.click()
    assert rows_of(page, caption) == ["dual_kd", "fedprox", "fedavg", "local"]  # 410, 290, 260, 210 s
    heading.press("Enter")
    assert rows_of(page, caption) == ["local", "fedavg", "fedprox", "dual_kd"]
    assert heading.locator("xpath=..").get_attribute("aria-sort") == "ascending"


def test_slices_scroll_with_keys_wheel_and_slider(open_report: Callable[..., Any]) -> None:
    page = open_report()
    viewer = page.locator("#slices .viewer").nth(0)
    slider, said, stage = viewer.get_by_role("slider"), viewer.locator("output"), viewer.locator(".stage")
    seen = viewer.locator(".slice:not(.off)")
    stage.scroll_into_view_if_needed()

    def at() -> tuple[str, str | None, int]:
        return said.inner_text(), seen.get_attribute("data-at"), seen.count()

    assert at() == ("1 of 2", "0", 1)
    stage.click()  # leads the keys to the slider
    page.keyboard.press("ArrowRight")
    assert at() == ("2 of 2", "1", 1)
    assert slider.get_attribute("aria-valuetext") == "2 of 2, at 41, 51 mm"
    page.keyboard.press("Home")
    assert at() == ("1 of 2", "0", 1)
    stage.hover()
    page.mouse.wheel(0, 120)
    playwright.expect(page.locator("#slices .viewer output").first).to_have_text("2 of 2")
    slider.fill("0")
    assert at() == ("1 of 2", "0", 1)


def test_outlines_are_switched_and_of_the_chosen_method(open_report: Callable[..., Any]) -> None:
    page = open_report()
    viewer = page.locator("#slices .viewer").nth(0)
    reference, teacher = (viewer.locator(f".slice:not(.off) .outline.{layer}.l0") for layer in ("reference", "teacher"))
    assert reference.is_visible() and not teacher.is_visible()
    page.locator("#show-reference").uncheck()
    page.locator("#show-teacher").check()
    assert not reference.is_visible() and teacher.is_visible()
    students = viewer.locator(".slice:not(.off) .student.l0:not(.other)")
    assert students.count() == 1 and students.get_attribute("data-label") == "dual_kd"
    page.locator("#outlined").select_option("local")
    assert students.get_attribute("data-label") == viewer.locator(".whose").inner_text() == "local"


def test_a_structure_is_switched_off_in_every_layer(open_report: Callable[..., Any]) -> None:
    page = open_report()
    marks = page.locator("#slices .viewer .slice:not(.off) [data-structure='tibial cartilage']:visible")
    others = page.locator("#slices .viewer .slice:not(.off) [data-structure='femoral cartilage']:visible")
    before = others.count()
    assert marks.count() > 0
    page.locator("#structures").get_by_label("tibial cartilage").uncheck()
    assert marks.count() == 0 and others.count() == before


def test_two_models_stand_side_by_side_and_scroll_together(open_report: Callable[..., Any]) -> None:
    page = open_report()
    viewer = page.locator("#slices .viewer").nth(0)
    page.locator("#beside").select_option("local")
    assert viewer.locator(".whose").all_inner_texts() == ["dual_kd", "local"]
    drawn = viewer.locator(".slice:not(.off) .student.l0:not(.other)")
    assert [drawn.nth(at).get_attribute("data-label") for at in (0, 1)] == ["dual_kd", "local"]
    viewer.get_by_role("slider").fill("1")
    shown = viewer.locator(".slice:not(.off)")
    assert [shown.nth(at).get_attribute("data-at") for at in range(shown.count())] == ["1", "1"]
    page.locator("#beside").select_option("nothing")
    assert viewer.locator(".whose").count() == 1


def test_pixels_are_shown_in_millimetres(open_report: Callable[..., Any]) -> None:
    """The rural site: 22 columns of 4.5 mm and 73 rows of 1.5 mm, 99 by 109.5 mm."""
    box = open_report().locator(
        "#slices figure[data-site=rural] .slice:not(.off) image, #slices figure[data-site=rural] .slice:not(.off) use"
    )
    size = box.first.bounding_box()
    assert size["width"] / size["height"] == pytest.approx(99 / 109.5, rel=0.01)


def test_everything_is_reached_with_the_tab_key(open_report: Callable[..., Any]) -> None:
    page = open_report()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the answer"

    def reached(num: int) -> set[str]:
        name = "(e => e.id || e.dataset.places && 'slice' || e.textContent.trim())(document.activeElement)"
        return {page.keyboard.press("Tab") or page.evaluate(name) for _ in range(num)}

    assert {"What travelled", "Filter", "DSC, mean over sites"} <= reached(40)
    page.locator("#travelled summary").last.focus()
    assert "metric-1" in reached(2)
    page.locator("#failures summary").focus()
    assert {"show-reference", "show-teacher", "outlined", "beside", "slice"} <= reached(10)
    unnamed = page.evaluate("[...document.querySelectorAll('input, select')].filter((e) => !e.labels.length).length")
    assert unnamed == 0


def test_the_numbers_of_a_figure_are_saved_as_csv(open_report: Callable[..., Any]) -> None:
    page = open_report()
    with page.expect_download() as download:
        page.locator("#travelled .csv").first.click()
    assert download.value.suggested_filename == "travelled-received-by-a-site.csv"
    lines = Path(download.value.path()).read_text(encoding="utf-8-sig").splitlines()
    assert lines[0] == "method,kind,num_bytes" and "fedavg,params,2.80963e+07" in lines  # 20 x 1 404 816 bytes


def test_it_prints_without_what_only_a_screen_has(open_report: Callable[..., Any]) -> None:
    page = open_report()
    page.emulate_media(media="print")
    assert not page.locator("#filter").is_visible() and not page.locator(".csv").first.is_visible()
    assert page.locator(".chosen").nth(2).is_visible()  # all three metrics
    assert page.locator("#slices .slice:not(.off)").first.is_visible()


def test_pdf_is_what_chromium_prints(html: str, tmp_path: Path) -> None:
    write_pdf(html, tmp_path / "r.pdf")
    printed = (tmp_path / "r.pdf").read_bytes()
    assert printed.startswith(b"%PDF-") and len(printed) > 50_000
