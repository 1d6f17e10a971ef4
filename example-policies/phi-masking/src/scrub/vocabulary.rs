//! Words that may stay, and what is known about them.
//!
//! The lists are read when the module is compiled: it holds 32 bits of each word's hash, not the
//! words.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    long_running_const_eval,
    reason = "evaluated by the compiler, where a slip is an error"
)]

/// What is known about a word, as flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traits(u32);

impl Traits {
    /// Grammar: never a name, wherever it stands.
    pub(crate) const FUNCTION: Traits = Traits(1);
    /// `Mr`, `Dr`: a name follows.
    pub(crate) const TITLE: Traits = Traits(1 << 1);
    /// `named`, `signed`: a name follows, maybe behind a colon.
    pub(crate) const NAME_CUE: Traits = Traits(1 << 2);
    /// `daughter`, `nurse`: a name may follow.
    pub(crate) const RELATION: Traits = Traits(1 << 3);
    /// `january`.
    pub(crate) const MONTH: Traits = Traits(1 << 4);
    /// `may`, `march`: months in company only.
    pub(crate) const MAYBE_MONTH: Traits = Traits(1 << 5);
    /// `monday`, `christmas`.
    pub(crate) const DAY: Traits = Traits(1 << 6);
    /// `mg`, `weeks`: what stands before it is a quantity.
    pub(crate) const UNIT: Traits = Traits(1 << 7);
    /// `street`, `avenue`.
    pub(crate) const STREET: Traits = Traits(1 << 8);
    /// `court`, `ct`: streets behind a house number only.
    pub(crate) const MAYBE_STREET: Traits = Traits(1 << 9);
    /// `mrn`, `policy`: a number follows that tells who.
    pub(crate) const ID_CUE: Traits = Traits(1 << 10);
    /// `phone`, `call`.
    pub(crate) const PHONE_CUE: Traits = Traits(1 << 11);
    /// `number`, `is`: between such a word and its number.
    pub(crate) const FILLER: Traits = Traits(1 << 12);
    /// `born`, `dob`.
    pub(crate) const BIRTH: Traits = Traits(1 << 13);
    /// `years`, `yo`: an age stands before it.
    pub(crate) const AGE_UNIT: Traits = Traits(1 << 14);
    /// `aged`: an age follows.
    pub(crate) const AGE_CUE: Traits = Traits(1 << 15);
    /// `zero` to `nine`.
    pub(crate) const DIGIT: Traits = Traits(1 << 16);
    /// `ninety`.
    pub(crate) const OLD: Traits = Traits(1 << 17);
    /// `lives`, `moved`: a place may follow.
    pub(crate) const LIVES: Traits = Traits(1 << 18);
    /// `in`, `from`.
    pub(crate) const PLACE_WORD: Traits = Traits(1 << 19);
    /// `county`.
    pub(crate) const COUNTY: Traits = Traits(1 << 20);
    /// `pain`, `strength`: `5/10` is a score here, not a date.
    pub(crate) const SCORE: Traits = Traits(1 << 21);
    /// `rose`, `mark`: a name too.
    pub(crate) const NAME: Traits = Traits(1 << 22);
    /// `will`, `green`: a name too, but mostly not one, even in front of a sentence.
    pub(crate) const RARE_NAME: Traits = Traits(1 << 23);
    /// `temp`: `101f` is no age here.
    pub(crate) const TEMPERATURE: Traits = Traits(1 << 24);
    /// `female`, `f`: an age stands before it.
    pub(crate) const PERSON: Traits = Traits(1 << 25);
    /// `in`, `since`: `may` is a month behind it.
    pub(crate) const MONTH_CUE: Traits = Traits(1 << 26);
    /// `nonagenarian`.
    pub(crate) const VERY_OLD: Traits = Traits(1 << 27);
    const NOUN: Traits = Traits(1 << 28);
    const VERB: Traits = Traits(1 << 29);
    const ADJECTIVE: Traits = Traits(1 << 30);
    /// It is a word for something, and not a name alone.
    const WORD: Traits = Traits(1 << 31);

    pub(crate) const fn any(self, of: Traits) -> bool {
        self.0 & of.0 != 0
    }

    pub(crate) const fn and(self, other: Traits) -> Traits {
        Traits(self.0 | other.0)
    }
}

