"""A name, an email or a phone is the candidate's or null: never a referee's, an employer's or an agency's."""

import pytest

from app.contact import contact

PHONE = "+44 20 7946 0018"
ADA = ("Ada Lovelace", "ada@example.com", PHONE)


def found(text: str) -> tuple[str | None, str | None, str | None]:
    result = contact(text, "GB")
    return result["name"], result["email"], result["phone"]


@pytest.mark.parametrize(
    "text",
    [
        f"Curriculum Vitae\nAda Lovelace\nada@example.com | {PHONE}",
        f"Lebenslauf: Ada Lovelace\nada@example.com\n{PHONE}",
        f"ADA LOVELACE, PhD\nada@example.com {PHONE}",
        f"A D A   L O V E L A C E\nada@example.com\n{PHONE}",
        f"Name\nAda Lovelace\nPhone\n{PHONE}\nE-mail\nada@example.com",
        f"CONTACT\nNew York, NY\n{PHONE}\nada@example.com\nSKILLS\nPython\nAda Lovelace\nEXPERIENCE\nAnalyst",
        f"Senior Product Owner\nAda Lovelace\nada@example.comMobile\n{PHONE}",
        f"Ada Lovelace\nada@exam\nple.com\n{PHONE}",
        f"Ada Lovelace\nada@example\n.com\n{PHONE}",
        f"Ada Lovelace\nada@example.c\nom\n{PHONE}",
        f"Ada Lovelace\nada@example.co\nm\n{PHONE}",
        f"Ada Lovelace\nada@example.com\nm\n{PHONE}",
        f"JP\nParis\n\fAda Lovelace\nada@example.com {PHONE}",
        f"Ada Lovelace\nExperience\nAcme Corp, info@acme.com, +1 212 555 0134\n\fada@example.com {PHONE}",
        f"Ada Lovelace\nada@example.com {PHONE}\nReferences\nBob Hope bob.hope@x.com +1 212 555 0134",
    ],
)
def test_candidate(text: str) -> None:
    assert found(text) == ADA


@pytest.mark.parametrize(
    ("text", "name", "email"),
    [
        (
            "ADA\nLOVELACE\nMathematician\nada.lovelace@example.com",
            "Ada Lovelace",
            "ada.lovelace@example.com",
        ),
        ("Contact\nAtlanta\nAda Lovelace\nlovelace.a@example.com", "Ada Lovelace", "lovelace.a@example.com"),
        ("Contact\nAtlanta\nAda Lovelace\nalovelace@example.com", "Ada Lovelace", "alovelace@example.com"),
        ("A D A\nL O V E L A C E\nalovelace@example.com", "Ada Lovelace", "alovelace@example.com"),
        ("Ada Lovelace\nada.love\nlace@example.com", "Ada Lovelace", "ada.lovelace@example.com"),
        ("Jürgen Groß\nsales@acme.de\nj.gross@web.de", "Jürgen Groß", "j.gross@web.de"),
        ("Jörg Möller\nExperience\nA B\njoerg@moeller.de", "Jörg Möller", "joerg@moeller.de"),
        ("Ada Lovelace\nhello@lovelace.dev", "Ada Lovelace", "hello@lovelace.dev"),
        ("Ada Lovelace\nnick+cv@sub.example.org", "Ada Lovelace", "nick+cv@sub.example.org"),
        ("Juan de la Cruz\nx1@gmail.com", "Juan de la Cruz", "x1@gmail.com"),
    ],
)
def test_address_and_name_belong_together(text: str, name: str, email: str) -> None:
    assert found(text)[:2] == (name, email)


@pytest.mark.parametrize(
    "text",
    [
        "Ada Lovelace\nReferences\nBob Hope, bob@acme.com, +1 212 555 0134",
        "Ada Lovelace\nREFERENZEN:\nDr. Bob Hope\nbob.hope@gmail.com\n+1 212 555 0134",
        "Ada Lovelace\nRecruitment agency: office@agency.com, +1 212 555 0134",
        "Ada Lovelace\noffice@agency.com\n+1 212 555 0134",
        "Ada Lovelace\nExperience\nAcme Corp\njane.boss@acme.com\n+1 212 555 0134",
        "Ada Lovelace\nExperience\nAnalyst at Acme, reporting to Bob Hope (bob.hope@acme.com)",
        "Ada Lovelace\nпочта@пример.рф",
        "Ada Lovelace\nada.love-\nlace@example.com",
        "Ada Lovelace\nada lovelace@example.com",
        "Ada Lovelace\nmüada@example",
    ],
)
def test_another_persons_details_are_null(text: str) -> None:
    assert found(text) == ("Ada Lovelace", None, None)


@pytest.mark.parametrize(
    "text",
    [
        "ÁDA\nLOVELACE BYRON\nnick@qq.com",
        "New York, NY\nnick@qq.com",
        "王小明\nProduct Lead Europe\nxm@qq.com",
        "Work History\nSoftware Engineer\nxm@qq.com",
        "References\nBob Hope\nxm@qq.com",
    ],
)
def test_what_is_not_a_name_is_null(text: str) -> None:
    assert found(text)[0] is None


def test_footer_of_a_long_document_is_searched() -> None:
    assert found("Ada Lovelace\nExperience\n" + "word " * 40_000 + f"\n\f\nada@example.com\n{PHONE}") == ADA
