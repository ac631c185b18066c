"""CVs for the extraction benchmark: invented people in invented jobs, each laid out in several ways."""

import html
import random
from dataclasses import dataclass

SEED = 20261128
PAGE = (595, 842)  # points; A4

# Name, email and phone; domains and numbers are those reserved for examples where a country has some.
PEOPLE = [
    ("Ada Lovelace", "ada.lovelace@example.com", "+44 20 7946 0018", "London"),
    ("José Álvarez Núñez", "jose.alvarez+cv@example.org", "+34 912 345 678", "Málaga"),
    ("François Lefèvre", "f.lefevre@example.net", "+33 1 99 00 12 34", "Orléans"),
    ("Jürgen Großmann", "juergen.grossmann@example.de", "+49 30 23125 012", "Köln"),
    ("Søren Åkesson", "soren_akesson@example.com", "+45 32 12 34 56", "København"),
    ("Łukasz Wiśniewski", "lwisniewski@example.pl", "+48 22 123 45 67", "Łódź"),
    ("Иван Петров", "ivan.petrov@example.ru", "+7 495 123-45-67", "Москва"),
    ("Олена Шевченко", "olena77@example.com.ua", "+380 44 234 5678", "Київ"),
    ("Νίκος Παπαδόπουλος", "nikos.p@example.gr", "+30 21 0123 4567", "Αθήνα"),
    ("Mary-Jane O'Neill", "mj.oneill@example.ie", "+353 1 234 5678", "Galway"),
    ("Maria de la Cruz", "maria.delacruz@example.ph", "+63 2 8123 4567", "Manila"),
    ("Ludwig van Beethoven", "offiziell.fidelio@example.at", "+43 1 234567890", "Wien"),
    ("Efua Affiliate-Offei", "efua.affiliate.offei@example.com", "+1 212 555 0134", "New York, NY"),
    ("Jan Novák", "dark.wizard99@example.cz", "+420 224 123 456", "Brno"),
]
REFEREES = [
    ("Dr Robert Hopper", "robert.hopper@university.example", "+1 415 555 0132"),
    ("Grace Johnson", "grace.johnson@gmail.com", "+44 113 496 0123"),
]
LAYOUTS = ["block", "sidebar", "table", "header", "footer", "box", "split", "link", "right"]


@dataclass(frozen=True)
class CV:
    """One CV: what is to be found in it, and how it is laid out."""

    name: str
    email: str
    phone: str
    city: str
    layout: str
    referee: tuple[str, str, str] | None

    @property
    def contact(self) -> list[tuple[str, str]]:
        """Return the labels and values of the contact details."""
        return [("Email", self.email), ("Phone", self.phone), ("Address", self.city)]

    @property
    def body(self) -> list[tuple[str, list[str]]]:
        """Return the headings and lines of the rest."""
        found = [
            ("Profile", ["Engineer with ten years of practice in distributed systems and teaching."]),
            ("Experience", [
                "2019 - 2026  Analytical Engines Ltd, Baker Street 12",
                "Questions to info@engines.example or +44 161 496 0345",
                "Built services in Python, Go and PostgreSQL; reported to Charles Babbage.",
                "2014 - 2019  Difference Works GmbH, Hamburg",
                "Moved a monolith to Docker and Kubernetes.",
            ]),
            ("Education", ["2010 - 2014  Technical University, Computer Science"]),
            ("Skills", ["Python, Go, PostgreSQL, Redis, Docker"]),
        ]  # fmt: skip
        return [*found, ("References", list(self.referee))] if self.referee else found


def draw(writer: str, layouts: list[str], count: int) -> list[CV]:
    """Return a writer's CVs: each layout in turn, people and referees by a fixed seed."""
    chance = random.Random(f"{SEED} {writer}")  # noqa: S311
    people = chance.sample(PEOPLE, count)
    layouts = chance.sample(layouts, len(layouts))
    return [
        CV(*person, layouts[index % len(layouts)], chance.choice([None, *REFEREES]))
        for index, person in enumerate(people)
    ]


