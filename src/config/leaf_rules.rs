//! How the values of routing rules are read: patterns, shapes, tags, and sections without names.
//! Must never judge what rules say together; `check_rules` does.

use toml::Spanned;
use toml::de::DeValue;

use super::leaf::Text;
use super::reader::{Leaf, Reader, Span, join};
use super::rules::{Glob, Globs};

type Value<'i> = Spanned<DeValue<'i>>;

/// `[[path]]`: sections in the order of the file, each with its place. `None` for one that is no section.
#[derive(Debug)]
pub(super) struct Listed<T>(pub(super) Vec<(Span, Option<T>)>);

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Leaf> Leaf for Listed<T> {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        let Some(items) = value.get_ref().as_array() else {
            reader.wrong_type(path, value, &format!("sections [[{path}]]"));
            return None;
        };
        Some(Self(items.iter().map(|item| (item.span(), T::read(reader, path, item))).collect()))
    }

    fn keys(path: &str, keys: &mut Vec<String>) {
        T::keys(path, keys);
    }
}

/// The items of a list, or the one value that is none. Notes an empty list.
fn items<'a, 'i>(reader: &mut Reader, path: &str, value: &'a Value<'i>, expected: &str) -> Option<Vec<&'a Value<'i>>> {
    let items: Vec<_> = match value.get_ref() {
        DeValue::Array(items) => items.iter().collect(),
        _ => vec![value],
    };
    if items.is_empty() {
        reader.wrong_value(path, value.span(), expected, None);
    }
    (!items.is_empty()).then_some(items)
}

impl Leaf for Globs {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        const EXPECTED: &str = r#"a name, in which * stands for anything, or a list of such names"#;
        let read = |item: &&Value<'_>, reader: &mut Reader| {
            let text = Text::read(reader, path, item)?.0;
            if text.contains("**") {
                let expected = format!("{EXPECTED}: one * is enough");
                reader.wrong_value(path, item.span(), &expected, Some(format!("{:?}", one_star(&text))));
                return None;
            }
            Some(Glob(text))
        };
        let globs: Vec<_> = items(reader, path, value, EXPECTED)?.iter().map(|item| read(item, reader)).collect();
        globs.into_iter().collect::<Option<_>>().map(Self)
    }
}

fn one_star(text: &str) -> String {
    let mut before = ' ';
    text.chars()
        .filter(|&c| {
            !(c == '*' && std::mem::replace(&mut before, c) == '*') && {
                before = c;
                true
            }
        })
        .collect()
}

/// Shapes of statements.
#[derive(Debug)]
pub(super) struct Shapes(pub(super) Vec<u64>);

impl Leaf for Shapes {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        const EXPECTED: &str = r#"a shape as the metrics and `pgweir explain-route` name it, such as "1f0a59c2b7d3e846", or a list of shapes"#;
        let read = |item: &&Value<'_>, reader: &mut Reader| {
            let text = Text::read(reader, path, item)?.0;
            let digits = text.strip_prefix("0x").unwrap_or(&text);
            let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let shape = u64::from_str_radix(digits, 16).ok().filter(|_| plain);
            if shape.is_none() {
                reader.wrong_value(path, item.span(), EXPECTED, None);
            }
            shape
        };
        let shapes: Vec<_> = items(reader, path, value, EXPECTED)?.iter().map(|item| read(item, reader)).collect();
        shapes.into_iter().collect::<Option<_>>().map(Self)
    }
}

/// Keys of tags, each with the values that fit.
#[derive(Debug)]
pub(super) struct Tags(pub(super) Vec<(String, Globs)>);

impl Leaf for Tags {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        const EXPECTED: &str = r#"tags and what they say, such as { route = "/export*" }"#;
        let Some(table) = value.get_ref().as_table() else {
            reader.wrong_type(path, value, EXPECTED);
            return None;
        };
        if table.is_empty() {
            reader.wrong_value(path, value.span(), EXPECTED, None);
            return None;
        }
        let read = |key: &str, value, reader: &mut Reader| {
            Globs::read(reader, &join(path, key), value).map(|globs| (key.to_owned(), globs))
        };
        let tags: Vec<_> = table.iter().map(|(key, value)| read(key.get_ref(), value, reader)).collect();
        tags.into_iter().collect::<Option<_>>().map(Self)
    }
}
