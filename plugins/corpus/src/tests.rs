use std::collections::{HashMap, HashSet};

use super::*;

const N: u64 = 2_000;

fn rng(i: u64) -> Rng {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&i.to_le_bytes());
    Rng::new(&seed)
}

fn shape(turns: usize, words: usize, pasted_words: usize) -> ChatShape {
    ChatShape { turns, system: false, words: vec![words; turns], pasted_words }
}

fn first_five(text: &str) -> String {
    text.split_whitespace().take(5).collect::<Vec<_>>().join(" ").to_lowercase()
}

#[test]
fn no_two_of_two_thousand_chats_begin_with_the_same_five_words() {
    let mut seen = HashMap::new();
    for i in 0..N {
        let chat = chat(&mut rng(i), &shape(1, 8, 0));
        let start = first_five(&chat[0].1);
        if let Some(other) = seen.insert(start.clone(), i) {
            panic!("{other} and {i} begin with {start:?}");
        }
    }
}

#[test]
fn no_two_of_two_thousand_instructions_begin_with_the_same_five_words() {
    let with_system = ChatShape { system: true, ..shape(1, 8, 0) };
    let starts: HashSet<String> = (0..N).map(|i| first_five(&chat(&mut rng(i), &with_system)[0].1)).collect();
    assert_eq!(starts.len() as u64, N);
}

#[test]
fn passages_for_embedding_are_all_different() {
    let texts: HashSet<String> = (0..N).map(|i| passage(&mut rng(i), 3 + (i as usize % 60))).collect();
    assert_eq!(texts.len() as u64, N);
}

#[test]
fn a_few_thousand_words_are_used_and_no_opening_dominates() {
    let mut words: HashMap<String, u64> = HashMap::new();
    let mut seconds: HashMap<String, u64> = HashMap::new();
    for i in 0..N {
        let text = chat(&mut rng(i), &shape(1, 20, 0)).remove(0).1;
        for word in text.split_whitespace() {
            *words.entry(word.to_lowercase()).or_default() += 1;
        }
        let pair: Vec<&str> = text.split_whitespace().take(2).collect();
        *seconds.entry(pair.join(" ")).or_default() += 1;
    }
    assert!(words.len() > 6_000, "{}", words.len());
    let (start, n) = seconds.iter().max_by_key(|(_, n)| **n).unwrap();
    assert!(*n * 50 < N, "{n} of {N} begin with {start}");
}

#[test]
fn many_languages_and_scripts_are_spoken() {
    let mut spoken = HashMap::new();
    for i in 0..N {
        *spoken.entry(Language::draw(&mut rng(i))).or_insert(0) += 1;
    }
    assert_eq!(spoken.len(), 10, "{spoken:?}");
    let scripts = (0..N).map(|i| chat(&mut rng(i), &shape(1, 12, 0)).remove(0).1);
    let cyrillic = scripts.filter(|t| t.chars().any(|c| ('а'..='я').contains(&c))).count();
    assert!(cyrillic > 20, "{cyrillic}");
}

#[test]
fn a_chat_has_the_turns_it_was_asked_for_and_ends_with_the_person() {
    for turns in 1..=5 {
        let chat = chat(&mut rng(turns as u64), &ChatShape { system: true, ..shape(turns, 10, 0) });
        let roles: Vec<Role> = chat.iter().map(|(role, _)| *role).collect();
        assert_eq!(roles.len(), 2 * turns);
        assert_eq!((roles[0], roles[1], roles.last()), (Role::System, Role::User, Some(&Role::User)));
        assert!(chat.iter().all(|(_, text)| !text.trim().is_empty()));
    }
}

#[test]
fn lengths_follow_the_wish() {
    for wish in [10, 40, 160] {
        let total: usize =
            (0..300).map(|i| length(&chat(&mut rng(i), &shape(1, wish, 0))[0].1, Language::English)).sum();
        let mean = total / 300;
        assert!(mean * 10 > wish * 7 && mean < wish * 2 + 8, "{mean} words where {wish} were wished for");
    }
    let with_paste = (0..300).map(|i| chat(&mut rng(i), &shape(1, 10, 100)).remove(0).1);
    assert!(with_paste.filter(|t| t.contains('\n')).count() == 300);
}

#[test]
fn the_seed_decides() {
    let said = |i| chat(&mut rng(i), &shape(3, 30, 50));
    assert_eq!(said(7), said(7));
    assert_ne!(said(7), said(8));
}
