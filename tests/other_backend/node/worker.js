// Processes the uploaded CVs, one after the other.
'use strict'
const fs = require('node:fs')
const path = require('node:path')
const store = require('./store')

const EMAIL = /[\w.+-]+@[\w-]+\.[\w.]+/

async function advance(client, batchId, cvId, fields, ended) {
  const batch = await store.read(client, batchId)
  const cv = batch.cvs.find((one) => one.cv_id === cvId)
  Object.assign(cv, fields)
  if (ended) batch.done += 1
  await store.change(client, batch, [store.cvEvent(cv), ...(ended ? [store.batchEvent(batch)] : [])])
}

async function main() {
  const client = store.connect()
  await client.connect()
  console.log('The worker is ready.')
  for (;;) {
    const job = await client.blPop('jobs', 5)
    if (job === null) continue
    const [batchId, cvId] = JSON.parse(job.element)
    await advance(client, batchId, cvId, { status: 'extracting', progress: 20 }, false)
    const file = path.join(process.env.APP_UPLOAD_DIR, cvId)
    const text = fs.readFileSync(file, 'utf8')
    const result = { name: text.split('\n')[0].trim() || null, email: (text.match(EMAIL) || [null])[0] }
    await advance(client, batchId, cvId, { status: 'done', progress: 100, result }, true)
    fs.unlinkSync(file)
  }
}

process.on('SIGTERM', () => process.exit(0))
main().catch((error) => {
  console.error(error)
  process.exit(1)
})
