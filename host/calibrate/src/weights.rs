//! Other weights in the same graph: what a miner that saves memory or layers would serve.
//!
//! Values are changed where they lie in the files, so every change works on any ONNX export with fp32 weights, whether
//! they are in the graph or beside it. Only as much of ONNX's protobuf is read as it takes to find them
//! (`ModelProto.graph` = 7; `GraphProto.node` = 1, `.initializer` = 5; `TensorProto.dims` = 1, `.data_type` = 2,
//! `.name` = 8, `.raw_data` = 9, `.external_data` = 13).

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use half::f16;
use nineteen_domain::{Digest, ModelName};

use crate::error::CalibrateError;

const GRAPH: &str = "model.onnx";
const FLOAT: u64 = 1;
const FLOAT16: u8 = 10;
const BFLOAT16: u8 = 16;
/// Values that share a scale in 4-bit formats.
const BLOCK: usize = 32;
/// Of another model's weights, over the spread of the weights.
const OTHER: f32 = 0.1;

/// What is done to the weights of every matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Rounded to half precision; with `activations`, what comes out of every product but the last (the logits) too.
    Fp16 {
        /// Whether products are rounded as well.
        activations: bool,
    },
    /// The same with bfloat16.
    Bf16 {
        /// Whether products are rounded as well.
        activations: bool,
    },
    /// Rounded to 8 bits, one scale for each output.
    Int8,
    /// Rounded to 4 bits, one scale for 32 values.
    Int4,
    /// Off by a tenth of their spread at random: a model of the same shape that was trained otherwise.
    Other,
    /// Layers from the middle pass their input through: the matrices that write to the residual stream are zero.
    Without {
        /// How many.
        layers: usize,
    },
}

/// A graph whose layers cannot be told by the names of their weights.
#[derive(Debug, thiserror::Error)]
#[error("the graph does not name the matrices that layers write with")]
pub struct LayerError;

struct Tensor {
    name: String,
    /// Rows and columns.
    shape: [usize; 2],
    /// File, and the bytes in it.
    at: (String, Range<usize>),
    /// Whether an output of the product is a column.
    by_column: bool,
    /// Stored in half precision.
    half: bool,
}

/// Writes the model of `models/<of>` with changed weights to `models_to/<name>`. Returns `false` where the change cannot
/// be made to this graph.
///
/// # Errors
/// Files that cannot be read or written, or a graph that cannot be understood.
pub fn write_variant(
    models: &Path,
    of: &ModelName,
    change: Change,
    models_to: &Path,
    name: &ModelName,
) -> Result<bool, CalibrateError> {
    let (from, to) = (models.join(of.as_str()), models_to.join(name.as_str()));
    let manifest_path = from.join("model.toml");
    let text =
        String::from_utf8(read(&manifest_path)?).map_err(|e| CalibrateError::file(&manifest_path, e))?;
    let mut manifest: toml::Table = text.parse().map_err(|e| CalibrateError::file(&manifest_path, e))?;
    let Some(files) = manifest.get_mut("files").and_then(toml::Value::as_table_mut) else {
        return Err(CalibrateError::file(&manifest_path, "[files] is missing"));
    };
    let mut tensors = Vec::new();
    for file in files.keys().filter(|file| is_changed(change, file)) {
        let graph_path = from.join(file);
        let folder = file.strip_suffix(GRAPH).unwrap_or_default();
        let found = matrices(&read(&graph_path)?).ok_or_else(|| {
            CalibrateError::file(&graph_path, "it is no ONNX graph that can be understood; export it again")
        })?;
        tensors
            .extend(found.into_iter().map(|t| Tensor { at: (format!("{folder}{}", t.at.0), t.at.1), ..t }));
    }
    if tensors.is_empty() {
        return Err(CalibrateError::file(
            &from,
            "no product or convolution has fp32 or fp16 weights; calibrate with such an export",
        ));
    }
    let chosen: Vec<&Tensor> = match change {
        Change::Without { layers } => match writers(&tensors, layers) {
            Ok(chosen) => chosen,
            Err(LayerError) => return Ok(false),
        },
        _ => tensors.iter().collect(),
    };
    for (file, entry) in files {
        let path = from.join(file);
        let mut bytes = read(&path)?;
        for tensor in chosen.iter().filter(|t| t.at.0 == *file) {
            let values = bytes
                .get_mut(tensor.at.1.clone())
                .ok_or_else(|| CalibrateError::file(&path, format!("it ends before '{}'", tensor.name)))?;
            apply(change, values, tensor);
        }
        if is_changed(change, file)
            && let Change::Fp16 { activations: true } | Change::Bf16 { activations: true } = change
        {
            let kind = if matches!(change, Change::Bf16 { .. }) { BFLOAT16 } else { FLOAT16 };
            bytes = with_rounded_products(&bytes, kind)
                .ok_or_else(|| CalibrateError::file(&path, "its products cannot be rounded"))?;
        }
        if let Some(entry) = entry.as_table_mut() {
            entry.insert("sha256".into(), Digest::of(&bytes).hex().into());
            entry.insert("bytes".into(), i64::try_from(bytes.len()).unwrap_or(i64::MAX).into());
        }
        let path = to.join(file);
        let folder = path.parent().unwrap_or(&to);
        std::fs::create_dir_all(folder).map_err(|e| CalibrateError::file(folder, e))?;
        std::fs::write(&path, bytes).map_err(|e| CalibrateError::file(&path, e))?;
    }
    let path = to.join("model.toml");
    let text = toml::to_string(&manifest).map_err(|e| CalibrateError::file(&path, e))?;
    std::fs::write(&path, text).map_err(|e| CalibrateError::file(&path, e))?;
    Ok(true)
}

