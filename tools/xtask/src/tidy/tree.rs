//! The files of the workspace in memory, for the rules to read.
//!
//! Paths are relative to the root and use `/`. Files that git ignores and
//! build output are not part of the tree.

use super::modules;
use super::source::Source;
use crate::workspace::{Package, Workspace};
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Where the sizes that may not grow are written down.
pub(super) const RATCHET: &str = "tools/xtask/ratchet.txt";

/// The workspace as text.
pub(super) struct Tree {
    pub(super) members: Vec<Member>,
    /// Every Rust file of the members; `tests/fuzz/` lies within one.
    pub(super) sources: BTreeMap<String, Source>,
    /// README, docs, manifests, the ratchet; of other files in docs the name.
    pub(super) texts: BTreeMap<String, String>,
    /// What lies in the root folder.
    pub(super) top: BTreeSet<String>,
}

/// A crate of the workspace.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) dir: String,
    pub(super) edges: Vec<Edge>,
    pub(super) roots: Vec<Root>,
}

/// A dependency of a crate.
pub(super) struct Edge {
    pub(super) name: String,
    /// The name that sources use, dashes still in it.
    pub(super) alias: String,
    pub(super) is_dev: bool,
    pub(super) in_workspace: bool,
}

/// A file that cargo compiles on its own, with all that it declares.
pub(super) struct Root {
    pub(super) path: String,
    /// A library, program or build script rather than a test or bench.
    pub(super) is_product: bool,
}

impl Member {
    pub(super) fn manifest(&self) -> String {
        format!("{}/Cargo.toml", self.dir)
    }

    /// Whether a path lies in this crate.
    pub(super) fn holds(&self, path: &str) -> bool {
        path.strip_prefix(&self.dir).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl Tree {
    /// Reads the tree from disk.
    pub(super) fn load(workspace: &Workspace) -> Result<Self> {
        let root = &workspace.root;
        let members: Vec<Member> =
            workspace.packages.iter().map(|p| member(root, p)).collect::<Result<_>>()?;
        let mut sources = BTreeMap::new();
        for dir in members.iter().map(|m| m.dir.as_str()) {
            for path in walk(root, dir)?.into_iter().filter(|path| path.ends_with(".rs")) {
                let text = read(root, &path)?;
                sources.insert(path, Source::new(text));
            }
        }
        let mut texts = BTreeMap::new();
        for path in members.iter().map(Member::manifest).chain(["Cargo.toml".to_owned()]) {
            texts.insert(path.clone(), read(root, &path)?);
        }
        for path in ["README.md", RATCHET] {
            if root.join(path).is_file() {
                texts.insert(path.to_owned(), read(root, path)?);
            }
        }
        for path in walk(root, "docs")? {
            let text = if path.ends_with(".md") { read(root, &path)? } else { String::new() };
            texts.insert(path, text);
        }
        let mut tree = Self { members, sources, texts, top: top_level(root)? };
        tree.mark_product();
        Ok(tree)
    }

    /// Finds out which files the libraries and programs reach outside tests.
    fn mark_product(&mut self) {
        let roots = self.roots(|root| root.is_product);
        for path in modules::reached(&self.sources, &roots, |source| &source.product) {
            if let Some(source) = self.sources.get_mut(&path) {
                source.is_product = true;
            }
        }
    }

    /// The paths of the roots that `wanted` accepts.
    pub(super) fn roots(&self, wanted: impl Fn(&Root) -> bool) -> Vec<String> {
        let roots = self.members.iter().flat_map(|member| &member.roots);
        roots.filter(|root| wanted(root)).map(|root| root.path.clone()).collect()
    }
}

fn member(root: &Path, package: &Package) -> Result<Member> {
    let dir = package.manifest_path.parent().context("a manifest lies in a folder")?;
    let edges = package.dependencies.iter().map(|dependency| Edge {
        name: dependency.name.clone(),
        alias: dependency.rename.clone().unwrap_or_else(|| dependency.name.clone()),
        is_dev: dependency.kind.as_deref() == Some("dev"),
        in_workspace: dependency.path.is_some(),
    });
    let roots = package.targets.iter().map(|target| {
        let outside = |kind: &String| ["test", "bench", "example"].contains(&kind.as_str());
        Ok(Root {
            path: relative(root, &target.src_path)?,
            is_product: !target.kind.iter().any(outside),
        })
    });
    Ok(Member {
        name: package.name.clone(),
        dir: relative(root, dir)?,
        edges: edges.collect(),
        roots: roots.collect::<Result<_>>()?,
    })
}

fn relative(root: &Path, path: &Path) -> Result<String> {
    let inside = path
        .strip_prefix(root)
        .with_context(|| format!("{} is outside the workspace", path.display()))?;
    let text = inside.to_str().with_context(|| format!("{} is no UTF-8", path.display()))?;
    Ok(text.to_owned())
}

fn read(root: &Path, path: &str) -> Result<String> {
    fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))
}

