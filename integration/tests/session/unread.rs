//! What clients leave before the code of their database was read, for the first time or again.
//! It must never hang on how long that takes: what is known too late is not known.

use integration::{Cluster, DATABASE};

use crate::common::{Client, Conf};

const SETUP: &str = "CREATE ROLE boss SUPERUSER LOGIN; CREATE ROLE one; CREATE TABLE triggers (n int);
    CREATE FUNCTION on_insert() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET app.hidden = 'trigger'; RETURN NEW; END $$;
    CREATE TRIGGER t BEFORE INSERT ON triggers FOR EACH ROW EXECUTE FUNCTION on_insert()";
const CHANGE: &str = "CREATE OR REPLACE FUNCTION changed() RETURNS int LANGUAGE sql AS 'SELECT 1'";

#[test]
fn the_first_statement_of_all_leaves_nothing_behind() {
    let cluster = Cluster::builder().start().unwrap();
    cluster.primary().query_in(DATABASE, SETUP).unwrap();
    for _ in 0..3 {
        let pgweir = Conf::trust(&cluster).user("boss", "").size(1).start();
        let boss = || Client::connect_with(pgweir.port(), &[("user", "boss")]);
        let (mut one, mut other) = (boss(), boss());
        one.query("INSERT INTO triggers DEFAULT VALUES").unwrap();
        assert_eq!(other.value("SELECT concat(current_setting('app.hidden', true))"), "");
    }
}

#[test]
fn what_a_client_says_itself_is_not_taken_for_codes_doing() {
    let cluster = Cluster::builder().start().unwrap();
    cluster.primary().query_in(DATABASE, SETUP).unwrap();
    let pgweir = Conf::trust(&cluster).user("boss", "").size(2).pool("server_order = \"rotate\"").start();
    let connect =
        |parameters: &[(&str, &str)]| Client::connect_with(pgweir.port(), &[&[("user", "boss")], parameters].concat());
    let mut changes = connect(&[]);
    for _ in 0..10 {
        let mut acts = connect(&[("options", "-c role=one"), ("TimeZone", "America/Lima"), ("app.tenant", "start")]);
        assert_eq!(acts.parameters["is_superuser"], "off");
        changes.query(CHANGE).unwrap();
        // Before the code is read again every statement may be anything.
        acts.query("SET ROLE NONE").unwrap();
        assert_eq!(acts.parameters["is_superuser"], "on");
        changes.query(CHANGE).unwrap();
        acts.query("SET timezone = 'UTC'; SET app.tenant = ''").unwrap();
        assert_eq!(acts.parameters["TimeZone"], "UTC");
        for _ in 0..2 {
            let seen = acts.query("SELECT current_setting('app.tenant'), current_setting('timezone'), current_user");
            assert_eq!(seen.unwrap(), [["", "UTC", "boss"]]);
        }
        assert_eq!(acts.parameters["is_superuser"], "on");
    }
}
