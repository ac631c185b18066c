// Writes CVs with libraries of npm: reads [{writer, target, html, placed, cv}] from stdin, prints the missing ones.
"use strict"
const fs = require("node:fs")
const { createRequire } = require("node:module")
const path = require("node:path")
const from = createRequire(path.join(process.env.NODE_PATH ?? ".", "package.json"))
const FONT = process.argv[2]
const A4 = [595, 842]

const stored = (document, target) =>
  new Promise((done) => document.pipe(fs.createWriteStream(target)).on("finish", done))

const WRITERS = {
  async docx({ cv, target }) {
    const d = from("docx")
    const line = (text, options = {}) => new d.Paragraph({ text, ...options })
    const contact = cv.contact.map(([, value]) => value)
    const values = contact.map((value) => line(value))
    const cell = (children) => new d.TableCell({ children })
    const table = (rows) => new d.Table({ rows: rows.map((cells) => new d.TableRow({ children: cells.map(cell) })) })
    const body = cv.body.flatMap(([heading, lines]) => [
      line(heading, { heading: d.HeadingLevel.HEADING_2 }),
      ...lines.map((text) => line(text)),
    ])
    const name = line(cv.name, { heading: d.HeadingLevel.TITLE })
    const link = new d.Paragraph({
      children: [
        new d.ExternalHyperlink({ link: `mailto:${cv.email}`, children: [new d.TextRun("Email")] }),
        new d.TextRun(` | ${cv.phone} | ${cv.city}`),
      ],
    })
    const frame = line(contact.join(" | "), {
      frame: { type: "absolute", position: { x: 6000, y: 200 }, width: 4000, height: 900, anchor: { horizontal: "margin", vertical: "margin" } },
    })
    const layouts = {
      sidebar: [table([[[line("Contact"), ...values], [name, ...body]]])],
      right: [table([[[name, ...body], [line("Contact"), ...values]]])],
      table: [name, table(cv.contact.map(([label, value]) => [[line(label)], [line(value)]])), ...body],
      header: body,
      footer: [name, ...body],
      box: [name, ...body, frame],
      link: [name, link, ...body],
    }
    const margin = cv.layout === "header" ? [line(cv.name), ...values] : values
    const section = { children: layouts[cv.layout] ?? [name, ...values, ...body] }
    if (cv.layout === "header") section.headers = { first: new d.Header({ children: margin }) }
    if (cv.layout === "footer") section.footers = { default: new d.Footer({ children: margin }) }
    section.properties = { titlePage: cv.layout === "header" }
    fs.writeFileSync(target, await d.Packer.toBuffer(new d.Document({ sections: [section] })))
  },
  async "html-to-docx"({ html, target }) {
    fs.writeFileSync(target, Buffer.from(await from("html-to-docx")(html)))
  },
  async pdfkit({ placed, target }) {
    const document = new (from("pdfkit"))({ size: A4, margin: 0 })
    const end = stored(document, target)
    document.font(FONT)
    for (const { x, y, size, text } of placed) document.fontSize(size).text(text, x, y - size, { lineBreak: false })
    document.end()
    await end
  },
  async jspdf({ placed, target }) {
    const document = new (from("jspdf").jsPDF)({ unit: "pt", format: "a4" })
    document.addFileToVFS("font.ttf", fs.readFileSync(FONT).toString("base64"))
    document.addFont("font.ttf", "font", "normal", "Identity-H")
    document.setFont("font")
    for (const { x, y, size, text } of placed) document.setFontSize(size).text(text, x, y)
    fs.writeFileSync(target, Buffer.from(document.output("arraybuffer")))
  },
  async pdfmake({ cv, target }) {
    const pdfmake = from("pdfmake")
    pdfmake.setFonts({ font: { normal: FONT, bold: FONT } })
    const contact = cv.contact.map(([, value]) => value)
    const body = cv.body.flatMap(([heading, lines]) => [{ text: heading, fontSize: 14 }, ...lines])
    const name = { text: cv.name, fontSize: 24 }
    const layouts = {
      sidebar: [{ columns: [{ width: 150, stack: ["Contact", ...contact] }, { stack: [name, ...body] }] }],
      right: [{ columns: [{ width: 350, stack: [name, ...body] }, { stack: ["Contact", ...contact] }] }],
      table: [name, { table: { body: cv.contact } }, ...body],
      footer: [name, ...body],
      box: [name, ...body, { stack: contact, absolutePosition: { x: 420, y: 20 } }],
      header: body,
      link: [name, { text: "Email", link: `mailto:${cv.email}` }, cv.phone, ...body],
    }
    const definition = { content: layouts[cv.layout] ?? [name, ...contact, ...body], defaultStyle: { font: "font", fontSize: 9 } }
    if (cv.layout === "footer") definition.footer = contact.join(" | ")
    if (cv.layout === "header") definition.header = [cv.name, ...contact].join(" | ")
    await pdfmake.createPdf(definition).write(target)
  },
  async "@react-pdf/renderer"({ placed, target }) {
    const { createElement: h } = from("react")
    const r = from("@react-pdf/renderer")
    r.Font.register({ family: "font", src: FONT })
    const texts = placed.map(({ x, y, size, text }, key) =>
      h(r.Text, { key, style: { position: "absolute", left: x, top: y - size, fontSize: size } }, text),
    )
    await r.renderToFile(h(r.Document, {}, h(r.Page, { size: "A4", style: { fontFamily: "font" } }, texts)), target)
  },
  async "pdf-lib"({ placed, target }) {
    const document = await from("pdf-lib").PDFDocument.create()
    document.registerFontkit(from("@pdf-lib/fontkit"))
    const font = await document.embedFont(fs.readFileSync(FONT), { subset: true })
    const page = document.addPage(A4)
    for (const { x, y, size, text } of placed) page.drawText(text, { x, y: A4[1] - y, size, font })
    fs.writeFileSync(target, await document.save())
  },
}

async function main() {
  for (const job of JSON.parse(fs.readFileSync(0, "utf8"))) {
    try {
      await WRITERS[job.writer](job)
    } catch (error) {
      console.log(JSON.stringify({ writer: job.writer, error: String(error).split("\n")[0] }))
    }
  }
}

main()
