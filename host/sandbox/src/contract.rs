//! The rules of the WIT that types cannot say. Pure: a rule broken is a sentence for the author.

use nineteen_domain::{Admission, Exchange, Outcome, Request, Synthetic};

/// A request goes to the path that the manifest fixes, and cannot smuggle a header.
fn request(request: &Request, path: &str) -> Result<(), String> {
    if !request.path.starts_with('/') {
        return Err(format!("a request's path begins with '/', and this one is {:?}", cut(&request.path)));
    }
    if request.path != path {
        return Err(format!(
            "the manifest fixes path {path}, and the request goes to {:?}",
            cut(&request.path)
        ));
    }
    let visible = |b: u8| (b' '..=b'~').contains(&b);
    if request.content_type.is_empty() || !request.content_type.bytes().all(visible) {
        return Err(format!(
            "a content type is visible ASCII, and this one is {:?}",
            cut(&request.content_type)
        ));
    }
    Ok(())
}

pub(crate) fn synthetic(synthetic: &Synthetic, path: &str) -> Result<(), String> {
    request(&synthetic.request, path)?;
    if synthetic.expected_units == 0 {
        return Err("expected-units is at least 1, and is 0".into());
    }
    Ok(())
}

pub(crate) fn admission(admission: &Admission, path: &str) -> Result<(), String> {
    match admission {
        Admission::Admitted(admitted) => request(admitted, path),
        Admission::Refused(refusal) if !(400..=499).contains(&refusal.status) => {
            Err(format!("a refusal's status is 400 to 499, and this one is {}", refusal.status))
        }
        Admission::Refused(_) => Ok(()),
    }
}

pub(crate) fn outcome(outcome: &Outcome, exchange: &Exchange) -> Result<(), String> {
    let finite = |what: &str, pairs: &[(String, f64)]| {
        pairs
            .iter()
            .find(|(_, x)| !x.is_finite())
            .map_or(Ok(()), |(name, x)| Err(format!("{what} are finite, and {:?} is {x}", cut(name))))
    };
    match outcome {
        Outcome::Need(checks) if checks.is_empty() => {
            Err("need lists at least one check, and lists none".into())
        }
        Outcome::Need(_) | Outcome::Violation(_) | Outcome::Inconclusive(_) => Ok(()),
        Outcome::Scored(verdict) => {
            // NaN is in no range.
            if !(0.0..=1.0).contains(&verdict.quality) {
                return Err(format!("quality is in [0, 1], and is {}", verdict.quality));
            }
            finite("suspicions", &verdict.suspicions)?;
            finite("reasons", &verdict.reasons)?;
            let (given, chunks) = (verdict.units_by_chunk.len(), exchange.chunks.len());
            if given != 0 && given != chunks {
                return Err(format!(
                    "units-by-chunk is empty or has one entry a chunk ({chunks}), and has {given}"
                ));
            }
            Ok(())
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
