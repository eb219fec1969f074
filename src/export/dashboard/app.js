// The dashboard: asks the API every five seconds and shows what it says. Must never put text from there into the page as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const EVERY_MS = 5000;
let token = sessionStorage.getItem("pgweir-token") ?? "";
let open = null;

class Refused extends Error {}

async function ask(path) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, cache: "no-store" });
  if (answer.status === 401) throw new Refused(token ? "That is none of the tokens." : "");
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error ?? `status ${answer.status}`);
  return body;
}

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const count = (value) => number.format(value);
const seconds = (value) => {
  if (value === null || value === undefined) return "–";
  const digits = (scaled) => (scaled >= 100 ? scaled.toFixed(0) : scaled >= 10 ? scaled.toFixed(1) : scaled.toFixed(2)).replace(/\.0+$/, "");
  if (value === 0) return "0";
  if (value < 1e-3) return `${digits(value * 1e6)} µs`;
  if (value < 1) return `${digits(value * 1e3)} ms`;
  return `${digits(value)} s`;
};
const percent = (value) => (value === null || value === undefined ? "–" : `${number.format(value * 100)} %`);

function cell(text, name = "") {
  const it = document.createElement("td");
  if (text instanceof Node) it.append(text);
  else it.textContent = text ?? "–";
  if (name) it.className = name;
  return it;
}

// Replaces rows, and leaves the focus where it was: on the row of the same key.
function rows(id, items, key, cells) {
  const body = $(id);
  const focused = document.activeElement?.closest?.("tr")?.dataset.key;
  const inside = body.contains(document.activeElement);
  body.replaceChildren(
    ...items.map((item) => {
      const row = document.createElement("tr");
      row.dataset.key = key(item);
      row.append(...cells(item));
      return row;
    }),
  );
  if (inside && focused) body.querySelector(`tr[data-key="${CSS.escape(focused)}"] button`)?.focus();
}

function showNow(history, databases, cache) {
  const last = history.steps.at(-1);
  $("rate").textContent = last ? count(last.queries_per_second) : "–";
  for (const name of ["p50", "p95", "p99"]) $(name).textContent = seconds(last?.[`${name}_seconds`]);
  const sum = (state) => databases.reduce((all, database) => all + database.clients[state], 0);
  $("clients").textContent = count(sum("active") + sum("waiting") + sum("idle"));
  $("waiting").textContent = count(sum("waiting"));
  $("waiting").className = sum("waiting") > 0 ? "warn" : "";
  $("hits").textContent = cache.mode === "off" ? "off" : percent(cache.all.hit_ratio);
}

function showCharts(history) {
  const steps = history.steps;
  const at = steps.map((step) => step.at_unix_seconds);
  const of = (name) => steps.map((step) => step[name]);
  charts.lines("throughput-chart", count, [["statements", "--a"], ["errors", "--c"]], [at, of("queries_per_second"), of("errors_per_second")]);
  charts.lines("latency-chart", seconds, [["p50", "--a"], ["p95", "--b"], ["p99", "--c"]], [at, of("p50_seconds"), of("p95_seconds"), of("p99_seconds")], charts.decades);
  charts.heat("heat-chart", history, seconds);
  const hits = of("cache_hit_ratio").map((ratio) => (ratio === null ? null : ratio * 100));
  charts.lines("clients-chart", count, [["active", "--a"], ["waiting", "--c"], ["cache hits, %", "--b"]], [at, of("active"), of("waiting"), hits]);
}

function item(name, text, small) {
  const it = document.createElement("li");
  it.className = name;
  it.textContent = text;
  const more = document.createElement("small");
  more.textContent = small;
  it.append(more);
  return it;
}

function showAlerts(alerts, health) {
  const score = $("score");
  score.textContent = `health ${health.score}`;
  score.className = `score ${health.score >= 90 ? "good" : health.score >= 60 ? "warn" : "bad"}`;
  $("deductions").replaceChildren(...health.deductions.map((it) => item("", `−${it.points} ${it.what}${it.count > 1 ? `, and ${it.count - 1} more` : ""}`, it.action)));
  const shown = alerts.alerts.map((it) => item(it.state === "firing" ? it.severity : it.state, `${it.state}: ${it.summary}`, `since ${new Date(it.since_unix_seconds * 1000).toLocaleTimeString()} · ${it.action}`));
  if (shown.length === 0) shown.push(item("none", "Nothing fires.", ""));
  $("alert-list").replaceChildren(...shown);
}

function showPools(pools) {
  const key = (pool) => [pool.database, pool.user, pool.host, pool.pool, pool.role].join(" ");
  rows("pool-rows", pools, key, (pool) => {
    const meter = document.createElement("meter");
    Object.assign(meter, { min: 0, max: 1, high: 0.8, value: pool.use_share ?? 0 });
    meter.title = percent(pool.use_share);
    meter.setAttribute("aria-label", `use: ${percent(pool.use_share)}`);
    const clients = pool.clients.active + pool.clients.waiting + pool.clients.idle;
    return [
      cell(pool.database), cell(pool.pool === "default" ? pool.user : `${pool.user} (${pool.pool})`), cell(pool.host), cell(pool.role),
      cell(count(pool.servers.active), "n"), cell(pool.size === null ? "–" : count(pool.size), "n"), cell(meter), cell(count(clients), "n"),
      cell(count(pool.clients.waiting), pool.clients.waiting > 0 ? "n warn" : "n"), cell(seconds(pool.oldest_wait_seconds), "n"), cell(count(pool.queries_total), "n"),
    ];
  });
}

