//! Links between the pages of `docs/`: mdbook does not look whether they lead anywhere.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The targets of inline links in a page, without those in code and those that leave the repository.
fn links(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if fenced {
            continue;
        }
        // Every second part of a line cut at backquotes is code.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        for rest in prose.split("](").skip(1) {
            let Some((target, _)) = rest.split_once(')') else { continue };
            let target = target.split('#').next().unwrap_or_default().trim();
            if !(target.is_empty() || target.contains("://") || target.starts_with("mailto:")) {
                found.push(target.to_owned());
            }
        }
    }
    found
}

/// Pages below a folder.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            pages(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    Ok(())
}

/// Links that lead nowhere, and pages that the summary does not name, as words for people.
pub(crate) fn broken(docs: &Path) -> Result<Vec<String>> {
    let mut all = Vec::new();
    pages(docs, &mut all)?;
    all.sort();
    let summary = docs.join("SUMMARY.md");
    let mut named = Vec::new();
    let mut broken = Vec::new();
    for page in &all {
        let text = fs::read_to_string(page).with_context(|| format!("{} cannot be read", page.display()))?;
        let name = page.strip_prefix(docs).unwrap_or(page).display();
        for link in links(&text) {
            let target = page.parent().unwrap_or(docs).join(&link);
            if !target.exists() {
                broken.push(format!("{name} → {link}"));
            } else if *page == summary {
                named.push(target);
            }
        }
    }
    for page in all.iter().filter(|page| **page != summary && !named.contains(page)) {
        broken
            .push(format!("SUMMARY.md does not name {}", page.strip_prefix(docs).unwrap_or(page).display()));
    }
    Ok(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_but_not_in_code_and_not_those_that_leave() {
        let page = "[a](one.md) and [b](two/three.md#part), [c](#here) [d](https://example.org/x)\n\
                    `[e](code.md)` then [f](four.md)\n```\n[g](fence.md)\n```\n[h](five.md)";
        assert_eq!(links(page), ["one.md", "two/three.md", "four.md", "five.md"]);
    }

    #[test]
    fn a_link_to_nothing_and_a_page_nobody_names_are_reported() {
        let folder = tempfile::tempdir().unwrap();
        let docs = folder.path();
        fs::create_dir(docs.join("adr")).unwrap();
        fs::write(docs.join("SUMMARY.md"), "- [One](one.md)\n- [ADR](adr/1.md)").unwrap();
        fs::write(docs.join("one.md"), "see [the decision](adr/1.md) and [nothing](none.md)").unwrap();
        fs::write(docs.join("adr/1.md"), "back to [one](../one.md)").unwrap();
        fs::write(docs.join("lost.md"), "").unwrap();
        assert_eq!(broken(docs).unwrap(), ["one.md → none.md", "SUMMARY.md does not name lost.md"]);
    }
}
