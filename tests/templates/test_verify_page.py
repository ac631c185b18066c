"""The report page of verify: one file, every value of verify.json in it, all of them escaped."""

import pytest

SCRIPT = "<script>alert(1)</script>"


def record(**more):
    """Return a verify.json as module site_report writes it, with one line."""
    line = {"layer": "edge", "name": "Rocket Loader off", "verdict": "ok", "detail": "unchanged"}
    return {
        "site": "https://www.example.com", "host": "origin", "time": "2026-11-28T02:00:00+00:00", "ok": True,
        "summary": "1 of 1 lines are ok.", "lines": [line], "evidence": {"server": {}}, **more,
    }  # fmt: skip


@pytest.mark.parametrize(("ok", "verdict"), [(True, "verified"), (False, "not verified")])
def test_the_page_shows_verdict_and_lines_and_needs_no_other_file(render, ok, verdict):
    page = render("site_check", "verify.html.j2", __site_check_record=record(ok=ok))
    assert f"<h1>https://www.example.com: {verdict}</h1>" in page
    assert '<td>edge<td>Rocket Loader off<td class="ok">ok\n<td>unchanged' in page
    assert "src=" not in page
    assert "href=" not in page


@pytest.mark.parametrize("field", ["site", "host", "summary", "lines", "evidence"])
def test_every_value_is_escaped(render, field):
    line = record()["lines"][0] | {"detail": SCRIPT, "name": SCRIPT, "layer": SCRIPT}
    value = {"lines": [line], "evidence": {"server": {"nginx_log": SCRIPT}}}.get(field, SCRIPT)
    page = render("site_check", "verify.html.j2", __site_check_record=record(**{field: value}))
    assert SCRIPT not in page
    assert "&lt;script&gt;alert(1)" in page
