//! The rules of this code base that no compiler knows, checked over every file of `src`.
//! Must never edit anything, nor need more than the standard library.
//!
//! What is looked at is code: comments and the contents of strings are blanked out first, and
//! items under `#[cfg(test)]` too where a rule is not for tests. The checkers are tested on small
//! texts at the end of this file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Longest file. What is aimed at is 400; the rest is room for a change that would otherwise have
/// to split a file in the same breath.
const FILE_LINES: usize = 450;
/// Longest function, signature and last brace included. What is aimed at is 70: the rest is for a
/// `match` over a protocol, which two functions would only tear apart. Tests may be longer: most
/// long ones are a table.
const FUNCTION_LINES: usize = 90;

/// The floors, lowest first. A module uses modules of lower floors only.
const FLOORS: &[&[&str]] = &[
    &["base"],
    &["wire", "config"],
    &["flow", "auth", "meter", "sql"],
    &["net", "audit"],
    &["server", "cache", "trace"],
    &["pool"],
    &["relay", "health"],
    &["gate", "worker", "export"],
    &["console"],
    &["app"],
];

/// Uses of a neighbour on the same floor: who, what, why.
const NEIGHBOURS: &[(&str, &[&str], &str)] = &[(
    "gate",
    &["worker::WeakMailbox", "worker::Mail", "worker::Hand"],
    "a gate hands its clients to a worker; neither can be below the other, and the mailbox belongs to who reads it",
)];

/// Files above `base` that may have a lock.
const LOCKS: &[(&str, &str)] = &[
    ("cache/entry.rs", "who keeps an answer holds its tenant; nobody who is told one does"),
    ("cache/feed.rs", "who follows a stream holds it, beside the data path"),
    ("cache/fence.rs", "what is under way; taken for a moment when a write begins and ends, where writes are fenced"),
    ("cache/hearing.rs", "who listens in a database holds it, beside the data path"),
    ("cache/pattern.rs", "who takes answers back by a pattern; nobody who is given one does"),
    ("cache/signal.rs", "what other processes are yet to be told; taken by who gives a signal, and by who tells them"),
    ("cache/warm.rs", "a session that only fills the cache; nobody else's answers go through it"),
    ("cache/shared.rs", "who has the store; taken when a worker starts or a configuration is loaded"),
    (
        "cache/store.rs",
        "names of tenants and databases; taken when a worker makes a group, and where it first needs a database's changes",
    ),
    ("export/port.rs", "who connects to the stats port; taken when a connection comes and goes"),
    ("export/wrong.rs", "who asks at the stats port; nobody else takes it"),
    ("pool/member.rs", "who asks a host holds it, beside the data path"),
    ("net/mem.rs", "a test holds the other end of the socket; not in a production build"),
    (
        "pool/budget.rs",
        "limits that workers share; taken when connections are opened and closed, never per transaction",
    ),
    ("pool/cluster.rs", "what hosts say of themselves; taken by who asks them, by the others when a session begins"),
    ("pool/clusters.rs", "who has a database's cluster; taken when a worker makes a group, never per transaction"),
    (
        "pool/rate.rs",
        "who has a rate's bucket; taken when a worker meets the rules of a database, never per transaction",
    ),
    (
        "pool/vacate.rs",
        "wishes that workers tell each other; looked at once per sweep, and locked only where there is one",
    ),
];

/// Folders whose code sets no timer: limits of the data path are swept, see `relay/sweep.rs`.
const NO_TIMERS: &[&str] = &["relay", "flow", "pool"];

