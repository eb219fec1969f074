//! What becomes of a message by what the webhook answers.
//! Must never need a webhook: the integration tests have one.

use super::*;

#[test]
fn what_may_go_better_is_tried_again_and_nothing_else() {
    for status in [200, 202, 204] {
        assert_eq!(verdict(StatusCode::from_u16(status).unwrap_or_default(), ""), Ok(()), "{status}");
    }
    for status in [408, 429, 500, 503, 599] {
        let found = verdict(StatusCode::from_u16(status).unwrap_or_default(), "busy");
        assert_eq!(found, Err(Failure::Later(format!("status {status} busy"))));
    }
    // A redirect may lead anywhere.
    for status in [301, 307, 400, 401, 404] {
        let found = verdict(StatusCode::from_u16(status).unwrap_or_default(), "no");
        assert_eq!(found, Err(Failure::Never(format!("status {status} no"))));
    }
}