/// Whether this file of a model is a graph that the change is made to. Precisions are a device's and hold for all graphs of
/// a pipeline; what saves memory is done to the one that computes most.
fn is_changed(change: Change, file: &str) -> bool {
    match change {
        Change::Fp16 { .. } | Change::Bf16 { .. } => file == GRAPH || file.ends_with("/model.onnx"),
        Change::Int8 | Change::Int4 | Change::Other | Change::Without { .. } => {
            [GRAPH, "unet/model.onnx", "transformer/model.onnx"].contains(&file)
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CalibrateError> {
    std::fs::read(path).map_err(|e| CalibrateError::file(path, e))
}

/// The matrices with which `layers` layers in the middle write to the residual stream.
fn writers(tensors: &[Tensor], layers: usize) -> Result<Vec<&Tensor>, LayerError> {
    const NAMES: [&str; 7] = [
        "attn_output",
        "ffn_down",
        "o_proj",
        "down_proj",
        "attention.output.dense",
        "output.dense",
        "mlp.c_proj",
    ];
    let mut by_layer: BTreeMap<usize, Vec<&Tensor>> = BTreeMap::new();
    for tensor in tensors.iter().filter(|t| NAMES.iter().any(|n| t.name.contains(n))) {
        let layer = tensor.name.split('.').find_map(|part| part.parse().ok()).ok_or(LayerError)?;
        by_layer.entry(layer).or_default().push(tensor);
    }
    if by_layer.len() <= layers || by_layer.values().any(|of| of.len() != 2) {
        return Err(LayerError);
    }
    let first = (by_layer.len() - layers) / 2;
    Ok(by_layer.into_values().skip(first).take(layers).flatten().collect())
}

fn apply(change: Change, bytes: &mut [u8], tensor: &Tensor) {
    let mut values: Vec<f32> = if tensor.half {
        bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect()
    } else {
        bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let [rows, columns] = tensor.shape;
    // The places of the values that belong to one output, in the order of its inputs.
    let (outputs, inputs) = if tensor.by_column { (columns, rows) } else { (rows, columns) };
    let place = |output: usize, input: usize| {
        if tensor.by_column { input * columns + output } else { output * columns + input }
    };
    match change {
        Change::Without { .. } => values.fill(0.0),
        Change::Fp16 { .. } => values.iter_mut().for_each(|v| *v = half(*v)),
        Change::Bf16 { .. } => values.iter_mut().for_each(|v| *v = brain(*v)),
        Change::Other => {
            let n = values.len().max(1) as f32;
            let spread = (values.iter().map(|v| v * v).sum::<f32>() / n).sqrt();
            // Even noise of variance 1, the same for a tensor of the same name.
            let mut draw = splitmix(Digest::of(tensor.name.as_bytes()));
            values.iter_mut().for_each(|v| *v += OTHER * spread * (draw() - 0.5) * 12.0_f32.sqrt());
        }
        Change::Int8 | Change::Int4 => {
            let (group, steps) = if change == Change::Int8 { (inputs.max(1), 127.0) } else { (BLOCK, 7.0) };
            for output in 0..outputs {
                for start in (0..inputs).step_by(group) {
                    let places = (start..(start + group).min(inputs)).map(|input| place(output, input));
                    let at = |p: usize| values.get(p).copied().unwrap_or(0.0);
                    let scale = places.clone().map(|p| at(p).abs()).fold(0.0, f32::max) / steps;
                    for p in places {
                        if let Some(v) = values.get_mut(p).filter(|_| scale > 0.0) {
                            *v = (*v / scale).round() * scale;
                        }
                    }
                }
            }
        }
    }
    if tensor.half {
        for (to, value) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(values) {
            *to = f16::from_f32(value).to_le_bytes();
        }
        return;
    }
    for (to, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *to = value.to_le_bytes();
    }
}

/// Numbers in [0, 1), decided by a digest (`splitmix64`).
fn splitmix(seed: Digest) -> impl FnMut() -> f32 {
    let mut state = u64::from_le_bytes(*seed.as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]));
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 24) as f32
    }
}

