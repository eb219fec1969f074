//! Both query protocols on the console, and what breaks them.
//! It must never send what pgweir would have to take for something else.

use crate::common::client::{said, tags};
use crate::common::eventually;
use crate::{conf, console, show};
use integration::wire::Script;

#[test]
fn several_commands_in_one_text() {
    let pgweir = conf().start();
    let mut client = console(&pgweir);
    let frames = client.run(&Script::new().query("BEGIN; SHOW STATE WHERE key = 'active'; COMMIT;"));
    assert_eq!(tags(&frames), "CTDCCZ");
    assert_eq!(tags(&client.run(&Script::new().query(" ; -- nothing"))), "IZ");
    assert_eq!(tags(&client.run(&Script::new().query("SHOW HELP"))), "NCZ");
    // What comes behind an error is not done.
    let frames = client.run(&Script::new().query("SHOW STATE; nonsense; SHOW STATE"));
    assert_eq!(tags(&frames), "EZ");
    let frames = client.run(&Script::new().query("SET x = 1; SHOW STATE"));
    assert_eq!(tags(&frames), "EZ");
    // The status tells drivers whether a transaction is open.
    let status = |frames: Vec<integration::wire::Frame>| char::from(frames.last().unwrap().body[0]);
    assert_eq!(status(client.run(&Script::new().query("BEGIN"))), 'T');
    assert_eq!(status(client.run(&Script::new().query("SHOW nonsense"))), 'T');
    assert_eq!(status(client.run(&Script::new().query("ROLLBACK"))), 'I');
}

#[test]
fn statements_with_parameters_and_portals() {
    let pgweir = conf().start();
    let mut client = console(&pgweir);
    let prepared =
        Script::new().parse("one", "SHOW LISTS WHERE items >= $1 ORDER BY list LIMIT $2").describe(b'S', "one").sync();
    let frames = client.run(&prepared);
    assert_eq!(tags(&frames), "1tTZ");
    assert_eq!(frames[1].body, [0, 2, 0, 0, 0, 25, 0, 0, 0, 25], "two texts");
    let execute = |count: &str, rows: u32| {
        Script::new().bind("p", "one", &[Some("0"), Some(count)]).describe(b'P', "p").execute("p", rows).sync()
    };
    assert_eq!(tags(&client.run(&execute("3", 0))), "2TDDDCZ");
    assert_eq!(tags(&client.run(&execute("3", 2))), "2TDDsZ");
    // The rest of a portal, in one batch.
    let rest =
        Script::new().bind("", "one", &[Some("0"), Some("5")]).execute("", 2).execute("", 2).execute("", 2).sync();
    assert_eq!(tags(&client.run(&rest)), "2DDsDDsDCZ");
    // What is wrong is told once, and the rest of the batch is read over.
    let wrong = Script::new().bind("", "one", &[Some("x"), Some("5")]).execute("", 0).describe(b'P', "").sync();
    let frames = client.run(&wrong);
    assert_eq!(
        (tags(&frames), said(&frames[1])),
        ("2EZ".into(), "22P02 \"x\" is no whole number, as items is compared with".into())
    );
    for (script, error) in [
        (Script::new().bind("", "two", &[]), "26000 prepared statement \"two\" does not exist"),
        (Script::new().execute("q", 0), "34000 portal \"q\" does not exist"),
        (
            Script::new().bind("", "one", &[]),
            "08P01 bind message supplies 0 parameters, but prepared statement \"one\" requires 2",
        ),
        (Script::new().parse("one", "SHOW STATE"), "42P05 prepared statement \"one\" already exists"),
        (
            Script::new().parse("", "SHOW STATE; SHOW STATE"),
            "42601 cannot insert multiple commands into a prepared statement",
        ),
        (Script::new().parse("", "SHOW STATE WHERE x = 1"), "42703 column \"x\" does not exist"),
    ] {
        let frames = client.run(&script.sync());
        assert_eq!((tags(&frames), said(&frames[0])), ("EZ".into(), error.into()));
    }
    let empty = Script::new().parse("", "").bind("", "", &[]).describe(b'P', "").execute("", 0).sync();
    assert_eq!(tags(&client.run(&empty)), "12nIZ");
    let closed = Script::new().close(b'S', "one").parse("one", "RECONNECT").bind("", "one", &[]).execute("", 0).sync();
    assert_eq!(tags(&client.run(&closed)), "312CZ");
}

/// A message that is none ends the session and no other.
#[test]
fn broken_messages() {
    let pgweir = conf().start();
    let mut other = console(&pgweir);
    for (tag, body) in [
        (b'P', &b"\0SHOW POOLS\0"[..]),
        (b'B', b"\0\0\0\0\0\x01\0\0\0\x10ab"),
        (b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),
        (b'E', b"\0\0"),
        (b'D', b""),
        (b'Q', b"SHOW POOLS"),
        (b'Q', b"SHOW POOLS\0more\0"),
        (b'F', b"\0\0\0\0\0\0"),
        (b'p', b"secret\0"),
        (b'?', b""),
    ] {
        let mut client = console(&pgweir);
        client.send(&Script::new().raw(tag, body));
        let frames = client.frames_to_end();
        assert_eq!(tags(&frames), "E", "{}", char::from(tag));
        assert!(said(&frames[0]).starts_with("08P01"), "{}", said(&frames[0]));
    }
    let mut client = console(&pgweir);
    client.write(b"Q\x7f\xff\xff\xff");
    let frames = client.frames_to_end();
    assert!(tags(&frames) == "E" && said(&frames[0]).starts_with("08P01"), "{frames:?}");
    assert_eq!(show(&mut other, "SHOW STATE").rows.len(), 3);
    // Whoever just goes leaves nothing behind.
    console(&pgweir).vanish();
    eventually("it is alone", || show(&mut other, "SHOW CLIENTS").rows.len() == 1);
}
