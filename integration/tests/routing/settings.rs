//! Settings that a server has of its own, asked for by code that a statement names.
//! It must never accept a standby's answer for the primary's.

use crate::common::{Client, Conf, eventually};
use crate::{Went, mark, until_read, went};
use integration::Cluster;

const SCHEMA: &str = "
CREATE FUNCTION f_sql() RETURNS text LANGUAGE sql STABLE AS $$SELECT current_setting('transaction_read_only')$$;
CREATE FUNCTION f_fixed() RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT current_setting('in_hot_standby')$$;
CREATE FUNCTION f_pl() RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN RETURN current_setting('In_Hot_Standby', true); END$$;
CREATE FUNCTION f_any(name text) RETURNS text LANGUAGE sql STABLE AS $$SELECT current_setting(name)$$;
CREATE FUNCTION f_show() RETURNS text LANGUAGE plpgsql AS
  $$DECLARE x text; BEGIN EXECUTE 'SHOW in_hot_standby' INTO x; RETURN x; END$$;
CREATE FUNCTION f_over() RETURNS text LANGUAGE sql STABLE AS $$SELECT f_sql()$$;
CREATE FUNCTION f_mem() RETURNS bool LANGUAGE sql STABLE AS $$SELECT current_setting('work_mem') <> ''$$;
CREATE FUNCTION f_tenant() RETURNS text LANGUAGE sql STABLE AS $$SELECT current_setting('app.tenant', true)$$;
CREATE FUNCTION f_tree() RETURNS text LANGUAGE sql STABLE RETURN current_setting('in_hot_standby');
CREATE VIEW v_hs AS SELECT current_setting('in_hot_standby') AS hs;
CREATE VIEW v_any AS SELECT current_setting(name) AS hs FROM (VALUES ('in_hot_standby')) AS names(name);
CREATE TABLE guarded (id int); INSERT INTO guarded VALUES (1), (2);
CREATE POLICY hs ON guarded USING (current_setting('in_hot_standby') = 'off'); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE VIEW v_tenant AS SELECT current_setting('app.tenant', true) AS tenant;
CREATE VIEW v_mem AS SELECT current_setting('work_mem') <> '' AS yes;
CREATE TABLE owned (tenant text); INSERT INTO owned VALUES ('a'), ('a'), ('b');
CREATE POLICY own ON owned USING (tenant = current_setting('app.tenant', true)); ALTER TABLE owned ENABLE ROW LEVEL SECURITY;
GRANT ALL ON ALL TABLES IN SCHEMA public TO app;";

const P: Went = Went::Primary;
const R: Went = Went::Replicas;

/// Statement, where it runs, its only value.
const CASES: &[(&str, Went, &str)] = &[
    ("SELECT f_sql()", P, "off"),
    ("SELECT f_fixed()", P, "off"),
    ("SELECT f_pl()", P, "off"),
    ("SELECT f_any('in_hot_standby')", P, "off"),
    ("SELECT f_show()", P, "off"),
    ("SELECT f_over()", P, "off"),
    ("SELECT f_tree()", P, "off"),
    ("SELECT hs FROM v_hs", P, "off"),
    ("SELECT hs FROM v_any", P, "off"),
    ("SELECT count(*) FROM guarded", P, "2"),
    ("SELECT f_mem()", R, "t"),
    ("SELECT f_tenant()", R, "a"),
    ("SELECT tenant FROM v_tenant", R, "a"),
    ("SELECT yes FROM v_mem", R, "t"),
    ("SELECT count(*) FROM owned", R, "2"),
];

#[test]
fn code_that_asks_for_a_servers_settings_stays_on_the_primary() {
    let cluster = Cluster::builder().replicas(2).setting("log_statement", "all").sql(SCHEMA).start().unwrap();
    let pgweir = Conf::trust(&cluster).size(3).start();
    let mut client = Client::connect(pgweir.port());
    client.query("SET app.tenant = 'a'").unwrap();
    let mut attempt = 0;
    eventually("the catalog is known", || {
        attempt += 1;
        let mark = mark(&format!("known {attempt}."));
        client.query(&format!("{mark} SELECT f_mem()")).unwrap();
        went(&cluster, &mark) == R
    });
    for (number, (sql, wanted, value)) in CASES.iter().enumerate() {
        let mark = mark(&format!("setting {number}."));
        assert_eq!(client.value(&format!("{mark} {sql}")), *value, "{sql}");
        assert_eq!(went(&cluster, &mark), *wanted, "{sql}");
        // What the primary has shown replicas must have, too, before they are read from.
        let read = |runs: &[usize]| runs[1..].iter().any(|count| *count > 0);
        until_read(&cluster, &mut client, &format!("setting {number}."), read);
    }
}
