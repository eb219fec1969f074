//! More shapes than anybody looks at: the ones that take the time are found, and the rest takes no memory.
//! It must never call a shape heavy that the light ones could reach by chance.
//!
//! 20,000 shapes; `PGWEIR_LONG=1` makes it 200,000.

use crate::common::Client;
use crate::{conf, json, ready};

const HEAVY: u32 = 50;
/// Calls of each heavy one, of 4 ms.
const CALLS: u32 = 8;
/// Of what a process may have more behind any number of shapes: 600 entries of 10 KiB, 20,000 verdicts with up to a KiB of text, as many
/// learned, and what the allocator keeps of it.
const MOST: u64 = 32 << 20;

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn the_heaviest_of_any_number_of_shapes_are_there() {
    let shapes = if std::env::var_os("PGWEIR_LONG").is_some() { 200_000 } else { 20_000 };
    let pgweir = conf().top("workers = 1").stats("max_shapes = 500").pool("slow_query = 0").start();
    ready(&pgweir);
    let mut client = Client::connect(pgweir.port());
    let before = resident(pgweir.id());
    // Between the light ones, so that none of them stays by being busy.
    let every = shapes / (HEAVY * CALLS);
    for n in 0..shapes {
        client.query(&format!("SELECT {n} AS light_{n}")).unwrap();
        if n % every == 0 {
            client.query(&format!("SELECT pg_sleep(0.004) AS heavy_{}", n / every % HEAVY)).unwrap();
        }
    }
    let grown = resident(pgweir.id()).saturating_sub(before);
    assert!(grown < MOST, "{grown} bytes");
    let all = json(&pgweir, "/api/queries?by=total&limit=10000");
    let queries = all["queries"].as_array().unwrap();
    // The rest together is one of them, and a light one may have met with a machine that stood still.
    let first = &queries[..HEAVY as usize + 10];
    for n in 0..HEAVY {
        let name = format!("as heavy_{n}");
        let heavy = first.iter().find(|it| it["query"].as_str().unwrap().ends_with(&name));
        assert!(heavy.is_some_and(|it| it["calls_total"] == CALLS), "{name}: {heavy:#?}");
    }
    // And nothing was lost of what is not shown by itself.
    let calls = queries.iter().map(|it| it["calls_total"].as_u64().unwrap()).sum::<u64>();
    assert!(calls >= u64::from(shapes + HEAVY * CALLS), "{calls}");
    println!("{shapes} shapes: {:.1} MiB more", grown as f64 / f64::from(1 << 20));
}
