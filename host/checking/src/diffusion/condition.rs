//! From prompts to what the denoiser is told: text states, the pooled text of XL pipelines, an identity's tokens.

use std::path::Path;

use super::config::{Config, wrong};
use super::graphs::{Array, Feed, Net};
use super::request::ImageRequest;
use super::tokenizer::ClipTokenizer;
use crate::error::CheckingError;
use crate::runtime::Runtime;

/// The widest state that is read from a configuration.
const MOST_WIDTH: usize = 1 << 16;

/// A tokenizer with its encoder.
struct Encoder {
    tokenizer: ClipTokenizer,
    net: Net,
    /// The output that the denoiser reads, and its width.
    states: String,
    width: usize,
    /// The width of `text_embeds`, which is read where it is asked for.
    pooled: usize,
}

impl Encoder {
    fn open(
        model: &str,
        root: &Path,
        suffix: &str,
        penultimate: bool,
        runtime: &Runtime,
        intra_threads: usize,
    ) -> Result<Self, CheckingError> {
        let folder = root.join(format!("text_encoder{suffix}"));
        let config = Config::read(&folder.join("config.json"))?;
        let tokenizer = ClipTokenizer::load(&root.join(format!("tokenizer{suffix}")))?;
        let width = config.count("hidden_size", None, 1, MOST_WIDTH)?;
        let pooled = config.count("projection_dim", Some(width), 1, MOST_WIDTH)?;
        let room = config.count("max_position_embeddings", Some(tokenizer.length), 1, 1 << 20)?;
        if tokenizer.length > room {
            let why = format!("is {room}, and the tokenizer gives {} ids", tokenizer.length);
            return Err(config.refuse("max_position_embeddings", why));
        }
        let words = config.count("vocab_size", None, 1, 1 << 24)?;
        if tokenizer.largest as usize >= words {
            let why = format!("is {words}, and the tokenizer gives ids up to {}", tokenizer.largest);
            return Err(config.refuse("vocab_size", why));
        }
        let states = if penultimate {
            let layers = config.count("num_hidden_layers", None, 1, 1000)?;
            format!("hidden_states.{}", layers - 1)
        } else {
            "last_hidden_state".to_owned()
        };
        let net = Net::open(model, &folder, runtime, intra_threads)?;
        net.only_inputs(&["input_ids", "attention_mask"])?;
        net.input("input_ids", &[-1, tokenizer.length as i64])?;
        net.output(&states, &[-1, -1, width as i64])?;
        Ok(Self { tokenizer, net, states, width, pooled })
    }

    /// Rows of states, and with `pooled` the pooled texts.
    fn encode(&self, texts: &[&str], pooled: bool) -> Result<(Array, Option<Array>), CheckingError> {
        let (rows, length) = (texts.len(), self.tokenizer.length);
        let mut ids = Vec::with_capacity(rows * length);
        for text in texts {
            ids.extend(self.tokenizer.ids(text)?);
        }
        let mut feeds = Vec::new();
        if self.net.has_input("attention_mask") {
            // diffusers gives none, which means that every place counts.
            feeds.push(("attention_mask", Feed::Ids { rows, ids: vec![1; ids.len()] }));
        }
        feeds.push(("input_ids", Feed::Ids { rows, ids }));
        let shape = [rows, length, self.width];
        if pooled {
            let wanted = [(self.states.as_str(), shape.as_slice()), ("text_embeds", &[rows, self.pooled])];
            let [states, pooled] = self.net.run(feeds, wanted)?;
            Ok((states, Some(pooled)))
        } else {
            let [states] = self.net.run(feeds, [(self.states.as_str(), shape.as_slice())])?;
            Ok((states, None))
        }
    }
}

/// What the denoiser is told, a row for each branch: the negative prompt first where there is guidance.
pub(crate) struct Condition {
    pub(crate) states: Array,
    pub(crate) pooled: Option<Array>,
}

/// Everything that reads prompts.
pub(crate) struct Conditioner {
    first: Encoder,
    second: Option<Encoder>,
    projection: Option<Projection>,
    zeros_for_no_prompt: bool,
}

struct Projection {
    net: Net,
    /// Values of an identity.
    dimension: usize,
    /// Tokens that it becomes, and values of each.
    tokens: usize,
    width: usize,
}

impl Conditioner {
    pub(crate) fn open(
        model: &str,
        root: &Path,
        large: bool,
        zeros_for_no_prompt: bool,
        runtime: &Runtime,
        intra_threads: usize,
    ) -> Result<Self, CheckingError> {
        let first = Encoder::open(model, root, "", large, runtime, intra_threads)?;
        let second = if large {
            let second = Encoder::open(model, root, "_2", true, runtime, intra_threads)?;
            second.net.output("text_embeds", &[-1, second.pooled as i64])?;
            if second.tokenizer.length != first.tokenizer.length {
                let path = root.join("tokenizer_2/tokenizer_config.json");
                let why = format!("'model_max_length' is not the {} of the first", first.tokenizer.length);
                return Err(wrong(&path, why));
            }
            Some(second)
        } else {
            None
        };
        let folder = root.join("image_projection");
        let projection = if folder.is_dir() {
            let width = first.width + second.as_ref().map_or(0, |s| s.width);
            Some(Projection::open(model, &folder, width, runtime, intra_threads)?)
        } else {
            None
        };
        Ok(Self { first, second, projection, zeros_for_no_prompt })
    }

    /// Values of a state.
    pub(crate) fn width(&self) -> usize {
        self.first.width + self.second.as_ref().map_or(0, |s| s.width)
    }