/// Rounded to the nearest bfloat16, ties to even.
fn brain(v: f32) -> f32 {
    let bits = v.to_bits();
    f32::from_bits(bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000)
}

/// Rounded to the nearest half, ties to even; what is too large becomes the largest half. By adding and taking away a
/// number whose last place is the half's.
fn half(v: f32) -> f32 {
    let size = v.abs();
    if size >= 65_504.0 {
        return 65_504.0_f32.copysign(v);
    }
    // Below 2^-14 halves are spaced as at 2^-14.
    let exponent = (size.to_bits() >> 23).max(127 - 14);
    let shift = f32::from_bits((exponent + 13) << 23);
    ((size + shift) - shift).copysign(v)
}

/// The weights of matrix products with two dimensions, and of convolutions, in fp32, or in fp16 with a cast behind them.
fn matrices(model: &[u8]) -> Option<Vec<Tensor>> {
    let graph = Fields::of(model, 0..model.len()).find_map(|f| f.ok()?.of_bytes(7))?;
    let mut tensors = Vec::new();
    // Which weights are the second factor of a product, and whether they are turned.
    let mut products: BTreeMap<String, bool> = BTreeMap::new();
    // What weights are called behind a cast.
    let mut casts: BTreeMap<String, String> = BTreeMap::new();
    for field in Fields::of(model, graph.clone()) {
        let field = field.ok()?;
        if let Some(node) = field.of_bytes(1) {
            if let Some((weight, by_column)) = product(model, node.clone())? {
                products.insert(weight, by_column);
            }
            if let Some((weight, cast)) = cast(model, node)? {
                casts.insert(weight, cast);
            }
        } else if let Some(at) = field.of_bytes(5)
            && let Some(tensor) = tensor(model, at)?
        {
            tensors.push(tensor);
        }
    }
    tensors.retain_mut(|t| {
        let Some(by_column) = products.get(casts.get(&t.name).unwrap_or(&t.name)) else { return false };
        t.by_column = *by_column;
        true
    });
    Some(tensors)
}

