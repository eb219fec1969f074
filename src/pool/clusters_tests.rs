//! What is known of a cluster when hosts were added or taken away.
//! Must never need a server.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::pool::cluster::{Says, Sight, Standing};

fn database(hosts: &[&str]) -> Database {
    let text = "[databases.a]\ndiscover = [\"dns://h\"]\n[users.u]\npassword = \"x\"";
    let mut config = crate::config::Config::parse(text, "f.toml").unwrap();
    let mut database = config.databases.remove("a").unwrap();
    let servers = hosts.iter().map(|host| host.parse().unwrap()).collect();
    database.set_found(&crate::config::Found { servers, ..Default::default() });
    database
}

fn says(standby: bool, timeline: u32) -> Says {
    Says { standby, lsn: 100, shown: 100, timeline }
}

#[test]
fn a_single_host_that_was_found_is_asked() {
    let one = Clusters::default().of(&database(&["h1"]));
    assert_eq!((one.is_watched(), one.primary(), one.is_known()), (true, None, false));
    // Also while none is known.
    assert!(Clusters::default().of(&database(&[])).is_watched());
}

#[test]
fn what_was_seen_a_moment_ago_holds_where_hosts_were_added() {
    let clusters = Clusters::default();
    let two = clusters.of(&database(&["h2", "h3"]));
    assert!(clusters.lacks_primary("a"));
    two.heard(0, 1, says(false, 3));
    two.heard(1, 1, says(true, 3));
    assert!(!clusters.lacks_primary("a") && !clusters.lacks_primary("b"));
    let three = clusters.of(&database(&["h1", "h2", "h3"]));
    assert_eq!((three.primary(), three.members[0].standing()), (Some(1), Standing::Unknown));
    assert!(three.serves(2, &Sight::default()) && !three.serves(0, &Sight::default()));
    // The new one turns out to have been promoted: who is left in the old cluster hears of it too.
    three.heard(0, 1, says(false, 4));
    assert_eq!(three.primary(), Some(0));
    assert!(two.is_left_behind(0) && !two.is_left_behind(1));
    two.heard(0, 2, says(false, 3));
    assert_eq!(two.primary(), None);
}

/// Between one cluster and its successor nobody may have used the database.
#[test]
fn an_old_primary_is_not_believed_when_the_hosts_have_changed() {
    let clusters = Clusters::default();
    let two = clusters.of(&database(&["h1", "h2"]));
    two.heard(0, 1, says(false, 1));
    two.heard(1, 1, says(false, 2));
    assert_eq!(two.primary(), Some(1));
    drop(two);
    let other = clusters.of(&database(&["h1", "h3"]));
    other.heard(0, 1, says(false, 1));
    other.heard(1, 1, says(true, 1));
    assert_eq!(other.primary(), None);
}

/// Timelines of clusters that have nothing to do with each other cannot be compared.
#[test]
fn another_cluster_of_that_name_is_another_cluster() {
    let clusters = Clusters::default();
    let found = clusters.of(&database(&["h1"]));
    found.heard(0, 1, says(false, 7));
    let mut listed = database(&["h8", "h9"]);
    listed.discover = None;
    let listed = clusters.of(&listed);
    listed.heard(0, 1, says(false, 1));
    listed.heard(1, 1, says(true, 1));
    assert_eq!(listed.primary(), Some(0));
}
