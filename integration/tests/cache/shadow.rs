//! In shadow mode nothing is served, and what would have been wrong is seen.
//! It must never count on anything but a write past pgweir to make an answer wrong.

use crate::common::{Client, eventually};
use crate::{ask_sql, builder, conf, count, direct, hits, start};

#[test]
fn a_write_past_pgweir_shows_as_a_mismatch() {
    let cluster = builder().start().unwrap();
    let conf = conf(&cluster, "mode = \"shadow\"\nttl = \"1h\"");
    let pgweir = start(&conf);
    let mut client = Client::connect(pgweir.port());
    let sql = "SELECT v FROM item WHERE id = 3";
    let before = count(&pgweir, "shadow_matches");
    // An answer is compared when its client has it.
    let compared = |all: f64| {
        let counts = || (count(&pgweir, "shadow_matches"), count(&pgweir, "shadow_mismatches"));
        eventually("all are compared", || counts().0 + counts().1 >= all);
        counts()
    };
    for _ in 0..4 {
        assert_eq!(client.value(sql), "item 3");
    }
    assert_eq!(compared(before + 3.0), (before + 3.0, 0.0));
    direct(&cluster, "UPDATE item SET v = 'changed' WHERE id = 3");
    for _ in 0..3 {
        assert_eq!(client.value(sql), "changed");
    }
    // Seen once: then the cache has the new one.
    assert_eq!(compared(before + 6.0), (before + 5.0, 1.0));
    let log = pgweir.log();
    let line = log.lines().find(|line| line.contains("the cache would have given another answer")).unwrap();
    assert!(line.to_lowercase().contains("select v from item") && !line.contains("changed"), "{line}");
    assert_eq!(hits(&pgweir), 0.0);
    // Own writes are not wrong: such answers would not be given.
    client.query("UPDATE item SET v = 'mine' WHERE id = 3").unwrap();
    assert_eq!(client.value(sql), "mine");
    assert_eq!(client.value(sql), "mine");
    assert_eq!(compared(before + 7.0), (before + 6.0, 1.0));
}

/// The mode is what the configuration says now.
#[test]
fn a_reload_turns_it_on_and_off() {
    let cluster = builder().start().unwrap();
    let conf = |mode: &str| conf(&cluster, &format!("mode = \"{mode}\"\nttl = \"1h\"")).top("workers = 1");
    let pgweir = start(&crate::conf(&cluster, "mode = \"off\"\nttl = \"1h\""));
    let mut client = Client::connect(pgweir.port());
    let sql = "SELECT v FROM item WHERE id = 4";
    for _ in 0..3 {
        assert!(!ask_sql(&pgweir, &mut client, sql).1);
    }
    pgweir.reload(&conf("on").text()).unwrap();
    eventually("it serves", || ask_sql(&pgweir, &mut client, sql).1);
    pgweir.reload(&conf("off").text()).unwrap();
    eventually("it serves no more", || !ask_sql(&pgweir, &mut client, sql).1);
    direct(&cluster, "UPDATE item SET v = 'changed' WHERE id = 4");
    pgweir.reload(&conf("on").text()).unwrap();
    // What was kept before it was off is gone.
    eventually("it serves again", || {
        let (rows, hit) = ask_sql(&pgweir, &mut client, sql);
        assert_eq!(rows, [["changed"]]);
        hit
    });
}