/// The graph with a cast to `kind` and back behind every product and convolution but the last, so that products come out as a
/// device of that precision gives them (it accumulates in fp32 too).
fn with_rounded_products(model: &[u8], kind: u8) -> Option<Vec<u8>> {
    let graph = Fields::of(model, 0..model.len()).find_map(|f| f.ok()?.of_bytes(7))?;
    let is_product = |at: Range<usize>| -> Option<bool> {
        let kind = Fields::of(model, at).find_map(|f| f.ok()?.of_bytes(4))?;
        Some(matches!(model.get(kind)?, b"MatMul" | b"Gemm" | b"Conv"))
    };
    let mut last = None;
    for field in Fields::of(model, graph.clone()) {
        if let Some(node) = field.ok()?.of_bytes(1)
            && is_product(node.clone())?
        {
            last = Some(node);
        }
    }
    let mut new_graph = Vec::with_capacity(graph.len() + (64 << 10));
    let mut start = graph.start;
    let mut fields = Fields::of(model, graph);
    while let Some(field) = fields.next() {
        let whole = start..fields.rest.start;
        start = fields.rest.start;
        match field.ok()?.of_bytes(1) {
            Some(node) if Some(&node) != last.as_ref() && is_product(node.clone())? => {
                rounded(model, node, kind, &mut new_graph)?;
            }
            _ => new_graph.extend_from_slice(model.get(whole)?),
        }
    }
    let mut out = Vec::with_capacity(model.len() + (64 << 10));
    let (mut start, mut fields) = (0, Fields::of(model, 0..model.len()));
    while let Some(field) = fields.next() {
        let whole = start..fields.rest.start;
        start = fields.rest.start;
        match field.ok()?.of_bytes(7) {
            Some(_) => put(7, &new_graph, &mut out),
            None => out.extend_from_slice(model.get(whole)?),
        }
    }
    Some(out)
}

/// A product whose output has another name, and two casts that give the old name its rounded value.
fn rounded(model: &[u8], node: Range<usize>, kind: u8, out: &mut Vec<u8>) -> Option<()> {
    let mut product = Vec::with_capacity(node.len() + 8);
    let mut name = None;
    let (mut start, mut fields) = (node.start, Fields::of(model, node));
    while let Some(field) = fields.next() {
        let whole = start..fields.rest.start;
        start = fields.rest.start;
        match field.ok()?.of_bytes(2) {
            Some(at) => {
                let output = model.get(at)?;
                put(2, &[output, b"/exact"].concat(), &mut product);
                name = Some(output.to_vec());
            }
            None => product.extend_from_slice(model.get(whole)?),
        }
    }
    let name = name?;
    put(1, &product, out);
    let (exact, short) = ([&name, &b"/exact"[..]].concat(), [&name, &b"/short"[..]].concat());
    for (input, output, to) in [(&exact, &short, kind), (&short, &name, 1)] {
        // AttributeProto: name = 1, i = 3, type = 20 (INT is 2).
        let mut attribute = Vec::new();
        put(1, b"to", &mut attribute);
        attribute.extend([3 << 3, to, 0xa0, 0x01, 2]);
        let mut cast = Vec::new();
        put(1, input, &mut cast);
        put(2, output, &mut cast);
        put(4, b"Cast", &mut cast);
        put(5, &attribute, &mut cast);
        put(1, &cast, out);
    }
    Some(())
}

/// A length-delimited field.
fn put(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push((number << 3) | 2);
    let mut n = bytes.len();
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out.extend_from_slice(bytes);
}

