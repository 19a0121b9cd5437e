"""The page in a real browser, inside Airflow's interface and below a path prefix. SCREENSHOTS=folder keeps pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.plugins.conftest import Server
from tests.support.browser import browsing, chromium, picture
from tests.support.real_airflow import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

_NOISE = re.compile(r"status of 40[134]|sandbox")
"""What the browser reports although it was provoked, or about Airflow's own frame."""


@pytest.fixture
def page(server: Server) -> Iterator[Any]:
    """The page alone, all of its DAGs, with the table of streams."""
    chromium()
    with browsing(server.url, server.token()) as opened:
        opened.goto(f"{server.url}/data-platform/#tab=streams")
        opened.wait_for_selector("tr[data-key]")
        yield opened
        assert not [fault for fault in opened.faults if not _NOISE.search(fault)]
        assert not opened.evaluate("window.pwned"), "text became markup"


def names(page: Any) -> list[str]:
    return [str(text) for text in page.locator("tbody tr[data-key] td:first-child .name").all_inner_texts()]


def test_what_is_wrong_is_seen_at_once_since_when_whose_and_what_to_do(page: Any) -> None:
    page.goto(page.url.split("#")[0])
    page.reload()
    page.get_by_role("tab", name="Problems", selected=True).wait_for()
    rows = page.locator("tr[data-key]")
    expect(rows).to_have_count(4)
    first, second = rows.nth(0).inner_text(), rows.nth(1).inner_text()
    assert "failed stream\nstream_3" in first
    assert "row 57 <img src=x" in first
    assert "The raw table is as before" in first
    assert "data-platform" in first
    assert "model_11, model_13, model_16" in first, "what it holds up"
    assert "failed test\nmodel_5" in second
    assert "12 h" in second, "it failed in the run before as well"
    picture(page, "problems")
    page.get_by_role("button", name="warnings 2").click()
    expect(rows).to_have_count(2)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.locator("#drawer").get_by_text("2 of").wait_for()


def test_problems_stand_first_and_can_be_filtered_sorted_and_searched(page: Any) -> None:
    assert names(page)[:2] == ["stream_3", "stream_2"], "failed, then rejected"
    picture(page, "streams")
    page.get_by_role("button", name="failed 1").click()
    assert names(page) == ["stream_3"]
    page.get_by_role("button", name="all", exact=True).click()
    page.get_by_role("button", name="Rows", exact=True).click()
    rows = [int(text.replace(",", "")) for text in page.locator("tbody td:nth-child(4)").all_inner_texts()]
    assert rows == sorted(rows, reverse=True)
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("Rows")
    page.get_by_label("Search").fill("stream_4")
    expect(page.locator("tr[data-key]")).to_have_count(1)
    assert names(page) == ["stream_4"]
    page.get_by_label("Search").fill("nothing like it")
    page.get_by_text("No match").wait_for()
    assert "nothing+like+it" in page.url, "a link shows the same to somebody else"


def test_it_can_be_used_from_the_keyboard_alone(page: Any) -> None:
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert page.evaluate("document.activeElement.dataset.key") == "raw.stream_3"
    page.keyboard.press("Enter")
    page.locator("#drawer h2").get_by_text("stream_3").wait_for()
    page.locator("#drawer tbody tr").nth(18).wait_for()
    picture(page, "drawer")
    page.keyboard.press("Escape")
    page.locator("#drawer").wait_for(state="hidden")
    assert page.evaluate("document.activeElement.dataset.key") == "raw.stream_3", "the focus goes back"
    page.keyboard.press("3")
    page.locator("[aria-selected=true]").get_by_text("Models").wait_for()
    page.keyboard.press("?")
    assert page.locator("dialog").is_visible()


