// Batches, events and jobs in Redis. Each change of a batch and its events are one atomic step.
'use strict'
const fs = require('node:fs')
const { createClient } = require('redis')

const HISTORY = 1000
const EVENT_ID = /^\d{1,19}-\d{1,19}$/

// KEYS: stream, batch. ARGV: channel, the batch's JSON, then the JSON of each event without its id.
const CHANGE = `
redis.call('SET', KEYS[2], ARGV[2])
for i = 3, #ARGV do
  local tail = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
  local previous = tail[1] and tail[1][1] or '0-0'
  local id = redis.call('XADD', KEYS[1], 'MAXLEN', ${HISTORY}, '*', 'previous', previous, 'event', ARGV[i])
  redis.call('PUBLISH', ARGV[1],
    '{"id":"' .. id .. '","previous_id":"' .. previous .. '",' .. string.sub(ARGV[i], 2))
end
`
// KEYS: stream, list of batches. Returns the newest event's id and the JSON of each batch.
const SNAPSHOT = `
local tail, batches = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1), {}
for _, id in ipairs(redis.call('LRANGE', KEYS[2], 0, 49)) do
  batches[#batches + 1] = redis.call('GET', 'node:batch:' .. id)
end
return {tail[1] and tail[1][1] or '0-0', batches}
`

const stream = (user) => `node:user:${user}:stream`
const channel = (user) => `user:${user}:events`
const listing = (user) => `node:user:${user}:batches`
const batchKey = (id) => `node:batch:${id}`

function connect() {
  const password = fs.readFileSync(process.env.APP_REDIS_PASSWORD_FILE, 'utf8').trim()
  const client = createClient({ url: process.env.APP_REDIS_URL, password })
  client.on('error', (error) => console.error(`Redis: ${error.message}`))
  return client
}

const cvEvent = (cv) => ({ type: 'cv_progress', time: new Date().toISOString(), ...cv })

function summary(batch) {
  const ended = batch.done + batch.failed
  return {
    batch_id: batch.batch_id,
    created_at: batch.created_at,
    status: ended === batch.total ? 'done' : 'processing',
    total: batch.total,
    done: batch.done,
    failed: batch.failed,
    progress: Math.floor((100 * ended) / batch.total),
  }
}

const batchEvent = (batch) => ({ type: 'batch_progress', time: new Date().toISOString(), ...summary(batch) })

function publicBatch(batch) {
  return { ...summary(batch), cvs: batch.cvs }
}

async function change(client, batch, events) {
  await client.sendCommand([
    'EVAL', CHANGE, '2', stream(batch.user_id), batchKey(batch.batch_id),
    channel(batch.user_id), JSON.stringify(batch), ...events.map((event) => JSON.stringify(event)),
  ])
}

async function create(client, batch) {
  await client.lPush(listing(batch.user_id), batch.batch_id)
  await change(client, batch, [batchEvent(batch), ...batch.cvs.map(cvEvent)])
  await client.rPush('jobs', batch.cvs.map((cv) => JSON.stringify([batch.batch_id, cv.cv_id])))
}

async function read(client, id) {
  const text = await client.get(batchKey(id))
  return text === null ? null : JSON.parse(text)
}

async function snapshot(client, user) {
  const [last, batches] = await client.sendCommand(['EVAL', SNAPSHOT, '2', stream(user), listing(user)])
  return { last_event_id: last, batches: batches.map((text) => publicBatch(JSON.parse(text))) }
}

// The events after an id, or null when they are not all available.
async function eventsAfter(client, user, id) {
  const entries = await client.sendCommand(['XRANGE', stream(user), `(${id}`, '+'])
  if (entries.length === 0) {
    const [tail] = await client.sendCommand(['XREVRANGE', stream(user), '+', '-', 'COUNT', '1'])
    return (tail ? tail[0] : '0-0') === id ? [] : null
  }
  if (entries[0][1][1] !== id) return null
  return entries.map(([eventId, fields]) => ({ id: eventId, ...JSON.parse(fields[3]) }))
}

module.exports = {
  EVENT_ID, batchEvent, change, channel, connect, create, cvEvent, eventsAfter, publicBatch, read, snapshot,
}
