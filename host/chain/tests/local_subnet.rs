//! The local subnet refuses what the chain refuses, in its order and by its names.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy knows test functions, but not their helpers"
)]

use std::fs;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use nineteen_chain::{Blocks, LocalSubnet, Rules, Subnet};
use nineteen_domain::meet::{Chain as _, ChainError, Neuron};
use nineteen_domain::{Hotkey, Uid};

const fn key(n: u8) -> Hotkey {
    Hotkey::from_bytes([n; 32])
}

const VALIDATOR: Hotkey = key(0);

/// Five neurons: uid 0 the validator, uids 1 to 3 miners, uid 9 another one (uids need not be dense).
fn subnet() -> Subnet {
    let neuron = |uid: u16| Neuron {
        uid: Uid(uid),
        hotkey: key(u8::try_from(uid).unwrap()),
        axon: Some(format!("127.0.0.1:{}", 8000 + uid).parse().unwrap()),
        stake: if uid == 0 { 1_000.0 } else { 0.0 },
        validator_permit: uid == 0,
    };
    Subnet {
        netuid: 19,
        owner: None,
        blocks: Blocks::Counter,
        rules: Rules::default(),
        neurons: [9, 0, 1, 2, 3].map(neuron).to_vec(),
    }
}

/// The local subnet does everything at the first poll.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(t) => t,
        Poll::Pending => panic!("it waits for something"),
    }
}

fn w(pairs: &[(u16, u16)]) -> Vec<(Uid, u16)> {
    pairs.iter().map(|(u, w)| (Uid(*u), *w)).collect()
}

struct Place {
    _dir: tempfile::TempDir,
    chain: LocalSubnet,
}

fn with(change: impl FnOnce(&mut Subnet)) -> Place {
    let dir = tempfile::tempdir().unwrap();
    let mut subnet = subnet();
    change(&mut subnet);
    let chain = LocalSubnet::create(dir.path(), &subnet).unwrap();
    chain.advance(1_000).ok();
    Place { _dir: dir, chain }
}

