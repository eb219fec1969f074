// Many tenants, each with a schema of its own: Prisma's and others' way, with node-postgres. Connections from libpq's environment variables.
// Prints "ok STEP" for each step, and what it saw: that must be the same on direct connections. Stops at the first step that fails.
'use strict'

const assert = require('node:assert')
const { Client, Pool } = require('pg')
const { ok, ssl } = require('./told.js')

const TENANTS = 20
const REQUESTS = 400
const tenants = Array.from({ length: TENANTS }, (_, n) => `tenant ${n}`)
const quoted = (tenant) => `"${tenant}"`

async function create(client) {
  for (const tenant of tenants) {
    await client.query(`CREATE SCHEMA ${quoted(tenant)}`)
    await client.query(`CREATE TABLE ${quoted(tenant)}.item (id serial PRIMARY KEY, owner text DEFAULT '${tenant}', n int)`)
  }
  await client.query(`CREATE TABLE common (owner text, n int)`)
  await client.query(`ALTER TABLE common ENABLE ROW LEVEL SECURITY`)
  await client.query(`ALTER TABLE common FORCE ROW LEVEL SECURITY`)
  await client.query(`CREATE POLICY own ON common USING (owner = current_setting('app.tenant'))`)
  ok('create')
}

// A client of each tenant, whose schema is told at the start, and a statement under the same name in all of them.
async function clients() {
  const all = await Promise.all(tenants.map(async (tenant) => {
    const client = new Client({ ssl, options: `-c search_path=${quoted(tenant).replace(/ /g, '\\ ')}` })
    await client.connect()
    return client
  }))
  for (let round = 0; round < 5; round++) {
    await Promise.all(all.map((client) => client.query({ name: 'add', text: 'INSERT INTO item (n) VALUES ($1)', values: [round] })))
  }
  const found = await Promise.all(all.map((client) => client.query({ name: 'list', text: 'SELECT owner, sum(n)::int FROM item GROUP BY 1' })))
  found.forEach(({ rows }, n) => assert.deepStrictEqual(rows, [{ owner: tenants[n], sum: 10 }]))
  await Promise.all(all.map((client) => client.end()))
  ok('clients', found.length)
}

// A pool whose clients are any tenant's, by a setting for each request.
async function requests(pool, step, begin, work) {
  const counts = {}
  await Promise.all(Array.from({ length: REQUESTS }, async (_, n) => {
    const tenant = tenants[(n * 7) % TENANTS]
    const client = await pool.connect()
    try {
      await begin(client, tenant)
      // Statements outside of a transaction: each may run on another server.
      for (let time = 0; time < 3; time++) assert.strictEqual(await work(client, tenant, n), tenant)
      counts[tenant] = (counts[tenant] ?? 0) + 1
    } finally {
      client.release()
    }
  }))
  ok(step, Object.keys(counts).length, Object.values(counts).every((count) => count === REQUESTS / TENANTS))
}

async function main() {
  const admin = new Client({ ssl })
  await admin.connect()
  await create(admin)
  await clients()
  const pool = new Pool({ ssl, max: 8 })
  await requests(pool, 'search_path',
    (client, tenant) => client.query(`SET search_path TO ${quoted(tenant)}`),
    async (client, _tenant, n) => {
      const inserted = await client.query({ name: 'insert', text: 'INSERT INTO item (n) VALUES ($1) RETURNING owner', values: [n] })
      const read = await client.query('SELECT min(owner) AS least, max(owner) AS most FROM item')
      assert.strictEqual(read.rows[0].least, read.rows[0].most)
      return inserted.rows[0].owner
    })
  await requests(pool, 'row security',
    (client, tenant) => client.query(`SELECT set_config('app.tenant', $1, false)`, [tenant]),
    async (client, tenant) => {
      await client.query('INSERT INTO public.common VALUES ($1, 1)', [tenant])
      const { rows } = await client.query('SELECT DISTINCT owner FROM public.common')
      assert.strictEqual(rows.length, 1)
      return rows[0].owner
    })
  await requests(pool, 'transactions',
    async (client, tenant) => {
      await client.query('BEGIN')
      await client.query(`SET LOCAL search_path TO ${quoted(tenant)}`)
      const { rows } = await client.query('SELECT owner FROM item LIMIT 1')
      assert.strictEqual(rows[0].owner, tenant)
      await client.query('COMMIT')
      await client.query(`SET search_path TO ${quoted(tenant)}`)
    },
    async (client) => (await client.query('SELECT owner FROM item LIMIT 1')).rows[0].owner)
  await pool.end()
  const totals = []
  for (const tenant of tenants) totals.push((await admin.query(`SELECT count(*)::int FROM ${quoted(tenant)}.item`)).rows[0].count)
  // Nobody's setting has come to this client.
  const { rows } = await admin.query(`SELECT current_setting('search_path') AS path, coalesce(current_setting('app.tenant', true), '') AS tenant`)
  ok('totals', totals, rows[0])
  await admin.query(`SET client_min_messages TO warning; DROP TABLE common; ${tenants.map((tenant) => `DROP SCHEMA ${quoted(tenant)} CASCADE`).join(';')}`)
  await admin.end()
  ok('drop')
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
