//! `pod.`: what shows only in what the pod does not do.

use super::{Cause, Explanation, likely};
use crate::diagnose::Case;
use crate::diagnose::death::{Death, Ending};
use crate::report::Confidence;

pub(super) const CAUSES: &[Cause] = &[Cause { code: "pod.no-answer", recognise: silent }];

fn silent(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    case.answerer()?;
    matches!(death.ending, Ending::Unanswered).then(|| Explanation {
        confidence: Confidence::Possible,
        ..likely(
            format!("{} takes the packets and says nothing", case.where_words(death)),
            &[
                format!("in {}: ip route   # is there a way back?", case.where_words(death)),
                format!(
                    "in {}: ss -lntu; sysctl net.ipv4.icmp_echo_ignore_all",
                    case.where_words(death)
                ),
            ],
        )
    })
}
