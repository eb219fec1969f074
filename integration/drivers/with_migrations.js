// node-pg-migrate, started by several processes at once: it takes an advisory lock, or else says that another runs.
// Prints "ok STEP" for each step, and what it saw: that must be the same on direct connections. Stops at the first step that fails.
'use strict'

const assert = require('node:assert')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { Client } = require('pg')
const { runner } = require('node-pg-migrate')
const { ok, ssl } = require('./told.js')

const RUNNERS = 4
const migrations = {
  '1_first.js': `exports.up = (pgm) => { pgm.createTable('thing', { id: 'id', name: 'text' }); pgm.sql('SELECT pg_sleep(0.2)') }
exports.down = (pgm) => pgm.dropTable('thing')`,
  '2_index.js': `exports.up = (pgm) => { pgm.noTransaction(); pgm.createIndex('thing', 'name', { concurrently: true }) }
exports.down = (pgm) => pgm.dropIndex('thing', 'name')`,
  '3_rows.js': `exports.up = (pgm) => pgm.sql("INSERT INTO thing (name) VALUES ('one')")
exports.down = (pgm) => pgm.sql('DELETE FROM thing')`
}
const silent = { debug() {}, info() {}, warn() {}, error() {} }

async function main() {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'migrations-'))
  for (const [name, text] of Object.entries(migrations)) fs.writeFileSync(path.join(dir, name), text)
  const run = (direction, count) => runner({
    databaseUrl: { ssl }, dir, direction, count, migrationsTable: 'migrations', singleTransaction: false, logger: silent
  })
  const admin = new Client({ ssl })
  try {
    await admin.connect()
    const ends = await Promise.allSettled(Array.from({ length: RUNNERS }, () => run('up', Infinity)))
    const done = ends.filter(({ status, value }) => status === 'fulfilled' && value.length > 0)
    for (const { status, reason } of ends) {
      assert(status === 'fulfilled' || /Another migration is already running/.test(reason.message), reason)
    }
    ok('at once', done.map(({ value }) => value.map(({ name }) => name)))
    ok('again', await run('up', Infinity))
    ok('down', (await run('down', 2)).map(({ name }) => name), (await run('up', Infinity)).map(({ name }) => name))
    const { rows } = await admin.query('SELECT name, (SELECT count(*)::int FROM thing) AS things FROM migrations ORDER BY name')
    const { rows: locks } = await admin.query(`SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory'`)
    ok('left', rows, locks)
    await admin.query('DROP TABLE thing, migrations')
    ok('drop')
  } finally {
    await admin.end()
    fs.rmSync(dir, { recursive: true })
  }
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
