//! CLIP's tokenizer: byte-level BPE with word ends, padded to the encoder's length.
//!
//! For: the ids that diffusers gets for the same folder, from `transformers`' `CLIPTokenizer` without ftfy. Not for:
//! chat models, whose tokenizers come as one file.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{BertNormalizer, Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{
    AddedToken, PaddingDirection, PaddingParams, PaddingStrategy, SplitDelimiterBehavior, Tokenizer,
    TruncationParams,
};

use super::config::{Config, wrong};
use crate::error::CheckingError;
use crate::runtime::one_line;

/// The most bytes of a prompt; a CLIP encoder reads some three hundred of them.
pub(crate) const MOST_BYTES: usize = 16 << 10;

/// A tokenizer that gives rows of one length.
pub(crate) struct ClipTokenizer {
    tokenizer: Tokenizer,
    /// Ids of a row, special ones included.
    pub(crate) length: usize,
    /// The largest id that it can give.
    pub(crate) largest: u32,
}

struct Special {
    start: String,
    end: String,
    pad: String,
    length: usize,
}

impl ClipTokenizer {
    /// Reads a pipeline's `tokenizer` folder: `vocab.json` and `merges.txt`, which diffusers reads, or
    /// `tokenizer.json` where that is all there is.
    pub(crate) fn load(folder: &Path) -> Result<Self, CheckingError> {
        let special = Special::read(folder)?;
        let whole = folder.join("tokenizer.json");
        let (mut tokenizer, path) = if whole.is_file() && !folder.join("vocab.json").is_file() {
            let read = Tokenizer::from_file(&whole).map_err(|e| wrong(&whole, one_line(&e.to_string())))?;
            (read, whole)
        } else {
            (from_parts(folder, &special)?, folder.join("vocab.json"))
        };
        let unfit = |e: tokenizers::Error| wrong(&path, one_line(&e.to_string()));
        let id = |token: &str| {
            tokenizer.token_to_id(token).ok_or_else(|| wrong(&path, format!("it has no token '{token}'")))
        };
        let (_, _, pad_id) = (id(&special.start)?, id(&special.end)?, id(&special.pad)?);
        let largest = tokenizer.get_vocab(true).values().copied().max().unwrap_or(0);
        tokenizer.with_padding(Some(PaddingParams {
            strategy: PaddingStrategy::Fixed(special.length),
            direction: PaddingDirection::Right,
            pad_id,
            pad_token: special.pad,
            ..PaddingParams::default()
        }));
        let truncation = TruncationParams { max_length: special.length, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(unfit)?;
        Ok(Self { tokenizer, length: special.length, largest })
    }

    /// The row of a text: start, text, end, padding; what does not fit is cut before the end.
    pub(crate) fn ids(&self, text: &str) -> Result<Vec<u32>, CheckingError> {
        if text.len() > MOST_BYTES {
            let why = format!("a prompt of {} bytes, at most {MOST_BYTES} are taken", text.len());
            return Err(CheckingError::BadParameters(why));
        }
        let encoding = self.tokenizer.encode_fast(text, true).map_err(|e| {
            CheckingError::BadParameters(format!(
                "a prompt cannot be tokenised: {}",
                one_line(&e.to_string())
            ))
        })?;
        Ok(encoding.get_ids().to_vec())
    }
}

impl Special {
    /// From `tokenizer_config.json`, and `special_tokens_map.json` where that says more; CLIP's where neither does.
    fn read(folder: &Path) -> Result<Self, CheckingError> {
        let read = |name: &str| {
            let path = folder.join(name);
            path.is_file().then(|| Config::read(&path)).transpose()
        };
        let (settings, map) = (read("tokenizer_config.json")?, read("special_tokens_map.json")?);
        let token = |field: &str, default: &str| {
            let Some((config, value)) = [&settings, &map]
                .into_iter()
                .flatten()
                .find_map(|config| config.get(field).map(|value| (config, value)))
            else {
                return Ok(default.to_owned());
            };
            // An added token is written as an object with its text inside.
            let text = if value.is_object() { value.get("content") } else { Some(value) };
            text.and_then(Value::as_str)
                .map(str::to_owned)
                .ok_or_else(|| config.refuse(field, format!("is {value}, not a token")))
        };
        let length = match &settings {
            Some(settings) => settings.count("model_max_length", Some(77), 3, 4096)?,
            None => 77,
        };
        let end = token("eos_token", "<|endoftext|>")?;
        Ok(Self {
            start: token("bos_token", "<|startoftext|>")?,
            pad: token("pad_token", &end)?,
            end,
            length,
        })
    }
}

fn from_parts(folder: &Path, special: &Special) -> Result<Tokenizer, CheckingError> {
    let (vocab, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
    for path in [&vocab, &merges] {
        if !path.is_file() {
            return Err(wrong(path, "it is missing"));
        }
    }
    let name = |path: &PathBuf| {
        path.to_str().map(str::to_owned).ok_or_else(|| wrong(path, "its path is not Unicode"))
    };
    // A fault of either file; whichever does not read alone is the one.
    let unfit = |e: &dyn std::fmt::Display| match Config::read(&vocab) {
        Err(vocab) => vocab,
        Ok(_) => wrong(&merges, one_line(&e.to_string())),
    };
    let model = BPE::from_file(&name(&vocab)?, &name(&merges)?)
        .end_of_word_suffix("</w>".into())
        .unk_token(special.end.clone())
        .build()
        .map_err(|e| unfit(&e))?;
    let mut tokenizer = Tokenizer::new(model);
    let id = |token: &str| {
        tokenizer.token_to_id(token).ok_or_else(|| wrong(&vocab, format!("it has no token '{token}'")))
    };
    let (start, end) = (id(&special.start)?, id(&special.end)?);
    id(&special.pad)?;
    let ours = |e: tokenizers::Error| wrong(&vocab, one_line(&e.to_string()));
    let spaces = Replace::new(tokenizers::normalizers::replace::ReplacePattern::Regex(r"\s+".into()), " ");
    // Control characters go and Chinese characters stand alone: `CLIPTokenizer` cleans as BERT's tokenizer does.
    let clean = BertNormalizer::new(true, true, Some(false), false);
    tokenizer.with_normalizer(Some(Normalizers::new(vec![
        clean.into(),
        NFC.into(),
        spaces.map_err(ours)?.into(),
        Lowercase.into(),
    ])));
    let words = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    let split =
        Split::new(SplitPattern::Regex(words.into()), SplitDelimiterBehavior::Removed, true).map_err(ours)?;
    let bytes = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![split.into(), bytes.into()])));
    tokenizer.with_post_processor(Some(
        RobertaProcessing::new((special.end.clone(), end), (special.start.clone(), start))
            .trim_offsets(false)
            .add_prefix_space(false),
    ));
    tokenizer.add_special_tokens(&[
        AddedToken::from(special.start.clone(), true),
        AddedToken::from(special.end.clone(), true),
    ]);
    Ok(tokenizer)
}
