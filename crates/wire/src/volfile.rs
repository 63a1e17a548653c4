//! Volfiles: the text that describes a stack of layers (`libglusterfs/src/graph.l`, `graph.y`).
//!
//! Both daemons and clients hash the text, so printing is deterministic: the same [`Volfile`] is always the same bytes.
//! GlusterFS runs text between backticks in a shell; here it is refused in both directions.

use std::fmt::Write as _;

/// Layers from the bottom to the top; a layer's subvolumes come before it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Volfile {
    pub volumes: Vec<VolfileVolume>,
}

/// One layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VolfileVolume {
    pub name: String,
    /// `category/translator`, such as `cluster/replicate`.
    pub kind: String,
    /// In the file's order. A key that occurs twice keeps both; [`Self::option`] gives the last.
    pub options: Vec<(String, String)>,
    pub subvolumes: Vec<String>,
}

impl VolfileVolume {
    /// The value that counts for `key`.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }
}

/// What is wrong, and in which line (from 1).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("volfile line {line}: {problem}")]
pub struct ParseError {
    pub line: usize,
    pub problem: Problem,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
    #[error("a backtick; commands in volfiles are not run")]
    Backtick,
    #[error("a quoted string is not closed")]
    OpenQuote,
    #[error("a backslash outside of quotes")]
    Backslash,
    #[error("expected {expected}, found {found}")]
    Expected { expected: &'static str, found: String },
    #[error("volume \"{0}\" is defined twice")]
    DuplicateVolume(String),
    #[error("volume \"{0}\" has more than one \"{1}\" line")]
    DuplicateLine(String, &'static str),
    #[error("volume \"{0}\" has no type")]
    NoType(String),
    #[error("type \"{0}\" is not of the form category/name")]
    BadType(String),
    #[error("volume \"{volume}\": its subvolume \"{subvolume}\" is not defined before it")]
    UnknownSubvolume { volume: String, subvolume: String },
    #[error("the volfile has no volume")]
    NoVolume,
}

/// A value cannot be written into a volfile: it holds a backtick, which GlusterFS would hand to a shell.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("\"{0}\" has a backtick and cannot be in a volfile")]
pub struct Unprintable(pub String);

impl Volfile {
    /// Reads a whole volfile; it has at least one volume.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut parser = Parser { tokens: Tokens::new(text), volfile: Self::default() };
        while parser.volume()? {}
        if parser.volfile.volumes.is_empty() {
            return Err(parser.tokens.error(Problem::NoVolume));
        }
        Ok(parser.volfile)
    }

    /// The last volume: what a client mounts.
    pub fn top(&self) -> Option<&VolfileVolume> {
        self.volumes.last()
    }

    pub fn volume(&self, name: &str) -> Option<&VolfileVolume> {
        self.volumes.iter().find(|volume| volume.name == name)
    }

    /// Whether the same layers are stacked the same way, whatever their options: then a running graph can take the new
    /// options, otherwise a new one must be built.
    pub fn same_topology(&self, other: &Self) -> bool {
        self.volumes.len() == other.volumes.len()
            && self
                .volumes
                .iter()
                .zip(&other.volumes)
                .all(|(a, b)| a.name == b.name && a.kind == b.kind && a.subvolumes == b.subvolumes)
    }

    /// The text in the layout that glusterd writes.
    pub fn print(&self) -> Result<String, Unprintable> {
        let mut out = String::new();
        for (at, volume) in self.volumes.iter().enumerate() {
            if at > 0 {
                out.push('\n');
            }
            print_line(&mut out, "volume", [&volume.name])?;
            print_line(&mut out, "    type", [&volume.kind])?;
            for (key, value) in &volume.options {
                print_line(&mut out, "    option", [key, value])?;
            }
            if !volume.subvolumes.is_empty() {
                print_line(&mut out, "    subvolumes", &volume.subvolumes)?;
            }
            out.push_str("end-volume\n");
        }
        Ok(out)
    }
}

fn print_line<'a>(
    out: &mut String,
    keyword: &str,
    words: impl IntoIterator<Item = &'a String>,
) -> Result<(), Unprintable> {
    out.push_str(keyword);
    for word in words {
        out.push(' ');
        print_word(out, word)?;
    }
    out.push('\n');
    Ok(())
}

