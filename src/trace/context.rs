//! Which trace a statement belongs to, and whether it is one that is recorded.
//! Must never take the text of a string constant for what a comment says, nor allocate for what is not recorded.
//!
//! A parent is what a comment says as sqlcommenter writes it, `traceparent='00-...-...-01'`, in the form of W3C Trace Context (level 2,
//! section 3.2). Who has none is the root of a new trace, whose number is random, and says whether it is recorded: its last 56 bits are compared
//! with a threshold, as OpenTelemetry defines it ("TraceState: Probability Sampling").

use std::hash::{BuildHasher, RandomState};

use memchr::memmem;

use crate::sql::lex::{Kind, Lexer};
use crate::sql::tags::tags;

/// Bytes of a `traceparent` of version 00, and of what later versions must begin with.
const LENGTH: usize = 55;
/// Most bytes of a `tracestate` that are passed on (W3C Trace Context, section 3.3.1.5).
const STATE_BYTES: usize = 512;
/// What stands in front of a parent.
const MARK: &[u8] = b"traceparent='";
/// Bits of a trace's number that are random (the same, level 2, section 3.2.2.5.1).
const RANDOM_BITS: u32 = 56;

/// Number of a trace.
pub type TraceId = [u8; 16];
/// Number of a span.
pub type SpanId = [u8; 8];

/// A span: that of a statement, or the one that a statement is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// It is recorded.
    pub sampled: bool,
}

impl Context {
    /// What a `traceparent` says; `None` for what is none.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (fixed, more) = text.split_at_checked(LENGTH)?;
        let [[version], [flags]] = [hex(fixed.get(..2)?)?, hex(fixed.get(53..)?)?];
        let dashes = [2, 35, 52].iter().all(|&at| fixed.get(at) == Some(&b'-'));
        // Later versions may have more to say, behind another dash.
        let ends = more.is_empty() || (version > 0 && more.first() == Some(&b'-'));
        let (trace, span) = (hex(fixed.get(3..35)?)?, hex(fixed.get(36..52)?)?);
        let is_valid = dashes && ends && version != 0xff && trace != [0; 16] && span != [0; 8];
        is_valid.then_some(Self { trace, span, sampled: flags & 1 != 0 })
    }
}

/// Hexadecimal digits in lower case; nothing else is allowed.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    (text.len() == 2 * N).then_some(bytes)
}

/// What a statement is a part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The span.
    pub context: Context,
    /// The `tracestate` beside it, if it is recorded; empty if there is none.
    pub state: Box<str>,
}

impl Parent {
    /// The last one that the comments of a text name: whoever is nearer to the server writes behind the others.
    #[must_use]
    pub fn named_in(sql: &[u8], standard_conforming_strings: bool) -> Option<Self> {
        memmem::find(sql, MARK)?;
        let comments = Lexer::new(sql, standard_conforming_strings).filter(|token| token.kind == Kind::Comment);
        // None of its characters needs to be encoded, so that it can be read as it stands there.
        let in_comment = |comment: &[u8]| {
            let value = comment.get(memmem::rfind(comment, MARK)? + MARK.len()..)?;
            Context::parse(value.get(..memchr::memchr(b'\'', value)?)?)
        };
        let context = comments.filter_map(|token| in_comment(token.bytes(sql))).last()?;
        let state = if context.sampled { state_in(sql, standard_conforming_strings) } else { Box::default() };
        Some(Self { context, state })
    }
}

fn state_in(sql: &[u8], standard_conforming_strings: bool) -> Box<str> {
    let tags = tags(sql, standard_conforming_strings);
    let state = tags.into_iter().rev().find(|(key, _)| key == b"tracestate").map(|(_, value)| value);
    let fits = |state: &Vec<u8>| state.len() <= STATE_BYTES && state.iter().all(|byte| (b' '..=b'~').contains(byte));
    state.filter(fits).and_then(|state| String::from_utf8(state).ok()).unwrap_or_default().into()
}

/// Numbers for traces and spans: xoroshiro128++ (Blackman and Vigna, 2019), begun with what the system says.
#[derive(Debug)]
pub struct Ids([u64; 2]);

impl Default for Ids {
    fn default() -> Self {
        let mut seed = [0; 16];
        let from_system = aws_lc_rs::rand::fill(&mut seed).is_ok();
        let halves = u128::from_ne_bytes(seed);
        let halves = [halves as u64, (halves >> 64) as u64];
        let hashed = || RandomState::new().hash_one(0);
        let [low, high] = if from_system { halves } else { [hashed(), hashed()] };
        // It stands still at zero.
        Self([low, high | 1])
    }
}

impl Ids {
    /// A number of which every bit is as good as any other.
    pub fn draw(&mut self) -> u64 {
        let [first, second] = self.0;
        let mixed = first ^ second;
        self.0 = [first.rotate_left(49) ^ mixed ^ (mixed << 21), mixed.rotate_left(28)];
        first.wrapping_add(second).rotate_left(17).wrapping_add(first)
    }

    /// A number for a span.
    pub fn span(&mut self) -> SpanId {
        // None is zero.
        self.draw().max(1).to_be_bytes()
    }
}

/// Decides what is recorded.
#[derive(Debug)]
pub struct Sampler {
    ids: Ids,
    /// Traces are recorded from this number on, as far as it is random.
    threshold: u64,
}

impl Sampler {
    /// Records this part of the traces that begin here: 0 to 1.
    #[must_use]
    pub fn new(ratio: f64) -> Self {
        let all = (1_u64 << RANDOM_BITS) as f64;
        Self { ids: Ids::default(), threshold: ((1.0 - ratio) * all) as u64 }
    }

