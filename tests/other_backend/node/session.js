// Sessions: JSON Web Tokens (HS256) in a cookie, signed with the server's key or, for probes, with the probe key.
'use strict'
const { createHmac, timingSafeEqual } = require('node:crypto')
const fs = require('node:fs')

const COOKIE = '__Host-screen-flow'
const PROBE = /^site-check[\w.~-]*$/

const keys = (file) => (file ? fs.readFileSync(file, 'utf8').split('\n').filter(Boolean) : [])
const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')
const sign = (text, key) => createHmac('sha256', key).update(text).digest()

function issue(user, seconds) {
  const now = Math.floor(Date.now() / 1000)
  const body = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode({ sub: user, iat: now, exp: now + seconds })}`
  const token = `${body}.${sign(body, keys(process.env.APP_SESSION_KEYS_FILE)[0]).toString('base64url')}`
  return `${COOKIE}=${token}; Path=/; Max-Age=${seconds}; HttpOnly; Secure; SameSite=Lax`
}

function isSignedBy(body, signature, key) {
  const expected = sign(body, key)
  return expected.length === signature.length && timingSafeEqual(expected, signature)
}

// The user id of a request's session, or null.
function userOf(request) {
  const token = (request.headers.cookie || '')
    .split('; ').find((part) => part.startsWith(`${COOKIE}=`))?.slice(COOKIE.length + 1)
  const parts = (token || '').split('.')
  if (parts.length !== 3) return null
  try {
    const [head, claims] = parts.slice(0, 2).map((part) => JSON.parse(Buffer.from(part, 'base64url')))
    if (head.alg !== 'HS256' || !(claims.exp > Date.now() / 1000)) return null
    const body = `${parts[0]}.${parts[1]}`
    const signature = Buffer.from(parts[2], 'base64url')
    const accepted = [
      ...keys(process.env.APP_SESSION_KEYS_FILE),
      ...(PROBE.test(claims.sub) ? keys(process.env.APP_PROBE_KEY_FILE) : []),
    ]
    return accepted.some((key) => isSignedBy(body, signature, key)) ? String(claims.sub) : null
  } catch {
    return null
  }
}

module.exports = { COOKIE, issue, userOf }