fn print_word(out: &mut String, word: &str) -> Result<(), Unprintable> {
    if word.contains('`') {
        return Err(Unprintable(word.to_owned()));
    }
    let plain = !word.is_empty()
        && !word.starts_with('#')
        && Keyword::of(word).is_none()
        && !word.chars().any(|letter| letter.is_ascii_whitespace() || matches!(letter, '"' | '\\'));
    if plain {
        out.push_str(word);
        return Ok(());
    }
    out.push('"');
    for letter in word.chars() {
        if matches!(letter, '"' | '\\') {
            out.push('\\');
        }
        out.push(letter);
    }
    out.push('"');
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Keyword {
    Volume,
    Type,
    Option,
    Subvolumes,
    EndVolume,
}

impl Keyword {
    const ALL: [(&'static str, Self); 5] = [
        ("volume", Self::Volume),
        ("type", Self::Type),
        ("option", Self::Option),
        ("subvolumes", Self::Subvolumes),
        ("end-volume", Self::EndVolume),
    ];

    fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(text, _)| text.eq_ignore_ascii_case(word)).map(|(_, keyword)| *keyword)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    Keyword(Keyword, String),
    Word(String),
}

impl Token {
    fn describe(token: Option<Self>) -> String {
        match token {
            Some(Self::Keyword(_, text) | Self::Word(text)) => format!("\"{text}\""),
            None => "the end of the file".to_owned(),
        }
    }
}

struct Tokens<'a> {
    rest: &'a str,
    /// Of the token read last.
    line: usize,
    ahead: Option<(Token, usize)>,
    /// Where the lexer is, with a token looked ahead.
    lexer_line: usize,
}

impl<'a> Tokens<'a> {
    const fn new(text: &'a str) -> Self {
        Self { rest: text, line: 1, ahead: None, lexer_line: 1 }
    }

    const fn error(&self, problem: Problem) -> ParseError {
        ParseError { line: self.line, problem }
    }

    fn next(&mut self) -> Result<Option<Token>, ParseError> {
        self.peek()?;
        Ok(self.ahead.take().map(|(token, line)| {
            self.line = line;
            token
        }))
    }

    fn peek(&mut self) -> Result<Option<&Token>, ParseError> {
        if self.ahead.is_none() {
            self.ahead = self.lex().map_err(|problem| ParseError { line: self.lexer_line, problem })?;
        }
        Ok(self.ahead.as_ref().map(|(token, _)| token))
    }

    fn lex(&mut self) -> Result<Option<(Token, usize)>, Problem> {
        self.skip_blanks();
        let line = self.lexer_line;
        let Some(first) = self.rest.chars().next() else {
            return Ok(None);
        };
        match first {
            '`' => Err(Problem::Backtick),
            '\\' => Err(Problem::Backslash),
            '"' => Ok(Some((Token::Word(self.quoted()?), line))),
            _ => {
                let end = self.rest.find(|letter: char| letter.is_ascii_whitespace() || matches!(letter, '"' | '\\'));
                let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
                if word.contains('`') {
                    return Err(Problem::Backtick);
                }
                self.rest = rest;
                let word = word.to_owned();
                let token = match Keyword::of(&word) {
                    Some(keyword) => Token::Keyword(keyword, word),
                    None => Token::Word(word),
                };
                Ok(Some((token, line)))
            }
        }
    }

    fn skip_blanks(&mut self) {
        loop {
            let trimmed = self.rest.trim_start_matches(|letter: char| letter.is_ascii_whitespace());
            self.count_lines(self.rest.len() - trimmed.len());
            if !trimmed.starts_with('#') {
                return;
            }
            let end = trimmed.find('\n').unwrap_or(trimmed.len());
            self.rest = &trimmed[end..];
        }
    }

    /// Moves `bytes` on.
    fn count_lines(&mut self, bytes: usize) {
        let (passed, rest) = self.rest.split_at(bytes);
        self.lexer_line += passed.bytes().filter(|byte| *byte == b'\n').count();
        self.rest = rest;
    }

    fn quoted(&mut self) -> Result<String, Problem> {
        let mut text = String::new();
        let mut letters = self.rest.char_indices().skip(1);
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.count_lines(at + 1);
                    return Ok(text);
                }
                '`' => return Err(Problem::Backtick),
                '\\' => text.push(letters.next().ok_or(Problem::OpenQuote)?.1),
                other => text.push(other),
            }
        }
        Err(Problem::OpenQuote)
    }
}