/// Files in those folders that may set timers.
const TIMERS: &[(&str, &str)] = &[
    ("relay/watch.rs", "its tasks ask servers for their positions, beside the data path"),
    (
        "relay/lane_watch.rs",
        "one for all lanes of a worker, while there are any: a tenth of a second is too long behind one that stalls",
    ),
    ("relay/stream.rs", "it holds the connections that bring the changes of a database, beside the data path"),
    ("relay/stream_beat.rs", "it asks on one of them, in turns"),
    ("relay/fence_keep.rs", "it holds the connections by which writes are fenced, beside the data path"),
    ("relay/fence_orphans.rs", "a part of that"),
    ("relay/fence_run.rs", "it asks Redis for who waits for that, and says for how long"),
    ("relay/hear.rs", "it holds the connection that hears what is said of answers, beside the data path"),
    ("relay/listen_task.rs", "it holds the connection that listens for clients, beside the data path"),
    ("relay/task.rs", "a client that was refused has some seconds to read why; it is in no relay"),
];

/// What ends a connection's task, or the process, instead of being handled.
const PANICS: &[&str] =
    &[".unwrap()", "panic!", "todo!", "unimplemented!", "dbg!", ".expect(\"", ".expect(&", ".expect(format!"];

/// One broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Breach {
    line: usize,
    what: String,
}

fn breach(line: usize, what: impl Into<String>) -> Breach {
    Breach { line, what: what.into() }
}