function showUnmeasured(databases) {
  const names = databases.filter((it) => !it.measured).map((it) => it.database);
  $("unmeasured").hidden = names.length === 0;
  $("unmeasured").textContent = `Statements are not measured (stats = "off") of ${names.join(", ")}: the numbers here leave them out.`;
}

function showHosts(databases) {
  const all = databases.flatMap((database) => {
    if (database.hosts.length > 0) return database.hosts.map((host) => ({ database: database.database, ...host }));
    const role = database.primary_reachable ? "primary" : "down";
    return [{ database: database.database, host: database.primary ?? "–", role, lag_seconds: null, lag_bytes: null, latency_seconds: null, breaker: "–" }];
  });
  rows("host-rows", all, (host) => `${host.database} ${host.host}`, (host) => [
    cell(host.database), cell(host.host), cell(host.role, ["down", "stale", "astray", "unlike"].includes(host.role) ? "bad" : ""),
    cell(seconds(host.lag_seconds), "n"), cell(host.lag_bytes === null ? "–" : count(host.lag_bytes), "n"), cell(seconds(host.latency_seconds), "n"), cell(host.breaker),
  ]);
}

function showQueries(queries) {
  rows("query-rows", queries, (it) => `${it.shape} ${it.database} ${it.user}`, (it) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = it.query || `(${it.shape})`;
    button.title = it.query;
    button.addEventListener("click", () => showShape(it.shape, true).catch(loop));
    return [
      cell(button, "text"), cell(it.database), cell(count(it.calls_total), "n"), cell(count(it.errors_total), it.errors_total > 0 ? "n bad" : "n"),
      cell(seconds(it.time.sum_seconds), "n"), cell(seconds(it.time.p50_seconds), "n"), cell(seconds(it.time.p95_seconds), "n"), cell(seconds(it.time.p99_seconds), "n"), cell(seconds(it.wait.sum_seconds), "n"),
    ];
  });
}

// The distribution of one shape, of all its pools together.
async function showShape(shape, byHand) {
  open = shape;
  const it = await ask(`/api/queries/${encodeURIComponent(shape)}`).catch((error) => {
    if (error instanceof Refused) throw error;
    return { error };
  });
  if (open !== shape) return;
  if (it.error) {
    // Others have taken its place since, say: that is no reason to show nothing else.
    $("shape").hidden = false;
    $("shape-title").textContent = `No distribution of ${shape}`;
    $("shape-query").textContent = it.error.message;
    $("shape-verdict").textContent = "";
    charts.drop("shape-chart");
    return;
  }
  const sums = new Map();
  for (const bucket of it.pools.flatMap((pool) => pool.time_buckets)) {
    const known = sums.get(bucket.from_seconds) ?? { ...bucket, count: 0 };
    known.count += bucket.count;
    sums.set(bucket.from_seconds, known);
  }
  const buckets = [...sums.values()].sort((a, b) => a.from_seconds - b.from_seconds);
  $("shape").hidden = false;
  $("shape-title").textContent = `Distribution of ${it.shape}: ${count(buckets.reduce((all, bucket) => all + bucket.count, 0))} statements`;
  $("shape-query").textContent = it.query;
  $("shape-verdict").textContent = it.verdict ? `Where: ${it.verdict.route}, ${it.verdict.reason_text}.` : "";
  charts.bars("shape-chart", buckets, seconds);
  if (byHand) $("shape").focus();
}

function close() {
  const shape = open;
  open = null;
  $("shape").hidden = true;
  charts.drop("shape-chart");
  document.querySelector(`#query-rows tr[data-key^="${CSS.escape(shape ?? "")}"] button`)?.focus();
}

async function refresh() {
  const paths = ["/api/services/status", "/api/history", "/api/database/metrics", "/api/database/alerts", "/api/pools", "/api/cache/metrics", `/api/queries?limit=20&by=${$("by").value}`];
  const [status, history, metrics, alerts, pools, cache, queries] = await Promise.all(paths.map(ask));
  $("login").hidden = true;
  $("main").hidden = false;
  showNow(history, metrics.databases, cache);
  showAlerts(alerts, status.health);
  showCharts(history);
  showPools(pools.pools);
  showUnmeasured(status.databases);
  showHosts(status.databases);
  showQueries(queries.queries);
  if (open) await showShape(open, false);
  const why = status.not_ready.map((it) => it.reason + (it.database ? ` (${it.database})` : "")).join(", ");
  const state = $("status");
  const text = status.ready ? `ready · version ${status.process.version}` : `not ready: ${why}`;
  // Only a change is read out.
  if (state.textContent !== text) state.textContent = text;
  state.className = status.ready ? "" : "bad";
  document.body.dataset.loaded = String(Number(document.body.dataset.loaded ?? 0) + 1);
}

let timer = 0;
async function loop() {
  clearTimeout(timer);
  try {
    await refresh();
  } catch (error) {
    if (error instanceof Refused) {
      token = "";
      sessionStorage.removeItem("pgweir-token");
      $("main").hidden = true;
      $("login").hidden = false;
      $("login-error").textContent = error.message;
      $("status").textContent = "a token is needed";
      $("token").focus();
      return;
    }
    $("status").textContent = `no answer: ${error.message}`;
    $("status").className = "bad";
  }
  timer = setTimeout(loop, EVERY_MS);
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  sessionStorage.setItem("pgweir-token", token);
  $("token").value = "";
  loop();
});
$("by").addEventListener("change", loop);
$("shape-close").addEventListener("click", close);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && open) close();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && $("login").hidden) loop();
});
loop();
