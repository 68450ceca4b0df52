//! From what a client says to what a miner gets. The only way to make a request for a picture: synthetic ones are invented
//! as clients' and pass through [`admit`] as well, so no field, order or format tells one from the other.

use nineteen_sdk::hash::Fingerprint;
use nineteen_sdk::{Refusal, Request, Rng, clip};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::caption::Synthetic;

/// Pixels of one unit of work: a step over this many.
const PIXELS: u64 = 64 * 64;

/// Names of schedulers that checkers know.
const SCHEDULERS: [&str; 6] = ["ddim", "euler", "euler-ancestral", "dpmpp-2m", "dpmpp-2m-karras", "lcm"];

/// The body that miners get: exactly these fields, in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// Name of the pipeline.
    pub model: String,
    /// What the picture shall show.
    pub prompt: String,
    /// What it shall not show; may be empty.
    pub negative_prompt: String,
    /// PNG in base64: the picture to begin from, or the photograph of an avatar. Only where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Only where a picture is begun from: how much of it is given up, in (0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// 0 to 2^53 - 1, so that every JSON reader keeps it.
    pub seed: u64,
    /// Denoising steps.
    pub steps: u32,
    /// Weight of the prompt.
    pub guidance: f64,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// By its name in the protocol.
    pub scheduler: String,
    /// `torch`.
    pub noise: String,
    /// `b64_json`.
    pub response_format: String,
    /// 16 lower-case hex digits.
    pub request_id: String,
}

impl Body {
    /// Units of work: steps over 64 × 64 pixels, rounded up.
    #[must_use]
    pub fn units(&self) -> u64 {
        (u64::from(self.steps) * u64::from(self.width) * u64::from(self.height)).div_ceil(PIXELS)
    }
}

/// What clients may ask for: `[params.requests]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bounds {
    /// `WIDTHxHEIGHT` in pixels; the first where a client names none.
    pub sizes: Vec<String>,
    /// Where a client names none.
    pub default_steps: u32,
    /// More are refused.
    pub max_steps: u32,
    /// Where a client says nothing.
    pub default_guidance: f64,
    /// Less is refused.
    pub min_guidance: f64,
    /// More is refused.
    pub max_guidance: f64,
    /// The first where a client names none.
    pub schedulers: Vec<String>,
    /// Bytes of a prompt, and of a negative one.
    pub max_prompt_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            sizes: vec!["512x512".to_owned()],
            default_steps: 20,
            max_steps: 50,
            default_guidance: 5.0,
            min_guidance: 1.0,
            max_guidance: 15.0,
            schedulers: vec!["ddim".to_owned()],
            max_prompt_bytes: 1000,
        }
    }
}

impl Bounds {
    /// Bounds that types cannot say.
    ///
    /// # Errors
    /// Which parameter, and what it may be.
    pub fn validate(&self) -> Result<(), String> {
        let side = |n: u32| (8..=2048).contains(&n) && n.is_multiple_of(8);
        let size = |s: &String| sides(s).is_some_and(|(w, h)| side(w) && side(h));
        let known = |s: &String| SCHEDULERS.contains(&s.as_str());
        let guidance = self.min_guidance..=self.max_guidance;
        let rules = [
            (
                (1..=16).contains(&self.sizes.len()) && self.sizes.iter().all(size),
                "requests.sizes must be 1 to 16 of WIDTHxHEIGHT, multiples of 8 up to 2048",
            ),
            (
                (1..=150).contains(&self.max_steps) && (1..=self.max_steps).contains(&self.default_steps),
                "requests.max_steps must be 1 to 150, default_steps 1 to max_steps",
            ),
            (
                self.min_guidance >= 0.0
                    && self.max_guidance <= 50.0
                    && guidance.contains(&self.default_guidance),
                "requests: 0 <= min_guidance <= default_guidance <= max_guidance <= 50",
            ),
            (
                !self.schedulers.is_empty() && self.schedulers.iter().all(known),
                "requests.schedulers must be of ddim, euler, euler-ancestral, dpmpp-2m, dpmpp-2m-karras, lcm",
            ),
            ((1..=16_384).contains(&self.max_prompt_bytes), "requests.max_prompt_bytes must be 1 to 16384"),
        ];
        rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, words)| Err((*words).to_owned()))
    }
}

/// `64x48` as numbers.
fn sides(size: &str) -> Option<(u32, u32)> {
    let (w, h) = size.split_once('x')?;
    Some((w.parse().ok()?, h.parse().ok()?))
}

