"""Plain text in the encodings of editors, and files that a form names by `filename*` alone."""

from pathlib import Path

import pytest

from tests.app.documents import EMAIL, PHONE, found
from tests.kit.app import Site
from tests.kit.documents import finished

RUSSIAN = "Опыт работы: разработчик, Москва. Образование: МГУ."
ENCODED = [
    ("utf-8", "Zoë Müller", ""),
    ("utf-8-sig", "Иван Петров", ""),
    ("utf-16", "Иван Петров", ""),
    ("cp1252", "Zoë Müller", "Skills: Python"),
    ("cp1252", "Conor O’Neill", "Developer – Python"),
    ("iso8859-15", "José Álvarez", "Ingeniero de software en Málaga"),
    ("cp1251", "Иван Петров", RUSSIAN),
    ("cp1251", "Иван Петров", "Skills: Python, Redis and nothing else that is Russian"),
    ("cp1251", "Олена Шевченко", "Досвід роботи: розробниця, Київ."),
    ("koi8-r", "Иван Петров", RUSSIAN),
    ("koi8-r", "Иван Петров", "Skills: Python"),
    ("cp866", "Иван Петров", RUSSIAN),
    ("cp1250", "Łukasz Wiśniewski", "Doświadczenie: programista, Kraków."),
    ("cp1253", "Νίκος Παπαδόπουλος", "Εμπειρία: προγραμματιστής, Αθήνα."),
    ("cp1254", "Gökçe Yıldırım", "Deneyim: yazılım geliştirici, İstanbul."),
]


@pytest.mark.parametrize(("encoding", "name", "rest"), ENCODED)
def test_encoding(encoding: str, name: str, rest: str, tmp_path: Path) -> None:
    text = f"{name}\n{EMAIL} | {PHONE}\n{rest}\n"
    assert found("text", text.encode(encoding), tmp_path) == (name, EMAIL, PHONE)


@pytest.mark.parametrize("encoding", ["utf-8", "cp1251"])
def test_text_that_is_longer_than_what_is_read(encoding: str, tmp_path: Path) -> None:
    text = f"Иван Петров\n{EMAIL}\n{PHONE}\n" + f"{RUSSIAN}\n" * 20_000
    assert found("text", text.encode(encoding), tmp_path) == ("Иван Петров", EMAIL, PHONE)


@pytest.mark.parametrize(
    "data",
    [f"山田太郎\n{EMAIL}\n職務経歴".encode("shift_jis"), f"王小明\n{EMAIL}\n工作经验".encode("gb18030")],
)
def test_name_without_capitals_is_null(data: bytes, tmp_path: Path) -> None:
    assert found("text", data, tmp_path) == (None, EMAIL, None)


def test_uncertain_letters_leave_the_name_null(tmp_path: Path) -> None:
    """The bytes are as well those of Windows' encoding, with another letter."""
    data = f"Łukasz Wiśniewski\n{EMAIL}\nEngineer in London".encode("iso8859-2")
    assert found("text", data, tmp_path) == (None, EMAIL, None)


def test_bytes_of_no_encoding_do_not_become_a_name(tmp_path: Path) -> None:
    data = bytes(range(0x80, 0x100)) + b" Lovelace\n" + EMAIL.encode()
    assert found("text", data, tmp_path)[:2] == (None, EMAIL)


def test_upload_in_an_older_encoding(site: Site, user: str) -> None:
    """Also one with bytes that are not letters in Western Europe's."""
    data = f"Нина Рэй\n{EMAIL}\n{RUSSIAN}".encode("cp866")
    with site.http(user) as http:
        answer = http.post("/batches", files=[("files", ("cv.txt", data))])
    assert answer.status_code == 202, answer.text
    [cv] = finished(site, user, answer.json()["batch_id"])["cvs"]
    assert cv["result"]["name"] == "Нина Рэй"


@pytest.mark.parametrize(
    ("parameter", "filename"),
    [
        ("filename*=utf-8''R%C3%A9sum%C3%A9.txt", "Résumé.txt"),
        ("filename*=iso-8859-1'fr'R%E9sum%E9.txt", "Résumé.txt"),
        ("filename*=UTF-8''..%2F..%2Fcv.txt", "cv.txt"),
        ("filename=\"cv.txt\"; filename*=UTF-8''other.txt", "cv.txt"),
    ],
)
def test_extended_filename(site: Site, user: str, parameter: str, filename: str) -> None:
    body = f'--b\r\nContent-Disposition: form-data; name="files"; {parameter}\r\n\r\nAda\r\n--b--\r\n'
    with site.http(user) as http:
        answer = http.post(
            "/batches", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
        )
    assert answer.status_code == 202, answer.text
    batch = finished(site, user, answer.json()["batch_id"])
    assert [cv["filename"] for cv in batch["cvs"]] == [filename]