/// The second input of a product.
fn product(model: &[u8], node: Range<usize>) -> Option<Option<(String, bool)>> {
    let (mut inputs, mut kind, mut turned) = (Vec::new(), String::new(), false);
    for field in Fields::of(model, node) {
        let field = field.ok()?;
        if let Some(at) = field.of_bytes(1) {
            inputs.push(text(model, at)?);
        } else if let Some(at) = field.of_bytes(4) {
            kind = text(model, at)?;
        } else if let Some(at) = field.of_bytes(5) {
            let (mut name, mut number) = (String::new(), 0);
            for field in Fields::of(model, at) {
                let field = field.ok()?;
                if let Some(at) = field.of_bytes(1) {
                    name = text(model, at)?;
                }
                number = field.of_number(3).unwrap_or(number);
            }
            turned |= name == "transB" && number == 1;
        }
    }
    let weight = inputs.into_iter().nth(1).filter(|_| ["MatMul", "Gemm", "Conv"].contains(&kind.as_str()));
    Some(weight.map(|w| (w, !turned && kind != "Conv")))
}

/// Input and output of a cast.
fn cast(model: &[u8], node: Range<usize>) -> Option<Option<(String, String)>> {
    let (mut input, mut output, mut is_cast) = (None, None, false);
    for field in Fields::of(model, node) {
        let field = field.ok()?;
        if let Some(at) = field.of_bytes(1) {
            input = Some(text(model, at)?);
        } else if let Some(at) = field.of_bytes(2) {
            output = Some(text(model, at)?);
        } else if let Some(at) = field.of_bytes(4) {
            is_cast = model.get(at)? == b"Cast";
        }
    }
    Some(input.zip(output).filter(|_| is_cast))
}

/// An initializer, if it is a matrix or a convolution's weights.
fn tensor(model: &[u8], at: Range<usize>) -> Option<Option<Tensor>> {
    let (mut dims, mut kind, mut name, mut raw) = (Vec::new(), 0, String::new(), None);
    let mut external: BTreeMap<String, String> = BTreeMap::new();
    for field in Fields::of(model, at) {
        let field = field.ok()?;
        match &field {
            Field { number: 1, value: Value::Number(n) } => dims.push(usize::try_from(*n).ok()?),
            Field { number: 1, value: Value::Bytes(packed) } => {
                let mut at = packed.clone();
                while !at.is_empty() {
                    dims.push(usize::try_from(varint(model, &mut at)?).ok()?);
                }
            }
            Field { number: 2, value: Value::Number(n) } => kind = *n,
            Field { number: 8, value: Value::Bytes(at) } => name = text(model, at.clone())?,
            Field { number: 9, value: Value::Bytes(at) } => raw = Some(at.clone()),
            Field { number: 13, value: Value::Bytes(at) } => {
                let (mut key, mut value) = (String::new(), String::new());
                for field in Fields::of(model, at.clone()) {
                    let field = field.ok()?;
                    match field.number {
                        1 => key = text(model, field.of_bytes(1)?)?,
                        2 => value = text(model, field.of_bytes(2)?)?,
                        _ => {}
                    }
                }
                external.insert(key, value);
            }
            _ => {}
        }
    }
    let (rows, columns) = match dims[..] {
        [rows, columns] => (rows, columns),
        // A convolution's: an output a row.
        [rows, inputs, height, width] => (rows, inputs.checked_mul(height)?.checked_mul(width)?),
        _ => return Some(None),
    };
    let half = kind == u64::from(FLOAT16);
    if kind != FLOAT && !half {
        return Some(None);
    }
    let length = rows.checked_mul(columns)?.checked_mul(if half { 2 } else { 4 })?;
    let at = match (external.get("location"), raw) {
        (Some(file), _) => {
            let offset = external.get("offset").map_or(Some(0), |o| o.parse::<usize>().ok())?;
            (file.clone(), offset..offset.checked_add(length)?)
        }
        (None, Some(raw)) if raw.len() == length => (GRAPH.to_owned(), raw),
        _ => return Some(None),
    };
    Some(Some(Tensor { name, shape: [rows, columns], at, by_column: true, half }))
}

fn text(bytes: &[u8], at: Range<usize>) -> Option<String> {
    std::str::from_utf8(bytes.get(at)?).ok().map(str::to_owned)
}

enum Value {
    Number(u64),
    Bytes(Range<usize>),
}

struct Field {
    number: u64,
    value: Value,
}