struct Parser<'a> {
    tokens: Tokens<'a>,
    volfile: Volfile,
}

impl Parser<'_> {
    /// One volume; `false` at the end of the file.
    fn volume(&mut self) -> Result<bool, ParseError> {
        match self.tokens.next()? {
            None => return Ok(false),
            Some(Token::Keyword(Keyword::Volume, _)) => {}
            other => return Err(self.unexpected("\"volume\"", other)),
        }
        let name = self.word("the volume's name")?;
        if self.volfile.volume(&name).is_some() {
            return Err(self.tokens.error(Problem::DuplicateVolume(name)));
        }
        let mut volume = VolfileVolume { name, kind: String::new(), options: Vec::new(), subvolumes: Vec::new() };
        loop {
            match self.tokens.next()? {
                Some(Token::Keyword(Keyword::Type, _)) => self.kind(&mut volume)?,
                Some(Token::Keyword(Keyword::Option, _)) => {
                    let key = self.word("an option's name")?;
                    let value = self.word("the option's value")?;
                    volume.options.push((key, value));
                }
                Some(Token::Keyword(Keyword::Subvolumes, _)) => self.subvolumes(&mut volume)?,
                Some(Token::Keyword(Keyword::EndVolume, _)) => break,
                other => {
                    return Err(self.unexpected("\"type\", \"option\", \"subvolumes\" or \"end-volume\"", other));
                }
            }
        }
        if volume.kind.is_empty() {
            return Err(self.tokens.error(Problem::NoType(volume.name)));
        }
        self.volfile.volumes.push(volume);
        Ok(true)
    }

    fn kind(&mut self, volume: &mut VolfileVolume) -> Result<(), ParseError> {
        if !volume.kind.is_empty() {
            return Err(self.tokens.error(Problem::DuplicateLine(volume.name.clone(), "type")));
        }
        let kind = self.word("the volume's type")?;
        match kind.split_once('/') {
            Some((category, name)) if !category.is_empty() && !name.is_empty() => volume.kind = kind,
            _ => return Err(self.tokens.error(Problem::BadType(kind))),
        }
        Ok(())
    }

    fn subvolumes(&mut self, volume: &mut VolfileVolume) -> Result<(), ParseError> {
        if !volume.subvolumes.is_empty() {
            return Err(self.tokens.error(Problem::DuplicateLine(volume.name.clone(), "subvolumes")));
        }
        volume.subvolumes.push(self.subvolume(volume)?);
        while matches!(self.tokens.peek()?, Some(Token::Word(_))) {
            volume.subvolumes.push(self.subvolume(volume)?);
        }
        Ok(())
    }

    fn subvolume(&mut self, volume: &VolfileVolume) -> Result<String, ParseError> {
        let subvolume = self.word("a subvolume's name")?;
        if self.volfile.volume(&subvolume).is_none() {
            let volume = volume.name.clone();
            return Err(self.tokens.error(Problem::UnknownSubvolume { volume, subvolume }));
        }
        Ok(subvolume)
    }

    fn word(&mut self, expected: &'static str) -> Result<String, ParseError> {
        match self.tokens.next()? {
            Some(Token::Word(word)) => Ok(word),
            other => Err(self.unexpected(expected, other)),
        }
    }

    fn unexpected(&self, expected: &'static str, found: Option<Token>) -> ParseError {
        self.tokens.error(Problem::Expected { expected, found: Token::describe(found) })
    }
}

/// Builds a volume's options in one expression.
impl VolfileVolume {
    pub fn new(name: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { name: name.into(), kind: kind.into(), options: Vec::new(), subvolumes: Vec::new() }
    }

    #[must_use]
    pub fn with_option(mut self, key: impl Into<String>, value: impl std::fmt::Display) -> Self {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = write!(text, "{value}");
        self.options.push((key.into(), text));
        self
    }

    #[must_use]
    pub fn with_subvolumes<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.subvolumes.extend(names.into_iter().map(Into::into));
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problem(text: &str) -> (usize, Problem) {
        let error = Volfile::parse(text).unwrap_err();
        (error.line, error.problem)
    }