def test_why_something_failed_is_told_as_text_and_never_as_markup(page: Any) -> None:
    page.locator("tr[data-key='raw.stream_3']").click()
    assert "row 57 <img src=x" in page.locator("#drawer .problem").inner_text()
    page.keyboard.press("Escape")
    page.keyboard.press("3")
    page.locator("tr[data-key='model.jdbt.model_5']").click()
    assert "not_null_model_5_id (7 rows)" in page.locator("#drawer").inner_text()
    assert page.locator("#drawer header .status").inner_text() == "failed test"
    picture(page, "failed_test")
    page.keyboard.press("Escape")
    page.locator("tr[data-key='model.jdbt.model_1']").click()
    assert "<img" in page.locator("#drawer").inner_text(), "the description of a model"
    page.goto(page.url.split("#")[0] + "#tab=lineage&open=exposure.jdbt.shop_overview_0")
    page.locator("#drawer h2").get_by_text("Shop overview").wait_for()
    assert page.locator("#drawer a[href^='javascript']").count() == 0


def test_the_lineage_is_a_graph_whose_nodes_open(page: Any) -> None:
    page.keyboard.press("6")
    page.locator(".graph .node").first.wait_for()
    picture(page, "lineage")
    assert page.locator(".graph .node.bad").count() >= 1, "the failed stream"
    page.locator(".graph .node[data-id='source.jdbt.shop.stream_3']").click()
    page.locator("#drawer h2").get_by_text("stream_3").wait_for()
    links = [str(text) for text in page.locator("#drawer .links > *").all_inner_texts()]
    assert links == ["Log of the failed task", "Run of the last load", "Docs", "Lineage"]
    docs = page.locator("#drawer").get_by_role("link", name="Docs").get_attribute("href")
    assert docs == "dbt-docs#!/source/source.jdbt.shop.stream_3"
    page.get_by_role("button", name="Lineage").click()
    page.get_by_role("button", name="Show all").wait_for()
    assert page.locator(".graph .node").count() < 30


@pytest.mark.parametrize("width", [1024, 1440])
def test_the_lineage_is_not_cut_off_where_there_is_little_room(server: Server, width: int) -> None:
    chromium()
    with browsing(server.url, server.token(), width=1440) as page:
        page.goto(f"{server.url}/data-platform/#tab=lineage")
        page.locator(".graph .node").first.wait_for()
        page.set_viewport_size({"width": width, "height": 900})
        fits = "graph => graph.scrollWidth <= graph.clientWidth"
        until(lambda: page.locator(".graph").evaluate(fits), 10, "the graph fits")
        picture(page, f"lineage_{width}")
        boxes = page.locator(".graph .node rect.box").evaluate_all(
            "all => all.map(box => box.getBoundingClientRect().width)"
        )
        assert min(boxes) >= 100
        assert not page.faults


def test_reconciliation_compares_source_and_raw(page: Any) -> None:
    page.keyboard.press("4")
    page.get_by_role("columnheader", name="Source rows").wait_for()
    picture(page, "reconciliation")
    assert page.locator("tr[data-key='raw.stream_2']").get_by_text("match").count() == 1


def test_completeness_shows_raw_tables_and_marts_with_what_is_unusual_first(serve: Any) -> None:
    chromium()
    with serve({"streams": 3, "models": 4, "counted": True}) as server, browsing(server.url, server.token()) as page:
        page.goto(f"{server.url}/data-platform/")
        page.get_by_text("marts.model_2 shrank: 50 rows, 500 are usual.").wait_for()
        page.keyboard.press("5")
        expect(page.locator("tr[data-key]")).to_have_count(7)
        picture(page, "completeness")
        assert set(names(page)[:2]) == {"raw.stream_1", "marts.model_2"}, "gone, and shrunk"
        assert "-90 %" in page.locator("tr[data-key='marts.model_2']").inner_text()
        page.get_by_role("button", name="marts 4").click()
        expect(page.locator("tr[data-key]")).to_have_count(4)
        page.locator("tr[data-key='marts.model_2']").click()
        page.locator("#drawer h2").get_by_text("model_2").wait_for()
        assert "shrank: 50 rows" in page.locator("#drawer .problem").inner_text()
        assert not page.faults


