// What node-postgres does on the console. Connection from libpq's environment variables.
// Prints a word for each step and stops at the first that fails.
const assert = require("assert");
const { Client } = require("pg");

async function main() {
  const client = new Client();
  await client.connect();
  const lists = await client.query("SHOW LISTS");
  assert.strictEqual(lists.rows.find((row) => row.list === "databases").items, 2);
  console.log("rows");
  for (let n = 0; n < 2; n++) {
    const { rows } = await client.query({ name: "one", text: "SHOW CLIENTS WHERE user = $1 LIMIT $2", values: ["root", 1] });
    assert.strictEqual(rows[0].state, "active");
  }
  console.log("parameters");
  await assert.rejects(client.query("SHOW nothing"), { code: "42601" });
  await assert.rejects(client.query("SHOW CLIENTS WHERE nothing = $1", ["x"]), { code: "42703" });
  console.log("error");
  assert.strictEqual((await client.query("RECONNECT")).command, "RECONNECT");
  console.log("command");
  await client.end();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