/// A body as clients send it: OpenAI's, and what diffusion takes besides. Fields that are not here are ignored; those that
/// would change the answer and that the protocol does not know are refused. `quality`, `style` and `user` are hints.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Client {
    /// What the picture shall show.
    #[serde(default)]
    pub prompt: String,
    /// What it shall not show.
    pub negative_prompt: Option<String>,
    /// Any integer.
    pub seed: Option<i64>,
    /// Denoising steps.
    pub steps: Option<i64>,
    /// Weight of the prompt.
    pub guidance: Option<f64>,
    /// By its name in the protocol.
    pub scheduler: Option<String>,
    /// `WIDTHxHEIGHT`, or `auto`.
    pub size: Option<String>,
    /// A picture in base64, also as a `data:` URL.
    pub image: Option<String>,
    /// How much of it is given up, in (0, 1].
    pub strength: Option<f64>,
    pub(crate) n: Option<Value>,
    pub(crate) response_format: Option<Value>,
    pub(crate) output_format: Option<Value>,
    pub(crate) output_compression: Option<Value>,
    pub(crate) background: Option<Value>,
    pub(crate) moderation: Option<Value>,
    pub(crate) stream: Option<Value>,
    pub(crate) partial_images: Option<Value>,
    pub(crate) mask: Option<Value>,
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::bad_request("invalid_value", message)
}

impl Client {
    /// What would change the answer in a way that the protocol has no word for, and what to do instead.
    fn unsupported(&self) -> Option<(&'static str, &'static str)> {
        let differs = |given: &Option<Value>, neutral: &[Value]| {
            given.as_ref().is_some_and(|v| !v.is_null() && !neutral.contains(v))
        };
        let text = |words: &[&str]| words.iter().map(|w| Value::from(*w)).collect::<Vec<_>>();
        const LEAVE: &str = "is not supported here: leave it out";
        let fields: [(&'static str, &Option<Value>, Vec<Value>, &'static str); 9] = [
            ("n", &self.n, vec![1.into(), "1".into()], "must be 1: ask again for another picture"),
            (
                "response_format",
                &self.response_format,
                text(&["b64_json"]),
                "must be b64_json: pictures are not kept, so there is no URL to give",
            ),
            ("output_format", &self.output_format, text(&["png"]), "must be png"),
            ("output_compression", &self.output_compression, vec![100.into()], LEAVE),
            ("background", &self.background, text(&["auto", "opaque"]), "must be opaque"),
            ("moderation", &self.moderation, text(&["auto"]), LEAVE),
            (
                "stream",
                &self.stream,
                vec![false.into(), "false".into()],
                "is not possible: a picture comes whole",
            ),
            (
                "partial_images",
                &self.partial_images,
                vec![0.into()],
                "is not possible: a picture comes whole",
            ),
            ("mask", &self.mask, vec![], LEAVE),
        ];
        fields
            .iter()
            .find(|(_, given, neutral, _)| differs(given, neutral))
            .map(|(name, _, _, words)| (*name, *words))
    }

    /// The picture that the client sent, if any.
    ///
    /// # Errors
    /// A refusal where it is no base64.
    pub fn picture(&self) -> Result<Option<Vec<u8>>, Refusal> {
        let Some(given) = &self.image else { return Ok(None) };
        let text = match given.strip_prefix("data:") {
            Some(url) => match url.split_once(";base64,") {
                Some(("image/png" | "image/jpeg", text)) => text,
                _ => return Err(invalid("`image` must be a data URL of image/png or image/jpeg in base64")),
            },
            None => given,
        };
        let bytes = crate::unbase64(text);
        bytes.map(Some).ok_or_else(|| invalid("`image` must be standard base64 with padding, or a data URL"))
    }

    /// The size that is asked for, in pixels.
    ///
    /// # Errors
    /// A refusal where it is not among those possible.
    pub fn size(&self, bounds: &Bounds) -> Result<(u32, u32), Refusal> {
        let asked = self.size.as_deref().filter(|s| !matches!(*s, "auto" | ""));
        let size = match asked {
            None => bounds.sizes.first(),
            Some(asked) => bounds.sizes.iter().find(|s| *s == asked),
        };
        size.and_then(|s| sides(s)).ok_or_else(|| {
            let asked = clip(asked.unwrap_or_default(), 40);
            invalid(format!("`size` is {asked}; {} are possible", bounds.sizes.join(", ")))
        })
    }
}

