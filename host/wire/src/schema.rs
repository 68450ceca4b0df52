//! The JSON Schemas of the protocol, as `docs/schemas/` holds them, and validation against them.
//!
//! For the conformance check and for tests; the validator's own path never runs them (plugins judge replies).

use std::sync::LazyLock;

use serde_json::Value;

/// A message of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// Reply to `GET /nineteen/v1/capacity`.
    Capacity,
    /// Body of a chat request.
    ChatRequest,
    /// Reply to a chat request that does not stream.
    ChatReply,
    /// One event of a streamed reply.
    ChatChunk,
    /// Body of an embeddings request.
    EmbeddingsRequest,
    /// Reply to an embeddings request.
    EmbeddingsReply,
    /// Body of an images request.
    ImagesRequest,
    /// Reply to an images request.
    ImagesReply,
    /// Body of an avatars request.
    AvatarsRequest,
    /// Reply to an avatars request.
    AvatarsReply,
    /// Body of any error.
    Error,
}

macro_rules! schemas {
    ($($kind:ident = $file:literal),* $(,)?) => {
        impl Schema {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// Its file in `docs/schemas/`.
            #[must_use]
            pub const fn file(self) -> &'static str {
                match self { $(Self::$kind => $file),* }
            }

            /// The schema's own text.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$kind => include_str!(concat!(
                        env!("CARGO_MANIFEST_DIR"), "/../../docs/schemas/", $file
                    ))),*
                }
            }

            fn validator(self) -> Option<&'static jsonschema::Validator> {
                match self {
                    $(Self::$kind => {
                        static V: LazyLock<Option<jsonschema::Validator>> =
                            LazyLock::new(|| compile(Schema::$kind));
                        V.as_ref()
                    }),*
                }
            }
        }
    };
}

schemas! {
    Capacity = "capacity.json",
    ChatRequest = "chat-request.json",
    ChatReply = "chat-reply.json",
    ChatChunk = "chat-chunk.json",
    EmbeddingsRequest = "embeddings-request.json",
    EmbeddingsReply = "embeddings-reply.json",
    ImagesRequest = "images-request.json",
    ImagesReply = "images-reply.json",
    AvatarsRequest = "avatars-request.json",
    AvatarsReply = "avatars-reply.json",
    Error = "error.json",
}

fn compile(schema: Schema) -> Option<jsonschema::Validator> {
    let value: Value = serde_json::from_str(schema.text()).ok()?;
    jsonschema::validator_for(&value).ok()
}

/// Violations that one call reports at most.
const MAX_VIOLATIONS: usize = 8;

impl Schema {
    /// What in `value` breaks the schema: place and rule, at most eight, each cut to 200 characters.
    ///
    /// # Errors
    /// The list, never empty.
    pub fn check(self, value: &Value) -> Result<(), Vec<String>> {
        let Some(validator) = self.validator() else {
            return Err(vec![format!("the schema {} of this build cannot be read", self.file())]);
        };
        let found: Vec<String> = validator
            .iter_errors(value)
            .take(MAX_VIOLATIONS)
            .map(|e| format!("{}: {e}", e.instance_path()).chars().take(200).collect())
            .collect();
        if found.is_empty() { Ok(()) } else { Err(found) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_of_the_book_compiles_and_accepts_its_own_examples() {
        for schema in Schema::ALL {
            let value: Value = serde_json::from_str(schema.text()).unwrap();
            let examples =
                value["examples"].as_array().unwrap_or_else(|| panic!("{schema:?} has no examples"));
            assert!(!examples.is_empty());
            for example in examples {
                schema.check(example).unwrap_or_else(|e| panic!("{schema:?}: {e:?}"));
            }
            assert!(schema.check(&serde_json::json!([])).is_err());
            assert!(schema.check(&serde_json::json!({})).is_err());
        }
    }
}
