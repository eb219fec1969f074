//! The rules and the dashboard of docker/, in a real Prometheus that scrapes a real pgweir.
//! It must never take for data what Prometheus makes up itself: only what an expression finds counts.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};

use integration::Run;
use integration::port::Port;
use serde_json::Value;

use crate::common::eventually;
use crate::{client, conf, exchange, ready};

fn docker() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker")
}

/// A Prometheus with the rules that scrapes this port; ends with the test.
struct Prometheus {
    child: Child,
    port: Port,
}

impl Prometheus {
    fn start(stats_port: u16) -> Self {
        Self::start_with(stats_port, &[])
    }

    fn start_with(stats_port: u16, args: &[&str]) -> Self {
        let (port, folder) = (Port::reserve().unwrap(), Run::current().unwrap().folder("prometheus").unwrap());
        // As shipped but for how often, and whom it looks at.
        let config = std::fs::read_to_string(docker().join("prometheus/prometheus.yml")).unwrap();
        let config = config.replace("15s", "200ms").replace("9127", &stats_port.to_string());
        std::fs::write(folder.join("prometheus.yml"), config).unwrap();
        std::fs::copy(docker().join("prometheus/pgweir.rules.yml"), folder.join("pgweir.rules.yml")).unwrap();
        let mut command = integration::command("prometheus").unwrap();
        command.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{}", port.number()));
        let child = command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let this = Self { child, port };
        eventually("Prometheus is ready", || {
            TcpStream::connect(("127.0.0.1", this.port.number()))
                .is_ok_and(|stream| exchange(stream, "GET /-/ready", &[], "").status == 200)
        });
        this
    }

