//! Percentiles per shape beside exact ones, of what pgbench has measured of each of its transactions.
//! It must never blame pgweir for a processor that is taken away from pgbench between the two: the short run only says that pgweir claims no more
//! than pgbench has waited, and no less than the statements sleep at least; `--long` wants both to agree.

use std::collections::HashMap;
use std::fs;

use integration::postgres::bin;
use integration::{DATABASE, Run, USER, command};
use serde_json::Value;

use crate::common::eventually;
use crate::{conf, json, ready};

/// How long the statements of each shape take, in milliseconds, as pgbench draws it: so long that what passes between pgbench and pgweir on a
/// machine that has much to do is little beside it.
const MIXTURES: [(&str, &str); 5] = [
    ("steady", "150"),
    ("even", "random(100, 400)"),
    ("two", "case when random(1, 100) <= 70 then 120 else 350 end"),
    ("tail", "case when random(1, 100) <= 92 then 100 else 900 end"),
    ("bell", "random_gaussian(100, 500, 4)"),
];
/// The shortest of these, in seconds.
const SHORTEST: f64 = 0.1;
/// How far a percentile may be off.
const ERROR: f64 = 0.06;

/// What pgbench says of each transaction, in seconds, by its script, ascending.
fn exact(port: u16, seconds: u32) -> HashMap<usize, Vec<f64>> {
    let folder = Run::current().unwrap().folder("pgbench").unwrap();
    let mut pgbench = command(bin().unwrap().join("pgbench")).unwrap();
    pgbench.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", USER, "-n", "-c", "40", "-l"]);
    pgbench.args(["-T", &seconds.to_string()]);
    pgbench.arg(format!("--log-prefix={}", folder.join("log").display()));
    for (name, takes) in MIXTURES {
        let script = folder.join(name);
        fs::write(&script, format!("\\set takes {takes}\nSELECT pg_sleep(:takes * 0.001) AS {name};\n")).unwrap();
        pgbench.arg("-f").arg(script);
    }
    let done = pgbench.arg(DATABASE).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let log = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let log = log.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log.")));
    let mut all: HashMap<usize, Vec<f64>> = HashMap::new();
    for line in fs::read_to_string(log.last().unwrap()).unwrap().lines() {
        // Client, number, microseconds, script, and when it ended.
        let words: Vec<&str> = line.split(' ').collect();
        all.entry(words[3].parse().unwrap()).or_default().push(words[2].parse::<f64>().unwrap() / 1e6);
    }
    all.values_mut().for_each(|times| times.sort_by(f64::total_cmp));
    all
}

#[test]
fn percentiles_are_those_of_who_has_waited() {
    let pgweir = conf().size(36).start();
    ready(&pgweir);
    let is_long = std::env::var_os("PGWEIR_LONG").is_some();
    let exact = exact(pgweir.port(), if is_long { 30 } else { 5 });
    for (script, (name, _)) in MIXTURES.iter().enumerate() {
        let times = &exact[&script];
        assert!(times.len() > 50, "{name}: {}", times.len());
        let of_shape = |all: &Value| {
            let all = all["queries"].as_array().unwrap();
            all.iter().find(|it| it["query"].as_str().unwrap().ends_with(&format!(" as {name}"))).cloned()
        };
        let mut seen = Value::Null;
        eventually("all are counted", || {
            seen = of_shape(&json(&pgweir, "/api/queries")).unwrap_or_default();
            seen["calls_total"].as_u64() == Some(times.len() as u64)
        });
        for (share, key) in [(0.5, "p50_seconds"), (0.95, "p95_seconds"), (0.99, "p99_seconds")] {
            let rank = (share * times.len() as f64).ceil() as usize;
            let (real, said) = (times[rank - 1], seen["time"][key].as_f64().unwrap());
            println!("{name} {key}: {real:.4} and {said:.4}");
            let least = if is_long { real } else { SHORTEST };
            let range = least * (1.0 - ERROR)..=real * (1.0 + ERROR);
            assert!(range.contains(&said), "{name}: {key} is {real}, not {said}");
        }
    }
}