def test_it_stands_in_airflows_navigation_and_links_lead_into_airflow(server: Server) -> None:
    chromium()
    with browsing(server.url, server.token()) as page:
        page.goto(f"{server.url}/")
        page.get_by_label("Data platform").get_by_text("1 failed").first.wait_for()
        assert "Problems\n4" in page.get_by_label("Data platform").first.inner_text()
        picture(page, "dashboard")
        page.get_by_role("link", name="Data", exact=True).click()
        frame = page.frame_locator("iframe")
        frame.locator("tr[data-opens='raw.stream_3']").first.click()
        picture(page, "navigation")
        frame.get_by_role("link", name="Log of the failed task").click()
        page.wait_for_url(re.compile(r"/team/airflow/dags/dag_1/runs/.*/tasks/shop\.stream_3\.extract"))


def test_dbt_docs_open_without_any_access_to_the_session(server: Server) -> None:
    chromium()
    with browsing(server.url, server.token()) as page:
        page.goto(f"{server.url}/data-platform/")
        page.get_by_role("link", name="dbt docs").click()
        page.get_by_text("auto-generated documentation").first.wait_for()
        picture(page, "dbt_docs")
        assert page.evaluate("(() => { try { return document.cookie } catch { return 'none' } })()") == "none"


def test_it_follows_airflows_dark_mode(server: Server) -> None:
    chromium()
    with browsing(server.url, server.token(), dark=True) as page:
        page.goto(f"{server.url}/plugin/data-platform")
        frame = page.frame_locator("iframe")
        frame.locator("tr[data-key]").first.wait_for()
        picture(page, "dark")
        background = frame.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
        assert frame.locator("html").evaluate("html => html.classList.contains('dark')")
        assert background != "rgb(255, 255, 255)"


def test_a_login_that_ended_and_a_server_that_is_gone_are_told(page: Any) -> None:
    page.route("**/api/state*", lambda route: route.abort())
    page.get_by_role("button", name="Refresh").click()
    page.get_by_text("The API server cannot be reached. What is shown was read").wait_for()
    assert len(names(page)) == 6, "what was read before stays"
    page.unroute("**/api/state*")
    page.context.clear_cookies()
    page.get_by_role("button", name="Refresh").click()
    page.get_by_text("Your login has ended").wait_for()
    picture(page, "login_ended")
    page.faults.clear()


def test_nothing_yet_is_told_as_such(server: Server) -> None:
    chromium()
    with browsing(server.url, server.token()) as page:
        page.goto(f"{server.url}/data-platform/?dag_id=no_such_dag")
        page.get_by_text("No streams yet").wait_for()
        picture(page, "empty")
        page.keyboard.press("6")
        page.get_by_text("No lineage yet").wait_for()


def test_a_thousand_streams_and_two_thousand_models_stay_usable(serve: Any) -> None:
    chromium()
    with serve({"dags": 2, "streams": 1000, "models": 2000}) as large, browsing(large.url, large.token()) as page:
        page.goto(f"{large.url}/data-platform/#tab=streams")
        page.locator("tr[data-key]").nth(100).wait_for(timeout=60_000)
        picture(page, "large")
        page.get_by_label("Search").fill("stream_999")
        expect(page.locator("tr[data-key]")).to_have_count(1)
        page.keyboard.press("Escape")
        page.keyboard.press("3")
        page.locator("tr[data-key]").nth(100).wait_for()
        assert page.locator("tr[data-key]").count() < 1000, "rows are drawn as they come into view"
        page.keyboard.press("6")
        page.locator(".graph .node").first.wait_for()
        assert page.locator(".graph .node").count() <= 200, "a large graph starts around one node"
        picture(page, "large_lineage")
        assert not page.faults
