//! Walks the parsed file against the schema and notes everything that does not fit.
//! Must never stop at the first problem, nor look at anything outside the text.
//!
//! Why not `#[derive(Deserialize)]`: serde's derive gives up at the first wrong value, and
//! knows the span only of that one. The tree of the `toml` crate keeps the span of every
//! key and value and survives syntax errors, so a small reader on top of it finds all
//! problems in one run. The schema is the set of raw structures declared with [`section`];
//! their fields are the only list of keys there is.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, Source, nearest};

/// A place in the text, in bytes.
pub(super) type Span = Range<usize>;

/// Sections with more keys than this do not have them listed when a hint says more.
const LISTED_KEYS: usize = 12;

/// The source being read and the problems found so far.
pub(super) struct Reader {
    pub(super) source: Source,
    pub(super) problems: Vec<Problem>,
    /// What can work and was hardly meant.
    pub(super) warnings: Vec<Problem>,
    /// Every key of the schema with its path, to recognise one in the wrong section.
    schema: Vec<String>,
}

/// Something that can be read from one value.
pub(super) trait Leaf: Sized {
    /// Reads it, or reports why not.
    fn read(reader: &mut Reader, path: &str, value: &Spanned<DeValue<'_>>) -> Option<Self>;

    /// Adds the keys that this value consists of, each with its path.
    fn keys(path: &str, keys: &mut Vec<String>) {
        keys.push(path.to_owned());
    }
}

/// A key of the schema as found in the file.
#[derive(Debug, Default)]
pub(super) enum Field<T> {
    /// Not there.
    #[default]
    Absent,
    /// There, unreadable, reported.
    Bad,
    /// There.
    Set(T, Span),
}

impl<T> Field<T> {
    /// The value, if it was there and readable.
    pub(super) fn set(self) -> Option<T> {
        match self {
            Self::Set(value, _) => Some(value),
            Self::Absent | Self::Bad => None,
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    pub(super) fn span(&self) -> Option<Span> {
        match self {
            Self::Set(_, span) => Some(span.clone()),
            Self::Absent | Self::Bad => None,
        }
    }
}

impl<T: Copy> Field<super::leaf::Word<T>> {
    /// The word, or the default if there is none; `None` if it could not be read.
    pub(super) fn word(&self, default: T) -> Option<T> {
        match self {
            Self::Absent => Some(default),
            Self::Bad => None,
            Self::Set(word, _) => Some(word.0),
        }
    }
}

impl<const MIN: u32, const MAX: u32> Field<super::leaf::Number<MIN, MAX>> {
    /// The number and its place, if it was there and readable.
    pub(super) fn number(&self) -> Option<(u32, Span)> {
        match self {
            Self::Set(number, span) => Some((number.0, span.clone())),
            Self::Absent | Self::Bad => None,
        }
    }
}

impl Field<super::leaf::Text> {
    /// A copy of the text, if it was there and readable.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Set(text, _) => Some(text.0.clone()),
            Self::Absent | Self::Bad => None,
        }
    }
}

impl Reader {
    pub(super) fn new<Root: Leaf>(source: Source) -> Self {
        let mut schema = Vec::new();
        Root::keys("", &mut schema);
        Self { source, problems: Vec::new(), warnings: Vec::new(), schema }
    }

    /// Notes a problem with the bytes `span`, to be completed by the caller.
    pub(super) fn note(&mut self, span: Span, title: impl Into<String>, complete: impl FnOnce(Problem) -> Problem) {
        self.problems.push(complete(self.source.problem(span, title)));
    }

    /// Warns of the bytes `span`; `expected` is what to do about it.
    pub(super) fn warn(&mut self, span: Span, title: impl Into<String>, expected: &str) {
        self.warnings.push(self.source.problem(span, title).expected(expected).mild());
    }

    /// Reads one key of a section.
    pub(super) fn field<T: Leaf>(&mut self, path: &str, value: &Spanned<DeValue<'_>>) -> Field<T> {
        match T::read(self, path, value) {
            Some(read) => Field::Set(read, value.span()),
            None => Field::Bad,
        }
    }

