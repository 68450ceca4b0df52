//! The reference of the contract, from the contract: `docs/wit-reference.md` is made from `wit/` and never by hand.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use wit_parser::{Docs, Function, Handle, Resolve, Type, TypeDefKind, TypeId, TypeOwner};

/// Versions, the oldest first.
const VERSIONS: [&str; 2] = ["0.1", "0.2"];
const PAGE: &str = "docs/wit-reference.md";

const HEAD: &str = "# WIT reference\n\n\
    <!-- Made from wit/ by `cargo xtask book`: change the contract's own comments instead. -->\n\n\
    What crosses the boundary between host and plugin, version by version. A version never changes once it is released: a \
    change is a new version beside it, and the host serves both. Authors of Rust use the SDK, which hides most of this.\n";

/// Writes the page if it is not what the contract says.
pub(crate) fn ensure(repo: &Path) -> Result<()> {
    let mut page = HEAD.to_owned();
    let mut names: Vec<Vec<String>> = Vec::new();
    for version in VERSIONS {
        let (text, known) = reference(&repo.join("wit").join(version), version)?;
        if let Some(before) = names.last() {
            let new: Vec<&str> = known.iter().filter(|n| !before.contains(n)).map(String::as_str).collect();
            let gone: Vec<&str> = before.iter().filter(|n| !known.contains(n)).map(String::as_str).collect();
            let _ = writeln!(page, "\n# {version}\n");
            let _ = writeln!(page, "New: {}. Gone: {}.", list(&new), list(&gone));
        } else {
            let _ = writeln!(page, "\n# {version}");
        }
        page += &text;
        names.push(known);
    }
    let place = repo.join(PAGE);
    let there = std::fs::read_to_string(&place).unwrap_or_default();
    if there == page {
        return Ok(());
    }
    std::fs::write(&place, page).with_context(|| format!("{PAGE} cannot be written"))
}

