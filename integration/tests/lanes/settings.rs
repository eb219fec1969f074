//! Clients read what their own settings say, whoever they share servers with.
//! It must never tell clients apart by anything but their settings: their shapes are the same.

use integration::wire::Script;

use crate::common::{Client, crowd};
use crate::{Asker, Rides, WAYS, cluster, conf, rides, start, unfit, warm_askers, warm_sql};

const PLACE: &str = "SELECT v FROM place";
const MOMENT: &str = "SELECT at FROM moment WHERE id = 1";

fn two(client: &mut Client) -> [String; 2] {
    [client.value(PLACE), client.value(MOMENT)]
}

/// Of these names of settings.
fn right(schema: &str, zone: &str, style: &str) -> [String; 2] {
    let moment = match (zone, style) {
        ("UTC", "ISO") => "2024-02-03 12:00:00+00",
        ("UTC", _) => "03.02.2024 12:00:00 UTC",
        (_, "ISO") => "2024-02-03 21:00:00+09",
        _ => "03.02.2024 21:00:00 JST",
    };
    [schema.into(), moment.into()]
}

/// Every combination at once, given at login or later, and each as its clients say.
#[test]
fn each_client_reads_under_its_own_settings() {
    let pgweir = start(&conf(cluster()).size(16));
    let mut first = Client::connect(pgweir.port());
    first.query("SET search_path = a, public").unwrap();
    [PLACE, MOMENT].iter().for_each(|sql| crate::warm(&pgweir, &mut first, &Script::new().query(sql)));
    let (port, before) = (pgweir.port(), rides(&pgweir));
    crowd(24, move |number| {
        let schema = ["a", "b"][number % 2];
        let zone = ["UTC", "Asia/Tokyo"][number / 2 % 2];
        let style = ["ISO", "German"][number / 4 % 2];
        let mut client = if number < 8 {
            let path = format!("-c search_path={schema},public");
            Client::connect_with(port, &[("options", &path), ("TimeZone", zone), ("DateStyle", style)])
        } else {
            let mut client = Client::connect(port);
            client
                .query(&format!("SET search_path = {schema}, public; SET TimeZone = '{zone}'; SET DateStyle = {style}"))
                .unwrap();
            client
        };
        for turn in 0..80 {
            assert_eq!(two(&mut client), right(schema, zone, style), "client {number}, turn {turn}");
        }
    });
    assert!(rides(&pgweir) > before + 20.0, "{:?}", unfit(&pgweir));
}

/// From one moment to the next, beside others who stay as they are.
#[test]
fn a_change_holds_from_the_next_read_on() {
    let pgweir = start(&conf(cluster()).size(5));
    let mut first = Client::connect(pgweir.port());
    first.query("SET search_path = a, public").unwrap();
    [PLACE, MOMENT].iter().for_each(|sql| crate::warm(&pgweir, &mut first, &Script::new().query(sql)));
    let (port, before) = (pgweir.port(), rides(&pgweir));
    crowd(12, move |number| {
        let mut client = Client::connect(port);
        client.query("SET search_path = a, public; SET TimeZone = 'UTC'").unwrap();
        for turn in 0..24 {
            let (schema, zone) = (["a", "b"][(turn + number) % 2], ["UTC", "Asia/Tokyo"][(turn / 2 + number) % 2]);
            if number >= 4 {
                // In one statement each, in two, or undone by a rollback.
                match turn % 3 {
                    0 => client.query(&format!("SET search_path = {schema}, public; SET TimeZone = '{zone}'")).unwrap(),
                    1 => {
                        client.query(&format!("SELECT set_config('search_path', '{schema}, public', false)")).unwrap();
                        client.query(&format!("SET TIME ZONE '{zone}'")).unwrap()
                    }
                    _ => {
                        client.query(&format!("SET search_path = {schema}, public; SET TimeZone = '{zone}'")).unwrap();
                        client.query("BEGIN; SET search_path = public, a; ROLLBACK").unwrap()
                    }
                };
            }
            for _ in 0..5 {
                let right = if number >= 4 { right(schema, zone, "ISO") } else { right("a", "UTC", "ISO") };
                assert_eq!(two(&mut client), right, "client {number}, turn {turn}");
            }
        }
    });
    assert!(rides(&pgweir) > before + 100.0, "{:?}", unfit(&pgweir));
}

