// What the programs here say to who runs them, and how they trust the server.
'use strict'

const fs = require('node:fs')

delete process.env.PGSSLMODE
exports.ssl = { ca: fs.readFileSync(process.env.PGSSLROOTCERT), rejectUnauthorized: true }

// "ok STEP" behind each step, then a line for each thing it saw: those are compared with a direct connection's.
exports.ok = (step, ...saw) => {
  console.log('ok', step)
  for (const each of saw) console.log('  saw', JSON.stringify(each))
}