impl Field {
    fn of_bytes(&self, number: u64) -> Option<Range<usize>> {
        match &self.value {
            Value::Bytes(at) if self.number == number => Some(at.clone()),
            _ => None,
        }
    }

    fn of_number(&self, number: u64) -> Option<u64> {
        match self.value {
            Value::Number(n) if self.number == number => Some(n),
            _ => None,
        }
    }
}

/// The fields of one protobuf message, by their places.
struct Fields<'a> {
    bytes: &'a [u8],
    rest: Range<usize>,
}

impl<'a> Fields<'a> {
    fn of(bytes: &'a [u8], at: Range<usize>) -> Self {
        Self { bytes, rest: at }
    }

    fn field(&mut self) -> Option<Field> {
        let tag = varint(self.bytes, &mut self.rest)?;
        let mut take = |n: usize| {
            let start = self.rest.start;
            let end = start.checked_add(n).filter(|end| *end <= self.rest.end)?;
            self.rest.start = end;
            Some(start..end)
        };
        let value = match tag & 7 {
            1 => Value::Bytes(take(8)?),
            5 => Value::Bytes(take(4)?),
            0 => Value::Number(varint(self.bytes, &mut self.rest)?),
            2 => {
                let n = usize::try_from(varint(self.bytes, &mut self.rest)?).ok()?;
                let start = self.rest.start;
                let end = start.checked_add(n).filter(|end| *end <= self.rest.end)?;
                self.rest.start = end;
                Value::Bytes(start..end)
            }
            _ => return None,
        };
        Some(Field { number: tag >> 3, value })
    }
}

impl Iterator for Fields<'_> {
    /// An error for bytes that are no message; nothing comes after it.
    type Item = Result<Field, ()>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest.start = self.rest.end;
        }
        Some(field.ok_or(()))
    }
}

fn varint(bytes: &[u8], at: &mut Range<usize>) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(at.start).filter(|_| at.start < at.end)?;
        at.start += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_the_nearest_of_the_format() {
        // 1 + 2^-8 lies between the bfloat16s 1 and 1 + 2^-7: a tie, to even.
        assert_eq!(brain(1.0 + 2f32.powi(-8)), 1.0);
        assert_eq!(brain(1.0 + 3.0 * 2f32.powi(-8)), 1.0 + 2f32.powi(-6));
        assert_eq!(half(1.0 + 2f32.powi(-11)), 1.0);
        assert_eq!(half(1.0 + 3.0 * 2f32.powi(-11)), 1.0 + 2f32.powi(-9));
        assert_eq!(half(-0.1), -0.099_975_586);
        assert_eq!(half(2f32.powi(-24) * 1.4), 2f32.powi(-24));
        assert_eq!(half(1e9), 65_504.0);
    }

    #[test]
    fn eight_bits_err_by_half_a_step_of_each_output() {
        let tensor = Tensor {
            name: "w".into(),
            shape: [2, 2],
            at: (GRAPH.into(), 0..16),
            by_column: true,
            half: false,
        };
        let mut bytes: Vec<u8> =
            [1.27_f32, 100.0, 0.013, 50.3].iter().flat_map(|v| v.to_le_bytes()).collect();
        apply(Change::Int8, &mut bytes, &tensor);
        let back: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let near = |a: f32, b: f32| (a - b).abs() < 1e-4;
        assert!(near(back[0], 1.27) && near(back[2], 0.01), "{back:?}");
        assert!(near(back[1], 100.0) && near(back[3], 64.0 * 100.0 / 127.0), "{back:?}");
    }

    #[test]
    fn no_bytes_can_panic_the_reader() {
        let mut state = 1_u64;
        for len in 0..2_000 {
            let bytes: Vec<u8> = (0..len % 97)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // Many small numbers, so that lengths and tags are plausible.
                    let byte = (state >> 33) as u8;
                    if byte > 128 { byte % 64 } else { byte }
                })
                .collect();
            let _ = (matrices(&bytes), with_rounded_products(&bytes, BFLOAT16));
        }
    }
}