impl Place {
    fn code(&self, who: Hotkey, pairs: &[(u16, u16)]) -> String {
        match now(self.chain.set_weights(who, &w(pairs))) {
            Ok(()) => "ok".into(),
            Err(ChainError::Refused { code, why }) => {
                assert!(!why.is_empty() && !why.contains('\n'));
                code
            }
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn weights_that_were_taken_are_on_disk_and_read_back() {
    let p = with(|_| {});
    assert_eq!(p.chain.weights(&VALIDATOR).unwrap(), None);
    assert_eq!(p.code(VALIDATOR, &[(1, 65_535), (2, 300), (9, 1)]), "ok");
    let set = p.chain.weights(&VALIDATOR).unwrap().unwrap();
    assert_eq!((set.block, set.weights), (1_000, w(&[(1, 65_535), (2, 300), (9, 1)])));
    let files: Vec<_> = fs::read_dir(p.chain.dir().join("weights"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(files, [format!("{VALIDATOR}.json")], "no temporary file is left");
}

#[test]
fn the_metagraph_is_what_the_file_says_now() {
    let p = with(|_| {});
    let before = now(p.chain.metagraph()).unwrap();
    assert_eq!((before.netuid, before.block), (19, 1_000));
    assert_eq!(before.neurons.iter().map(|n| n.uid.0).collect::<Vec<_>>(), [0, 1, 2, 3, 9]);
    let mut changed = subnet();
    changed.neurons.pop();
    LocalSubnet::create(p.chain.dir(), &changed).unwrap();
    assert_eq!(now(p.chain.metagraph()).unwrap().neurons.len(), 4);
}

#[test]
fn blocks_pass_with_time_where_they_should() {
    let p = with(|s| s.blocks = Blocks::default());
    let block = now(p.chain.metagraph()).unwrap().block;
    assert!(block > 6_000_000, "{block}");
    let err = p.chain.advance(1).unwrap_err();
    assert!(err.to_string().contains("blocks.from"), "{err}");
}

#[test]
fn the_root_network_takes_no_weights() {
    assert_eq!(with(|s| s.netuid = 0).code(VALIDATOR, &[(1, 1)]), "CanNotSetRootNetworkWeights");
}

#[test]
fn more_uids_than_neurons_are_refused() {
    let many: Vec<_> = (0..6).map(|u| (u, 1)).collect();
    assert_eq!(with(|_| {}).code(VALIDATOR, &many), "UidsLengthExceedUidsInSubNet");
}

#[test]
fn a_stranger_is_refused() {
    assert_eq!(with(|_| {}).code(key(77), &[(1, 1)]), "HotKeyNotRegisteredInSubNet");
}

#[test]
fn too_little_stake_is_refused() {
    let p = with(|s| s.rules.stake_threshold = 1_000.5);
    assert_eq!(p.code(VALIDATOR, &[(1, 1)]), "NotEnoughStakeToSetWeights");
    assert_eq!(with(|s| s.rules.stake_threshold = 1_000.0).code(VALIDATOR, &[(1, 1)]), "ok");
}

#[test]
fn an_old_version_is_refused_and_a_newer_one_taken() {
    let p = with(|s| s.rules.weights_version = 5);
    assert_eq!(p.code(VALIDATOR, &[(1, 1)]), "IncorrectWeightVersionKey");
    for (version, expected) in [(4, "IncorrectWeightVersionKey"), (5, "ok"), (6, "SettingWeightsTooFast")] {
        let chain = LocalSubnet::open(p.chain.dir()).unwrap().with_version_key(version);
        let result = now(chain.set_weights(VALIDATOR, &w(&[(1, 1)])));
        match result {
            Ok(()) => assert_eq!(expected, "ok"),
            Err(ChainError::Refused { code, .. }) => assert_eq!(code, expected),
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn a_subnet_with_commit_reveal_takes_no_plain_weights() {
    assert_eq!(with(|s| s.rules.commit_reveal = true).code(VALIDATOR, &[(1, 1)]), "CommitRevealEnabled");
}

#[test]
fn weights_are_taken_again_only_after_the_rate_limit_also_across_restarts() {
    let p = with(|_| {});
    assert_eq!(p.code(VALIDATOR, &[(1, 1)]), "ok");
    assert_eq!(p.code(VALIDATOR, &[(1, 2)]), "SettingWeightsTooFast");
    p.chain.advance(99).unwrap();
    let restarted = LocalSubnet::open(p.chain.dir()).unwrap();
    let refused = now(restarted.set_weights(VALIDATOR, &w(&[(1, 2)]))).unwrap_err();
    assert!(matches!(&refused, ChainError::Refused { code, .. } if code == "SettingWeightsTooFast"));
    assert_eq!(p.chain.weights(&VALIDATOR).unwrap().unwrap().weights, w(&[(1, 1)]), "the old ones stand");
    p.chain.advance(1).unwrap();
    assert_eq!(p.code(VALIDATOR, &[(1, 2)]), "ok");
}

#[test]
fn without_a_permit_a_neuron_weighs_only_itself() {
    let p = with(|_| {});
    assert_eq!(p.code(key(1), &[(2, 1)]), "NeuronNoValidatorPermit");
    assert_eq!(p.code(key(1), &[(1, 1), (2, 1)]), "NeuronNoValidatorPermit");
    assert_eq!(p.code(key(1), &[(1, 1)]), "ok");
    assert_eq!(with(|s| s.owner = Some(key(2))).code(key(2), &[(1, 1)]), "ok", "the owner needs none");
}

#[test]
fn a_uid_twice_is_refused() {
    assert_eq!(with(|_| {}).code(VALIDATOR, &[(1, 1), (2, 1), (1, 2)]), "DuplicateUids");
}

#[test]
fn a_uid_of_nobody_is_refused() {
    assert_eq!(with(|_| {}).code(VALIDATOR, &[(1, 1), (4, 1)]), "UidVecContainInvalidOne");
}

#[test]
fn too_few_weights_are_refused_but_for_oneself() {
    let p = with(|s| s.rules.min_allowed_weights = 3);
    assert_eq!(p.code(VALIDATOR, &[(1, 1), (2, 1)]), "WeightVecLengthIsLow");
    assert_eq!(p.code(VALIDATOR, &[(0, 1)]), "ok");
    assert_eq!(with(|_| {}).code(VALIDATOR, &[]), "WeightVecLengthIsLow", "nothing is not a vote");
    let all: Vec<_> = [0, 1, 2, 3, 9].map(|u| (u, 1)).to_vec();
    assert_eq!(
        with(|s| s.rules.min_allowed_weights = 300).code(VALIDATOR, &all),
        "ok",
        "all there are is enough"
    );
}

#[test]
fn a_share_above_the_limit_is_refused() {
    let third = with(|s| s.rules.max_weight_limit = 65_535 / 3);
    assert_eq!(third.code(VALIDATOR, &[(1, 65_535), (2, 65_535)]), "MaxWeightExceeded");
    assert_eq!(third.code(VALIDATOR, &[(1, 7), (2, 7), (3, 7)]), "ok");
}

#[test]
fn weights_out_of_order_are_refused() {
    assert_eq!(with(|_| {}).code(VALIDATOR, &[(2, 1), (1, 1)]), "UidVecNotAscending");
}

#[test]
fn of_several_faults_the_chains_first_is_named() {
    let p = with(|s| {
        s.rules.min_allowed_weights = 5;
        s.rules.max_weight_limit = 1;
    });
    assert_eq!(p.code(key(77), &[(4, 1), (4, 1)]), "HotKeyNotRegisteredInSubNet");
    assert_eq!(p.code(key(1), &[(4, 1), (4, 1)]), "NeuronNoValidatorPermit");
    assert_eq!(p.code(VALIDATOR, &[(7, 1), (4, 1), (4, 1)]), "DuplicateUids");
    assert_eq!(p.code(VALIDATOR, &[(7, 1), (4, 1)]), "UidVecContainInvalidOne");
    assert_eq!(p.code(VALIDATOR, &[(2, 1), (1, 1)]), "WeightVecLengthIsLow");
}

#[test]
fn bad_files_are_one_line_with_file_field_and_way_out() {
    let good = "5Fxune7f71ZbpP2FoY3mhYcmM596Erhv1gRue4nsPwkxMR4n";
    let neuron = |rest: &str| format!("netuid = 19\n[[neurons]]\nuid = 1\nhotkey = \"{good}\"\n{rest}");
    for (text, parts) in [
        ("netuid = ".to_owned(), vec!["line 1"]),
        ("netuid = 70000".to_owned(), vec!["line 1"]),
        ("[blocks]\nfrom = \"counter\"".to_owned(), vec!["netuid"]),
        (
            "netuid = 1\n[rules]\nweights_rate = 3".to_owned(),
            vec!["line 3", "weights_rate", "weights_rate_limit"],
        ),
        (neuron("hotkee = 1"), vec!["line 5", "hotkee", "hotkey"]),
        (neuron("stake = -1.0"), vec!["neurons[0].stake", "0 or above"]),
        (neuron("stake = nan"), vec!["neurons[0].stake"]),
        (neuron("axon = \"localhost:80\""), vec!["line 5"]),
        (neuron("axon = \"127.0.0.1:0\""), vec!["neurons[0].axon", "port"]),
        (neuron(&format!("[[neurons]]\nuid = 1\nhotkey = \"{good}\"")), vec!["neurons[1].uid", "neurons[0]"]),
        (neuron(&format!("[[neurons]]\nuid = 2\nhotkey = \"{good}\"")), vec!["neurons[1].hotkey", "one uid"]),
        (neuron("[[neurons]]\nuid = 2\nhotkey = \"5Fx\""), vec!["line 7", "48 characters"]),
        (
            "netuid = 1\n[blocks]\nfrom = \"time\"\ngenesis_us = 0\nblock_ms = 0".to_owned(),
            vec!["blocks.block_ms"],
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("subnet.toml"), &text).unwrap();
        let err = LocalSubnet::open(dir.path()).unwrap_err().to_string();
        assert!(!err.contains('\n') && err.contains("subnet.toml"), "{err}");
        for part in parts {
            assert!(err.contains(part), "'{part}' is not in: {err}");
        }
    }
    let nowhere = LocalSubnet::open(std::path::Path::new("no-such-folder")).unwrap_err();
    assert_eq!(nowhere.code(), "chain.missing");
}

#[test]
fn a_damaged_file_makes_the_chain_unavailable_and_not_the_weights_lost() {
    let p = with(|_| {});
    assert_eq!(p.code(VALIDATOR, &[(1, 1)]), "ok");
    fs::write(p.chain.dir().join("subnet.toml"), "netuid").unwrap();
    assert!(matches!(now(p.chain.metagraph()), Err(ChainError::Unavailable(_))));
    let err = now(p.chain.set_weights(VALIDATOR, &w(&[(1, 2)]))).unwrap_err();
    assert!(matches!(err, ChainError::Unavailable(why) if why.contains("subnet.toml")));
    assert_eq!(p.chain.weights(&VALIDATOR).unwrap().unwrap().weights, w(&[(1, 1)]));
    fs::write(p.chain.dir().join("block"), "many").unwrap();
    LocalSubnet::create(p.chain.dir(), &subnet()).unwrap();
    let err = now(p.chain.metagraph()).unwrap_err().to_string();
    assert!(err.contains("whole number"), "{err}");
}
