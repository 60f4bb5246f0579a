use super::*;

fn ranked(
    before: Option<&NetnsFacts>,
    after: &NetnsFacts,
    drops: u64,
) -> Vec<(String, Option<u64>)> {
    suspects(before, after, TableFamily::Ip, NfHook::Forward, &packet(1), drops)
        .into_iter()
        .map(|s| {
            let what = s.decision.rule.map_or("policy".to_owned(), |r| r.text);
            (what, s.rose)
        })
        .collect()
}

fn labelled(text: &str, packets: u64, rule: FirewallRule) -> FirewallRule {
    counted(packets, FirewallRule { text: text.to_owned(), ..rule })
}

#[test]
fn a_counter_that_rose_by_the_drops_convicts() {
    let state = |a: u64, b: u64| {
        filter(vec![forward(vec![
            labelled("other", a, maybe(Action::Drop)),
            labelled("this", b, maybe(Action::Drop)),
        ])])
    };
    let found = ranked(Some(&state(7, 100)), &state(9, 105), 5);
    assert_eq!(found, [("this".to_owned(), Some(5)), ("other".to_owned(), Some(2))]);
}

#[test]
fn a_counter_that_stood_still_acquits() {
    let state = filter(vec![forward(vec![labelled("x", 7, drop())])]);
    assert_eq!(ranked(Some(&state), &state, 5), []);
}

#[test]
fn without_counters_what_the_packet_leads_to_remains() {
    let state = filter(vec![
        forward(vec![
            rule("-p udp -j DROP", vec![Match::Proto(vec![17])], Action::Drop),
            jump("OWN"),
        ]),
        chain("OWN", vec![drop()]),
    ]);
    assert_eq!(ranked(None, &state, 5), [("-j DROP".to_owned(), None)]);
}

#[test]
fn a_rule_is_found_again_by_handle_or_by_text() {
    let handled = |handle: u64, packets: u64| FirewallRule {
        handle: Some(handle),
        ..labelled("drop", packets, drop())
    };
    // Another rule was put in front.
    let before = filter(vec![forward(vec![handled(7, 10)])]);
    let after =
        filter(vec![forward(vec![labelled("log", 3, maybe(Action::Continue)), handled(7, 15)])]);
    assert_eq!(ranked(Some(&before), &after, 5), [("drop".to_owned(), Some(5))]);
    let text = |n: u64| {
        filter(vec![forward(vec![
            labelled("same", 1, maybe(Action::Drop)),
            labelled("same", n, maybe(Action::Drop)),
        ])])
    };
    assert_eq!(ranked(Some(&text(2)), &text(6), 4), [("same".to_owned(), Some(4))]);
}

#[test]
fn a_rule_that_is_new_started_from_nothing() {
    let before = filter(vec![forward(vec![])]);
    let after = filter(vec![forward(vec![labelled("new", 5, drop())])]);
    assert_eq!(ranked(Some(&before), &after, 5), [("new".to_owned(), Some(5))]);
}

#[test]
fn a_policy_is_a_suspect_too() {
    let state = |packets: u64| {
        let mut chain = base("FORWARD", NfHook::Forward, 0, Policy::Drop, vec![]);
        if let Some(base) = &mut chain.base {
            base.counter = Some(Counter { packets, bytes: 0 });
        }
        filter(vec![chain])
    };
    assert_eq!(ranked(Some(&state(0)), &state(5), 5), [("policy".to_owned(), Some(5))]);
}

#[test]
fn a_counter_that_rose_outweighs_what_the_packet_should_do() {
    // Something about the packet is not as thought: the kernel's own count is evidence.
    let state = |n: u64| {
        filter(vec![forward(vec![
            labelled(
                "invalid",
                n,
                rule("", vec![Match::CtState(vec![CtState::Invalid])], Action::Drop),
            ),
            labelled("busy", 100 + 50 * n, rule("", vec![Match::Proto(vec![17])], Action::Drop)),
        ])])
    };
    let found =
        suspects(Some(&state(0)), &state(1), TableFamily::Ip, NfHook::Forward, &packet(6), 1);
    assert_eq!(found[0].decision.rule.as_ref().unwrap().text, "invalid");
    assert!(!found[0].reached);
}
