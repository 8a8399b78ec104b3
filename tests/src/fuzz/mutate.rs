//! Changes to an input: bits, numbers, words, pieces of other inputs.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// Inputs do not grow beyond this, bytes.
pub const INPUT_BYTES_MAX: usize = 64 << 10;

/// Numbers at which something overflows, ends or begins.
const EDGES: [u64; 14] = [
    0,
    1,
    7,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    1 << 20,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// One to eight changes, one after the other.
pub fn mutate(input: &[u8], others: &[Vec<u8>], words: &[&str], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    // Few changes are tried more often than many.
    for _ in 0..1 << random.random_range(0..4) {
        change(&mut bytes, others, words, random);
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

fn change(bytes: &mut Vec<u8>, others: &[Vec<u8>], words: &[&str], random: &mut StdRng) {
    let at = random.random_range(0..=bytes.len());
    let to = (at + random.random_range(0..=16)).min(bytes.len());
    match random.random_range(0..11) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
        1 if at < bytes.len() => bytes[at] = random.random(),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..to)),
        4 => {
            let piece = bytes[at..to].to_vec();
            insert(bytes, at, &piece);
        }
        5 => {
            let piece: Vec<u8> = (0..random.random_range(1..9)).map(|_| random.random()).collect();
            insert(bytes, at, &piece);
        }
        6 | 7 => number(bytes, at, random),
        8 => digits(bytes, at, random),
        9 => {
            if let Some(word) = words.choose(random) {
                insert(bytes, at, word.as_bytes());
            }
        }
        _ => {
            if let Some(other) = others.choose(random) {
                let from = random.random_range(0..=other.len());
                let piece = other[from..].to_vec();
                bytes.truncate(at);
                insert(bytes, at, &piece);
            }
        }
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    if bytes.len() + piece.len() <= INPUT_BYTES_MAX {
        bytes.splice(at..at, piece.iter().copied());
    }
}

/// Writes an edge, or a neighbour of what is there, as a number of 1 to 8 bytes in either order, over what is there.
fn number(bytes: &mut [u8], at: usize, random: &mut StdRng) {
    let width = 1 << random.random_range(0..4);
    let Some(place) = bytes.get_mut(at..at + width) else { return };
    let big = random.random_bool(0.5);
    let mut wide = [0; 8];
    wide[..width].copy_from_slice(place);
    if big {
        wide[..width].reverse();
    }
    let before = u64::from_le_bytes(wide);
    let after = match random.random_range(0..4) {
        0 => before.wrapping_add(random.random_range(1..5)),
        1 => before.wrapping_sub(random.random_range(1..5)),
        _ => EDGES[random.random_range(0..EDGES.len())],
    };
    let mut out = after.to_le_bytes();
    if big {
        out[..width].reverse();
    }
    place.copy_from_slice(&out[..width]);
}

/// Replaces a run of decimal digits, for text.
fn digits(bytes: &mut Vec<u8>, at: usize, random: &mut StdRng) {
    let Some(start) = (at..bytes.len()).find(|n| bytes[*n].is_ascii_digit()) else { return };
    let end = (start..bytes.len()).find(|n| !bytes[*n].is_ascii_digit()).unwrap_or(bytes.len());
    let edge = EDGES[random.random_range(0..EDGES.len())];
    bytes.splice(start..end, edge.to_string().into_bytes());
}
