//! Enumerations written as words in the configuration.
//! Must never let the words and the variants drift apart: one macro makes both.

/// An enumeration with a word for each variant.
pub(super) trait Words: Copy + 'static {
    /// Every variant with its word.
    const WORDS: &'static [(&'static str, Self)];
    /// Words PgBouncer knows, and the feature each needs that this version lacks.
    const REFUSED: &'static [(&'static str, &'static str)];
    /// Words of PgBouncer that are another one here.
    const RENAMED: &'static [(&'static str, &'static str)];
}

/// Declares an enumeration, its words, and the words that are refused with a reason.
macro_rules! words {
    (
        $(#[$doc:meta])*
        pub enum $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }
        refused { $($refused:literal => $feature:literal,)* }
        $(renamed { $($old:literal => $new:literal,)* })?
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// The word of the configuration.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::config::words::Words for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant),)+];
            const REFUSED: &'static [(&'static str, &'static str)] = &[$(($refused, $feature),)*];
            const RENAMED: &'static [(&'static str, &'static str)] = &[$($(($old, $new),)*)?];
        }
    };
}
pub(super) use words;