#[test]
fn src_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    assert!(files.len() > 50, "only {} files found in {}", files.len(), root.display());
    let mut report = String::new();
    for file in &files {
        let name = file.strip_prefix(&root).expect("below the root").to_string_lossy().replace('\\', "/");
        let text = std::fs::read_to_string(file).expect("a source file in UTF-8");
        for Breach { line, what } in check(&name, &text) {
            let _ = writeln!(report, "src/{name}:{line}: {what}");
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Everything wrong with one file; `name` is its path below `src`.
fn check(name: &str, text: &str) -> Vec<Breach> {
    let mut found: Vec<Breach> = header(text).into_iter().collect();
    found.extend(file_length(text));
    let code = blank(text);
    if !is_test_file(name) {
        let code = without_tests(&code);
        found.extend(functions(&code));
        found.extend(panics(&code));
        found.extend(floors(name, &code));
        found.extend(locks(name, &code));
        found.extend(timers(name, &code));
    }
    found.sort_by_key(|breach| breach.line);
    found
}

fn is_test_file(name: &str) -> bool {
    name.ends_with("_tests.rs") || name.ends_with("/tests.rs") || name.contains("/tests/")
}

fn header(text: &str) -> Option<Breach> {
    let says = |line: &str| line.strip_prefix("//! ").is_some_and(|said| !said.trim().is_empty());
    let line = text.lines().chain(["", ""]).take(2).position(|line| !says(line))? + 1;
    Some(breach(
        line,
        "no header: a file starts with `//!` twice; write in the first line what it is, in the second what it must never do",
    ))
}

fn file_length(text: &str) -> Option<Breach> {
    let lines = text.lines().count();
    (lines > FILE_LINES).then(|| {
        breach(lines, format!("file of {lines} lines, {FILE_LINES} are allowed: split it by concept, move long tests into a file of their own"))
    })
}

fn functions(code: &str) -> Vec<Breach> {
    let lines: Vec<&str> = code.lines().collect();
    let starts = lines.iter().enumerate().filter(|(_, line)| is_function(line));
    starts
        .filter_map(|(at, line)| {
            let length = item_end(&lines, at)? - at + 1;
            let name = line.split("fn ").nth(1)?.split(['(', '<']).next()?;
            (length > FUNCTION_LINES).then(|| {
                breach(at + 1, format!("function `{name}` of {length} lines, {FUNCTION_LINES} are allowed: give its steps names of their own"))
            })
        })
        .collect()
}

fn is_function(line: &str) -> bool {
    let Some((before, _)) = line.split_once("fn ") else { return false };
    let mut words = before.split_whitespace();
    words.all(|word| matches!(word, "const" | "async" | "unsafe" | "extern" | "\"\"") || word.starts_with("pub"))
        || before.trim().starts_with("pub(in ")
}

/// The last line of the item that starts at line `at` of blanked code: where a brace closes at its
/// indentation, or where it ends without a body.
fn item_end(lines: &[&str], at: usize) -> Option<usize> {
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let own = indentation(lines.get(at)?);
    let mut has_body = false;
    for (n, line) in lines.iter().enumerate().skip(at) {
        let code = line.trim();
        has_body |= code.contains('{');
        let closes = code.starts_with('}') || code.ends_with('}');
        let ends = code.ends_with([';', ',']) && !has_body;
        if indentation(line) == own && (closes || ends) {
            return Some(n);
        }
    }
    None
}

fn panics(code: &str) -> Vec<Breach> {
    let mut found = Vec::new();
    for word in PANICS {
        for at in places(code, word) {
            found.push(breach(
                line_of(code, at),
                format!(
                    "`{}` outside of tests: return an error, or use `let … else`, `get` or `unwrap_or_default`",
                    word.trim_end_matches(['"', '&'])
                ),
            ));
        }
    }
    found
}

fn floors(name: &str, code: &str) -> Vec<Breach> {
    let Some((module, _)) = name.split_once('/') else { return Vec::new() };
    let Some(own) = floor(module) else {
        return vec![breach(1, format!("module `{module}` is on no floor: give it one in FLOORS of tests/tidy.rs"))];
    };
    let mut found = Vec::new();
    for (line, path) in crate_paths(code) {
        let used = path.split("::").next().unwrap_or_default();
        if used == module || used == "self" {
            continue;
        }
        match floor(used) {
            None => found.push(breach(line, format!("`crate::{path}`: `{used}` is no module on a floor; name the module that has it"))),
            Some(floor) if floor > own => found.push(breach(
                line,
                format!("`{module}` (floor {own}) uses `crate::{path}` (floor {floor}): floors use lower ones only; move what is needed down, or pass it in"),
            )),
            Some(floor) if floor == own && !is_allowed_neighbour(module, &path) => found.push(breach(
                line,
                format!("`{module}` uses its neighbour `crate::{path}` on floor {own}: put what both need on a lower floor, or add it with the reason to NEIGHBOURS of tests/tidy.rs"),
            )),
            Some(_) => {}
        }
    }
    let depth = depth(name);
    for at in places(code, &"super::".repeat(depth)) {
        found.push(breach(
            line_of(code, at),
            format!("`super::` leaves `{module}`: write `crate::…`, so that the floor can be seen"),
        ));
    }
    found
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

fn is_allowed_neighbour(module: &str, path: &str) -> bool {
    NEIGHBOURS
        .iter()
        .filter(|(who, ..)| *who == module)
        .flat_map(|(_, what, _)| what.iter())
        .any(|allowed| path == *allowed || path.strip_prefix(allowed).is_some_and(|rest| rest.starts_with("::")))
}

/// How many modules deep the file's own module is: `a/mod.rs` 1, `a/b.rs` and `a/b/mod.rs` 2.
fn depth(name: &str) -> usize {
    name.trim_end_matches("/mod.rs").split('/').count()
}

/// Every path behind `crate::` with its line, those in braces one by one.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in places(code, "crate::") {
        let rest = &code[at + "crate::".len()..];
        expand("", rest, &mut |path| found.push((line_of(code, at), path)));
    }
    found
}

/// Reads a path or a tree of paths in braces at the front of `text`; returns what follows it.
fn expand<'a>(prefix: &str, text: &'a str, tell: &mut dyn FnMut(String)) -> &'a str {
    let text = text.trim_start();
    let Some(mut inside) = text.strip_prefix('{') else {
        let word = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
        let (word, rest) = text.split_at(word);
        let path = format!("{prefix}{word}");
        return match rest.strip_prefix("::") {
            Some(rest) if !rest.trim_start().starts_with(['<', '*']) => expand(&format!("{path}::"), rest, tell),
            _ => {
                tell(path);
                rest
            }
        };
    };
    loop {
        inside = inside.trim_start();
        if inside.is_empty() {
            return inside;
        }
        if let Some(rest) = inside.strip_prefix('}') {
            return rest;
        }
        inside = expand(prefix, inside, tell);
        // `as name` or `*`, and the comma.
        inside = inside.trim_start_matches(|c: char| c != ',' && c != '}').trim_start_matches(',');
    }
}

