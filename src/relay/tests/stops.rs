//! One exchange, stopped behind each of its bytes.
//! Must never look at the real clock.

use std::time::Duration;

use super::rig::letters;
use super::speech::*;
use crate::base::clock::paused::Paused;

/// What a client asks, and what it is answered by a server that is there all the time.
fn exchange() -> (Vec<u8>, &'static str) {
    let asked = [
        parse("s", "select 1"),
        run("s"),
        sync(),
        query("begin"),
        query("select 2 rows"),
        parse("", "copy t to stdout"),
        run(""),
        describe(b'S', "s"),
        sync(),
        query("select 1/0"),
        query("rollback"),
    ];
    (asked.concat(), "12DCZICZTTDDCZT12HdcCtTZTE(22012)ZECZI")
}

/// A server splits, stalls or dies behind every byte of what it says, and a client behind every byte it writes.
#[test]
fn no_byte_is_a_bad_one_to_stop_behind() {
    let (asked, expected) = exchange();
    let pool = "default_pool_size = 1\nquery_timeout = \"1s\"";
    for dies in [false, true] {
        for cut in 0.. {
            let clock = Paused::new();
            let mut rig = super::pooling::with_clients(pool, 2);
            rig.hosts[0].answering = false;
            rig.tell(0, &asked[..cut.min(asked.len())]);
            rig.tell(0, &asked[cut.min(asked.len())..]);
            rig.tell(1, &query("select 9"));
            let mut said = 0;
            let mut heard = Vec::new();
            loop {
                let asked = std::mem::take(&mut rig.hosts[0].mem.ends().output);
                let answer = rig.hosts[0].backend.feed(&asked);
                if answer.is_empty() {
                    break;
                }
                let split = cut.saturating_sub(said).min(answer.len());
                rig.say(0, &answer[..split]);
                if dies && said + split == cut {
                    rig.die(0);
                    rig.run();
                    break;
                }
                clock.advance(Duration::from_millis(1100));
                rig.relay.sweep();
                rig.run();
                rig.say(0, &answer[split..]);
                said += answer.len();
                heard.extend(rig.heard(0));
            }
            heard.extend(rig.heard(0));
            rig.finish_cancels();
            rig.hosts.iter_mut().for_each(|host| {
                host.answering = true;
                host.wake();
            });
            rig.run();
            heard.extend(rig.heard(0));
            assert_eq!(letters(&rig.heard(1)), "TDCZI", "behind byte {cut}, dies {dies}: the next is not served");
            if dies && said <= cut {
                let told = letters(&heard);
                let whole = told.strip_suffix("E(08006)").unwrap_or(told.trim_end_matches('+'));
                assert!(expected.starts_with(whole), "behind byte {cut}: {told}");
                assert!(rig.is_gone(0), "behind byte {cut}");
            } else {
                assert_eq!(letters(&heard), expected, "behind byte {cut}");
            }
            rig.assert_at_rest();
            if cut > asked.len() && cut > said {
                break;
            }
        }
    }
}
