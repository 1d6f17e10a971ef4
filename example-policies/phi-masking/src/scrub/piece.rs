//! A text in pieces: words, figures, and what is neither.

use super::figure::{self, Figure, Shape};
use super::vocabulary::{self, LONGEST, Traits};

/// What a hidden piece was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not a known word, or a name.
    Name,
    Date,
    Number,
    Place,
    Contact,
    Age,
}

impl Kind {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Kind::Name => "[name]",
            Kind::Date => "[date]",
            Kind::Number => "[number]",
            Kind::Place => "[place]",
            Kind::Contact => "[contact]",
            Kind::Age => "[90+]",
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum What {
    Word(Traits),
    Figure(Figure),
    Other,
}

/// Bytes of the text that are judged together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) start: usize,
    pub(crate) end: usize,
    what: What,
    pub(crate) hidden: Option<Kind>,
    /// A word that begins with a capital, in a text that is not all capitals.
    pub(crate) capital: bool,
    /// A sentence, a line or a list's item begins with it.
    pub(crate) opens: bool,
}

impl Piece {
    pub(crate) fn is_word(&self) -> bool {
        matches!(self.what, What::Word(_))
    }

    pub(crate) fn traits(&self) -> Traits {
        match self.what {
            What::Word(traits) => traits,
            _ => Traits::default(),
        }
    }

    pub(crate) fn figure(&self) -> Option<Figure> {
        match self.what {
            What::Figure(figure) => Some(figure),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Letter,
    Digit,
    /// A letter or digit beyond ASCII, or what only looks like nothing.
    Foreign,
    Mark,
    End,
}

/// Marks beyond ASCII that notes have; every other character there counts as a letter.
fn is_mark(c: char) -> bool {
    matches!(
        c,
        '°' | 'µ'
            | 'μ'
            | '±'
            | '–'
            | '—'
            | '’'
            | '‘'
            | '“'
            | '”'
            | '…'
            | '≥'
            | '≤'
            | '×'
            | '½'
            | '¼'
            | '¾'
            | '²'
            | '³'
            | '•'
            | '→'
            | '←'
            | '↑'
            | '↓'
            | '·'
            | '\u{a0}'
            | '\u{2009}'
            | '\u{202f}'
    )
}

struct Reader<'a> {
    text: &'a str,
    pieces: Vec<Piece>,
    opens: bool,
    /// More capitals than small letters: they tell nothing.
    shouts: bool,
}

pub(crate) fn pieces(text: &str) -> Vec<Piece> {
    let letters = |test: fn(&u8) -> bool| text.bytes().filter(test).count();
    let mut reader = Reader {
        text,
        pieces: Vec::with_capacity(text.len() / 5),
        opens: true,
        shouts: letters(u8::is_ascii_uppercase) > letters(u8::is_ascii_lowercase),
    };
    let mut at = 0;
    loop {
        match reader.class(at) {
            (Class::End, _) => break,
            (Class::Mark, length) => {
                let mark = reader.bytes(at, at + 1);
                reader.opens |= matches!(mark, [b'.' | b'!' | b'?' | b'\n' | b':' | b';' | b'*']);
                at += length;
            }
            _ => {
                let compound = reader.compound(at);
                reader.read(&compound);
                at = compound.end;
                reader.opens = false;
            }
        }
    }
    reader.pieces
}

/// Letters and digits with single marks between them.
struct Compound {
    start: usize,
    end: usize,
    letters: bool,
    digits: bool,
    foreign: bool,
    /// An address of some kind.
    address: bool,
}

impl Reader<'_> {
    fn bytes(&self, start: usize, end: usize) -> &[u8] {
        self.text.as_bytes().get(start..end).unwrap_or_default()
    }

    fn class(&self, at: usize) -> (Class, usize) {
        match self.text.as_bytes().get(at) {
            None => (Class::End, 0),
            Some(byte) if byte.is_ascii_alphabetic() => (Class::Letter, 1),
            Some(byte) if byte.is_ascii_digit() => (Class::Digit, 1),
            Some(byte) if byte.is_ascii() => (Class::Mark, 1),
            Some(_) => match self.text.get(at..).and_then(|rest| rest.chars().next()) {
                Some(c) if is_mark(c) => (Class::Mark, c.len_utf8()),
                Some(c) => (Class::Foreign, c.len_utf8()),
                None => (Class::Foreign, 1),
            },
        }
    }

