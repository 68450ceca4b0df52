//! Every rule of the decision, from both sides.

use nineteen_domain::policy::Policy;
use nineteen_domain::task::PolicyChoice;
use nineteen_domain::{Digest, TaskName};
use nineteen_taskset::{
    Change, Decision, Diff, Limits, Moment, Now, Objection, Owner, Proposed, Refusal, Set, Standing, Whose,
    decide, plan,
};
use nineteen_wire::keys::Keypair;

use crate::common::{DAY, Files, NOW, after, first_set, keys, now, owner, signed};

struct Case {
    files: Files,
    keys: Vec<Keypair>,
    running: Set,
    pending: Option<Set>,
    limits: Limits,
    looked: Option<Now>,
    at: Now,
}

impl Case {
    /// Two of three keys; sequence 1 runs; a day later.
    fn new() -> Self {
        let (mut files, keys) = (Files::default(), keys(1..4));
        let running = first_set(&mut files, owner(2, &keys));
        Self {
            files,
            keys,
            running,
            pending: None,
            limits: Limits::default(),
            looked: None,
            at: now(NOW + DAY),
        }
    }

    fn next(&self) -> Set {
        after(&self.running, self.at.unix_s)
    }

    fn standing<'a>(&'a self, owner: &'a Owner) -> Standing<'a> {
        Standing {
            running: Some(&self.running),
            pending: self.pending.as_ref(),
            owner,
            name: None,
            looked: self.looked,
        }
    }

    fn propose(&self, set: &Set, signers: &[Keypair]) -> Decision {
        self.put(&self.files.proposed(set, signers))
    }

    fn put(&self, proposed: &Proposed) -> Decision {
        decide(&self.standing(&self.running.owner), proposed, &self.limits, self.at)
    }

