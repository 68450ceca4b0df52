//! Requests: from what a client says and the photograph it sends, and from a seed. A synthetic request is invented as a
//! client's, with a drawn photograph, and passes through the same [`admit`], so nothing in the body tells one from the other.

use nineteen_pictures::photo::{self, fitted};
use nineteen_pictures::request::{self, Body, Client};
use nineteen_sdk::{ClientCall, Refusal, Request, Rng, Synthetic, clip, openai};
use serde_json::{Map, Value};

use crate::multipart;
use crate::params::Params;
use crate::portrait::{Manner, Person, SIDE, draw};

/// The path on the miner.
pub const PATH: &str = "/v1/avatars";

/// What a client says, and the photograph's file.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Everything but a photograph that came as a file.
    pub client: Client,
    /// The file, where it came as one.
    pub file: Option<Vec<u8>>,
}

/// A client's body: JSON with the photograph in base64 or as a `data:` URL, or a form with it as a file.
///
/// # Errors
/// A refusal that says what is wrong with the body.
pub fn read(call: ClientCall<'_>) -> Result<Wish, Refusal> {
    if !multipart::is_form(call.content_type) {
        let client = openai::client_body(call.content_type, call.body).map_err(|e| match e.status {
            415 => Refusal {
                message: format!(
                    "the body must be application/json or multipart/form-data, not {}",
                    clip(call.content_type, 60)
                ),
                ..e
            },
            _ => e,
        })?;
        return Ok(Wish { client, file: None });
    }
    let mut fields = Map::new();
    let mut file = None;
    for part in multipart::read(call.content_type, call.body)? {
        let name = part.name.as_str();
        if part.is_file {
            if !matches!(name, "image" | "image[]") || file.is_some() {
                let words =
                    format!("`{}` is not supported here: one file, `image`, is taken", clip(name, 40));
                return Err(Refusal::bad_request("unsupported_parameter", words));
            }
            file = Some(part.data.to_vec());
            continue;
        }
        let text = std::str::from_utf8(part.data)
            .map_err(|_| Refusal::bad_request("invalid_value", format!("`{}` is no text", clip(name, 40))))?;
        fields.insert(name.to_owned(), value(name, text)?);
    }
    if file.is_some() && fields.contains_key("image") {
        return Err(Refusal::bad_request("invalid_value", "`image` is there twice"));
    }
    let client = serde_json::from_value(Value::Object(fields))
        .map_err(|e| Refusal::bad_request("invalid_body", e.to_string()))?;
    Ok(Wish { client, file })
}

/// A form knows only text; these fields are numbers.
fn value(name: &str, text: &str) -> Result<Value, Refusal> {
    let number = match name {
        "seed" | "steps" | "n" | "output_compression" | "partial_images" => {
            text.trim().parse::<i64>().ok().map(Value::from)
        }
        "guidance" | "strength" => {
            text.trim().parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::from)
        }
        _ => return Ok(Value::from(text)),
    };
    number.ok_or_else(|| {
        let words = format!("`{name}` is `{}`, which is no number", clip(text, 40));
        Refusal::bad_request("invalid_value", words)
    })
}

/// The request for a client's wish; `rng` draws what the protocol needs.
///
/// # Errors
/// A refusal in OpenAI's terms.
pub fn admit(p: &Params, wish: Wish, rng: &mut Rng) -> Result<Request, Refusal> {
    request::request(PATH, &body(p, wish, rng)?)
}

fn body(p: &Params, wish: Wish, rng: &mut Rng) -> Result<Body, Refusal> {
    let Wish { mut client, file } = wish;
    if client.strength.is_some() {
        return Err(Refusal::bad_request(
            "unsupported_parameter",
            "`strength` is not supported here: leave it out",
        ));
    }
    let bytes = match file {
        Some(bytes) => bytes,
        None => {
            client.picture()?.ok_or_else(|| Refusal::bad_request("invalid_value", "`image` is missing"))?
        }
    };
    let photo = photo::plain(&bytes, p.photo, p.photo_side, p.photo_side)?;
    if client.prompt.is_empty() {
        client.prompt.clone_from(&p.default_prompt);
    }
    let model = p.plan().map(|plan| plan.model.to_owned());
    let model = model.map_err(|e| Refusal::bad_request("invalid_manifest", e))?;
    request::admit(&model, &p.requests, client, Some(photo), rng)
}

/// A synthetic request: somebody who has never been photographed.
///
/// # Errors
/// When the parameters leave no room for a caption or a photograph.
pub fn synthesize(p: &Params, rng: &mut Rng) -> Result<Synthetic, String> {
    for _ in 0..16 {
        let client = request::invent(&p.requests, &p.synthetic, rng);
        let file = photograph(p, rng)?;
        let Ok(body) = body(p, Wish { client, file: Some(file) }, rng) else { continue };
        let request = request::request(PATH, &body).map_err(|e| e.message)?;
        return Ok(Synthetic { expected_units: body.units(), request });
    }
    Err("requests.max_prompt_bytes or photo leave no room for a caption and a photograph".to_owned())
}

/// The file that this client sends.
fn photograph(p: &Params, rng: &mut Rng) -> Result<Vec<u8>, String> {
    let (who, how) = (Person::draw(rng), Manner::photograph(rng));
    let mut picture = draw(&who, &how);
    if rng.chance(p.studio.odd_share) {
        // Larger or smaller, and not quite square: what is left in the middle is still the face.
        let side = SIDE * 3 / 4 + u32::try_from(rng.below(u64::from(SIDE))).unwrap_or(0);
        let other = side + u32::try_from(rng.below(u64::from(SIDE / 16))).unwrap_or(0);
        picture = if rng.chance(0.5) { fitted(&picture, side, other) } else { fitted(&picture, other, side) };
    }
    photo::png(&picture)
}

#[cfg(test)]
mod tests;