/// What the letters of a heading `@..` and behind a word's slash stand for.
const fn trait_of(letter: u8) -> Traits {
    match letter {
        b'W' => Traits::WORD,
        b'F' => Traits::FUNCTION,
        b'T' => Traits::TITLE,
        b'C' => Traits::NAME_CUE,
        b'R' => Traits::RELATION,
        b'M' => Traits::MONTH,
        b'm' => Traits::MAYBE_MONTH,
        b'd' => Traits::DAY,
        b'U' => Traits::UNIT,
        b'S' => Traits::STREET,
        b's' => Traits::MAYBE_STREET,
        b'I' => Traits::ID_CUE,
        b'P' => Traits::PHONE_CUE,
        b'f' => Traits::FILLER,
        b'B' => Traits::BIRTH,
        b'A' => Traits::AGE_UNIT,
        b'a' => Traits::AGE_CUE,
        b'D' => Traits::DIGIT,
        b'z' => Traits::OLD,
        b'L' => Traits::LIVES,
        b'p' => Traits::PLACE_WORD,
        b'Y' => Traits::COUNTY,
        b'K' => Traits::SCORE,
        b'H' => Traits::TEMPERATURE,
        b'G' => Traits::PERSON,
        b'E' => Traits::MONTH_CUE,
        b'O' => Traits::VERY_OLD,
        b'N' => Traits::NAME,
        b'x' => Traits::RARE_NAME,
        _ => panic!("a heading has a letter that stands for nothing"),
    }
}

const fn inflection_of(letter: u8) -> Traits {
    match letter {
        b'n' => Traits::NOUN,
        b'v' => Traits::VERB,
        b'a' => Traits::ADJECTIVE,
        _ => panic!("a word has an inflection that there is not"),
    }
}

const SOURCES: [&[u8]; 3] = [
    include_bytes!("words.txt"),
    include_bytes!("general.txt"),
    include_bytes!("clinical.txt"),
];

const fn is_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\n'
}