    /// Notes a value of the wrong type. Never shows the value.
    pub(super) fn wrong_type(&mut self, path: &str, value: &Spanned<DeValue<'_>>, expected: &str) {
        let title = format!("`{path}` has the wrong type");
        let found = with_article(value.get_ref().type_str());
        self.note(value.span(), title, |problem| problem.expected(format!("{expected}, found {found}")));
    }

    /// Notes a value of the right type that cannot be. Never shows the value.
    pub(super) fn wrong_value(&mut self, path: &str, span: Span, expected: &str, hint: Option<String>) {
        let title = format!("`{path}` has no valid value");
        self.note(span, title, |problem| problem.expected(expected).did_you_mean(hint));
    }

    /// Notes a key that the section at `path` does not have.
    pub(super) fn unknown(&mut self, path: &str, key: &Spanned<impl AsRef<str>>, known: &[&str]) {
        let name = key.get_ref().as_ref();
        let place = if path.is_empty() { "at the top level".to_owned() } else { format!("in [{path}]") };
        // The same key elsewhere is what was meant, even if something here looks alike.
        let elsewhere = self.schema.iter().find(|known| known.rsplit('.').next() == Some(name)).cloned();
        let hint = elsewhere.or_else(|| nearest(name, known.iter().copied()));
        // A long list would bury the hint.
        let list = known.len() <= LISTED_KEYS || hint.is_none();
        let expected = one_of(known.iter().map(|word| format!("`{word}`")));
        let title = format!("unknown key `{name}` {place}");
        self.note(key.span(), title, |problem| {
            let problem = if list { problem.expected(expected) } else { problem };
            problem.did_you_mean(hint)
        });
    }

    /// The table that `value` is, or a note that it is none.
    pub(super) fn table<'a, 'i>(&mut self, path: &str, value: &'a Spanned<DeValue<'i>>) -> Option<&'a DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(path, value, "a table");
        }
        table
    }
}

/// `a, b or c`, for lists of what was expected.
pub(super) fn one_of(words: impl IntoIterator<Item = String>) -> String {
    let words: Vec<String> = words.into_iter().collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// The path of `key` in the section `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn with_article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {kind}")
}

/// Sections with names chosen by the operator, such as `[databases.shop]`, in the order of
/// the file, each with the place of its name. `None` for one that is no section.
#[derive(Debug)]
pub(super) struct Named<T>(pub(super) Vec<(String, Span, Option<T>)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Leaf> Leaf for Named<T> {
    fn read(reader: &mut Reader, path: &str, value: &Spanned<DeValue<'_>>) -> Option<Self> {
        let mut named = Vec::new();
        for (key, value) in reader.table(path, value)? {
            let name = key.get_ref();
            if name.is_empty() {
                reader.note(key.span(), format!("[{path}] has an entry without a name"), |problem| problem);
            }
            let section = T::read(reader, &join(path, name), value);
            named.push((name.to_string(), key.span(), section));
        }
        named.sort_by_key(|(_, span, _)| span.start);
        Some(Self(named))
    }

    fn keys(path: &str, keys: &mut Vec<String>) {
        T::keys(&join(path, "NAME"), keys);
    }
}

/// Declares the raw form of a section: each field is a key, its type says how it is read.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($key:ident: $leaf:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub(super) struct $name { $(pub(super) $key: Field<$leaf>,)+ }

        impl Leaf for $name {
            fn read(reader: &mut Reader, path: &str, value: &Spanned<DeValue<'_>>) -> Option<Self> {
                let mut section = Self::default();
                for (key, value) in reader.table(path, value)? {
                    match key.get_ref().as_ref() {
                        $(stringify!($key) => {
                            section.$key = reader.field(&join(path, stringify!($key)), value);
                        })+
                        _ => reader.unknown(path, key, &[$(stringify!($key)),+]),
                    }
                }
                Some(section)
            }

            fn keys(path: &str, keys: &mut Vec<String>) {
                $(<$leaf as Leaf>::keys(&join(path, stringify!($key)), keys);)+
            }
        }
    };
}
pub(super) use section;
