// The api of a backend that is not the reference one: HTTP and WebSockets as docs/contract.md has them.
'use strict'
const { randomUUID } = require('node:crypto')
const fs = require('node:fs')
const http = require('node:http')
const path = require('node:path')
const busboy = require('busboy')
const { WebSocketServer } = require('ws')
const session = require('./session')
const store = require('./store')

const BATCHES = '/api/v1/cv-processing/batches'
const SOCKETS = '/api/v1/cv-processing/ws/'
const UPLOAD_MAX = Number(process.env.APP_UPLOAD_MAX_BYTES)
const HEARTBEAT = Number(process.env.APP_HEARTBEAT_SECONDS) * 1000
const ORIGINS = process.env.APP_ALLOWED_ORIGINS.split(',')
const DEMO = process.env.APP_DEMO_SIGN_IN === 'true'
const FLOOD = 300 // messages of a client within ten seconds
const PAGE = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Another backend</title><h1>Another backend</h1></html>'

const redis = store.connect()
const subscriber = store.connect()
const rooms = new Map() // sockets by channel

function reply(response, status, body, headers = {}) {
  const text = body === undefined ? '' : JSON.stringify(body)
  response.writeHead(status, { 'Content-Type': 'application/json', 'Cache-Control': 'no-store', ...headers })
  response.end(text)
}

const refuse = (response, status, detail, more = {}) => reply(response, status, { detail, ...more })

function readBody(request) {
  return new Promise((resolve, reject) => {
    const chunks = []
    request.on('data', (chunk) => chunks.push(chunk))
    request.on('end', () => resolve(Buffer.concat(chunks).toString()))
    request.on('error', reject)
  })
}

function readFiles(request) {
  return new Promise((resolve, reject) => {
    const files = []
    const form = busboy({ headers: request.headers })
    form.on('file', (field, file, info) => {
      const chunks = []
      file.on('data', (chunk) => chunks.push(chunk))
      file.on('end', () => files.push({ field, name: info.filename, content: Buffer.concat(chunks) }))
    })
    form.on('close', () => resolve(files.filter((file) => file.field === 'files')))
    form.on('error', reject)
    request.pipe(form)
  })
}

async function upload(request, response, user) {
  if (Number(request.headers['content-length']) > UPLOAD_MAX) {
    return refuse(response, 413, `The upload is larger than ${UPLOAD_MAX} bytes.`, {})
  }
  const files = await readFiles(request)
  const wrong = files.filter((file) => !/\.txt$/i.test(file.name) || file.content.includes(0))
  if (files.length === 0) return refuse(response, 422, 'The form has no files; use the field files.')
  if (wrong.length > 0) {
    return refuse(response, 422, `These are not text files: ${wrong.map((file) => file.name).join(', ')}.`)
  }
  const batchId = randomUUID().replaceAll('-', '')
  const cvs = files.map((file) => ({
    cv_id: randomUUID().replaceAll('-', ''), batch_id: batchId, filename: file.name, size: file.content.length,
    status: 'queued', progress: 0, result: null, error: null,
  }))
  files.forEach((file, index) => {
    fs.writeFileSync(path.join(process.env.APP_UPLOAD_DIR, cvs[index].cv_id), file.content)
  })
  const batch = {
    batch_id: batchId, user_id: user, created_at: new Date().toISOString(), total: cvs.length, done: 0, failed: 0, cvs,
  }
  await store.create(redis, batch)
  return reply(response, 202, store.publicBatch(batch))
}

async function readSession(request, response) {
  const user = session.userOf(request)
  if (user) return reply(response, 200, { user_id: user, demo_sign_in: DEMO })
  return refuse(response, 401, 'You are not signed in.', { demo_sign_in: DEMO, sign_in_url: null })
}

async function signIn(request, response) {
  if (!DEMO) return refuse(response, 404, 'This site has no demo sign-in.')
  const { user_id: user } = JSON.parse(await readBody(request))
  return reply(response, 204, undefined, { 'Set-Cookie': session.issue(user, 3600) })
}

const signOut = (response) =>
  reply(response, 204, undefined, {
    'Set-Cookie': `${session.COOKIE}=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax`,
  })

async function handle(request, response) {
  const { pathname } = new URL(request.url, 'http://backend')
  const { method } = request
  if (pathname === '/healthz') return reply(response, 200, { status: 'ok' })
  if (pathname === '/readyz') {
    const ready = redis.isReady && subscriber.isReady
    return reply(response, ready ? 200 : 503, { status: ready ? 'ok' : 'Redis is not available.' })
  }
  if (pathname === '/' && method === 'GET') {
    response.writeHead(200, { 'Content-Type': 'text/html' })
    return response.end(PAGE)
  }
  if (!['GET', 'HEAD'].includes(method) && !ORIGINS.includes(request.headers.origin)) {
    return refuse(response, 403, 'The request comes from the page of another origin.')
  }
  if (pathname === '/api/v1/session') {
    if (method === 'POST') return signIn(request, response)
    return method === 'DELETE' ? signOut(response) : readSession(request, response)
  }
  if (!pathname.startsWith(BATCHES)) return refuse(response, 404, 'There is nothing here.')
  const user = session.userOf(request)
  if (!user) return refuse(response, 401, 'You are not signed in.')
  if (!redis.isReady) return reply(response, 503, { detail: 'Redis is not available.' }, { 'Retry-After': '5' })
  if (pathname === BATCHES) {
    if (method === 'POST') return upload(request, response, user)
    return reply(response, 200, await store.snapshot(redis, user))
  }
  const batch = await store.read(redis, pathname.slice(BATCHES.length + 1))
  if (batch?.user_id !== user) return refuse(response, 404, 'You have no such batch.')
  return reply(response, 200, store.publicBatch(batch))
}

