"""What else the server's nginx served before is served on."""


def test_the_other_site_answers_under_its_name(host):
    answer = host.run_expect([0], "curl -sS -H 'Host: shop.localhost' http://127.0.0.1/")
    assert answer.stdout == "the shop\n"
    assert "shop.localhost 200" in host.file("/var/log/nginx/shop.log").content_string