    fn refused(&self, set: &Set) -> Refusal {
        match self.propose(set, &self.keys[..2]) {
            Decision::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    fn held(&self, set: &Set) -> Vec<Objection> {
        match self.propose(set, &self.keys[..2]) {
            Decision::Held(objections) => objections,
            other => panic!("{other:?}"),
        }
    }
}

fn accepted(decision: &Decision) -> bool {
    matches!(decision, Decision::Accepted { .. })
}

#[test]
fn a_set_that_enough_owners_signed_is_accepted_for_its_moment() {
    let mut case = Case::new();
    let next = case.next();
    match case.propose(&next, &case.keys[1..]) {
        Decision::Accepted { effective, due, signers } => {
            assert_eq!((effective, due, signers.len()), (Moment::UnixS(NOW + 2 * DAY), false, 2));
        }
        other => panic!("{other:?}"),
    }
    case.at = now(NOW + 2 * DAY);
    assert!(matches!(case.propose(&next, &case.keys[1..]), Decision::Accepted { due: true, .. }));
    assert_eq!(case.propose(&case.running.clone(), &[]), Decision::Known);
    case.pending = Some(next.clone());
    assert_eq!(case.propose(&next, &[]), Decision::Known);
}

#[test]
fn an_unsigned_set_is_refused() {
    let case = Case::new();
    assert_eq!(case.propose(&case.next(), &[]), Decision::Refused(Refusal::Unsigned));
}

#[test]
fn a_set_signed_by_a_stranger_or_by_too_few_is_refused() {
    let case = Case::new();
    let next = case.next();
    let refusal = |signers: &[Keypair]| case.propose(&next, signers);
    let too_few = |have, strangers| {
        let (whose, need) = (Whose::Running, 2);
        Decision::Refused(Refusal::TooFew { whose, have, need, strangers, broken: 0 })
    };
    assert_eq!(refusal(&keys(50..53)), too_few(0, 3));
    assert_eq!(refusal(&case.keys[..1]), too_few(1, 0));
}

#[test]
fn a_key_that_signs_twice_counts_once() {
    let case = Case::new();
    let mut proposed = case.files.proposed(&case.next(), &case.keys[..1]);
    let again = signed(&proposed.set, &case.keys[..1]).signatures.remove(0);
    assert_ne!(again.sr25519, proposed.signatures.signatures[0].sr25519, "sr25519 is randomised");
    proposed.signatures.signatures.push(again);
    assert!(matches!(case.put(&proposed), Decision::Refused(Refusal::TooFew { have: 1, need: 2, .. })));
}

#[test]
fn signatures_of_another_set_are_worth_nothing_whatever_they_say() {
    let case = Case::new();
    let (next, mut other) = (case.next(), case.next());
    other.tasks[0].weight = 0.5;
    other.tasks[1].weight = 0.5;
    let mut proposed = case.files.proposed(&next, &case.keys[..2]);
    proposed.set = other.clone();
    assert!(matches!(case.put(&proposed), Decision::Refused(Refusal::OtherBytes { .. })));
    // Saying that they are of this one does not make them so.
    proposed.signatures.set = other.digest();
    let refusal = case.put(&proposed);
    assert!(matches!(refusal, Decision::Refused(Refusal::TooFew { have: 0, broken: 2, .. })), "{refusal:?}");
}

#[test]
fn one_broken_signature_does_not_spoil_enough_good_ones() {
    let case = Case::new();
    let mut proposed = case.files.proposed(&case.next(), &case.keys);
    proposed.signatures.signatures[0].sr25519 = "0x00".into();
    assert!(accepted(&case.put(&proposed)));
}

#[test]
fn a_set_never_goes_back() {
    let mut case = Case::new();
    let mut older = case.next();
    older.sequence = 0;
    assert_eq!(case.refused(&older), Refusal::Older { given: 0, accepted: 1 });
    let mut same = case.next();
    same.sequence = 1;
    assert!(matches!(case.refused(&same), Refusal::Twice { sequence: 1, .. }));
    let mut version = case.next();
    version.version = case.running.version.clone();
    assert!(matches!(case.refused(&version), Refusal::Version { .. }));
    // What waits for its moment was accepted too.
    let waiting = after(&case.next(), case.at.unix_s);
    case.pending = Some(waiting);
    let next = case.next();
    assert_eq!(case.refused(&next), Refusal::Older { given: 2, accepted: 3 });
}

#[test]
fn an_owner_may_take_back_what_has_not_come_into_force() {
    let mut case = Case::new();
    let waiting = case.next();
    let mut instead = after(&waiting, case.at.unix_s);
    instead.tasks = case.running.tasks.clone();
    case.pending = Some(waiting);
    assert!(accepted(&case.propose(&instead, &case.keys[..2])));
}

#[test]
fn dates_are_kept() {
    let mut case = Case::new();
    let next = case.next();
    let mut short = next.clone();
    short.effective = Moment::UnixS(case.at.unix_s + DAY - 1);
    assert_eq!(case.refused(&short), Refusal::ShortNotice { given: DAY - 1, promised: DAY, unit: "seconds" });
    case.at = now(NOW + 3_600);
    assert!(matches!(case.refused(&next), Refusal::FromTheFuture { .. }));
    case.at = now(next.expires_unix_s);
    assert!(matches!(case.refused(&next), Refusal::Expired { .. }));
    case.at = now(next.expires_unix_s - 1);
    assert!(accepted(&case.propose(&next, &case.keys[..2])));
}

#[test]
fn blocks_are_moments_too_and_nobody_guesses_the_head() {
    let mut case = Case::new();
    let mut next = case.next();
    (next.published, next.effective) = (Moment::Block(1_000), Moment::Block(8_200));
    assert!(matches!(case.propose(&next, &case.keys[..2]), Decision::Accepted { due: false, .. }));
    case.at.block = Some(8_199);
    assert!(matches!(case.propose(&next, &case.keys[..2]), Decision::Accepted { due: false, .. }));
    case.at.block = Some(8_200);
    assert!(matches!(case.propose(&next, &case.keys[..2]), Decision::Accepted { due: true, .. }));
    case.at.block = Some(900);
    assert!(matches!(case.refused(&next), Refusal::FromTheFuture { .. }));
    next.effective = Moment::Block(8_199);
    case.at.block = Some(1_000);
    assert_eq!(case.refused(&next), Refusal::ShortNotice { given: 7_199, promised: 7_200, unit: "blocks" });
}

#[test]
fn a_set_of_another_subnet_does_not_follow_even_from_the_same_owner() {
    let case = Case::new();
    let mut other = case.next();
    other.name = "second-light".into();
    assert!(matches!(case.refused(&other), Refusal::OtherName { .. }));
    let standing = Standing { running: None, name: Some("third"), ..case.standing(&case.running.owner) };
    let first = case.files.proposed(&case.running, &case.keys);
    let decision = decide(&standing, &first, &case.limits, case.at);
    assert!(matches!(decision, Decision::Refused(Refusal::OtherName { .. })));
}

#[test]
fn new_keys_take_over_only_if_the_old_ones_and_they_themselves_say_so() {
    let case = Case::new();
    let heirs = keys(10..13);
    let mut next = case.next();
    next.owner = owner(3, &heirs);
    let with = |signers: Vec<Keypair>| case.propose(&next, &signers);
    let refused_for = |d: Decision| match d {
        Decision::Refused(Refusal::TooFew { whose, .. }) => Some(whose),
        _ => None,
    };
    assert_eq!(refused_for(with(heirs.clone())), Some(Whose::Running));
    assert_eq!(refused_for(with(case.keys.clone())), Some(Whose::Next));
    assert_eq!(refused_for(with([&case.keys[..2], &heirs[..2]].concat())), Some(Whose::Next));
    assert!(accepted(&with([&case.keys[..2], &heirs[..]].concat())));
    // The order of keys is no change of owner.
    let mut turned = case.next();
    turned.owner.keys.reverse();
    assert!(accepted(&case.propose(&turned, &case.keys[..2])));
}

#[test]
fn manifests_have_to_be_those_of_their_tasks() {
    let case = Case::new();
    let next = case.next();
    let good = case.files.proposed(&next, &case.keys);
    let chat = TaskName::new("chat").unwrap();
    type Break = fn(&mut nineteen_domain::task::Manifest);
    let cases: [Break; 5] = [
        |m| m.name = TaskName::new("other").unwrap(),
        |m| m.digest = Some(Digest::of(b"another component")),
        |m| m.component = "../escape".into(),
        |m| m.host = ">=99".parse().unwrap(),
        |m| m.component = "c-embed".into(),
    ];
    for change in cases {
        let mut bad = good.clone();
        change(bad.manifests.get_mut(&chat).unwrap());
        let decision = case.put(&bad);
        assert!(matches!(decision, Decision::Refused(Refusal::TaskFile { .. })), "{decision:?}");
    }
    let mut missing = good;
    missing.manifests.remove(&chat);
    assert!(matches!(case.put(&missing), Decision::Refused(Refusal::TaskFile { .. })));
}

#[test]
fn what_the_validator_does_not_do_waits_for_its_operator() {
    let mut case = Case::new();
    let chat = TaskName::new("chat").unwrap();
    let mut next = case.next();
    next.tasks[0] = case.files.task("chat", 0.6, 2, "\"text.replay\" = [\"small\", \"big\"]");
    assert!(accepted(&case.propose(&next, &case.keys)));
    for grant in ["text.replay", "text.replay:big"] {
        case.limits.refuse_grants = [grant.to_owned()].into();
        assert_eq!(case.held(&next), [Objection::Grant { task: chat.clone(), grant: grant.into() }]);
    }
    case.limits.refuse_grants = ["text.replay:huge".to_owned(), "tensors.run".to_owned()].into();
    assert!(accepted(&case.propose(&next, &case.keys)));
    case.limits.refuse_components = [next.tasks[0].component].into();
    case.limits.refuse_tasks = [TaskName::new("embed").unwrap()].into();
    assert_eq!(case.held(&next).len(), 2);
    // A limit is about the first set too.
    let standing = Standing { running: None, ..case.standing(&case.running.owner) };
    let decision = decide(&standing, &case.files.proposed(&next, &case.keys), &case.limits, now(NOW + DAY));
    assert!(matches!(decision, Decision::Held(o) if o.len() == 2));
}

#[test]
fn a_set_moves_no_more_of_the_reward_than_the_validator_lets_it() {
    let mut case = Case::new();
    case.limits.largest_weight_change = 0.1;
    let mut next = case.next();
    (next.tasks[0].weight, next.tasks[1].weight) = (0.5, 0.5);
    assert!(accepted(&case.propose(&next, &case.keys)), "a tenth is a tenth");
    (next.tasks[0].weight, next.tasks[1].weight) = (0.49, 0.51);
    let held = case.held(&next);
    assert!(matches!(held[..], [Objection::Weights { moved, .. }] if (moved - 0.11).abs() < 1e-9));
    // A new task takes from all others.
    (next.tasks[0].weight, next.tasks[1].weight) = (0.45, 0.4);
    next.tasks.push(case.files.task("new", 0.15, 1, ""));
    assert!(
        matches!(case.held(&next)[..], [Objection::Weights { moved, .. }] if (moved - 0.15).abs() < 1e-9)
    );
}

#[test]
fn another_policy_waits_where_the_validator_wants_it() {
    let mut case = Case::new();
    let mut next = case.next();
    next.policy = PolicyChoice::Named("sn19-2025-01".into());
    let refusal = case.refused(&next);
    let Refusal::OtherPolicy { ours, .. } = refusal else { panic!("{refusal}") };
    next.policy_digest = ours;
    assert!(accepted(&case.propose(&next, &case.keys)));
    case.limits.hold_policy_changes = true;
    assert_eq!(case.held(&next), [Objection::Policy { name: Policy::sn19_2025_01().name }]);
}

#[test]
fn a_backdated_set_waits_for_the_operator_of_whoever_was_looking() {
    let mut case = Case::new();
    // Published "a day ago", effective in a minute; an hour ago it was not there.
    let mut next = after(&case.running, NOW + DAY);
    case.at = now(NOW + 2 * DAY - 60);
    assert!(accepted(&case.propose(&next, &case.keys)), "who was not looking cannot know");
    case.looked = Some(now(NOW + 2 * DAY - 3_600));
    assert!(matches!(case.held(&next)[..], [Objection::Notice { given: 3_600, due: DAY, .. }]));
    case.looked = Some(now(NOW + DAY + 600));
    assert!(accepted(&case.propose(&next, &case.keys)), "ten minutes late is in time");
    case.limits.least_notice_s = 3 * DAY;
    assert!(matches!(case.held(&next)[..], [Objection::Notice { due, .. }] if due == 3 * DAY));
    next.effective = Moment::UnixS(NOW + 5 * DAY);
    assert!(accepted(&case.propose(&next, &case.keys)));
}

#[test]
fn a_plan_says_what_a_registry_has_to_do_and_nothing_else() {
    let mut case = Case::new();
    let first = plan(None, &case.running);
    assert_eq!(first.changes.len(), 2);
    assert!(first.policy && first.changes.iter().all(|c| matches!(c, Change::Add { .. })));
    assert!(plan(Some(&case.running), &case.next()).is_empty(), "a new date is no work");
    let mut next = case.next();
    next.tasks = vec![case.files.task("chat", 0.3, 2, ""), case.files.task("image", 0.7, 1, "")];
    next.share_multiplier = Some(2.0);
    let plan = plan(Some(&case.running), &next);
    assert!(matches!(
        &plan.changes[..],
        [Change::Add { weight, .. }, Change::Upgrade { old_weight, .. }, Change::Remove { .. }]
            if (*weight, *old_weight) == (0.7, 0.6)
    ));
    assert!(plan.share_multiplier && !plan.policy);
    let mut weights = case.next();
    (weights.tasks[0].weight, weights.tasks[1].weight) = (0.4, 0.6);
    let plan = nineteen_taskset::plan(Some(&case.running), &weights);
    assert!(plan.changes.iter().all(|c| matches!(c, Change::Reweigh { .. })) && plan.changes.len() == 2);
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["changes"][0]["do"], "reweigh");
}

#[test]
fn a_diff_names_every_field_that_changes() {
    let case = Case::new();
    let mut next = case.next();
    crate::common::written(&mut next, |p| p.planning.share_multiplier = 2.0);
    next.owner = owner(1, &[&case.keys[..1], &keys(10..11)[..]].concat());
    next.notice.seconds = 2 * DAY;
    let diff = Diff::between(Some(&case.running), &next);
    let fields =
        |of: &[nineteen_taskset::FieldChange]| of.iter().map(|c| c.field.clone()).collect::<Vec<_>>();
    assert_eq!(fields(&diff.policy), ["planning.share_multiplier"]);
    assert_eq!(fields(&diff.terms), ["notice.seconds", "owner.threshold"]);
    assert_eq!((diff.keys_added.len(), diff.keys_removed.len()), (1, 2));
    assert_eq!(diff.weight_moved, 0.0);
    assert!(Diff::between(None, &next).policy.is_empty());
}