const server = http.createServer((request, response) => {
  handle(request, response).catch((error) => {
    console.error(error)
    if (!response.headersSent) refuse(response, 500, 'The request failed.')
  })
})

const sockets = new WebSocketServer({ noServer: true, maxPayload: 65536, perMessageDeflate: false })

server.on('upgrade', (request, socket, head) => {
  const url = new URL(request.url, 'http://backend')
  if (!url.pathname.startsWith(SOCKETS)) return socket.end('HTTP/1.1 404 Not Found\r\n\r\n')
  return sockets.handleUpgrade(request, socket, head, (client) => {
    open(client, request, url).catch((error) => {
      console.error(error)
      client.close(1013, 'events are unavailable; retry in 2000 ms')
    })
  })
})

// Closes with a code, or returns the user and the id after which to resume.
function admit(client, request, url) {
  const user = session.userOf(request)
  const last = url.searchParams.get('last_event_id')
  if (!ORIGINS.includes(request.headers.origin)) client.close(4403, 'this origin is not allowed')
  else if (!user) client.close(4401, 'sign in')
  else if (decodeURIComponent(url.pathname.slice(SOCKETS.length)) !== user) client.close(4403, 'not your events')
  else if (last !== null && !store.EVENT_ID.test(last)) client.close(4400, 'last_event_id is not valid')
  else if (!redis.isReady || !subscriber.isReady) client.close(1013, 'Redis is unavailable; retry in 2000 ms')
  else return { user, last }
  return null
}

async function open(client, request, url) {
  client.on('error', () => {}) // ws closes with the code that the protocol has for it
  const admitted = admit(client, request, url)
  if (!admitted) return
  listen(client)
  const { user, last } = admitted
  const held = [] // live events, until the missed ones are sent
  let sent = last
  client.deliver = (event) => held.push(event)
  const room = rooms.get(store.channel(user)) || new Set()
  rooms.set(store.channel(user), room.add(client))
  client.on('close', () => room.delete(client))
  const send = (event) => {
    if (sent !== null && !isNewer(event.id, sent)) return
    sent = event.id
    client.send(JSON.stringify(event))
  }
  if (last !== null) {
    const missed = await store.eventsAfter(redis, user, last)
    if (missed === null) {
      const snapshot = await store.snapshot(redis, user)
      client.send(JSON.stringify({ type: 'resync', snapshot }))
      sent = snapshot.last_event_id
    } else missed.forEach(send)
  }
  client.deliver = send
  held.forEach(send)
}

function isNewer(id, other) {
  const [[time, count], [otherTime, otherCount]] = [id, other].map((text) => text.split('-').map(BigInt))
  return time === otherTime ? count > otherCount : time > otherTime
}

function listen(client) {
  let [count, since] = [0, Date.now()]
  let timer
  const beat = () => {
    client.send('{"type":"heartbeat"}')
    timer = setTimeout(beat, HEARTBEAT)
  }
  const seen = () => {
    clearTimeout(timer)
    timer = setTimeout(beat, HEARTBEAT)
    if (Date.now() - since > 10_000) [count, since] = [0, Date.now()]
    count += 1
    if (count > FLOOD) client.close(4429, 'too many messages')
  }
  timer = setTimeout(beat, HEARTBEAT)
  client.on('ping', seen)
  client.on('close', () => clearTimeout(timer))
  client.on('message', (data, isBinary) => {
    seen()
    if (isBinary) client.close(1003, 'text only')
    else if (data.toString() === 'ping') client.send('{"type":"pong"}')
  })
}

function closeAll(code, reason) {
  for (const client of sockets.clients) client.close(code, reason)
}

subscriber.on('reconnecting', () => closeAll(1013, 'events are unavailable; retry in 2000 ms'))

process.on('SIGTERM', () => {
  closeAll(1012, 'the server restarts; retry in 500 ms')
  server.close()
  setTimeout(() => process.exit(0), 1000)
})

async function main() {
  await redis.connect()
  await subscriber.connect()
  await subscriber.pSubscribe('user:*:events', (message, channel) => {
    const { previous_id: _, ...event } = JSON.parse(message)
    for (const client of rooms.get(channel) || []) client.deliver(event)
  })
  server.listen(8000, '0.0.0.0', () => console.log('The api listens on port 8000.'))
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
