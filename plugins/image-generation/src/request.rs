//! Requests: from what a client says, and from a seed. A synthetic request is invented as a client's and passes through the
//! same [`admit`], so nothing in the body tells one from the other.
//!
//! Captions of a small grammar repeat; what no two requests share is the seed, so a picture that is kept answers nothing but
//! a client who brings a seed that was asked for before.

use nineteen_pictures::photo;
use nineteen_pictures::request::{self, Body, Client};
use nineteen_sdk::{Refusal, Request, Rng, Synthetic};

use crate::params::Params;

/// The path on the miner.
pub const PATH: &str = "/v1/images/generations";

/// The request for a client's body; `rng` draws what the protocol needs.
///
/// # Errors
/// A refusal in OpenAI's terms.
pub fn admit(p: &Params, client: Client, rng: &mut Rng) -> Result<Request, Refusal> {
    request::request(PATH, &body(p, client, rng)?)
}

fn body(p: &Params, mut client: Client, rng: &mut Rng) -> Result<Body, Refusal> {
    let image = match client.picture()? {
        None if client.strength.is_some() => {
            return Err(Refusal::bad_request("invalid_value", "`strength` needs an `image` to begin from"));
        }
        None => None,
        Some(_) if !p.image_to_image => {
            let words = "`image` is not supported here: leave it out";
            return Err(Refusal::bad_request("unsupported_parameter", words));
        }
        Some(bytes) => {
            let (width, height) = client.size(&p.requests)?;
            client.strength.get_or_insert(p.default_strength);
            Some(photo::plain(&bytes, p.photo, width, height)?)
        }
    };
    request::admit(&p.model, &p.requests, client, image, rng)
}

/// A synthetic request.
///
/// # Errors
/// When the parameters leave no room for a caption.
pub fn synthesize(p: &Params, rng: &mut Rng) -> Result<Synthetic, String> {
    // A caption that is too long is thrown away like a client's would be refused.
    for _ in 0..16 {
        let client = request::invent(&p.requests, &p.synthetic, rng);
        let Ok(body) = body(p, client, rng) else { continue };
        let request = request::request(PATH, &body).map_err(|e| e.message)?;
        return Ok(Synthetic { expected_units: body.units(), request });
    }
    Err("requests.max_prompt_bytes leaves no room for a caption of synthetic.templates".to_owned())
}

#[cfg(test)]
mod tests;