fn locks(name: &str, code: &str) -> Vec<Breach> {
    if name.starts_with("base/") || LOCKS.iter().any(|(file, _)| *file == name) {
        return Vec::new();
    }
    let words = ["Mutex", "RwLock"].iter().flat_map(|word| words(code, word));
    words
        .map(|at| {
            breach(line_of(code, at), "a lock above `base`: a worker's state has one thread; pass a message, or add the file with the reason to LOCKS of tests/tidy.rs")
        })
        .collect()
}

fn timers(name: &str, code: &str) -> Vec<Breach> {
    if TIMERS.iter().any(|(file, _)| *file == name)
        || !NO_TIMERS.iter().any(|folder| name.split('/').next() == Some(*folder))
    {
        return Vec::new();
    }
    let mut found = Vec::new();
    for at in places(code, "tokio::") {
        expand("tokio::", &code[at + "tokio::".len()..], &mut |path| {
            if path == "tokio::time" || path.starts_with("tokio::time::") {
                found.push(breach(
                    line_of(code, at),
                    format!("`{path}` on the data path, which sets no timer: put the limit into relay/sweep.rs, or add the file with the reason to TIMERS of tests/tidy.rs"),
                ));
            }
        });
    }
    found
}

/// Where `needle` stands in `code`, not behind a letter or underscore of a longer word.
fn places(code: &str, needle: &str) -> Vec<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let within = |at: usize| needle.starts_with(is_word) && code[..at].ends_with(is_word);
    code.match_indices(needle).map(|(at, _)| at).filter(|&at| !within(at)).collect()
}