def page(cv: CV, margin_boxes: bool = False) -> str:
    """Return a CV as HTML; `margin_boxes` for a writer that knows the page's margins."""
    e = html.escape
    details = "".join(f"<div>{e(value)}</div>" for _, value in cv.contact)
    rows = "".join(f"<tr><td>{label}</td><td>{e(value)}</td></tr>" for label, value in cv.contact)
    sections = "".join(
        f"<h2>{heading}</h2>" + "".join(f"<p>{e(line)}</p>" for line in lines) for heading, lines in cv.body
    )
    one_line = " &middot; ".join(e(value) for _, value in cv.contact)
    head = f"<h1>{e(cv.name)}</h1>"
    match cv.layout:
        case "sidebar":
            side = f"<div class=side><h2>Contact</h2>{details}</div>"
            body = f"{side}<div class=main>{head}{sections}</div>"
        case "right":
            body = f"<div class=main>{head}{sections}</div><div class=side><h2>Contact</h2>{details}</div>"
        case "table":
            body = f"{head}<table>{rows}</table>{sections}"
        case "header":
            body = f"<header class=top>{e(cv.name)} &middot; {one_line}</header>{sections}"
        case "footer":
            body = f"{head}{sections}<footer class=bottom>{one_line}</footer>"
        case "box":
            body = f"{head}{sections}<div class=box>{details}</div>"
        case "split":
            first, _, rest = cv.name.upper().partition(" ")
            body = f"<h1 class=large><div>{e(first)}</div><div>{e(rest)}</div></h1>{details}{sections}"
        case "link":
            link = f'<a href="mailto:{e(cv.email)}">Email</a>'
            body = f"{head}<p>{link} | {e(cv.phone)} | {e(cv.city)}</p>{sections}"
        case _:
            body = f"{head}<p>{one_line}</p>{sections}"
    style = """body { font-family: "DejaVu Sans", sans-serif; font-size: 11px }
      .side { float: left; width: 30% }
      .main { float: left; width: 65% } .box { position: absolute; top: 0; right: 0; width: 130px;
      overflow-wrap: anywhere } .large { letter-spacing: 6px }"""
    if margin_boxes:
        style += """ .top { position: running(top) } .bottom { position: running(bottom) }
          @page { @top-center { content: element(top) } @bottom-center { content: element(bottom) } }"""
    else:
        style += " .bottom { position: fixed; bottom: 0 }"
    return f"<!DOCTYPE html><meta charset=utf-8><title>CV</title><style>{style}</style><body>{body}</body>"


@dataclass(frozen=True)
class Placed:
    """A line of text at a place on the page, in points from the top left."""

    x: float
    y: float
    size: float
    text: str


def placed(cv: CV) -> list[Placed]:
    """Return a CV's lines in the order in which a program with coordinates draws them."""
    left = {"sidebar": 220, "right": 40}.get(cv.layout, 40)
    head = [Placed(left, 60, 24, cv.name)]
    if cv.layout == "split":
        first, _, rest = cv.name.upper().partition(" ")
        head = [Placed(left, 60, 28, first), Placed(left, 92, 28, rest)]
    values = [value for _, value in cv.contact]
    match cv.layout:
        case "sidebar" | "right":
            x = 40 if cv.layout == "sidebar" else 400
            side = [Placed(x, 60, 14, "CONTACT")]
            side += [Placed(x, 84 + 16 * n, 9, value) for n, value in enumerate(values)]
        case "table":
            side = [
                item
                for n, (label, value) in enumerate(cv.contact)
                for item in (Placed(40, 90 + 16 * n, 10, label), Placed(120, 90 + 16 * n, 10, value))
            ]
        case "header" | "footer":
            side = [Placed(40, 24 if cv.layout == "header" else 820, 9, " | ".join(values))]
        case "box":
            side = [Placed(420, 30 + 12 * n, 8, value) for n, value in enumerate(values)]
        case _:
            side = [Placed(left, 112 + 14 * n, 10, value) for n, value in enumerate(values)]
    body, y = [], 180.0
    for heading, lines in cv.body:
        body.append(Placed(left, y, 13, heading.upper()))
        for line in lines:
            y += 15
            body.append(Placed(left, y, 9, line))
        y += 28
    # Boxes and footers are drawn last, as most layout programs do; a sidebar's before the text.
    if cv.layout in ("sidebar", "header"):
        return [*side, *head, *body]
    return [*head, *body, *side] if cv.layout in ("box", "footer", "right") else [*head, *side, *body]
