//! Servers whose own settings make them answer otherwise than the primary.
//! It must never be by a setting of its session that a client gets another answer.

use crate::common::{Client, Conf, eventually, metric};
use crate::{Went, mark, runs, start_cluster, start_with, until_read, went};
use integration::{Pgweir, Postgres};

fn is(pgweir: &Pgweir, server: &Postgres, role: &str) -> bool {
    metric(pgweir, "pgweir_host_role", &[("host", &server.address()), ("role", role)]) == 1.0
}

#[test]
fn a_replica_with_other_settings_serves_no_reads() {
    let cluster = start_cluster();
    let (pgweir, mut client) = start_with(&cluster, &Conf::trust(&cluster).size(3));
    let other = &cluster.replicas()[0];
    let zone = client.value("SHOW TimeZone");
    other.query("ALTER SYSTEM SET TimeZone = 'Pacific/Chatham'").unwrap();
    other.query("ALTER SYSTEM SET extra_float_digits = 0").unwrap();
    other.query("SELECT pg_reload_conf()").unwrap();
    eventually("it is seen to have others", || is(&pgweir, other, "unlike"));
    assert!(is(&pgweir, &cluster.replicas()[1], "standby") && is(&pgweir, cluster.primary(), "primary"));
    let reads = mark("unlike");
    for _ in 0..20 {
        let mut client = Client::connect(pgweir.port());
        assert_eq!(client.value(&format!("{reads} SELECT current_setting('TimeZone')")), zone);
        assert_eq!(client.value(&format!("{reads} SELECT (0.1::float8 + 0.2)::text")), "0.30000000000000004");
    }
    assert_eq!((runs(&cluster, &reads)[1], went(&cluster, &reads)), (0, Went::Replicas));
    let log = pgweir.log();
    assert!(
        log.contains("would answer otherwise than the primary") && log.contains("TimeZone=Pacific/Chatham"),
        "{log}"
    );
    // One by one, as the operator mends it.
    other.query("ALTER SYSTEM RESET ALL").unwrap();
    other.query("SELECT pg_reload_conf()").unwrap();
    eventually("it is seen to have the same", || is(&pgweir, other, "standby"));
    eventually("it serves again", || {
        let mut client = Client::connect(pgweir.port());
        until_read(&cluster, &mut client, "anybody", |runs| runs[1] + runs[2] > 0);
        runs(&cluster, "/* awaiting anybody */")[1] > 0
    });
}