    /// The span of a statement, if it is recorded: as its parent is, or else by the number of its trace.
    pub fn decide(&mut self, parent: Option<Context>) -> Option<Context> {
        let trace = match parent {
            Some(parent) if !parent.sampled => return None,
            Some(parent) => parent.trace,
            None => {
                let low = self.ids.draw();
                if low & ((1 << RANDOM_BITS) - 1) < self.threshold {
                    return None;
                }
                // No trace is zero.
                (u128::from(self.ids.draw().max(1)) << 64 | u128::from(low)).to_be_bytes()
            }
        };
        Some(Context { trace, span: self.ids.span(), sampled: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn sampled(text: &str) -> Option<bool> {
        Context::parse(text.as_bytes()).map(|context| context.sampled)
    }

    #[test]
    fn parents_are_those_of_w3c() {
        let found = Context::parse(format!("00-{TRACE}-{SPAN}-01").as_bytes()).unwrap();
        assert_eq!(u128::from_be_bytes(found.trace), 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(u64::from_be_bytes(found.span), 0xb7ad_6b71_6920_3331);
        for (text, expected) in [
            (format!("00-{TRACE}-{SPAN}-01"), Some(true)),
            (format!("00-{TRACE}-{SPAN}-00"), Some(false)),
            // Flags that are not known yet, and that of level 2.
            (format!("00-{TRACE}-{SPAN}-ff"), Some(true)),
            (format!("00-{TRACE}-{SPAN}-02"), Some(false)),
            (format!("cc-{TRACE}-{SPAN}-01"), Some(true)),
            (format!("cc-{TRACE}-{SPAN}-01-what-comes"), Some(true)),
            (format!("cc-{TRACE}-{SPAN}-01.what-comes"), None),
            (format!("00-{TRACE}-{SPAN}-01-"), None),
            (format!("ff-{TRACE}-{SPAN}-01"), None),
            (format!("00-{TRACE}-{SPAN}-1"), None),
            (format!("00-{}-{SPAN}-01", "0".repeat(32)), None),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), None),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), None),
            (format!("00_{TRACE}-{SPAN}-01"), None),
            (format!("00-{TRACE}-{SPAN}"), None),
            (format!("é0-{TRACE}-{SPAN}-1"), None),
            (String::new(), None),
        ] {
            assert_eq!(sampled(&text), expected, "{text}");
        }
    }

    #[test]
    fn comments_name_a_parent() {
        let of = |sql: &str| Parent::named_in(sql.as_bytes(), true);
        let tag = |flags: &str| format!("traceparent='00-{TRACE}-{SPAN}-{flags}'");
        let found = of(&format!("SELECT 1 /*route='a',{},tracestate='a%3D1%2Cb%3D2'*/", tag("01"))).unwrap();
        assert_eq!((found.context.sampled, &*found.state), (true, "a=1,b=2"));
        let found = of(&format!("SELECT 1 /*{},tracestate='a%3D1'*/", tag("00"))).unwrap();
        assert_eq!((found.context.sampled, &*found.state), (false, ""));
        // The nearest one counts.
        let later = tag("01").replace(SPAN, "00000000000000aa");
        let found = of(&format!("/*{}*/ SELECT 1 -- {later}", tag("00"))).unwrap();
        assert_eq!((found.context.span, found.context.sampled), (0xaa_u64.to_be_bytes(), true));
        assert!(of(&format!("SELECT '/*{}*/'", tag("01").replace('\'', "''"))).is_none());
        assert!(of(&format!("SELECT $$/*{}*/$$", tag("01"))).is_none());
        assert!(of("SELECT 1 /*traceparent='00-1-2-01'*/").is_none());
        assert!(of("SELECT 1 /*traceparent='").is_none());
        let state = |state: &str| of(&format!("SELECT 1 /*{},tracestate='{state}'*/", tag("01"))).unwrap().state;
        assert_eq!(&*state("a%0A"), "");
        assert_eq!(&*state(&"a".repeat(STATE_BYTES + 1)), "");
    }

    #[test]
    fn a_part_of_all_traces_is_recorded() {
        let count = |ratio: f64| {
            let mut sampler = Sampler::new(ratio);
            (0..100_000).filter(|_| sampler.decide(None).is_some()).count()
        };
        assert_eq!((count(0.0), count(1.0)), (0, 100_000));
        // Six standard deviations.
        assert!((9_400..10_600).contains(&count(0.1)), "{}", count(0.1));
        let mut sampler = Sampler::new(0.5);
        for _ in 0..1000 {
            let Some(context) = sampler.decide(None) else { continue };
            // Who decides by the number of a trace comes to the same.
            assert!(u128::from_be_bytes(context.trace) as u64 & ((1 << 56) - 1) >= 1 << 55);
        }
    }

    #[test]
    fn a_parent_decides_for_its_children() {
        let parent = |sampled| Context { trace: [1; 16], span: [2; 8], sampled };
        assert_eq!(Sampler::new(1.0).decide(Some(parent(false))), None);
        let child = Sampler::new(0.0).decide(Some(parent(true))).unwrap();
        assert!(child.trace == [1; 16] && child.span != [2; 8] && child.sampled);
    }

    #[test]
    fn numbers_are_not_given_twice() {
        let mut ids = Ids::default();
        let all: std::collections::HashSet<_> = (0..100_000).map(|_| ids.span()).collect();
        assert_eq!(all.len(), 100_000);
        assert_ne!(Ids::default().span(), Ids::default().span());
    }
}
