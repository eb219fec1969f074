//! Parameters behind the `?`.
//! Must never ignore one that is not known: whoever misspells a filter would take everything for what was asked for.

use axum::extract::{FromRequestParts, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::http::failure;
use super::advice::ROWS_MAX;
use crate::meter::Registry;

/// The parameters of a request; bad ones are answered with 400 and what is wrong.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => {
                let text = error.body_text();
                let why = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
                Err(bad(why))
            }
        }
    }
}

/// None at all.
pub(super) type NoParams = Params<Nothing>;

/// The parameters of who takes none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// Why there is no answer: a status, and what is wrong.
#[derive(Debug)]
pub(super) struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        failure(self.0, &self.1)
    }
}

/// How many rows are wanted, 1 to [`ROWS_MAX`]; 50 where nobody says.
pub(super) fn rows(limit: Option<usize>) -> Result<usize, Refused> {
    let limit = limit.unwrap_or(50);
    let fits = (1..=ROWS_MAX).contains(&limit);
    if fits { Ok(limit) } else { Err(bad(&format!("limit: a number from 1 to {ROWS_MAX} is expected"))) }
}

/// Whether there is such a database, if one is wanted.
pub(super) fn known(database: Option<&String>, registry: &Registry) -> Result<(), Refused> {
    match database.filter(|database| registry.database(database).is_none()) {
        Some(database) => Err(missing(format!("no such database: {database}"))),
        None => Ok(()),
    }
}

/// The shape that 16 hexadecimal digits name.
pub(super) fn shape_named(hex: &str) -> Option<u64> {
    let is_one = hex.len() == 16 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(hex, 16).ok().filter(|_| is_one)
}

/// 400 and why.
pub(super) fn bad(why: &str) -> Refused {
    Refused(StatusCode::BAD_REQUEST, format!("bad parameter: {why}"))
}

/// 404 and what there is not.
pub(super) fn missing(what: String) -> Refused {
    Refused(StatusCode::NOT_FOUND, what)
}