    #[test]
    fn keywords_are_case_insensitive_and_comments_are_skipped() {
        let volfile = Volfile::parse("# top\nVolume a\n TYPE x/y # kind\n option k \"v \\\" w\"\nEND-VOLUME").unwrap();
        assert_eq!(volfile.volumes, [VolfileVolume::new("a", "x/y").with_option("k", "v \" w")]);
    }

    #[test]
    fn mistakes_are_reported_with_their_line() {
        let expected = |expected, found: &str| Problem::Expected { expected, found: found.to_owned() };
        assert_eq!(problem(""), (1, Problem::NoVolume));
        assert_eq!(
            problem("volume a\n type x/y\n option k\nend-volume"),
            (4, expected("the option's value", "\"end-volume\""))
        );
        assert_eq!(
            problem("volume a\ntype x/y\n"),
            (2, expected("\"type\", \"option\", \"subvolumes\" or \"end-volume\"", "the end of the file"))
        );
        assert_eq!(problem("volume a\nend-volume"), (2, Problem::NoType("a".into())));
        assert_eq!(problem("volume a\ntype xy\nend-volume"), (2, Problem::BadType("xy".into())));
        assert_eq!(problem("volume a\ntype x/y\ntype x/y\n"), (3, Problem::DuplicateLine("a".into(), "type")));
        assert_eq!(
            problem("volume a\ntype x/y\nsubvolumes b\nend-volume"),
            (3, Problem::UnknownSubvolume { volume: "a".into(), subvolume: "b".into() })
        );
        assert_eq!(problem("volume a\ntype x/y\nend-volume\nvolume a\n"), (4, Problem::DuplicateVolume("a".into())));
        assert_eq!(problem("volume a\n\n option k `id`"), (3, Problem::Backtick));
        assert_eq!(problem("volume a\n option k \"`id`\""), (2, Problem::Backtick));
        assert_eq!(problem("volume a\n option k \"v"), (2, Problem::OpenQuote));
        assert_eq!(problem("stray"), (1, expected("\"volume\"", "\"stray\"")));
    }

    #[test]
    fn the_last_of_repeated_options_counts() {
        let volume = VolfileVolume::new("a", "x/y").with_option("k", 1).with_option("k", 2);
        assert_eq!(volume.option("k"), Some("2"));
        assert_eq!(volume.option("other"), None);
    }

    #[test]
    fn topology_ignores_options() {
        let one = Volfile { volumes: vec![VolfileVolume::new("a", "x/y")] };
        let two = Volfile { volumes: vec![VolfileVolume::new("a", "x/y").with_option("k", 1)] };
        let three = Volfile { volumes: vec![VolfileVolume::new("a", "x/z")] };
        assert!(one.same_topology(&two) && !one.same_topology(&three));
    }

    #[test]
    fn a_backtick_is_not_printed() {
        let volfile = Volfile { volumes: vec![VolfileVolume::new("a", "x/y").with_option("k", "`id`")] };
        assert_eq!(volfile.print(), Err(Unprintable("`id`".into())));
    }

    fn volfiles() -> impl Strategy<Value = Volfile> {
        let word = "[a-z#\" \\\\\n/.=,é-]{0,8}|volume|type|End-Volume";
        let layer = (word, prop::collection::vec((word, word), 0..4), any::<u8>());
        prop::collection::vec(layer, 1..5).prop_map(|layers| {
            let mut volfile = Volfile::default();
            for (at, (name, options, picks)) in layers.into_iter().enumerate() {
                let below = (0..at).filter(|below| picks >> below & 1 == 1);
                let subvolumes = below.map(|below| volfile.volumes[below].name.clone()).collect();
                let kind = "cluster/replicate".to_owned();
                volfile.volumes.push(VolfileVolume { name: format!("{at}{name}"), kind, options, subvolumes });
            }
            volfile
        })
    }

    proptest! {
        #[test]
        fn printed_volfiles_parse_to_the_same(volfile in volfiles()) {
            let text = volfile.print().unwrap();
            prop_assert_eq!(Volfile::parse(&text), Ok(volfile));
        }

        #[test]
        fn any_text_is_safe(text in "[a-z \n\"\\\\#`]{0,60}|\\PC{0,60}") {
            let _ = Volfile::parse(&text);
        }
    }
}
