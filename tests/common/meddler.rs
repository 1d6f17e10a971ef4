//! A backend that does not keep to the protocol: what a real one says, with something wrong in it.

use chaperone_test_support::wire::frontend::message;

/// In whatever was not asked for.
pub const CANARY: &str = "CANARY-7-1234";

/// Numbers that look random and are the same for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % u64::try_from(sides.max(1)).unwrap()).unwrap()
    }
}

/// What is done to one connection's messages.
#[derive(Debug)]
pub struct Meddler {
    dice: Dice,
    /// The log-in is over.
    started: bool,
    /// Messages that pass before.
    spared: usize,
    /// How often it meddles.
    times: usize,
    /// A message that goes behind the next one.
    held: Option<Vec<u8>>,
}

impl Meddler {
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        Self {
            // A session has about a hundred messages, and the first one asks for all of the catalog.
            spared: dice.roll(if seed == 0 { 1000 } else { 80 }),
            times: 1 + dice.roll(3),
            dice,
            started: false,
            held: None,
        }
    }

    /// Leaves everything as it is.
    pub fn none() -> Self {
        Self {
            dice: Dice(0),
            started: false,
            spared: 0,
            times: 0,
            held: None,
        }
    }

    pub fn alter(&mut self, whole: &[u8]) -> Vec<u8> {
        if !self.started {
            self.started = whole.first() == Some(&b'Z');
            return whole.to_vec();
        }
        if let Some(held) = self.held.take() {
            return [whole, &held].concat();
        }
        if self.spared > 0 || self.times == 0 {
            self.spared = self.spared.saturating_sub(1);
            return whole.to_vec();
        }
        self.times -= 1;
        self.spared = self.dice.roll(20);
        self.meddle(whole)
    }

    fn meddle(&mut self, whole: &[u8]) -> Vec<u8> {
        let mut altered = whole.to_vec();
        match self.dice.roll(12) {
            0 => Vec::new(),
            1 => [whole, whole].concat(),
            2 => {
                self.held = Some(altered);
                Vec::new()
            }
            3 => {
                altered[0] = b"123ACDEGHINRSTVWZcdnstv?\0"[self.dice.roll(25)];
                altered
            }
            4 => {
                let lengths: [u32; 6] = [0, 3, 4, 0x7fff_ffff, 0xffff_ffff, 0x4000_0000];
                altered[1..5].copy_from_slice(&lengths[self.dice.roll(6)].to_be_bytes());
                altered
            }
            5 => {
                // A field is cut off, or there is one too many; the length word is right.
                let mut body = altered.split_off(5);
                match self.dice.roll(2) {
                    0 => body.truncate(self.dice.roll(body.len())),
                    _ => body.extend(CANARY.as_bytes()),
                }
                message(altered[0], &body)
            }
            6 | 7 => {
                for _ in 0..=self.dice.roll(3) {
                    let at = 5 + self.dice.roll(altered.len().saturating_sub(5));
                    if let Some(byte) = altered.get_mut(at) {
                        *byte ^= 1 << self.dice.roll(8);
                    }
                }
                altered
            }
            _ => {
                let injected = self.injected();
                match self.dice.roll(3) {
                    0 => [whole, &injected].concat(),
                    1 => injected,
                    _ => [&injected, whole].concat(),
                }
            }
        }
    }

    /// A message that nobody asked for. Reports and settings are without the canary: what a server
    /// says of itself at any time is told as it is.
    fn injected(&mut self) -> Vec<u8> {
        let cell = |text: &str| {
            [
                &u32::try_from(text.len()).unwrap().to_be_bytes()[..],
                text.as_bytes(),
            ]
            .concat()
        };
        let row = [
            &[0, 4][..],
            &cell("1"),
            &cell(CANARY),
            &cell(CANARY),
            &cell(CANARY),
        ]
        .concat();
        let canary = [CANARY.as_bytes(), &[0]].concat();
        let (kind, body): (u8, Vec<u8>) = match self.dice.roll(24) {
            0..4 => (b'D', row),
            4 => (b'd', CANARY.as_bytes().to_vec()),
            5 => (b'V', cell(CANARY)),
            6 => (b'C', canary),
            7 => (b'A', [&[0, 0, 0, 9][..], b"channel\0", &canary].concat()),
            8 => (b'1', canary),
            9 => (b'2', canary),
            10 => (b'n', canary),
            11 => (b's', canary),
            12 => (b'c', canary),
            13 => (b'I', canary),
            14 => (b'Z', b"I".to_vec()),
            15 => (b'Z', b"?".to_vec()),
            16 => (b'G', [&[0, 0, 1][..], &canary].concat()),
            17 => (b'H', vec![0, 0, 1, 0, 0]),
            18 => (b'W', vec![0, 0, 1, 0, 0]),
            19 => (b'R', vec![0, 0, 0, 3]),
            20 => (b'K', vec![0, 0, 0, 1, 1, 2, 3, 4]),
            21 => (b'E', b"SERROR\0C22012\0Mout of turn\0\0".to_vec()),
            22 => (b'N', b"SNOTICE\0C00000\0Mout of turn\0\0".to_vec()),
            _ => (
                b'T',
                b"\0\x01x\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0".to_vec(),
            ),
        };
        message(kind, &body)
    }
}
