"""Other sites that the server's nginx already served are still served."""

GET = """
import urllib.request
request = urllib.request.Request("http://127.0.0.1/", headers={"Host": "shop.localhost"})
print(urllib.request.urlopen(request, timeout=5).read().decode(), end="")
"""


def test_the_other_site_answers_under_its_name(host):
    assert host.run_expect([0], f"python3 -c '{GET}'").stdout == "the shop\n"
    assert "shop.localhost 200" in host.file("/var/log/nginx/shop.log").content_string