/// FNV-1a, stirred so that the upper bits are as good as the lower ones.
const fn hash(word: &[u8]) -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    let mut at = 0;
    while at < word.len() {
        hash = (hash ^ word[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    hash ^= hash >> 15;
    hash = hash.wrapping_mul(0x2c1b_3c6d);
    hash ^ (hash >> 13)
}

const fn count() -> usize {
    let (mut words, mut source) = (0, 0);
    while source < SOURCES.len() {
        let (text, mut at) = (SOURCES[source], 0);
        while at < text.len() {
            let starts = !is_space(text[at]) && (at == 0 || is_space(text[at - 1]));
            if starts && text[at] != b'@' {
                words += 1;
            }
            at += 1;
        }
        source += 1;
    }
    words
}

const COUNT: usize = count();
/// No more combinations of traits than this.
const KINDS: usize = 96;

struct Table {
    /// Where words begin whose hash begins with this byte.
    starts: [u16; 257],
    /// The other three bytes, in order.
    rests: [[u8; 3]; COUNT],
    kinds: [u8; COUNT],
    traits: [u32; KINDS],
}

static TABLE: Table = build();

const fn build() -> Table {
    let mut entries = [0_u64; COUNT];
    let mut traits = [0_u32; KINDS];
    let (mut kinds, mut words, mut source) = (0, 0, 0);
    while source < SOURCES.len() {
        let (text, mut at) = (SOURCES[source], 0);
        let mut heading = Traits(0);
        while at < text.len() {
            if is_space(text[at]) {
                at += 1;
                continue;
            }
            let is_heading = text[at] == b'@';
            let mut found = if is_heading { Traits(0) } else { heading };
            let start = at;
            let mut end = at;
            let mut slash = false;
            while at < text.len() && !is_space(text[at]) {
                if is_heading && at > start {
                    found = found.and(trait_of(text[at]));
                } else if slash {
                    found = found.and(inflection_of(text[at]));
                } else if text[at] == b'/' {
                    slash = true;
                } else {
                    end = at + 1;
                }
                at += 1;
            }
            if is_heading {
                heading = match found.0 & !Traits::NAME.0 {
                    0 => found,
                    _ => found.and(Traits::WORD),
                };
                continue;
            }
            let mut kind = 0;
            while kind < kinds && traits[kind] != found.0 {
                kind += 1;
            }
            if kind == kinds {
                traits[kind] = found.0;
                kinds += 1;
            }
            let (_, rest) = text.split_at(start);
            let (word, _) = rest.split_at(end - start);
            entries[words] = ((hash(word) as u64) << 8) | kind as u64;
            words += 1;
        }
        source += 1;
    }
    pack(sorted(entries), traits)
}

/// Heap sort, which the compiler can run.
const fn sorted(mut all: [u64; COUNT]) -> [u64; COUNT] {
    let mut start = COUNT / 2;
    let mut end = COUNT;
    while end > 1 {
        if start > 0 {
            start -= 1;
        } else {
            end -= 1;
            (all[0], all[end]) = (all[end], all[0]);
        }
        let mut root = start;
        while 2 * root + 1 < end {
            let mut child = 2 * root + 1;
            if child + 1 < end && all[child] < all[child + 1] {
                child += 1;
            }
            if all[root] >= all[child] {
                break;
            }
            (all[root], all[child]) = (all[child], all[root]);
            root = child;
        }
    }
    all
}

const fn pack(entries: [u64; COUNT], traits: [u32; KINDS]) -> Table {
    let mut table = Table {
        starts: [0; 257],
        rests: [[0; 3]; COUNT],
        kinds: [0; COUNT],
        traits,
    };
    let mut at = 0;
    while at < COUNT {
        let [.., a, b, c, d, kind] = entries[at].to_be_bytes();
        table.rests[at] = [b, c, d];
        table.kinds[at] = kind;
        table.starts[a as usize + 1] = at as u16 + 1;
        at += 1;
    }
    let mut first = 1;
    while first < 257 {
        if table.starts[first] == 0 {
            table.starts[first] = table.starts[first - 1];
        }
        first += 1;
    }
    table
}

/// The longest word that is looked up; longer ones are not known.
pub(crate) const LONGEST: usize = 28;

/// What is known of a word in lower-case ASCII; `None`: nothing, it may be anybody's name.
pub(crate) fn known(word: &[u8]) -> Option<Traits> {
    if word.len() > LONGEST {
        return None;
    }
    let entered = entry(word).unwrap_or_default();
    if entered.any(Traits::WORD) {
        return Some(entered);
    }
    let formed = inflected(word)
        .or_else(|| prefixed(word))
        .or_else(|| clinical(word))?;
    // "Waters" is a name, and so it is where it comes from "water".
    Some(formed.and(entered))
}

/// A name that is no word stays unknown, as all the others are.
fn listed(word: &[u8]) -> Option<Traits> {
    entry(word).filter(|traits| traits.any(Traits::WORD))
}

fn entry(word: &[u8]) -> Option<Traits> {
    let [first, rest @ ..] = hash(word).to_be_bytes();
    let range = |index: usize| TABLE.starts.get(index).map(|&at| usize::from(at));
    let (start, end) = (range(first.into())?, range(usize::from(first) + 1)?);
    let bucket = TABLE.rests.get(start..end)?;
    let found = bucket
        .iter()
        .enumerate()
        .filter(|(_, known)| **known == rest);
    let kinds = found.filter_map(|(at, _)| TABLE.kinds.get(start + at));
    let traits = kinds.filter_map(|&kind| TABLE.traits.get(usize::from(kind)));
    traits.map(|&bits| Traits(bits)).reduce(Traits::and)
}

/// `walks`, `carried`, `heavier`: of words that say how they bend.
fn inflected(word: &[u8]) -> Option<Traits> {
    const BENDINGS: [(&[u8], Traits); 8] = [
        (b"s", Traits::NOUN.and(Traits::VERB)),
        (b"es", Traits::NOUN.and(Traits::VERB)),
        (b"ed", Traits::VERB),
        (b"ing", Traits::VERB),
        (b"ly", Traits::ADJECTIVE),
        (b"er", Traits::ADJECTIVE),
        (b"est", Traits::ADJECTIVE),
        (b"ness", Traits::ADJECTIVE),
    ];
    BENDINGS.iter().find_map(|&(ending, wanted)| {
        let stem = word.strip_suffix(ending).filter(|stem| stem.len() > 1)?;
        let bends = |root: &[u8]| listed(root).filter(|traits| traits.any(wanted));
        let changed = || match stem {
            // `carried`, `stopped`.
            [start @ .., b'i'] => bends(&extended(start, b'y')?),
            [start @ .., a, b] if a == b => bends(&extended(start, *a)?),
            _ => None,
        };
        // `described`.
        let dropped = || match ending {
            b"ed" | b"ing" | b"er" | b"est" => bends(&extended(stem, b'e')?),
            _ => None,
        };
        let root = bends(stem).or_else(changed).or_else(dropped)?;
        Some(Traits(root.0 & Traits::UNIT.and(Traits::SCORE).0))
    })
}

fn extended(stem: &[u8], letter: u8) -> Option<ArrayText> {
    let mut text = ArrayText::default();
    text.bytes.get_mut(..stem.len())?.copy_from_slice(stem);
    *text.bytes.get_mut(stem.len())? = letter;
    text.length = stem.len() + 1;
    Some(text)
}

/// A word that is put together.
#[derive(Default)]
struct ArrayText {
    bytes: [u8; LONGEST],
    length: usize,
}

impl std::ops::Deref for ArrayText {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// `nontender`, `hyperreflexia`.
fn prefixed(word: &[u8]) -> Option<Traits> {
    const PREFIXES: [&[u8]; 19] = [
        b"non", b"un", b"re", b"pre", b"post", b"hyper", b"hypo", b"inter", b"intra", b"over",
        b"under", b"anti", b"peri", b"sub", b"multi", b"micro", b"neuro", b"cardio", b"dis",
    ];
    PREFIXES.iter().find_map(|prefix| {
        let rest = word.strip_prefix(*prefix).filter(|rest| rest.len() > 3)?;
        let traits = listed(rest).or_else(|| inflected(rest))?;
        // "Reid", "Underhill": what is a name stays one.
        (!traits.any(Traits::NAME.and(Traits::RARE_NAME))).then_some(Traits(0))
    })
}

/// Endings that only names of diseases, procedures and drugs have.
fn clinical(word: &[u8]) -> Option<Traits> {
    const ENDINGS: [&[u8]; 34] = [
        b"itis",
        b"osis",
        b"ectomy",
        b"ostomy",
        b"otomy",
        b"ology",
        b"ologist",
        b"pathy",
        b"pathic",
        b"plasty",
        b"scopy",
        b"algia",
        b"uria",
        b"graphy",
        b"megaly",
        b"penia",
        b"cillin",
        b"mycin",
        b"statin",
        b"prazole",
        b"olol",
        b"sartan",
        b"floxacin",
        b"cycline",
        b"dipine",
        b"gliptin",
        b"gliflozin",
        b"parin",
        b"xaban",
        b"triptan",
        b"setron",
        b"azepam",
        b"solone",
        b"thiazide",
    ];
    let is_clinical = |ending: &[u8]| word.ends_with(ending) && word.len() >= ending.len() + 3;
    ENDINGS
        .iter()
        .any(|ending| is_clinical(ending))
        .then_some(Traits(0))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn words() -> BTreeSet<&'static str> {
        let text = SOURCES.iter().map(|source| str::from_utf8(source).unwrap());
        let words = text.flat_map(str::split_whitespace);
        let words = words.filter(|word| !word.starts_with('@'));
        words.map(|word| word.split('/').next().unwrap()).collect()
    }

    #[test]
    fn every_word_is_found_as_itself() {
        let words = words();
        assert!(words.len() > 6000, "{}", words.len());
        let mut hashes = BTreeMap::new();
        for word in words {
            assert!(
                word.bytes()
                    .all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase()),
                "{word}"
            );
            assert_eq!(
                hashes.insert(hash(word.as_bytes()), word),
                None,
                "{word} has another's hash"
            );
        }
    }

    #[test]
    fn words_bend() {
        for word in [
            "walks",
            "walked",
            "walking",
            "carries",
            "carried",
            "stopped",
            "stopping",
            "smoking",
            "described",
            "heavier",
            "bigger",
            "biggest",
            "quietly",
            "happily",
            "sandwiches",
            "nontender",
            "reassessed",
            "hyperreflexia",
            "pancreatoduodenectomy",
            "candesartan",
            "allergies",
        ] {
            assert!(known(word.as_bytes()).is_some(), "{word}");
        }
        for name in [
            "smithson",
            "kowalski",
            "nguyen",
            "garcia",
            "rodriguez",
            "oconnor",
            "zhang",
            "patel",
            "hernandez",
            "okafor",
            "muller",
            "harrington",
            "whitfield",
            "underwoods",
            "reagans",
            "springfield",
            "cleveland",
            "chicago",
            "xyzzy",
            "",
            "todd",
            "wang",
            "jim",
        ] {
            assert_eq!(known(name.as_bytes()), None, "{name}");
        }
    }
}
