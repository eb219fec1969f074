//! What a client that has set nothing finds on every server, behind a program.
//! It must never find anything but what a new connection to PostgreSQL finds.

use crate::answers::{difference, exchange};
use crate::player::{SERVERS, Stage, connect_as};
use crate::program::Batch;
use crate::words::{SHOW, SHOW_ALL};
use std::sync::OnceLock;

use integration::{Cluster, DATABASE};

const LOOKS: &[&str] = &[
    SHOW,
    SHOW_ALL,
    "SELECT name, statement FROM pg_prepared_statements WHERE NOT starts_with(name, '__pgweir_')",
    "SELECT name, statement FROM pg_cursors WHERE name <> ''",
    "SELECT locktype, mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype NOT IN ('virtualxid', 'relation')",
    "SELECT count(*) FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass AND refobjid = pg_my_temp_schema()",
    "SELECT * FROM pg_listening_channels()",
    "SELECT current_setting('work_mem'), lastval()",
];

/// What `random()` gives behind each `setseed` of the programs.
static SEEDED: OnceLock<Vec<String>> = OnceLock::new();

/// Asks a server what it gives.
pub fn know_seeds(cluster: &Cluster) {
    let of = |seed| format!("SELECT random() FROM generate_series(1, 100), (SELECT setseed({seed}) OFFSET 0) s");
    let rows = [0.42, 0.5].into_iter().flat_map(|seed| cluster.primary().query_in(DATABASE, &of(seed)).unwrap());
    SEEDED.get_or_init(|| rows.flatten().collect());
}

/// Looks at every server of a user's pool: as many clients as there are servers each keep one.
pub fn check(stage: &Stage, user: &str) -> Result<(), String> {
    let begin = Batch::query("BEGIN");
    let mut direct = connect_as(stage.direct.primary().port(), user, &[])?;
    let _ = exchange(&mut direct, &begin, 0);
    let wanted: Vec<Vec<String>> = LOOKS.iter().map(|look| exchange(&mut direct, &Batch::query(*look), 0)).collect();
    let mine = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{user}' AND NOT pid = pg_backend_pid()");
    let servers: usize = stage.ask(0, &mine)[0][0].parse().unwrap_or(SERVERS);
    let mut innocents = Vec::new();
    for number in 0..servers.min(SERVERS) {
        let mut innocent = connect_as(stage.port(), user, &[])?;
        let _ = exchange(&mut innocent, &begin, 0);
        let random = exchange(&mut innocent, &Batch::query("SELECT random()"), 0);
        let random = random.iter().find_map(|line| line.strip_prefix("D ")).unwrap_or_default().to_owned();
        if SEEDED.get().is_some_and(|seeded| seeded.contains(&random)) {
            return Err(format!(
                "innocent {number} of {user}: random() is {random}, which a seed of another client's gives"
            ));
        }
        for (look, wanted) in LOOKS.iter().zip(&wanted) {
            let got = exchange(&mut innocent, &Batch::query(*look), 0);
            if got != *wanted {
                return Err(format!("innocent {number} of {user}: {look}\n{}", difference(&got, wanted)));
            }
        }
        if let Some(lists) = differing_parameters(&innocent.parameters, &direct.parameters) {
            return Err(format!("innocent {number} of {user}: ParameterStatus {lists}"));
        }
        innocents.push(innocent);
    }
    Ok(())
}

type Parameters = std::collections::BTreeMap<String, String>;

fn differing_parameters(pooled: &Parameters, direct: &Parameters) -> Option<String> {
    (pooled != direct).then(|| format!("{pooled:?}\ninstead of {direct:?}"))
}
