//! Copies the shipped source, each mutant of `mutants.rs` patched into it behind a switch.

use std::path::Path;
use std::{env, fs, io};

struct Patch {
    mutant: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
}

/// The table as this reads it: see `mutants.rs`.
macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident breaks $promise:literal {
        $($file:literal: $from:literal => $to:literal,)+
    })*) => {
        const PATCHES: &[Patch] = &[$($(Patch {
            mutant: stringify!($name),
            file: $file,
            from: $from,
            to: $to,
        },)+)*];
    };
}
include!("mutants.rs");

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=mutants.rs");
    println!("cargo:rerun-if-changed=../src");
    let out = env::var("OUT_DIR").expect("cargo names the folder");
    let out = Path::new(&out).join("shipped");
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    let mut patched = 0;
    copy(Path::new("../src"), Path::new(""), &out, &mut patched)?;
    assert_eq!(
        patched,
        PATCHES.len(),
        "a mutant names a file that is not there"
    );
    Ok(())
}

fn copy(from: &Path, inside: &Path, out: &Path, patched: &mut usize) -> io::Result<()> {
    fs::create_dir_all(out.join(inside))?;
    for entry in fs::read_dir(from.join(inside))? {
        let inside = inside.join(entry?.file_name());
        if from.join(&inside).is_dir() {
            copy(from, &inside, out, patched)?;
            continue;
        }
        let mut text = fs::read_to_string(from.join(&inside))?;
        for patch in PATCHES {
            if Path::new(patch.file) == inside {
                text = patch.apply(&text);
                *patched += 1;
            }
        }
        // The unit tests stay with the crate itself, also where a linter builds all targets.
        text = text.replace("#[cfg(test)]", "#[cfg(any())]");
        let is_root = inside == Path::new("lib.rs");
        fs::write(out.join(inside), without_docs(&text, is_root))?;
    }
    Ok(())
}

/// Without what documents a module: a file that is included may have no inner attribute, and pages
/// are not copied.
fn without_docs(text: &str, is_root: bool) -> String {
    let is_inner = |line: &str| is_root && (line.starts_with("//!") || line.starts_with("#!["));
    let is_page = |line: &str| line.contains("doc = include_str!");
    let lines = text.lines();
    let kept = lines.filter(|line| !is_inner(line) && !is_page(line));
    kept.flat_map(|line| [line, "\n"]).collect()
}

impl Patch {
    fn apply(&self, text: &str) -> String {
        let Patch { mutant, file, .. } = self;
        let found = find(text, self.from);
        let [(start, end)] = found[..] else {
            panic!(
                "the shipped source has changed: adapt the mutant `{mutant}` in mutants.rs. In src/{file} \
                 this is to be found once, and stands there {} times:\n{}",
                found.len(),
                self.from
            );
        };
        let on = format!("crate::mutant::is(\"{mutant}\")");
        let to = self.to.replace("MUTANT", &on);
        [&text[..start], &to, &text[end..]].concat()
    }
}

/// Where `words` stand in `text`, however they are broken into lines.
fn find(text: &str, words: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let first = words.split_whitespace().next().expect("something to find");
    for (start, _) in text.match_indices(first) {
        let mut at = start;
        let mut words = words.split_whitespace().peekable();
        while let Some(word) = words.peek() {
            let rest = &text[at..];
            let gap = rest.len() - rest.trim_start().len();
            // Words that are apart in the table have to be apart in the source.
            if at > start && gap == 0 || !rest[gap..].starts_with(word) {
                break;
            }
            at += gap + word.len();
            words.next();
        }
        if words.peek().is_none() {
            found.push((start, at));
        }
    }
    found
}
