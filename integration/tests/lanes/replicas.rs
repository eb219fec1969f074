//! Lanes on replicas: reads ride there too, and see what their client has written.
//! It must never write a row of another client.

use std::time::Duration;

use integration::Cluster;

use crate::common::{Client, Conf, crowd, eventually, metric, within};
use crate::{TABLES, conf, start, unfit};
use integration::Pgweir;

fn rides(pgweir: &Pgweir, role: &str) -> f64 {
    metric(pgweir, "pgweir_pool_lane_rides_total", &[("role", role)])
}

#[test]
fn reads_ride_on_replicas_behind_their_own_writes() {
    let cluster = Cluster::builder().replicas(1).sql(TABLES).start().unwrap();
    let conf: Conf = conf(&cluster).size(4);
    let pgweir = start(&conf);
    let mut first = Client::connect(pgweir.port());
    within(Duration::from_secs(40), "reads ride on the replica", || {
        (0..120).for_each(|_| assert_eq!(first.value("SELECT v FROM item WHERE id = 900"), "item 900"));
        rides(&pgweir, "replica") > 0.0
    });
    let (port, before) = (pgweir.port(), rides(&pgweir, "replica"));
    crowd(12, move |number| {
        let mut client = Client::connect(port);
        let id = number + 1;
        for turn in 0..40 {
            client.query(&format!("UPDATE item SET v = '{number}-{turn}' WHERE id = {id}")).unwrap();
            for _ in 0..4 {
                let seen = client.value(&format!("SELECT v FROM item WHERE id = {id}"));
                assert_eq!(seen, format!("{number}-{turn}"));
            }
            // Of nobody's writing.
            assert_eq!(
                client.value(&format!("SELECT v FROM item WHERE id = {}", 500 + turn)),
                format!("item {}", 500 + turn)
            );
        }
    });
    let rode = rides(&pgweir, "replica") - before;
    println!("{rode} rides on the replica, {} on the primary", rides(&pgweir, "primary"));
    eventually("reads ride on the replica", || {
        assert_eq!(first.value("SELECT v FROM item WHERE id = 900"), "item 900");
        rides(&pgweir, "replica") > before + 100.0
    });
    assert!(rode > 0.0, "{:?}", unfit(&pgweir));
    is_gone_and_nobody_hears(&cluster, &pgweir);
}

/// The replica goes away under its riders.
fn is_gone_and_nobody_hears(cluster: &Cluster, pgweir: &Pgweir) {
    let port = pgweir.port();
    std::thread::scope(|scope| {
        let riders: Vec<_> = (0..12)
            .map(|number: usize| {
                scope.spawn(move || {
                    let mut client = Client::connect(port);
                    for turn in 0..200 {
                        let id = (number * 60 + turn) % 900 + 100;
                        assert_eq!(client.value(&format!("SELECT v FROM item WHERE id = {id}")), format!("item {id}"));
                    }
                })
            })
            .collect();
        cluster.replicas()[0].kill();
        riders.into_iter().for_each(|rider| rider.join().unwrap());
    });
}