/// The files below a folder; none if it is not there. Follows no links and
/// leaves out hidden files and build output.
fn walk(root: &Path, dir: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        let Ok(entries) = fs::read_dir(root.join(&dir)) else { continue };
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {dir}"))?;
            let name = entry.file_name().into_string().unwrap_or_default();
            let kind = entry.file_type().with_context(|| format!("cannot stat {name}"))?;
            if name.is_empty() || name.starts_with('.') || name == "target" {
                continue;
            }
            let path = format!("{dir}/{name}");
            if kind.is_dir() {
                waiting.push(path);
            } else if kind.is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What lies in the root, as git sees it; without git, as the folder does.
fn top_level(root: &Path) -> Result<BTreeSet<String>> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output();
    if let Ok(output) = listed
        && output.status.success()
        && !output.stdout.is_empty()
    {
        let listed = String::from_utf8_lossy(&output.stdout);
        let first = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
        // A file deleted but not yet committed is listed all the same.
        let there = |name: &String| root.join(name).exists();
        return Ok(listed.split_terminator('\0').map(first).filter(there).collect());
    }
    let entries = fs::read_dir(root).context("cannot list the root")?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

#[cfg(test)]
impl Tree {
    /// A tree of these files. A folder with `src/lib.rs` or `src/main.rs` is
    /// the crate `warp-<folder>`, and each file right in its `tests/` a root.
    pub(super) fn sample(files: &[(&str, &str)]) -> Self {
        let mut members = Vec::new();
        let mut sources = BTreeMap::new();
        let mut texts = BTreeMap::new();
        for (path, text) in files {
            if !path.ends_with(".rs") {
                texts.insert((*path).to_owned(), (*text).to_owned());
                continue;
            }
            sources.insert((*path).to_owned(), Source::new((*text).to_owned()));
            let Some((dir, "lib.rs" | "main.rs")) = path.split_once("/src/") else { continue };
            let name = format!("warp-{}", dir.rsplit('/').next().unwrap());
            let mut roots = vec![Root { path: (*path).to_owned(), is_product: true }];
            let tests = files.iter().filter(|(file, _)| {
                file.strip_prefix(dir)
                    .and_then(|rest| rest.strip_prefix("/tests/"))
                    .is_some_and(|rest| rest.ends_with(".rs") && !rest.contains('/'))
            });
            roots.extend(tests.map(|(file, _)| Root { path: (*file).into(), is_product: false }));
            members.push(Member { name, dir: dir.to_owned(), edges: Vec::new(), roots });
        }
        let top = files.iter().map(|(path, _)| path.split('/').next().unwrap().to_owned());
        let mut tree = Self { members, sources, texts, top: top.collect() };
        tree.mark_product();
        tree
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reached_only_by_a_test_module_is_no_product() {
        let tree = Tree::sample(&[
            ("kernels/src/lib.rs", "mod a;\n#[cfg(test)]\nmod tests;\n"),
            ("kernels/src/a.rs", ""),
            ("kernels/src/tests.rs", ""),
            ("kernels/tests/prop.rs", ""),
        ]);
        let product: Vec<&str> =
            tree.sources.iter().filter(|(_, s)| s.is_product).map(|(p, _)| p.as_str()).collect();
        assert_eq!(product, ["kernels/src/a.rs", "kernels/src/lib.rs"]);
    }

    #[test]
    fn this_workspace_can_be_read_and_holds_this_file() {
        let tree = Tree::load(&Workspace::load().unwrap()).unwrap();
        assert!(tree.sources["tools/xtask/src/tidy/tree.rs"].is_product);
        assert!(tree.members.iter().any(|m| m.name == "xtask" && m.dir == "tools/xtask"));
        assert!(tree.top.contains("Cargo.toml"));
    }
}
