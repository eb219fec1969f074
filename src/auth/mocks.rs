//! What users who do not exist, or have nothing to log in with, are shown: how they are asked, and by which salt.
//! Must never be told from what those who do exist are shown, neither today nor after a restart.
//!
//! PostgreSQL asks an unknown user as `password_encryption` says, and salts by a secret of the cluster that never
//! changes (`CheckPWChallengeAuth` in src/backend/libpq/auth.c, `scram_mock_salt` in auth-scram.c). There is no such
//! setting here, and where some users are asked one way and some another, whatever all unknown ones were asked would
//! tell the others to be known. So each unknown name resembles one of the known users, drawn by its name: of a hundred
//! unknown ones as many are asked by md5, or told 4096 iterations, as of a hundred known ones. Without anybody to
//! resemble, it is PostgreSQL's default.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::scram::{SALT_LEN, Verifier, default_iterations};
use super::secret_kind::SecretKind;
use super::{KEY_LEN, Key};

/// Most different kinds remembered: a server's users may have as many as they like.
const KINDS_MAX: usize = 64;

/// What a client is told of a verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Look {
    iterations: NonZeroU32,
    salt_len: usize,
}

/// What a user has to log in with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A hash, of no use for SCRAM: there such a user is shown a mock itself.
    Md5,
    /// A password, with the default look.
    Plain,
    /// A verifier, and perhaps passwords, with its look.
    Verifier(Look),
}

/// How many users there are of each kind.
#[derive(Clone, Debug, Default)]
struct Crowd(BTreeMap<Kind, u64>);

/// The known users as others see them, and the secret by which unknown ones are drawn and salted.
#[derive(Clone)]
pub struct Mocks {
    key: Zeroizing<Key>,
    /// Everybody.
    crowd: Crowd,
    /// Those of them who are on servers only.
    looked_up: Crowd,
}

impl Mocks {
    /// Nobody is known yet.
    pub(super) fn new(key: Key) -> Self {
        Self { key: Zeroizing::new(key), crowd: Crowd::default(), looked_up: Crowd::default() }
    }

    /// A key made of a secret that stays the same: of another `kind` the same secret makes another key.
    pub fn key_of(kind: &str, secret: &[u8]) -> Key {
        hmac(format!("pgweir mock authentication by {kind}").as_bytes(), secret)
    }

    /// For a new configuration: forgets the configured users. Those of servers are believed to be the same.
    #[must_use]
    pub(super) fn renewed(&self) -> Self {
        Self { crowd: self.looked_up.clone(), ..self.clone() }
    }

    /// From now on by another secret.
    pub(super) fn rekey(&mut self, key: Key) {
        self.key = Zeroizing::new(key);
    }

    /// There is a configured user with these secrets.
    pub(super) fn resemble(&mut self, secrets: &[&str]) {
        self.crowd.add(secrets);
    }

    /// A user of a server has proved itself by one of these secrets. Only then, so that nobody can move the odds by
    /// asking for a name again and again.
    pub(super) fn came_in(&mut self, secrets: &[&str]) {
        self.crowd.add(secrets);
        self.looked_up.add(secrets);
    }

    /// Whether an unknown user is asked by md5 where that is the method.
    pub(super) fn is_asked_by_md5(&self, user: &str) -> bool {
        matches!(self.crowd.pick(self.draw(user, b"kind"), |_| true), Some(Kind::Md5 | Kind::Plain))
    }

    /// The verifier for an unknown user; its keys are zero, which no password has.
    pub(super) fn verifier(&self, user: &str) -> Verifier {
        // The same draw as above: whom the method md5 asks by SCRAM has the look of one who is asked so.
        let drawn = self.crowd.pick(self.draw(user, b"kind"), |_| true).filter(|kind| *kind != Kind::Md5);
        let again = || self.crowd.pick(self.draw(user, b"look"), |kind| kind != Kind::Md5);
        let Look { iterations, salt_len } = match drawn.or_else(again) {
            Some(Kind::Verifier(look)) => look,
            Some(Kind::Md5 | Kind::Plain) | None => Look::default(),
        };
        Verifier { iterations, salt: self.salt(user, salt_len), stored_key: [0; KEY_LEN], server_key: [0; KEY_LEN] }
    }

    /// The salt of a user: as long as the key is the same, repeated attempts see the same one.
    pub(super) fn salt(&self, user: &str, length: usize) -> Vec<u8> {
        let mut block = hmac(&*self.key, user.as_bytes());
        let mut salt = Vec::with_capacity(length);
        while salt.len() < length {
            // Half of each block only: the next one, and the draw, must not follow from what is shown.
            salt.extend(block.iter().take(SALT_LEN.min(length - salt.len())));
            block = hmac(&block, b"more");
        }
        salt
    }

    fn draw(&self, user: &str, what: &[u8]) -> u64 {
        let digest = hmac(&hmac(&*self.key, user.as_bytes()), what);
        digest.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }
}

impl Crowd {
    fn add(&mut self, secrets: &[&str]) {
        let (mut verifier, mut plain, mut md5) = (None, false, false);
        for stored in secrets {
            match SecretKind::of(stored) {
                SecretKind::Scram(first) => {
                    verifier = verifier.or(Some(Look { iterations: first.iterations, salt_len: first.salt.len() }));
                }
                SecretKind::Plain => plain = true,
                SecretKind::Md5 => md5 = true,
                SecretKind::Empty | SecretKind::Damaged => {}
            }
        }
        let plain = plain.then_some(Kind::Plain).or(md5.then_some(Kind::Md5));
        if let Some(kind) = verifier.map(Kind::Verifier).or(plain)
            && (self.0.len() < KINDS_MAX || self.0.contains_key(&kind))
        {
            *self.0.entry(kind).or_default() += 1;
        }
    }