    fn ask(&self, path: &str) -> Value {
        let stream = TcpStream::connect(("127.0.0.1", self.port.number())).unwrap();
        let answer = exchange(stream, &format!("GET {path}"), &[], "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        serde_json::from_str::<Value>(&answer.body).unwrap()["data"].clone()
    }

    /// The numbers that an expression gives.
    fn values(&self, expr: &str) -> Vec<f64> {
        let encoded: String = expr.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let found = self.ask(&format!("/api/v1/query?query={encoded}"));
        let values = found["result"].as_array().unwrap().iter();
        values.filter_map(|it| it["value"][1].as_str()?.parse().ok()).filter(|value: &f64| !value.is_nan()).collect()
    }

    /// How many series an expression gives that are numbers.
    fn finds(&self, expr: &str) -> usize {
        self.values(expr).len()
    }

    /// The only number that it gives.
    fn number(&self, expr: &str) -> Option<f64> {
        self.values(expr).first().copied()
    }

    fn rules(&self) -> Vec<Value> {
        let groups = self.ask("/api/v1/rules");
        let rules = groups["groups"].as_array().unwrap().iter().flat_map(|it| it["rules"].as_array().unwrap().clone());
        rules.collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Names of pgweir's own metrics in an expression, not those of rules.
fn metrics(expr: &str) -> Vec<String> {
    let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words.filter(|word| word.starts_with("pgweir_")).map(str::to_owned).collect()
}

/// What the panels of the Grafana dashboard ask, with its variables filled in as Grafana does.
fn panels() -> Vec<(String, String)> {
    let board = std::fs::read_to_string(docker().join("grafana/pgweir.json")).unwrap();
    let board: Value = serde_json::from_str(&board).unwrap();
    let mut asked = Vec::new();
    for panel in board["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expr = target["expr"].as_str().unwrap();
            let fills = [("$__rate_interval", "1m"), ("$__range", "1m"), ("$instance", ".*"), ("$database", ".*")];
            let expr = fills.iter().fold(expr.to_owned(), |expr, (name, value)| expr.replace(name, value));
            assert!(!expr.contains('$'), "{expr}");
            asked.push((panel["title"].as_str().unwrap().to_owned(), expr));
        }
    }
    asked
}

#[test]
fn promtool_accepts_what_is_shipped() {
    for (what, file) in [("rules", "pgweir.rules.yml"), ("config", "prometheus.yml")] {
        let mut promtool = integration::command("promtool").unwrap();
        let done = promtool.args(["check", what]).arg(docker().join("prometheus").join(file)).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_a_scrape() {
    let pgweir = conf().rest("[cache]\nmode = \"on\"\nttl = \"1m\"\nverify = 0\n").start();
    ready(&pgweir);
    let mut client = client(&pgweir);
    client.query("SELECT 1 AS linted").unwrap();
    client.query("SELECT 1/0 AS linted").unwrap_err();
    let scraped = || pgweir.get("/metrics").unwrap().1;
    eventually("both are counted", || scraped().contains("pgweir_query_errors_by_class_total{"));
    let mut promtool = integration::command("promtool").unwrap();
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().unwrap();
    child.stdin.take().unwrap().write_all(scraped().as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    let said = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(done.status.success() && said.is_empty(), "{said}");
}

#[test]
fn whoever_asks_for_native_histograms_gets_them() {
    let pgweir = conf().start();
    ready(&pgweir);
    let prometheus = Prometheus::start_with(pgweir.stats_port(), &["--enable-feature=native-histograms"]);
    let mut client = client(&pgweir);
    client.query("SELECT pg_sleep(0.15) AS native").unwrap();
    let of_it = "sum(pgweir_query_duration_seconds{phase=\"server\",target=\"primary\"})";
    eventually("it is scraped", || prometheus.number(&format!("histogram_count({of_it})")) == Some(1.0));
    let half = prometheus.number(&format!("histogram_quantile(0.5, {of_it})")).unwrap();
    let exact = prometheus.number(&format!("histogram_sum({of_it})")).unwrap();
    assert!(exact >= 0.15 && (half / exact - 1.0).abs() < 0.12, "{half} for {exact}");
    assert!(prometheus.finds("pgweir_query_calls_total") > 0 && prometheus.finds("pgweir_pool_clients") > 0);
}

#[test]
fn rules_and_panels_show_data() {
    let pgweir = conf().rest("[cache]\nmode = \"on\"\nttl = \"1m\"\nverify = 0\n").start();
    ready(&pgweir);
    let prometheus = Prometheus::start(pgweir.stats_port());
    let mut client = client(&pgweir);
    client.query("CREATE TABLE drawn AS SELECT 1 AS n").unwrap();
    // What nobody does has no number: somebody must keep a server.
    let mut keeper = crate::client(&pgweir);
    keeper.query("CREATE TEMP TABLE kept (n int)").unwrap();
    let asked = panels();
    assert!(asked.len() > 15, "{asked:?}");
    let mut empty = Vec::new();
    eventually("every panel shows something", || {
        client.query("SELECT n FROM drawn").unwrap();
        client.query("SELECT 1/0").unwrap_err();
        empty = asked.iter().filter(|(_, expr)| prometheus.finds(expr) == 0).collect();
        // Shown if it is not in time.
        println!("nothing in {empty:?}");
        empty.is_empty()
    });
    // It asks for OpenMetrics, in which alone units are said.
    let about = prometheus.ask("/api/v1/targets/metadata?limit=10000");
    let unit = |name: &str| {
        let about = about.as_array().unwrap().iter().find(|it| it["metric"].as_str() == Some(name));
        about.unwrap_or_else(|| panic!("nothing about {name}"))["unit"].clone()
    };
    assert_eq!((unit("pgweir_query_duration_seconds"), unit("pgweir_pool_clients")), ("seconds".into(), "".into()));
    let rules = prometheus.rules();
    assert!(rules.len() > 15, "{rules:?}");
    for rule in &rules {
        let (name, expr) = (rule["name"].as_str().unwrap(), rule["query"].as_str().unwrap());
        let metrics = metrics(expr);
        assert!(metrics.iter().all(|metric| prometheus.finds(metric) > 0), "{name}: {metrics:?}");
        eventually(name, || match rule["type"].as_str().unwrap() {
            "recording" => prometheus.finds(name) > 0,
            _ => prometheus.rules().iter().any(|it| it["name"] == name && it["health"] == "ok"),
        });
    }
    drop(pgweir);
    let state = |name: &str| prometheus.rules().iter().find(|it| it["name"] == name).unwrap()["state"].clone();
    eventually("it is missed", || state("PgweirDown") == "pending");
}