/// Where the whole word `needle` stands.
fn words(code: &str, needle: &str) -> Vec<usize> {
    let goes_on = |at: usize| code[at + needle.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
    places(code, needle).into_iter().filter(|&at| !goes_on(at)).collect()
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// The code with every item under `#[cfg(test)]` blanked out, line by line.
fn without_tests(code: &str) -> String {
    let lines: Vec<&str> = code.lines().collect();
    let mut kept: Vec<&str> = lines.clone();
    for at in 0..lines.len() {
        if !lines[at].trim_start().starts_with("#[cfg(test)]") {
            continue;
        }
        let alone = lines[at].trim() == "#[cfg(test)]";
        let item = (at + usize::from(alone)..lines.len()).find(|&n| !alone || !lines[n].trim_start().starts_with("#["));
        let end = item.and_then(|item| item_end(&lines, item)).unwrap_or(lines.len() - 1);
        kept[at..=end].fill("");
    }
    kept.join("\n")
}

/// What the scanner of [`blank`] stands in.
#[derive(Clone, Copy, PartialEq)]
enum In {
    Code,
    LineComment,
    /// Nested so deep.
    Comment(usize),
    Text,
    /// `r##"…"##` with so many signs.
    RawText(usize),
}

/// The text with comments and the contents of strings and characters replaced by blanks; every
/// line stays, and the quotes too.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |n: usize| chars.get(n).copied().unwrap_or('\0');
    let mut out = String::with_capacity(text.len());
    let (mut n, mut state) = (0, In::Code);
    while n < chars.len() {
        // How many characters are passed, whether they are shown, and what comes then.
        let (pass, show, then) = match (state, at(n), at(n + 1)) {
            (In::Code, '/', '/') => (2, false, In::LineComment),
            (In::Code, '/', '*') => (2, false, In::Comment(1)),
            (In::Code, '"', _) => (1, true, In::Text),
            (In::Code, 'r', '"' | '#')
                if !(n > 0 && (at(n - 1).is_alphanumeric() && at(n - 1) != 'b' || at(n - 1) == '_')) =>
            {
                let signs = (n + 1..).take_while(|&n| at(n) == '#').count();
                if at(n + 1 + signs) == '"' { (signs + 2, true, In::RawText(signs)) } else { (1, true, In::Code) }
            }
            // A character, unless it is a lifetime.
            (In::Code, '\'', '\\') => {
                ((n + 3..).find(|&n| at(n) == '\'' || at(n) == '\0').unwrap_or(n) - n + 1, false, In::Code)
            }
            (In::Code, '\'', _) if at(n + 2) == '\'' => (3, false, In::Code),
            (In::LineComment, '\n', _) => (1, true, In::Code),
            (In::Comment(depth), '/', '*') => (2, false, In::Comment(depth + 1)),
            (In::Comment(depth), '*', '/') => (2, false, if depth == 1 { In::Code } else { In::Comment(depth - 1) }),
            (In::Text, '\\', _) => (2, false, In::Text),
            (In::Text, '"', _) => (1, true, In::Code),
            (In::RawText(signs), '"', _) if (1..=signs).all(|k| at(n + k) == '#') => (signs + 1, true, In::Code),
            (state, _, _) => (1, state == In::Code, state),
        };
        for &c in chars.iter().skip(n).take(pass) {
            out.push(if show || c == '\n' { c } else { ' ' });
        }
        (n, state) = (n + pass, then);
    }
    out
}

/// The rules broken by `code` as the file `name`, its two header lines put in front.
fn broken(name: &str, code: &str) -> Vec<Breach> {
    check(name, &format!("//! What.\n//! Never.\n{code}"))
}

#[track_caller]
fn assert_broken(name: &str, code: &str, line: usize, part: &str) {
    let found = broken(name, code);
    assert!(matches!(&found[..], [one] if one.line == line + 2 && one.what.contains(part)), "{code}: {found:?}");
}

#[track_caller]
fn assert_tidy(name: &str, code: &str) {
    assert_eq!(broken(name, code), [], "{code}");
}

#[test]
fn wants_a_header_in_every_file() {
    for (text, line) in [("", 1), ("use a;\n//! x\n", 1), ("//! One.\nfn f() {}\n", 2), ("//! One.\n//!\n", 2)] {
        let found = check("base/tests.rs", text);
        assert!(matches!(&found[..], [one] if one.line == line && one.what.contains("no header")), "{text}: {found:?}");
    }
}

#[test]
fn counts_lines_of_files_and_functions() {
    let lines = |n: usize| "    x();\n".repeat(n);
    assert_tidy("base/a.rs", &format!("fn f() {{\n{}}}\n", lines(FUNCTION_LINES - 2)));
    assert_broken(
        "base/a.rs",
        &format!("\npub(super) async fn f<T>(\n) {{\n{}}}\n", lines(FUNCTION_LINES - 2)),
        2,
        "`f` of 91",
    );
    assert_broken("base/a.rs", &"// x\n".repeat(FILE_LINES - 1), FILE_LINES - 1, "451 lines");
    // Neither a declaration nor a string full of braces is a long function.
    assert_tidy("base/a.rs", &format!("trait T {{\n    fn f();\n}}\nconst A: fn () = b;\n{}", "// x\n".repeat(100)));
    assert_broken(
        "base/a.rs",
        &format!("fn f() {{\n    a(r#\"\n}}\n\"#);\n{}}}\n", lines(FUNCTION_LINES)),
        1,
        "function",
    );
}

#[test]
fn knows_the_floors() {
    assert_tidy("relay/a.rs", "use crate::base::x;\nuse super::b;\nuse crate::relay::c;\nuse crate::{sql::d, wire};\n");
    assert_broken(
        "flow/a.rs",
        "use crate::wire::x;\nuse crate::net::socket;\n",
        2,
        "`flow` (floor 2) uses `crate::net::socket` (floor 3)",
    );
    assert_broken("flow/a.rs", "fn f() { crate::sql::x() }\n", 1, "neighbour");
    assert_broken("wire/a.rs", "use crate::{\n    base::{a, b as c},\n    pool,\n};\n", 1, "`crate::pool`");
    let unknown = broken("new/a.rs", "");
    assert!(matches!(&unknown[..], [one] if one.what.contains("on no floor")), "{unknown:?}");
    assert_broken("flow/a.rs", "use crate::Thing;\n", 1, "no module on a floor");
    assert_broken("flow/a.rs", "use super::super::relay;\n", 1, "leaves `flow`");
    assert_broken("flow/mod.rs", "use super::relay;\n", 1, "leaves `flow`");
    assert_tidy("auth/scram/a.rs", "use super::super::md5;\n");
    assert_tidy("lib.rs", "use crate::app;\n");
}

#[test]
fn lets_a_gate_write_to_a_worker_only() {
    assert_tidy("gate/a.rs", "use crate::worker::{Mail, WeakMailbox};\nfn f() { crate::worker::Mail::Client; }\n");
    assert_broken("gate/a.rs", "use crate::worker::Mailman;\n", 1, "neighbour");
    assert_broken("gate/a.rs", "use crate::worker::*;\n", 1, "neighbour");
    assert_broken("worker/a.rs", "use crate::gate::Mail;\n", 1, "neighbour");
}

#[test]
fn finds_what_panics() {
    for code in
        ["a.unwrap();", "a.expect(\"b\");", "a.expect(&b);", "panic!()", "todo!()", "unimplemented!()", "dbg!(a)"]
    {
        assert_broken("base/a.rs", &format!("fn f() {{\n    {code}\n}}\n"), 2, "outside of tests");
        assert_tidy("base/a.rs", &format!("// {code}\nconst A: &str = r#\"{code}\"#; /* {code}\n{code} */\n"));
        assert_tidy(
            "base/a.rs",
            &format!("#[cfg(test)]\n#[allow(a)]\nmod tests {{\n    fn f() {{\n        {code}\n    }}\n}}\n"),
        );
        assert_broken(
            "base/a.rs",
            &format!("#[cfg(test)]\nuse a;\nfn f() {{\n    {code}\n}}\n"),
            4,
            "outside of tests",
        );
        assert_tidy("base/a_tests.rs", code);
        assert_tidy("base/a/tests.rs", code);
    }
    assert_tidy(
        "base/a.rs",
        "a.expect(entry); a.expect(b'v', \"text\"); catch_panic!(); a.unwrap_or(b); '\"'; \"\\\"panic!\";",
    );
    assert_broken("base/a.rs", "fn f<'a>(a: &'a str) { let b = '\\''; a.unwrap() }\n", 1, "unwrap");
}

#[test]
fn finds_locks_and_timers() {
    assert_broken("meter/a.rs", "use std::sync::{\n    Arc, Mutex,\n};\n", 2, "a lock");
    assert_broken("relay/a.rs", "fn f(a: &std::sync::RwLock<u8>) {}\n", 1, "a lock");
    assert_tidy("base/a.rs", "use std::sync::Mutex;\n");
    assert_tidy("net/mem.rs", "use std::sync::Mutex;\n");
    assert_tidy("net/a.rs", "struct MutexLike;\n");
    for code in
        ["use tokio::time::sleep;", "use tokio::{sync::oneshot, time::{self, timeout}};", "tokio::time::interval(a)"]
    {
        let found = broken("relay/a.rs", code);
        assert!(!found.is_empty() && found.iter().all(|one| one.what.contains("sets no timer")), "{code}: {found:?}");
        assert_tidy("server/a.rs", code);
        assert_tidy("relay/watch.rs", code);
    }
    assert_tidy("pool/a.rs", "use std::time::Duration;\nuse tokio::sync::oneshot;\n");
}
