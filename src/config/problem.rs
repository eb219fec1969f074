//! What is wrong with a configuration, with the place in the file underlined.
//! Must never show a secret: every line passes `mask` before it is kept.

use std::fmt;
use std::ops::Range;

use super::mask;

/// Everything wrong with one configuration, in the order of the file. Never empty when
/// returned as an error; as warnings often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The problems of several texts, in the order given.
    pub(super) fn new(list: Vec<Problem>) -> Self {
        Self(list)
    }

    /// The problems of one text, in its order; those without a place come last.
    pub(super) fn of_text(mut list: Vec<Problem>) -> Self {
        list.sort_by_key(|problem| problem.place.as_ref().map_or(usize::MAX, |place| place.offset));
        Self(list)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One by one; each displays itself over several lines.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// One thing wrong. `Display` writes it as rustc would, ending in a newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// It can work all the same.
    mild: bool,
    title: String,
    file: String,
    place: Option<Place>,
    /// Full lines of what was expected and what may have been meant.
    notes: Vec<String>,
}

/// A place in a file with its line, secrets already hidden.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    offset: usize,
    line: usize,
    column: usize,
    shown: String,
    carets: String,
}

impl Problem {
    /// A problem of a whole file, not of a place in it.
    pub(super) fn of_file(file: &str, title: String) -> Self {
        Self { mild: false, title, file: file.to_owned(), place: None, notes: Vec::new() }
    }

    /// Makes it a warning: what it is about can work, and was hardly meant.
    pub(super) fn mild(mut self) -> Self {
        self.mild = true;
        self
    }

    /// What, where and what instead, in one line for a log.
    #[must_use]
    pub fn in_one_line(&self) -> String {
        let place = self.place.as_ref().map(|place| format!(":{}:{}", place.line, place.column)).unwrap_or_default();
        format!("{}{place}: {}", self.file, self.without_place())
    }

    /// What, and what instead, where it is known where.
    pub(super) fn without_place(&self) -> String {
        let notes: String = self.notes.iter().map(|note| format!("; {note}")).collect();
        format!("{}{notes}", self.title)
    }

    /// Adds what would have been right.
    pub(super) fn expected(mut self, what: impl fmt::Display) -> Self {
        self.notes.push(format!("expected {what}"));
        self
    }

    /// Adds what may have been meant, if anything comes to mind.
    pub(super) fn did_you_mean(mut self, what: Option<String>) -> Self {
        self.notes.extend(what.map(|what| format!("did you mean `{what}`?")));
        self
    }

    /// The line it is on, counted from 1; `None` for a problem of the whole file.
    pub(super) fn line(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.line)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", if self.mild { "warning" } else { "error" }, self.title)?;
        let width = match &self.place {
            None => {
                writeln!(f, " --> {}", self.file)?;
                1
            }
            Some(place) => {
                let width = place.line.to_string().len();
                let pad = " ".repeat(width);
                writeln!(f, "{pad}--> {}:{}:{}", self.file, place.line, place.column)?;
                writeln!(f, "{pad} |")?;
                writeln!(f, "{} | {}", place.line, place.shown)?;
                writeln!(f, "{pad} | {}", place.carets)?;
                width
            }
        };
        for note in &self.notes {
            writeln!(f, "{} = {note}", " ".repeat(width))?;
        }
        Ok(())
    }
}

/// A text being read, and the parts of it that must not be shown.
pub(super) struct Source {
    name: String,
    text: String,
    hidden: Vec<Range<usize>>,
}

impl Source {
    pub(super) fn new(name: &str, text: &str) -> Self {
        let hidden = mask::secrets_in(text);
        Self { name: name.to_owned(), text: text.to_owned(), hidden }
    }

    /// Hides one more part, when its meaning and not its look tells that it is secret.
    pub(super) fn hide(&mut self, span: Range<usize>) {
        self.hidden.push(span);
    }

    /// A problem with the bytes `span`.
    pub(super) fn problem(&self, span: Range<usize>, title: impl Into<String>) -> Problem {
        let place = Some(self.place(span));
        Problem { mild: false, title: title.into(), file: self.name.clone(), place, notes: Vec::new() }
    }

    /// A problem with what the text as a whole says or lacks.
    pub(super) fn problem_of_all(&self, title: impl Into<String>) -> Problem {
        Problem::of_file(&self.name, title.into())
    }

    fn place(&self, span: Range<usize>) -> Place {
        let offset = span.start.min(self.text.len());
        let before = self.text.get(..offset).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text.get(start..).unwrap_or_default();
        let line = line.split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let (shown, carets) = self.draw(start, line, &(offset..span.end));
        Place {
            offset,
            line: before.matches('\n').count() + 1,
            column: before.get(start..).unwrap_or_default().chars().count() + 1,
            shown,
            carets,
        }
    }