    /// Values of a pooled text, where the pipeline has one.
    pub(crate) fn pooled(&self) -> Option<usize> {
        self.second.as_ref().map(|s| s.pooled)
    }

    /// The ids of a prompt, of the first tokenizer.
    pub(crate) fn ids(&self, text: &str) -> Result<Vec<u32>, CheckingError> {
        self.first.tokenizer.ids(text)
    }

    /// What the denoiser is told about a request, in two rows if `guided`.
    pub(crate) fn read(&self, request: &ImageRequest, guided: bool) -> Result<Condition, CheckingError> {
        let negative = request.negative_prompt.as_deref().unwrap_or_default();
        let both = [negative, request.prompt.as_str()];
        let texts = both.get(usize::from(!guided)..).unwrap_or_default();
        let (mut states, mut pooled) = self.first.encode(texts, false)?;
        if let Some(second) = &self.second {
            let (more, pool) = second.encode(texts, true)?;
            states = beside(&states, &more);
            pooled = pool;
        }
        if guided && request.negative_prompt.is_none() && self.zeros_for_no_prompt {
            for array in [Some(&mut states), pooled.as_mut()].into_iter().flatten() {
                let row = array.values.len() / 2;
                array.values.iter_mut().take(row).for_each(|v| *v = 0.0);
            }
        }
        match (&self.projection, &request.identity) {
            (None, Some(_)) => {
                let why = "an identity, and this pipeline has no image_projection".into();
                return Err(CheckingError::BadParameters(why));
            }
            (Some(projection), identity) => {
                states = behind(&states, &projection.tokens(identity.as_deref(), texts.len())?);
            }
            (None, None) => {}
        }
        Ok(Condition { states, pooled })
    }
}

impl Projection {
    fn open(
        model: &str,
        folder: &Path,
        width: usize,
        runtime: &Runtime,
        intra_threads: usize,
    ) -> Result<Self, CheckingError> {
        let net = Net::open(model, folder, runtime, intra_threads)?;
        net.only_inputs(&["image_embeds"])?;
        net.input("image_embeds", &[-1, -1])?;
        net.output("image_prompt_embeds", &[-1, -1, width as i64])?;
        let stated = |size: Option<i64>, what: &str| {
            size.and_then(|size| usize::try_from(size).ok())
                .filter(|size| *size > 0)
                .ok_or_else(|| net.wrong(format!("it does not state {what}")))
        };
        let dimension = stated(net.input_size("image_embeds", 1), "the width of 'image_embeds'")?;
        let tokens =
            stated(net.output_size("image_prompt_embeds", 1), "the tokens of 'image_prompt_embeds'")?;
        Ok(Self { net, dimension, tokens, width })
    }

    /// Tokens of the identity in the last row, of the zero vector in a row before it.
    fn tokens(&self, identity: Option<&[f32]>, rows: usize) -> Result<Array, CheckingError> {
        let mut values = vec![0.0; rows * self.dimension];
        if let Some(identity) = identity {
            if identity.len() != self.dimension {
                return Err(CheckingError::BadParameters(format!(
                    "the identity has {} values, {} are taken",
                    identity.len(),
                    self.dimension
                )));
            }
            if let Some(last) = values.chunks_exact_mut(self.dimension).last() {
                last.copy_from_slice(identity);
            }
        }
        let feed = Feed::Floats(Array { shape: vec![rows, self.dimension], values });
        let shape = [rows, self.tokens, self.width];
        let [tokens] = self.net.run(vec![("image_embeds", feed)], [("image_prompt_embeds", &shape)])?;
        Ok(tokens)
    }
}

/// Two tensors `[rows, length, …]` joined along their last dimension.
fn beside(a: &Array, b: &Array) -> Array {
    let (wide_a, wide_b) = (a.shape.last().copied().unwrap_or(1), b.shape.last().copied().unwrap_or(1));
    let rows = a.values.chunks_exact(wide_a.max(1)).zip(b.values.chunks_exact(wide_b.max(1)));
    let mut shape = a.shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = wide_a + wide_b;
    }
    Array { shape, values: rows.flat_map(|(a, b)| a.iter().chain(b)).copied().collect() }
}

/// Two tensors `[rows, length, width]` joined along their length.
fn behind(a: &Array, b: &Array) -> Array {
    let size = |array: &Array, axis: usize| array.shape.get(axis).copied().unwrap_or(1);
    let (rows, width) = (size(a, 0), size(a, 2));
    let (long_a, long_b) = (size(a, 1), size(b, 1));
    let of_a = a.values.chunks_exact((long_a * width).max(1));
    let of_b = b.values.chunks_exact((long_b * width).max(1));
    let values = of_a.zip(of_b).flat_map(|(a, b)| a.iter().chain(b)).copied().collect();
    Array { shape: vec![rows, long_a + long_b, width], values }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(shape: &[usize], values: &[u8]) -> Array {
        Array { shape: shape.to_vec(), values: values.iter().map(|v| f32::from(*v)).collect() }
    }

    #[test]
    fn states_are_joined_along_the_axis_that_is_meant() {
        let (a, b) = (array(&[2, 2, 1], &[1, 2, 3, 4]), array(&[2, 2, 1], &[5, 6, 7, 8]));
        assert_eq!(beside(&a, &b), array(&[2, 2, 2], &[1, 5, 2, 6, 3, 7, 4, 8]));
        assert_eq!(behind(&a, &b), array(&[2, 4, 1], &[1, 2, 5, 6, 3, 4, 7, 8]));
        let c = array(&[2, 1, 1], &[9, 10]);
        assert_eq!(behind(&a, &c), array(&[2, 3, 1], &[1, 2, 9, 3, 4, 10]));
    }
}