    /// The kind at `draw`, all that count being laid out side by side by how many have them: a user more or less moves
    /// the bounds between them a little, so that nearly every name keeps its kind.
    fn pick(&self, draw: u64, counts: impl Fn(Kind) -> bool) -> Option<Kind> {
        let kinds = || self.0.iter().filter(|(kind, _)| counts(**kind));
        let all: u64 = kinds().map(|(_, count)| count).sum();
        let mut place = (u128::from(draw) * u128::from(all)) >> 64;
        kinds().find_map(|(kind, count)| {
            let here = place < u128::from(*count);
            place = place.saturating_sub((*count).into());
            here.then_some(*kind)
        })
    }
}

impl Default for Look {
    /// PostgreSQL's, and that of plaintext passwords here.
    fn default() -> Self {
        Self { iterations: default_iterations(), salt_len: SALT_LEN }
    }
}

fn hmac(key: &[u8], message: &[u8]) -> Key {
    let mut out = [0; KEY_LEN];
    out.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::md5;

    fn verifier(iterations: u32, salt: &[u8]) -> String {
        Verifier::derive(b"p", salt, NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN)).format().to_string()
    }

    /// Of 1000 unknown names, how many are asked by md5 and how many are told so many iterations.
    fn among(mocks: &Mocks, iterations: u32) -> (usize, usize) {
        let names = || (0..1000).map(|n| format!("nobody{n}"));
        let md5 = names().filter(|name| mocks.is_asked_by_md5(name)).count();
        (md5, names().filter(|name| mocks.verifier(name).iterations.get() == iterations).count())
    }

    #[test]
    fn without_anybody_it_is_the_default_of_postgresql() {
        assert_eq!(among(&Mocks::new([1; 32]), 4096), (0, 1000));
    }

    #[test]
    fn all_unknown_users_are_like_known_ones_that_are_all_alike() {
        let mut mocks = Mocks::new([1; 32]);
        mocks.resemble(&[&verifier(7, b"eight ch")]);
        mocks.resemble(&["", "SCRAM-SHA-256$damaged"]);
        assert_eq!(among(&mocks, 7), (0, 1000));
        assert_eq!(mocks.verifier("nobody").salt.len(), 8);
        let mut mocks = Mocks::new([1; 32]);
        mocks.resemble(&["plain"]);
        mocks.resemble(&[&md5::hash("u", b"p")]);
        assert_eq!(among(&mocks, 4096), (1000, 1000));
    }

    #[test]
    fn some_unknown_users_are_like_some_and_some_like_others() {
        let mut mocks = Mocks::new([1; 32]);
        mocks.resemble(&["plain"]);
        mocks.resemble(&[&verifier(7, b"s")]);
        mocks.resemble(&[&verifier(7, b"t"), "plain"]);
        mocks.resemble(&[&verifier(9, b"u")]);
        let (md5, seven) = among(&mocks, 7);
        assert!((180..320).contains(&md5) && (430..570).contains(&seven), "{md5} {seven}");
        // Those with a hash alone are not among whom SCRAM can show.
        mocks.resemble(&[&md5::hash("u", b"p")]);
        let (md5, seven) = among(&mocks, 7);
        assert!((320..480).contains(&md5) && (430..570).contains(&seven), "{md5} {seven}");
    }

    #[test]
    fn a_user_more_leaves_nearly_everybody_as_it_was() {
        let mut before = Mocks::new([1; 32]);
        (0..50).for_each(|_| before.resemble(&["plain"]));
        (0..50).for_each(|_| before.resemble(&[&verifier(7, b"s")]));
        let mut after = before.clone();
        after.resemble(&["plain"]);
        let names = (0..1000).map(|n| format!("nobody{n}"));
        let changed = names.filter(|name| before.is_asked_by_md5(name) != after.is_asked_by_md5(name)).count();
        assert!(changed < 30, "{changed}");
    }

    #[test]
    fn those_of_servers_stay_over_a_reload() {
        let mut mocks = Mocks::new([1; 32]);
        mocks.resemble(&["plain"]);
        mocks.came_in(&[&verifier(7, b"s")]);
        assert_ne!(among(&mocks, 7), (0, 1000));
        assert_eq!(among(&mocks.renewed(), 7), (0, 1000));
        for n in 0..1000 {
            mocks.came_in(&[&verifier(100 + n, b"s")]);
        }
        assert!(mocks.crowd.0.len() <= KINDS_MAX);
    }

    #[test]
    fn salts_hang_on_the_secret_alone() {
        let (one, other) = (Mocks::new(Mocks::key_of("x", b"secret")), Mocks::new(Mocks::key_of("y", b"secret")));
        assert_eq!(one.salt("u", 16), Mocks::new(Mocks::key_of("x", b"secret")).salt("u", 16));
        assert_ne!(one.salt("u", 16), other.salt("u", 16));
        assert_ne!(one.salt("u", 16), one.salt("v", 16));
        assert_eq!(one.salt("u", 1000).len(), 1000);
        assert_eq!(one.salt("u", 1000)[..16], one.salt("u", 16));
    }
}
