"""Words of CVs in the candidates' languages, by what they mean for the line that they are on."""

import re


def _any(text: str) -> str:
    """Return an expression for any of the comma-separated phrases; a space matches any white space."""
    phrases = sorted((" ".join(phrase.split()) for phrase in text.split(",") if phrase.strip()), key=len)
    return "(?:" + "|".join(re.escape(phrase).replace(r"\ ", r"\s+") for phrase in reversed(phrases)) + ")"


NAME_LABEL = _any("""
    name, full name, vor- und nachname, nom, nom et prénom, nombre, nombre y apellidos, nome, nome
    completo, naam, navn, namn, imię i nazwisko, фио, имя, ім'я, піб, όνομα, ονοματεπώνυμο
""")
TITLE = _any("""
    curriculum vitae, curriculum vitæ, résumé, resume, cv, lebenslauf, резюме, βιογραφικό, βιογραφικό
    σημείωμα, życiorys, currículum, currículo, europass
""")
# Whole words of headings, occupations and companies: a line with one of them is not a name.
NOT_A_NAME = _any("""
    curriculum, vitae, resume, résumé, lebenslauf, cv, profile, profil, summary, contact, kontakt,
    experience, education, skills, engineer, developer, manager, designer, scientist, analyst,
    consultant, owner, architect, administrator, specialist, director, officer, assistant, teacher,
    nurse, student, lead, leader, senior, junior, head, chief, intern, trainee, freelance, address,
    page, reference, references, referee, referees, confidential, university, universität, université,
    universidad, inc, ltd, llc, gmbh, company, corporation, street, road, avenue, personal, information,
    details, data, daten, about, email, e-mail, phone, telephone, mobile, dear, template, work, history,
    employment, machine, learning, software, entwickler, softwareentwickler, entwicklerin, ingenieur,
    ingeniero, ingeniera, ingénieur, ingénieure, développeur, développeuse, desarrollador,
    desarrolladora, programador, programadora, programista, inżynier, utvecklare, ontwikkelaar,
    sviluppatore, разработчик, инженер, программист, менеджер, резюме, розробник, розробниця, інженер,
    προγραμματιστής, προγραμματίστρια, μηχανικός
""")
# Whole lines that begin a section.
SECTIONS = {
    "contact": _any("""
        contact, contacts, contact me, contact details, contact info, contact information, personal
        details, personal information, personal data, personal info, kontakt, kontaktdaten, persönliche
        daten, persönliche angaben, coordonnées, contacto, datos personales, datos de contacto,
        contatti, contato, contatos, contactgegevens, dane osobowe, dane kontaktowe, контакты, контакти,
        контактная информация, στοιχεία επικοινωνίας, επικοινωνία
    """),
    "references": _any("""
        reference, references, referee, referees, professional references, referenzen, références,
        referencias, referenze, referências, referenties, referencje, referenser, рекомендации,
        рекомендації, συστάσεις
    """),
    "other": _any("""
        experience, work experience, professional experience, relevant experience, work history,
        employment, employment history, career history, professional background, projects, selected
        projects, education, education and training, skills, technical skills, key skills, core skills,
        language, languages, profile, summary, professional summary, about, about me, objective,
        interests, hobbies, certifications, certificates, publications, awards, qualifications,
        berufserfahrung, beruflicher werdegang, ausbildung, kenntnisse, fähigkeiten, sprachen,
        expérience, expériences, expérience professionnelle, expériences professionnelles, formation,
        compétences, langues, experiencia, experiencia laboral, experiencia profesional, educación,
        formación, habilidades, idiomas, esperienza, esperienze, esperienza lavorativa, esperienze
        professionali, istruzione, competenze, experiência, experiência profissional, educação,
        formação, competências, werkervaring, opleiding, opleidingen, vaardigheden, erfarenhet,
        utbildning, doświadczenie, doświadczenie zawodowe, wykształcenie, umiejętności, опыт, опыт
        работы, образование, навыки, досвід, досвід роботи, освіта, навички, εμπειρία, επαγγελματική
        εμπειρία, εκπαίδευση, σπουδές, δεξιότητες
    """),
}
# On the line of another person's address.
OTHER_PERSON = _any("""
    referee, referees, reference, references, supervisor, supervised by, line manager, report to,
    reports to, reported to, reporting to, recruiter, agency, employer, vorgesetzter, vorgesetzte,
    ansprechpartner, ansprechpartnerin, referenz
""")
CONTACT_LABEL = _any("""
    email, e-mail, mail, courriel, correo, correo electrónico, эл. почта, почта, tel, telephone, phone,
    mobile, cell, telefon, téléphone, teléfono, телефон, тел, τηλ, τηλέφωνο
""")
# The part before the @ of a department's address.
ROLES = _any("""
    info, contact, kontakt, office, hr, job, jobs, career, careers, recruiting, recruitment, hiring,
    sales, support, admin, hello, mail, team, press, bewerbung, personal, service, marketing, enquiries,
    reception, noreply, no-reply, privacy, webmaster
""")
# Providers of personal addresses, without their top-level domain.
FREE_MAIL = _any("""
    gmail, googlemail, outlook, hotmail, live, msn, yahoo, ymail, icloud, me, mac, aol, gmx, web,
    proton, protonmail, pm, mail, yandex, ukr, wp, o2, onet, interia, seznam, libero, orange, free,
    laposte, t-online, posteo, fastmail, hey, zoho, qq, 163, 126, naver
""")
