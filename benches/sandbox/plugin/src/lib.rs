//! The function of `work.rs` as an Extism plugin.

#[path = "../../work.rs"]
mod work;

use extism_pdk::{FnResult, plugin_fn};

/// Takes the request's length in four bytes, little-endian, then the request, then the reply. Gives how many texts are right
/// and how many were asked, eight bytes each.
#[plugin_fn]
pub fn score(input: Vec<u8>) -> FnResult<Vec<u8>> {
    let (length, rest) = input.split_first_chunk::<4>().ok_or_else(|| extism_pdk::Error::msg("no length"))?;
    let at = u32::from_le_bytes(*length) as usize;
    let (request, reply) = rest.split_at_checked(at).ok_or_else(|| extism_pdk::Error::msg("no reply"))?;
    let (right, asked) = work::right(request, reply).ok_or_else(|| extism_pdk::Error::msg("no exchange"))?;
    Ok([right.to_le_bytes(), asked.to_le_bytes()].concat())
}
