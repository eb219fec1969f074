//! What of a text's effects outlives its transaction: what a client would keep its server for.
//! Must never leave out what may stay.

use super::verdict::Effects;
use super::words::{Words, tokens};

/// Those of `effects`, which are the text's, that outlive the transaction: a temporary table ON COMMIT DROP does not,
/// but another in the same text may.
pub fn lasting(sql: &[u8], standard_conforming_strings: bool, effects: Effects) -> Effects {
    if !effects.has(Effects::TEMP.union(Effects::TEMP_ON_COMMIT_DROP)) {
        return effects;
    }
    let tokens = tokens(sql, standard_conforming_strings);
    let stays = |effects: Effects| effects.any(Effects::TEMP) && !effects.any(Effects::TEMP_ON_COMMIT_DROP);
    let any = Words::new(sql, &tokens).statements().any(|statement| stays(statement.read().effects));
    if any { effects } else { effects.without(Effects::TEMP) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_dropped_at_commit_goes() {
        let (temp, drop) = (Effects::TEMP, Effects::TEMP_ON_COMMIT_DROP);
        for (sql, effects, stays) in [
            ("CREATE TEMP TABLE t (n int)", temp, true),
            ("CREATE TEMP TABLE t (n int) ON COMMIT DROP", temp | drop, false),
            ("CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1; SELECT 2", temp | drop, false),
            ("CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1; CREATE TEMP TABLE u (n int)", temp | drop, true),
            ("CREATE TEMP TABLE t (n int) ON COMMIT DROP; SELECT 1 INTO TEMP u", temp | drop, true),
        ] {
            let lasting = lasting(sql.as_bytes(), true, effects | Effects::LISTEN);
            assert_eq!((lasting.any(temp), lasting.any(Effects::LISTEN)), (stays, true), "{sql}");
        }
    }
}
