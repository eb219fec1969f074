//! How the values of logins are read: lists of texts, several secrets, moments in time.
//! Must never put a value into a message: it may be a secret at the wrong key.

use std::time::SystemTime;

use toml::Spanned;
use toml::de::DeValue;

use super::leaf::{RawSecret, Text};
use super::moment::moment;
use super::reader::{Leaf, Reader, Span};

type Value<'i> = Spanned<DeValue<'i>>;

/// Most secrets of one user: a rotation has two, and each costs a comparison at every login.
const SECRETS_MAX: usize = 5;

/// A list of texts, each with its place.
#[derive(Debug)]
pub(super) struct Texts(pub(super) Vec<(String, Span)>);

impl Leaf for Texts {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        let Some(items) = value.get_ref().as_array() else {
            reader.wrong_type(path, value, "a list of strings");
            return None;
        };
        let read = |item| Text::read(reader, path, item).map(|text| (text.0, item.span()));
        let texts: Vec<_> = items.iter().map(read).collect();
        texts.into_iter().collect::<Option<_>>().map(Self)
    }
}

/// One secret, or a list of them.
#[derive(Debug)]
pub(super) struct RawSecrets(pub(super) Vec<(RawSecret, Span)>);

impl Leaf for RawSecrets {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        let items: Vec<&Value<'_>> = match value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            _ => vec![value],
        };
        for item in items.iter().filter(|item| item.get_ref().as_table().is_none()) {
            reader.source.hide(item.span());
        }
        if items.is_empty() || items.len() > SECRETS_MAX {
            reader.wrong_value(path, value.span(), &format!("a secret, or a list of 1 to {SECRETS_MAX} secrets"), None);
            return None;
        }
        let read = |item: &Value<'_>| RawSecret::read(reader, path, item).map(|secret| (secret, item.span()));
        let secrets: Vec<_> = items.into_iter().map(read).collect();
        secrets.into_iter().collect::<Option<_>>().map(Self)
    }
}

/// A moment with its time zone.
#[derive(Debug)]
pub(super) struct Moment(pub(super) SystemTime);

impl Leaf for Moment {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        const EXPECTED: &str = "a date and time with its zone, such as 2027-01-31T00:00:00Z";
        let found = match value.get_ref() {
            DeValue::Datetime(datetime) => moment(datetime),
            DeValue::String(text) => text.parse().ok().and_then(|datetime| moment(&datetime)),
            _ => {
                reader.wrong_type(path, value, EXPECTED);
                return None;
            }
        };
        if found.is_none() {
            reader.wrong_value(path, value.span(), EXPECTED, None);
        }
        found.map(Self)
    }
}