fn list(names: &[&str]) -> String {
    if names.is_empty() {
        return "nothing".into();
    }
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

fn reference(folder: &Path, version: &str) -> Result<(String, Vec<String>)> {
    let mut resolve = Resolve::default();
    let pushed = resolve.push_dir(folder).with_context(|| format!("wit/{version} cannot be read"))?;
    let package = resolve.packages.get(pushed.0).context("no package")?;
    let (mut out, mut known) = (String::new(), Vec::new());
    let _ = writeln!(out, "\nPackage `{}`.", package.name);
    say(&mut out, &package.docs);
    for (name, world) in &package.worlds {
        let world = resolve.worlds.get(*world).context("no world")?;
        let key = |keys: Vec<String>| keys.join(", ");
        let names = |items: &mut dyn Iterator<Item = &wit_parser::WorldKey>| {
            key(items.map(|k| format!("`{}`", short(&resolve.name_world_key(k)))).collect())
        };
        let (imports, exports) = (names(&mut world.imports.keys()), names(&mut world.exports.keys()));
        let _ = writeln!(
            out,
            "\nA plugin is the world `{name}`: it exports {exports}, and may import {imports}."
        );
    }
    for (name, interface) in &package.interfaces {
        let interface = resolve.interfaces.get(*interface).context("no interface")?;
        let _ = writeln!(out, "\n## {name} ({version})");
        say(&mut out, &interface.docs);
        for (name, function) in &interface.functions {
            known.push(name.clone());
            let _ = writeln!(out, "\n### `{name}`\n\n```wit\n{}\n```", signature(&resolve, function));
            say(&mut out, &function.docs);
        }
        for (name, id) in &interface.types {
            let Some(text) = definition(&resolve, name, *id) else { continue };
            known.push(name.clone());
            let _ = writeln!(out, "\n### `{name}`\n\n```wit\n{text}\n```");
            if let Some(t) = resolve.types.get(*id) {
                say(&mut out, &t.docs);
            }
        }
    }
    Ok((out, known))
}

fn short(key: &str) -> String {
    key.rsplit('/').next().unwrap_or(key).split('@').next().unwrap_or(key).to_owned()
}

fn say(out: &mut String, docs: &Docs) {
    if let Some(text) = docs.contents.as_deref().map(str::trim).filter(|t| !t.is_empty()) {
        let _ = writeln!(out, "\n{text}");
    }
}

fn signature(resolve: &Resolve, f: &Function) -> String {
    let params: Vec<String> =
        f.params.iter().map(|p| format!("{}: {}", p.name, ty(resolve, &p.ty))).collect();
    let result = f.result.as_ref().map(|r| format!(" -> {}", ty(resolve, r))).unwrap_or_default();
    format!("{}: func({}){result};", f.name, params.join(", "))
}

/// `None` for a name that is only another interface's.
fn definition(resolve: &Resolve, name: &str, id: TypeId) -> Option<String> {
    let t = resolve.types.get(id)?;
    let line = |docs: &Docs, text: String| {
        let docs = docs.contents.as_deref().map(str::trim).unwrap_or_default();
        let docs: String = docs.lines().map(|l| format!("  /// {l}\n")).collect();
        format!("{docs}  {text},\n")
    };
    Some(match &t.kind {
        TypeDefKind::Record(r) => {
            let fields: String = r
                .fields
                .iter()
                .map(|f| line(&f.docs, format!("{}: {}", f.name, ty(resolve, &f.ty))))
                .collect();
            format!("record {name} {{\n{fields}}}")
        }
        TypeDefKind::Variant(v) => {
            let case = |c: &wit_parser::Case| match &c.ty {
                Some(of) => line(&c.docs, format!("{}({})", c.name, ty(resolve, of))),
                None => line(&c.docs, c.name.clone()),
            };
            format!("variant {name} {{\n{}}}", v.cases.iter().map(case).collect::<String>())
        }
        TypeDefKind::Enum(e) => {
            format!(
                "enum {name} {{\n{}}}",
                e.cases.iter().map(|c| line(&c.docs, c.name.clone())).collect::<String>()
            )
        }
        TypeDefKind::Type(Type::Id(other))
            if resolve.types.get(*other).is_some_and(|o| o.name.as_deref() == Some(name)) =>
        {
            return None;
        }
        TypeDefKind::Type(of) => format!("type {name} = {};", ty(resolve, of)),
        _ => format!("type {name} = {};", anonymous(resolve, id)),
    })
}

fn ty(resolve: &Resolve, t: &Type) -> String {
    match t {
        Type::Bool => "bool".into(),
        Type::U8 => "u8".into(),
        Type::U16 => "u16".into(),
        Type::U32 => "u32".into(),
        Type::U64 => "u64".into(),
        Type::S8 => "s8".into(),
        Type::S16 => "s16".into(),
        Type::S32 => "s32".into(),
        Type::S64 => "s64".into(),
        Type::F32 => "f32".into(),
        Type::F64 => "f64".into(),
        Type::Char => "char".into(),
        Type::String => "string".into(),
        Type::ErrorContext => "error-context".into(),
        Type::Id(id) => {
            match resolve.types.get(*id).and_then(|t| t.name.clone().filter(|_| t.owner != TypeOwner::None)) {
                Some(name) => name,
                None => anonymous(resolve, *id),
            }
        }
    }
}

fn anonymous(resolve: &Resolve, id: TypeId) -> String {
    let Some(t) = resolve.types.get(id) else { return "?".into() };
    match &t.kind {
        TypeDefKind::List(of) => format!("list<{}>", ty(resolve, of)),
        TypeDefKind::Option(of) => format!("option<{}>", ty(resolve, of)),
        TypeDefKind::Tuple(of) => {
            format!("tuple<{}>", of.types.iter().map(|t| ty(resolve, t)).collect::<Vec<_>>().join(", "))
        }
        TypeDefKind::Result(r) => {
            let side = |t: &Option<Type>| t.as_ref().map_or("_".to_owned(), |t| ty(resolve, t));
            format!("result<{}, {}>", side(&r.ok), side(&r.err))
        }
        TypeDefKind::Handle(Handle::Own(of) | Handle::Borrow(of)) => ty(resolve, &Type::Id(*of)),
        TypeDefKind::Type(of) => ty(resolve, of),
        _ => t.name.clone().unwrap_or_else(|| "?".into()),
    }
}
