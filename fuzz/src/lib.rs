//! What the targets have in common. The bytes of an input are what a peer sends, nothing else: so a file of the
//! corpus can be read, and sent by `nc`. How they are cut into pieces is drawn from the bytes themselves.

/// A number for these bytes, the same each time (FNV-1a).
pub fn seed(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Numbers from a seed: xorshift.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed | 1)
    }

    /// One below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

/// How many bytes are cut into single ones; beyond that it would take its time and show nothing.
const SINGLE_MAX: usize = 400;

/// What `run` sees of `bytes`, which has to be the same however they are cut.
pub fn same_however_cut<T: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    mut run: impl FnMut(&[&[u8]]) -> T,
) -> T {
    let mut runs = cuts(bytes).into_iter().map(|pieces| run(&pieces));
    let whole = runs.next().expect("the whole is a way to cut");
    if let Some(other) = runs.find(|seen| *seen != whole) {
        panic!("whole: {whole:#?}, in pieces: {other:#?}");
    }
    whole
}

/// Ways to cut `bytes`: whole, byte by byte, and twice by chance. The first is the whole.
pub fn cuts(bytes: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut numbers = Numbers::new(seed(bytes));
    let mut cuts = vec![vec![bytes]];
    if bytes.len() <= SINGLE_MAX {
        cuts.push(bytes.chunks(1).collect());
    }
    for longest in [7, 200] {
        let mut pieces = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at((1 + numbers.below(longest)).min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        cuts.push(pieces);
    }
    cuts
}
