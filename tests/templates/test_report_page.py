"""The report of a verification as a page: its verdict, and nothing of the evidence as markup."""


def test_the_page_has_the_verdict_and_escapes_the_evidence(render):
    line = {
        "layer": "edge",
        "name": "Cloudflare WebSockets enabled",
        "verdict": "FAILED",
        "detail": "WebSockets are off in the zone.",
    }
    record = {
        "ok": False,
        "site": "https://www.example.com",
        "host": "origin",
        "time": "2026-11-28T01:00:00Z",
        "summary": "16 of 17 lines are ok.",
        "lines": [line],
        "evidence": {"nginx_log": ["<script>alert(1)</script>"]},
    }
    page = render("site_check", "verify.html.j2", __site_check_record=record)
    assert ": not verified</h1>" in page
    assert "WebSockets are off in the zone." in page
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
