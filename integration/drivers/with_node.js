// The program every driver runs, with node-postgres. Connection from libpq's environment variables.
// Prints "ok STEP" for each step and stops at the first that fails.
'use strict'

const assert = require('node:assert')
const fs = require('node:fs')
const { Readable } = require('node:stream')
const { pipeline } = require('node:stream/promises')
const { Client } = require('pg')
const copy = require('pg-copy-streams')

const table = `node_${process.pid}_${Date.now() % 1000000}`
const large = 'x'.repeat(20 * 1024 * 1024)
const ok = (step) => console.log('ok', step)
// PGSSLMODE would override the authority, so what it means is said here.
delete process.env.PGSSLMODE
const ssl = { ca: fs.readFileSync(process.env.PGSSLROOTCERT), rejectUnauthorized: true }

async function main() {
  const client = new Client({ ssl })
  await client.connect()
  assert(client.connection.stream.encrypted, 'not encrypted')
  ok('connect')
  await client.query(`CREATE TABLE ${table} (id int PRIMARY KEY, name text, data bytea)`)
  ok('create')
  for (let id = 0; id < 20; id++) {
    // Alternately the unnamed statement and a named one, which pg prepares once.
    const name = id % 2 ? 'insert' : undefined
    const text = `INSERT INTO ${table} VALUES ($1, $2, $3)`
    await client.query({ name, text, values: [id, `name ${id}`, Buffer.from([id, 0, 255])] })
  }
  ok('insert')
  for (let id = 0; id < 20; id++) {
    const answer = await client.query({ name: 'read', text: `SELECT name, data FROM ${table} WHERE id = $1`, values: [id] })
    assert.deepStrictEqual(answer.rows, [{ name: `name ${id}`, data: Buffer.from([id, 0, 255]) }])
  }
  ok('read')
  await assert.rejects(client.query(`INSERT INTO ${table} VALUES ($1, 'again')`, [1]), { code: '23505' })
  ok('error')
  await client.query('BEGIN')
  await client.query(`INSERT INTO ${table} VALUES (100, 'hundred')`)
  await client.query('COMMIT')
  assert.strictEqual((await client.query(`SELECT name FROM ${table} WHERE id = 100`)).rows[0].name, 'hundred')
  ok('transaction')
  await client.query('BEGIN')
  await client.query(`INSERT INTO ${table} VALUES (101, 'gone')`)
  await client.query('ROLLBACK')
  assert.strictEqual((await client.query(`SELECT FROM ${table} WHERE id = 101`)).rowCount, 0)
  ok('rollback')
  const lines = Array.from({ length: 2000 }, (_, i) => `${1000 + i}\tcopied ${1000 + i}\n`)
  await pipeline(Readable.from(lines), client.query(copy.from(`COPY ${table} (id, name) FROM STDIN`)))
  const chunks = []
  const out = client.query(copy.to(`COPY (SELECT id, name FROM ${table} WHERE id >= 1000 ORDER BY id) TO STDOUT`))
  for await (const chunk of out) chunks.push(chunk)
  assert.strictEqual(Buffer.concat(chunks).toString(), lines.join(''))
  ok('copy')
  const started = Date.now()
  const query = { text: 'SELECT pg_sleep(60)' }
  const sleeping = assert.rejects(client.query(query), { code: '57014' })
  // pg cancels over a connection of its own, without TLS.
  setTimeout(() => new Client({ ssl: false }).cancel(client, client._getActiveQuery?.() ?? client.activeQuery), 1000)
  await sleeping
  assert(Date.now() - started < 20000)
  assert.strictEqual((await client.query('SELECT 1 AS one')).rows[0].one, 1)
  ok('cancel')
  await client.query(`INSERT INTO ${table} VALUES (5000, $1)`, [large])
  assert((await client.query(`SELECT name FROM ${table} WHERE id = 5000`)).rows[0].name === large)
  ok('large')
  await client.query(`DROP TABLE ${table}`)
  await client.end()
}

main().catch((error) => {
  console.error('FAILED', error)
  process.exit(1)
})
