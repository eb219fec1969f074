//! The dashboard: one page and what it loads, from the program itself.
//! Never holds a number: the page asks the API, with a token where one is needed.
//!
//! `uPlot.iife.min.js` and `uPlot.min.css` are uPlot 1.6.32 as npm has it (MIT: `dashboard/uPlot.LICENSE`).

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Path, type and content of each file.
const FILES: [(&str, &str, &str); 6] = [
    ("/", "text/html; charset=utf-8", include_str!("dashboard/index.html")),
    ("/dashboard/style.css", "text/css; charset=utf-8", include_str!("dashboard/style.css")),
    ("/dashboard/app.js", "text/javascript; charset=utf-8", include_str!("dashboard/app.js")),
    ("/dashboard/charts.js", "text/javascript; charset=utf-8", include_str!("dashboard/charts.js")),
    ("/dashboard/uPlot.js", "text/javascript; charset=utf-8", include_str!("dashboard/uPlot.iife.min.js")),
    ("/dashboard/uPlot.css", "text/css; charset=utf-8", include_str!("dashboard/uPlot.min.css")),
];

/// Nothing but what this port serves, no inline script, in nobody's frame. uPlot sets styles by script, which CSP does not count as inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Whether a path is one of the page's files, which are open to everybody.
pub(super) fn is_file(path: &str) -> bool {
    FILES.iter().any(|(file, ..)| *file == path)
}

fn file(kind: &'static str, content: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Another version of the program has other files under the same names.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, content).into_response()
}

/// The files.
pub(super) fn router() -> Router {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, content)| {
        router.route(path, get(move || std::future::ready(file(kind, content))))
    })
}