    fn compound(&self, start: usize) -> Compound {
        let before = start.checked_sub(1).map(|before| self.bytes(before, start));
        let rest = self.bytes(start, start + 4);
        let mut all = Compound {
            start,
            end: start,
            letters: false,
            digits: false,
            foreign: false,
            address: before == Some(b"@") || rest.eq_ignore_ascii_case(b"www."),
        };
        let mut last = Class::Mark;
        loop {
            let (class, length) = self.class(all.end);
            match class {
                Class::End => return all,
                Class::Letter => all.letters = true,
                Class::Digit => all.digits = true,
                Class::Foreign => all.foreign = true,
                Class::Mark => {
                    if self.bytes(all.end, all.end + 3) == b"://" {
                        all.address = true;
                        all.end = self.blank_from(all.end);
                        return all;
                    }
                    let (next, _) = self.class(all.end + length);
                    if matches!(next, Class::Mark | Class::End)
                        || !self.joins(&mut all, length, last, next)
                    {
                        return all;
                    }
                }
            }
            last = class;
            all.end += length;
        }
    }

    /// Whether the mark at the end of a compound goes on with it.
    fn joins(&self, all: &mut Compound, length: usize, last: Class, next: Class) -> bool {
        match self.bytes(all.end, all.end + length) {
            b"@" => {
                all.address = true;
                true
            }
            b"-" | b"." | b"/" | b":" | b"_" | b"\\" => true,
            b"'" => last != Class::Digit,
            b"," => last == Class::Digit && next == Class::Digit,
            b"+" | b"=" | b"&" | b"?" | b"%" | b"#" | b"~" => all.address,
            mark => mark == "’".as_bytes() || mark == "–".as_bytes() && next == Class::Digit,
        }
    }

