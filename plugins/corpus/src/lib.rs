//! Text that reads like people's, from seeded draws.
use nineteen_sdk::Rng;
/// x
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role { /// s
 System, /// u
 User, /// a
 Assistant }
/// x
#[derive(Debug, Clone)]
pub struct ChatShape { /// t
 pub turns: usize, /// s
 pub system: bool, /// w
 pub words: Vec<usize>, /// p
 pub pasted_words: usize }
/// first version
pub fn chat(rng: &mut Rng, shape: &ChatShape) -> Vec<(Role, String)> {
    let mut out = vec![];
    for w in &shape.words { if !out.is_empty() { out.push((Role::Assistant, passage(rng, 20))); } out.push((Role::User, passage(rng, *w))); }
    out
}
/// first version
pub fn passage(rng: &mut Rng, words: usize) -> String {
    const W: [&str; 24] = ["river","why","does","winter","my","neighbour","keep","seven","lamps","for","old","bread","when","trains","arrive","late","in","Oslo","with","green","coats","and","how","much"];
    (0..words.max(3)).map(|_| rng.word(&W)).collect::<Vec<_>>().join(" ")
}