    /// The line as it may be shown, and the carets below it. Both are written side by side
    /// so that a hidden part may have another length than what it hides.
    fn draw(&self, start: usize, line: &str, span: &Range<usize>) -> (String, String) {
        const MASK: &str = "<redacted>";
        let (mut shown, mut carets) = (String::new(), String::new());
        let mut masked_until = 0;
        for (index, character) in line.char_indices() {
            let at = start + index;
            if at < masked_until {
                continue;
            }
            if let Some(range) = self.hidden.iter().find(|range| range.contains(&at)) {
                masked_until = range.end;
                let marked = span.start < range.end && at < span.end.max(span.start + 1);
                shown.push_str(MASK);
                carets.push_str(&if marked { "^" } else { " " }.repeat(MASK.len()));
                continue;
            }
            shown.push(character);
            // A tab below a tab keeps the carets aligned whatever its width.
            carets.push(match character {
                _ if span.contains(&at) => '^',
                '\t' => '\t',
                _ => ' ',
            });
        }
        if !carets.contains('^') {
            // An empty span, or one at the end of the line.
            let column = line.get(..span.start.saturating_sub(start)).map_or(0, |s| s.chars().count());
            carets = shown.chars().take(column).map(|c| if c == '\t' { c } else { ' ' }).collect();
            carets.push('^');
        }
        carets.truncate(carets.trim_end().len());
        window(&shown, &carets)
    }

    /// The part `inner` of what the string at `span` says, if it stands there as it is, without escapes; else `span`.
    pub(super) fn within(&self, span: &Range<usize>, said: &str, inner: Range<usize>) -> Range<usize> {
        let written = self.text.get(span.clone()).unwrap_or_default();
        let quotes = written.len().saturating_sub(said.len());
        let inside = quotes / 2..written.len() - quotes / 2;
        let plain = matches!(quotes, 2 | 6) && written.get(inside) == Some(said) && inner.end <= said.len();
        let start = span.start + quotes / 2;
        if plain { start + inner.start..start + inner.end } else { span.clone() }
    }
}

/// Most characters of a line that are shown.
const SHOWN_MAX: usize = 160;
/// How many of them come before what is underlined.
const SHOWN_BEFORE: usize = 60;

/// What is underlined and its surroundings: a line may be a whole list of rules, of which one is meant.
fn window(shown: &str, carets: &str) -> (String, String) {
    let length = shown.chars().count();
    if length <= SHOWN_MAX {
        return (shown.to_owned(), carets.to_owned());
    }
    let first = carets.chars().take_while(|c| *c != '^').count();
    let start = first.saturating_sub(SHOWN_BEFORE);
    let cut = |text: &str| text.chars().skip(start).take(SHOWN_MAX).collect::<String>();
    let (before, after) = (start > 0, start + SHOWN_MAX < length);
    let shown = [if before { "…" } else { "" }, &cut(shown), if after { "…" } else { "" }].concat();
    (shown, [if before { " " } else { "" }, cut(carets).trim_end()].concat())
}

/// The known word nearest to `word`, if any is near enough to have been meant: at most a
/// third of its letters differ, or one is the other without its first part, as in
/// `listen_port` for `port`.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let limit = (word.chars().count() / 3).max(1);
    let ends = |long: &str, short: &str| long.strip_suffix(short).is_some_and(|rest| rest.ends_with('_'));
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= limit || ends(word, candidate) || ends(candidate, word))
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// Letters to insert, remove, replace or swap with their neighbour to make `b` of `a`
/// ("optimal string alignment", the restricted Damerau-Levenshtein distance).
pub(super) fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            if i == 0 || j == 0 {
                rows[i][j] = i + j;
                continue;
            }
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("port", "port"), 0);
        assert_eq!(distance("port", "Port"), 0);
        assert_eq!(distance("prot", "port"), 1);
        assert_eq!(distance("pool_sise", "pool_size"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn nearest_is_near() {
        let known = ["port", "primary", "replicas"];
        assert_eq!(nearest("replica", known), Some("replicas".to_owned()));
        assert_eq!(nearest("listen_port", known), Some("port".to_owned()));
        assert_eq!(nearest("pool_size", ["default_pool_size"]), Some("default_pool_size".to_owned()));
        assert_eq!(nearest("xyz", known), None);
    }

    #[test]
    fn carets_follow_tabs_letters_and_line_ends() {
        let draw = |text: &str, span| {
            let place = Source::new("f", text).place(span);
            (place.line, place.column, place.shown, place.carets)
        };
        let owned = |line, column, shown: &str, carets: &str| (line, column, shown.to_owned(), carets.to_owned());
        assert_eq!(draw("a\r\n\tb = é\r\n", 4..5), owned(2, 2, "\tb = é", "\t^"));
        assert_eq!(draw("é = xy", 5..7), owned(1, 5, "é = xy", "    ^^"));
        assert_eq!(draw("abc", 3..3), owned(1, 4, "abc", "   ^"));
        assert_eq!(draw("abc\n", 4..4), owned(2, 1, "", "^"));
        assert_eq!(draw("[a\nb]", 0..5), owned(1, 1, "[a", "^^"));
        assert_eq!(draw("", 7..9), owned(1, 1, "", "^"));
        let long = format!("{}b{}", "a".repeat(500), "c".repeat(500));
        let (shown, carets) = (format!("…{}b{}…", "a".repeat(60), "c".repeat(99)), format!("{}^", " ".repeat(61)));
        assert_eq!(draw(&long, 500..501), owned(1, 501, &shown, &carets));
    }

    #[test]
    fn a_word_inside_a_string() {
        let within = |text: &str, said: &str| Source::new("f", text).within(&(4..text.len()), said, 3..4);
        assert_eq!(within("a = 'bc d'", "bc d"), 8..9);
        assert_eq!(within("a = \"bc d\"", "bc d"), 8..9);
        assert_eq!(within("a = \"b\\tc\"", "b\tc "), 4..10);
    }
}