    /// The next white space or quotation mark.
    fn blank_from(&self, at: usize) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        let length = rest.find([' ', '\n', '\t', '\r', '"', '<', '>', ')', ']']);
        at + length.unwrap_or(rest.len())
    }

    fn push(&mut self, start: usize, end: usize, what: What, hidden: Option<Kind>) {
        let first = self.bytes(start, start + 1).first();
        let capital = !self.shouts && first.is_some_and(u8::is_ascii_uppercase);
        self.pieces.push(Piece {
            start,
            end,
            what,
            hidden,
            capital: capital && matches!(what, What::Word(_)),
            opens: std::mem::take(&mut self.opens),
        });
    }

    fn read(&mut self, all: &Compound) {
        let (start, end) = (all.start, all.end);
        if all.address {
            return self.push(start, end, What::Other, Some(Kind::Contact));
        }
        if !all.letters && !all.foreign {
            let (figure, hidden) = figure::read(self.bytes(start, end));
            return self.push(start, end, What::Figure(figure), hidden);
        }
        if all.digits {
            return self.mixed(all);
        }
        if self.bytes(start, end).contains(&b'.') && self.dotted(start, end) {
            return;
        }
        for (start, end) in self.runs(all) {
            self.word(start, end);
        }
    }

    /// What is between the marks of a compound; an apostrophe is part of a word.
    fn runs(&self, all: &Compound) -> Vec<(usize, usize)> {
        let marks = |c: char| matches!(c, '-' | '.' | '/' | ':' | '_' | '\\' | ',' | '–');
        let text = self.text.get(all.start..all.end).unwrap_or_default();
        let mut start = all.start;
        let runs = text.split_inclusive(marks).map(|run| {
            let end = start + run.trim_end_matches(marks).len();
            let place = (start, end);
            start += run.len();
            place
        });
        runs.filter(|(start, end)| start < end).collect()
    }

    fn word(&mut self, start: usize, end: usize) {
        match self.known(start, end) {
            Some(traits) => self.push(start, end, What::Word(traits), None),
            None => self.push(start, end, What::Word(Traits::default()), Some(Kind::Name)),
        }
    }

    /// What is known of a word, whatever its case, with or without `'s`.
    fn known(&self, start: usize, end: usize) -> Option<Traits> {
        let written = self.text.get(start..end)?;
        let mut text = written;
        for ending in ["'s", "’s", "'S", "’S"] {
            text = text.strip_suffix(ending).unwrap_or(text);
        }
        let mut buffer = [0_u8; LONGEST];
        let mut length = 0;
        for c in text.chars().filter(|c| !matches!(c, '\'' | '’')) {
            *buffer.get_mut(length)? = u8::try_from(c)
                .ok()
                .filter(u8::is_ascii)?
                .to_ascii_lowercase();
            length += 1;
        }
        match buffer.get(..length)? {
            // A letter alone is an initial at most: names see to those.
            [letter] => Some(vocabulary::known(&[*letter]).unwrap_or_default()),
            word => vocabulary::known(word),
        }
    }

    /// `b.i.d`, `J.R`, `clinic.example.org`; whether it was one of them.
    fn dotted(&mut self, start: usize, end: usize) -> bool {
        const ENDS: [&str; 12] = [
            "com", "org", "net", "edu", "gov", "io", "info", "health", "us", "uk", "de", "eu",
        ];
        let text = self.text.get(start..end).unwrap_or_default();
        if text.split('.').all(|part| part.len() == 1) {
            let letters: Vec<u8> = text.bytes().filter(|b| *b != b'.').collect();
            let hidden = match vocabulary::known(&letters.to_ascii_lowercase()) {
                Some(_) => None,
                None => Some(Kind::Name),
            };
            self.push(start, end, What::Other, hidden);
            return true;
        }
        let last = text.rsplit(['.', '/']).next().unwrap_or_default();
        let is_address = ENDS.iter().any(|it| it.eq_ignore_ascii_case(last));
        if is_address {
            self.push(start, end, What::Other, Some(Kind::Contact));
        }
        is_address
    }

    /// Letters and digits: shapes that notes have stay, everything else numbers somebody.
    fn mixed(&mut self, all: &Compound) {
        let runs = self.runs(all);
        let initial = runs.iter().any(|&(start, end)| {
            end - start == 1 && self.bytes(start, end).iter().all(u8::is_ascii_alphabetic)
        });
        let whats: Option<Vec<What>> = runs
            .iter()
            .map(|&(start, end)| self.run(start, end, if initial { 2 } else { 3 }))
            .collect();
        let tells = |what: &What| matches!(what, What::Word(it) if it.any(Traits::ID_CUE.and(Traits::PHONE_CUE)) && !it.any(Traits::FUNCTION));
        match whats {
            Some(whats) if !whats.iter().any(tells) => {
                for (&(start, end), what) in runs.iter().zip(whats) {
                    let hidden = match what {
                        What::Figure(figure) if figure.is_great_age() => Some(Kind::Age),
                        _ => None,
                    };
                    self.push(start, end, what, hidden);
                }
            }
            _ => self.push(all.start, all.end, What::Other, Some(Kind::Number)),
        }
    }

    /// A part of a mixed compound, where it may stay.
    fn run(&self, start: usize, end: usize, most: usize) -> Option<What> {
        let run = self.bytes(start, end);
        if run.iter().all(u8::is_ascii_digit) {
            let short = run.len() <= most;
            return short.then(|| What::Figure(figure::read(run).0));
        }
        if !run.iter().any(u8::is_ascii_digit) {
            return self.known(start, end).map(What::Word);
        }
        let lower = run.to_ascii_lowercase();
        if vocabulary::known(&lower).is_some() || is_clinical_shape(&lower) {
            return Some(What::Other);
        }
        let digits = lower
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let (figures, ending) = lower.split_at_checked(digits)?;
        let (mut figure, _) = figure::read(figures);
        figure.shape = match ending {
            b"st" | b"nd" | b"rd" | b"th" => Shape::Ordinal,
            b"yo" | b"y" | b"yr" | b"yrs" | b"yof" | b"yom" => Shape::Age,
            b"f" | b"m" if digits < 4 => Shape::Sexed,
            b"x" if digits < 4 => Shape::Quantity,
            [_] if digits < 3 => Shape::Quantity,
            _ if digits == 0 || digits > 4 => return None,
            unit if vocabulary::known(unit)?.any(Traits::UNIT) => Shape::Quantity,
            _ => return None,
        };
        (digits > 0).then_some(What::Figure(figure))
    }
}

/// `l4`, `q12h`, `g2p1`, `t2n0m0`, `covid19`.
fn is_clinical_shape(run: &[u8]) -> bool {
    let letters = run
        .iter()
        .take_while(|byte| byte.is_ascii_alphabetic())
        .count();
    let (word, rest) = run.split_at(letters);
    let all_digits = !rest.is_empty() && rest.iter().all(u8::is_ascii_digit);
    match (word, rest) {
        ([_], _) if all_digits => rest.len() < 3,
        (_, _) if all_digits && rest.len() < 3 && letters > 2 => vocabulary::known(word)
            .is_some_and(|it| !it.any(Traits::ID_CUE.and(Traits::PHONE_CUE).and(Traits::TITLE))),
        ([b'q'], [hours @ .., b'h' | b'd' | b'w']) => {
            hours.len() < 3 && hours.iter().all(u8::is_ascii_digit)
        }
        ([b'g' | b't'], [a, b'p' | b'n', b]) => a.is_ascii_digit() && b.is_ascii_digit(),
        ([b't'], [a, b'n', b, b'm', c]) => [a, b, c].iter().all(|it| it.is_ascii_digit()),
        _ => false,
    }
}