/// Names of applications may differ, and rides are shared all the same; who asks for his reads his own.
#[test]
fn names_of_applications_may_differ() {
    let pgweir = start(&conf(cluster()).size(3));
    warm_askers(&pgweir);
    let (port, before) = (pgweir.port(), Rides::of(&pgweir));
    crowd(20, move |number| {
        let name = format!("application {number}");
        let mut asker = Asker::of(Client::connect_with(port, &[("application_name", &name)]), number);
        for turn in 0..60 {
            asker.ask(WAYS[turn % 3]);
            if turn % 5 == 0 {
                assert_eq!(asker.client.value("SHOW application_name"), name);
                assert_eq!(asker.client.value("SELECT current_setting('application_name')"), name);
                assert_eq!(asker.client.value("SELECT label()"), name);
                let sql = "SELECT setting FROM pg_settings WHERE name = 'application_name'";
                assert_eq!(asker.client.value(sql), name);
            }
        }
    });
    let went = Rides::of(&pgweir).since(before);
    assert!(went.rides > 600.0 && went.writes < went.rides, "{went:?} {:?}", unfit(&pgweir));
}

/// Those who ask for a setting by whatever way, often enough to ride if that were thought safe, and with others between.
#[test]
fn a_setting_is_never_read_of_another() {
    let pgweir = start(&conf(cluster()).size(2));
    let asks = [
        "SELECT current_setting('application_name')",
        "SELECT label()",
        "SELECT v || label() FROM item WHERE id = 3",
        "SELECT setting FROM pg_settings WHERE name = 'application_name'",
        "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()",
    ];
    let port = pgweir.port();
    crowd(4, move |number| {
        let name = format!("name {number}");
        let mut client = Client::connect_with(port, &[("application_name", &name)]);
        for _ in 0..150 {
            for ask in asks {
                assert!(client.value(ask).ends_with(&name), "{ask}");
            }
        }
    });
    assert_eq!(rides(&pgweir), 0.0);
}

/// Who is in a transaction, or has what only one server has, rides not.
#[test]
fn transactions_and_pins_do_not_ride() {
    let pgweir = start(&conf(cluster()).size(5));
    warm_askers(&pgweir);
    warm_sql(&pgweir, &["SELECT v FROM item WHERE id = 3"]);
    let port = pgweir.port();
    let ways = [
        ("BEGIN", "COMMIT"),
        ("BEGIN READ ONLY", "ROLLBACK"),
        ("BEGIN; SET LOCAL search_path = public", "COMMIT"),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", "COMMIT"),
        ("CREATE TEMP TABLE own (id int)", "DROP TABLE own"),
        ("LISTEN news", "UNLISTEN *"),
        ("DECLARE here CURSOR WITH HOLD FOR SELECT 1", "CLOSE here"),
        ("PREPARE own AS SELECT 1", "DEALLOCATE own"),
        ("SELECT pg_advisory_lock(7)", "SELECT pg_advisory_unlock(7)"),
    ];
    for (enter, leave) in ways {
        let mut asker = Asker::new(port, 0);
        asker.client.query(enter).unwrap();
        let before = rides(&pgweir);
        for turn in 0..60 {
            asker.ask(WAYS[turn % 3]);
        }
        let rode = rides(&pgweir) - before;
        let holds = !enter.starts_with("PREPARE");
        assert!(rode == 0.0 || !holds, "{rode} rides after {enter}");
        asker.client.query(leave).unwrap();
    }
}

/// Who listens hears what it listens to, and its reads are answered beside that.
#[test]
fn listening_clients_hear_and_do_not_ride() {
    let pgweir = start(&conf(cluster()).size(4));
    warm_askers(&pgweir);
    let mut listener = Asker::new(pgweir.port(), 1);
    let mut speaker = Client::connect(pgweir.port());
    listener.client.query("LISTEN lanes_news").unwrap();
    let before = rides(&pgweir);
    for turn in 0..40 {
        speaker.query(&format!("NOTIFY lanes_news, '{turn}'")).unwrap();
        let heard = listener.client.read().unwrap();
        assert_eq!(heard.tag, b'A');
        assert!(heard.body.windows(2).any(|two| two == [b'0' + (turn % 10) as u8, 0]), "{:?}", heard.body);
        listener.ask(WAYS[turn % 3]);
    }
    assert_eq!(rides(&pgweir), before);
}