/// The body for a client's wishes; `image` is what [`Client::picture`] gave, made plain. `rng` draws what the protocol
/// needs.
///
/// # Errors
/// A refusal in OpenAI's terms.
pub fn admit(
    model: &str,
    bounds: &Bounds,
    client: Client,
    image: Option<Vec<u8>>,
    rng: &mut Rng,
) -> Result<Body, Refusal> {
    if let Some((field, words)) = client.unsupported() {
        return Err(Refusal::bad_request("unsupported_parameter", format!("`{field}` {words}")));
    }
    let (width, height) = client.size(bounds)?;
    let negative_prompt = client.negative_prompt.unwrap_or_default();
    for (name, text) in [("prompt", &client.prompt), ("negative_prompt", &negative_prompt)] {
        if text.len() > bounds.max_prompt_bytes {
            let words = format!(
                "`{name}` has {} bytes; at most {} are possible",
                text.len(),
                bounds.max_prompt_bytes
            );
            return Err(invalid(words));
        }
    }
    if client.prompt.trim().is_empty() {
        return Err(invalid("`prompt` is empty"));
    }
    let steps = client.steps.unwrap_or_else(|| bounds.default_steps.into());
    let steps =
        u32::try_from(steps).ok().filter(|n| (1..=bounds.max_steps).contains(n)).ok_or_else(|| {
            invalid(format!("`steps` is {steps}; it must be within 1 and {}", bounds.max_steps))
        })?;
    let guidance = client.guidance.unwrap_or(bounds.default_guidance);
    if !(bounds.min_guidance..=bounds.max_guidance).contains(&guidance) {
        let (low, high) = (bounds.min_guidance, bounds.max_guidance);
        return Err(invalid(format!("`guidance` is {guidance}; it must be within {low} and {high}")));
    }
    let scheduler = match client.scheduler.as_deref() {
        None => bounds.schedulers.first(),
        Some(asked) => bounds.schedulers.iter().find(|s| *s == asked),
    };
    let scheduler = scheduler.cloned().ok_or_else(|| {
        let asked = clip(client.scheduler.as_deref().unwrap_or_default(), 40);
        invalid(format!("`scheduler` is {asked}; {} are possible", bounds.schedulers.join(", ")))
    })?;
    if client.strength.is_some_and(|s| !(s > 0.0 && s <= 1.0)) {
        return Err(invalid("`strength` must be above 0 and at most 1"));
    }
    Ok(Body {
        model: model.to_owned(),
        prompt: client.prompt,
        negative_prompt,
        image: image.map(|png| crate::base64(&png)),
        strength: client.strength,
        seed: seed(client.seed, rng),
        steps,
        guidance,
        width,
        height,
        scheduler,
        noise: "torch".to_owned(),
        response_format: "b64_json".to_owned(),
        request_id: format!("{:016x}", rng.bits()),
    })
}

/// 53 bits. A client who brings a seed gets the same picture every time, which is what a seed is for; it is hashed, so that
/// 42 does not stand out among drawn ones.
fn seed(client: Option<i64>, rng: &mut Rng) -> u64 {
    // Drawn in any case: what comes after does not depend on what the client said.
    let drawn = rng.bits() >> 11;
    let own = |seed: i64| {
        Rng::new(&Fingerprint::default().bytes(b"client seed").number(seed.cast_unsigned()).seed()).bits()
            >> 11
    };
    client.map_or(drawn, own)
}

/// The request with this body.
///
/// # Errors
/// A refusal where a number in it cannot be written.
pub fn request(path: &str, body: &Body) -> Result<Request, Refusal> {
    let bytes = serde_json::to_vec(body).map_err(|e| invalid(e.to_string()))?;
    Ok(Request::json(path, bytes, false))
}

/// Invents a client's wishes, without a picture.
#[must_use]
pub fn invent(bounds: &Bounds, s: &Synthetic, rng: &mut Rng) -> Client {
    const LIKED_STEPS: [u32; 9] = [8, 10, 12, 15, 16, 20, 25, 30, 50];
    let steps: Vec<u32> = LIKED_STEPS.into_iter().filter(|n| *n <= bounds.max_steps).collect();
    let prompt = s.caption(rng);
    let negative_prompt = s.negative(rng);
    let seed = rng.chance(s.seed_share).then(|| client_seed(rng));
    let steps = rng.chance(s.steps_share).then(|| rng.pick(&steps).map(|n| i64::from(*n))).flatten();
    // Halves, as people type them, around what is usual.
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let off = rng.between(-3, 5) as f64 / 2.0;
    let guidance = (bounds.default_guidance + off).clamp(bounds.min_guidance, bounds.max_guidance);
    let guidance = rng.chance(s.guidance_share).then_some(guidance);
    let scheduler = rng.chance(s.scheduler_share).then(|| rng.pick(&bounds.schedulers).cloned()).flatten();
    let size = rng.chance(s.size_share).then(|| rng.pick(&bounds.sizes).cloned()).flatten();
    Client { prompt, negative_prompt, seed, steps, guidance, scheduler, size, ..Client::default() }
}

fn client_seed(rng: &mut Rng) -> i64 {
    const LIKED: [i64; 8] = [42, 42, 0, 1, 7, 123, 1234, 1337];
    if rng.chance(0.3) {
        rng.pick(&LIKED).copied().unwrap_or(42)
    } else {
        rng.between(0, i64::from(u32::MAX))
    }
}
