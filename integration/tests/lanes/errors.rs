//! Errors stay with the statement that caused them, and are what PostgreSQL says.
//! It must never compare less than all fields.

use integration::wire::{Frame, Script};

use crate::common::client::said;
use crate::common::{Client, crowd, eventually};
use crate::{Rides, WAYS, Way, cluster, conf, start, unfit, warm};

const SQL: &str = "SELECT 1000 / (id - 50) AS part, v FROM item WHERE id = $1";

fn script(way: Way, id: usize) -> Script {
    way.script(SQL, "part", id)
}

fn connect(port: u16) -> Client {
    let mut client = Client::connect(port);
    client.run(&Script::new().parse("part", SQL).sync());
    client
}

fn right(port: u16, ids: &[usize]) -> Vec<Vec<Vec<Frame>>> {
    let mut direct = connect(port);
    WAYS.map(|way| ids.iter().map(|id| direct.run(&script(way, *id))).collect()).into()
}

#[test]
fn who_divides_by_zero_hears_of_it_and_nobody_else() {
    let pgweir = start(&conf(cluster()).size(3));
    let mut first = connect(pgweir.port());
    WAYS.iter().for_each(|way| warm(&pgweir, &mut first, &script(*way, 1)));
    // The one in the middle fails, the last is not there.
    let ids = [1, 49, 50, 51, 1000, 5000];
    let answers = right(cluster().primary().port(), &ids);
    assert_eq!(said(&answers[0][2][1]), "22012 division by zero");
    let errors = || cluster().primary().log().matches("ERROR:  division by zero").count();
    let (port, before, told) = (pgweir.port(), Rides::of(&pgweir), errors());
    let failed: usize = crowd(20, move |number| {
        let mut client = connect(port);
        let mut failed = 0;
        for turn in 0..150 {
            let way = (number + turn) % 3;
            let at = if (number + turn) % 17 == 0 { 2 } else { [0, 1, 3, 4, 5][turn % 5] };
            let frames = client.run(&script(WAYS[way], ids[at]));
            assert_eq!(frames, answers[way][at], "client {number} asks {:?} for {}", WAYS[way], ids[at]);
            failed += usize::from(at == 2);
        }
        failed
    })
    .into_iter()
    .sum();
    let went = Rides::of(&pgweir).since(before);
    assert!(went.rides > 1000.0, "{went:?} {:?}", unfit(&pgweir));
    // What is wrong with a statement itself is found out once.
    eventually("all are in the log", || errors() - told >= failed);
    assert_eq!(errors() - told, failed, "{went:?}");
}

/// What the grammar or the parameters are wrong in.
#[test]
fn parameters_that_are_none_are_answered_as_directly() {
    let pgweir = start(&conf(cluster()).size(3));
    let mut client = connect(pgweir.port());
    warm(&pgweir, &mut client, &script(Way::Named, 1));
    warm(&pgweir, &mut client, &script(Way::Unnamed, 1));
    let scripts = || {
        let values = [Some("no number")];
        [
            Script::new().bind("", "part", &values).execute("", 0).sync(),
            Script::new().bind("", "part", &[]).execute("", 0).sync(),
            Script::new().bind("", "nobody", &values).execute("", 0).sync(),
            Script::new().bind("here", "part", &[Some("1")]).execute("there", 0).sync(),
            Script::new().parse("", SQL).bind("", "", &[Some("1"), Some("2")]).execute("", 0).sync(),
            Script::new().raw(b'B', b"\0part\0\0\0").execute("", 0).sync(),
        ]
    };
    let mut direct = connect(cluster().primary().port());
    for script in scripts() {
        let answer = direct.run(&script);
        for _ in 0..3 {
            assert_eq!(client.run(&script), answer);
            let good = client.run(&self::script(Way::Named, 1));
            assert_eq!(good.len(), 5, "{good:?}");
        }
    }
}
