//! The shape of the house, read from its source: imports go one way, `unsafe` and `libc` stand in
//! `sys` alone, what loom checks can stand without the rest, and no file is longer than a sitting.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// From the top down; a module may name those of its own level and of the levels below. One level
/// holds what cannot be told apart: what the user writes and what is kept for it refer to one
/// another.
const LEVELS: [&[&str]; 7] = [
    &["lib"],
    &[
        "system",
        "binding",
        "listener",
        "broadcaster",
        "pool",
        "reconnect",
        "tick",
        "supervise",
        "signals",
        "listen_from",
        "activation",
        "handover",
        "testing",
        "protocol",
        "websocket",
        "http",
    ],
    &["poller", "acceptor"],
    &[
        "hosts",
        "inbox",
        "context",
        "call",
        "actor",
        "addr",
        "ask",
        "handle",
        "origin",
        "command",
        "registry",
        "group",
        "offload",
        "adopt",
        "entrance",
        "local",
        "datagram",
        "gone",
        "directory",
        "connect",
    ],
    &[
        "mailbox",
        "waker",
        "presence",
        "oneshot",
        "timers",
        "output",
        "outbox",
        "input",
        "frames",
        "flags",
        "watch",
        "workers",
        "limits",
        "proxy_protocol",
        "tls",
    ],
    &["sync"],
    &["sys"],
];

/// Longer than that is not read in one sitting.
const LINES_MAX: usize = 700;

/// How far above an `unsafe` its reason may stand: a call of several lines is one statement.
const SAFETY_ABOVE: usize = 6;

struct Source {
    path: PathBuf,
    /// The module below the root that the file belongs to.
    module: String,
    text: String,
    /// The text without comments and without what is in quotes; the same lines.
    code: String,
}

impl Source {
    fn is_in_sys(&self) -> bool {
        self.module == "sys"
    }

    /// Whether the file is its module, so that `super` is the root.
    fn is_module(&self) -> bool {
        self.path.parent() == Some(&root("src"))
    }

    /// The code without the tests behind it.
    fn shipped(&self) -> &str {
        self.code.split("#[cfg(test)]\nmod tests").next().unwrap()
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.code.lines())
    }
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let inside = path.strip_prefix(root("src")).unwrap();
            let first = inside.iter().next().unwrap().to_str().unwrap();
            found.push(Source {
                module: first.trim_end_matches(".rs").to_owned(),
                code: strip(&text),
                path,
                text,
            });
        }
    }
    assert!(found.len() > 30, "the source was not found");
    found
}

/// Blanks comments and the insides of strings and characters.
fn strip(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let raw = rest.trim_start_matches('r');
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").unwrap() + 2
        } else if rest.starts_with('r') && !after_word && raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = 2 + hashes;
            start + rest[start..].find(&end).unwrap() + end.len()
        } else if rest.starts_with('"') {
            quoted(rest, b'"')
        } else if rest.starts_with("'\\")
            || rest.starts_with('\'') && rest.chars().nth(2) == Some('\'')
        {
            quoted(rest, b'\'')
        } else {
            let len = rest.chars().next().unwrap().len_utf8();
            code.push_str(&rest[..len]);
            at += len;
            continue;
        };
        code.extend(
            rest[..len]
                .chars()
                .map(|c| if c == '\n' { '\n' } else { ' ' }),
        );
        at += len;
    }
    code
}

/// The length of a literal, quotes included.
fn quoted(text: &str, quote: u8) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        if !escaped && byte == quote {
            return at + 1;
        }
        escaped = !escaped && byte == b'\\';
    }
    panic!("a literal has no end: {}", &text[..40.min(text.len())]);
}

/// Where `word` stands by itself.
fn word<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| {
            !code[..*at].ends_with(is_part) && !code[at + word.len()..].starts_with(is_part)
        })
}

/// The names that follow `path::`: one, or those directly inside braces.
fn names_after<'a>(code: &'a str, path: &'a str) -> impl Iterator<Item = String> + 'a {
    word(code, path).flat_map(move |at| {
        let rest = code[at + path.len()..].strip_prefix("::").unwrap_or("");
        let list = match rest.strip_prefix('{') {
            Some(list) => list,
            None => rest
                .split_inclusive(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap_or(""),
        };
        let mut names = Vec::new();
        let (mut depth, mut name) = (0, String::new());
        for c in list.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => names.push(std::mem::take(&mut name)),
                _ if depth == 0 => name.push(c),
                _ => {}
            }
        }
        names.push(name);
        names.into_iter().filter_map(|name| {
            let name = name
                .trim()
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()?
                .to_owned();
            (!name.is_empty()).then_some(name)
        })
    })
}

fn level_of(module: &str) -> Option<usize> {
    LEVELS.iter().position(|level| level.contains(&module))
}

/// Fails with all that was found, so that it is mended in one go.
#[track_caller]
fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn imports_go_down() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(level) = level_of(&source.module) else {
            wrong.push(format!(
                "{}: has no level in this test",
                source.path.display()
            ));
            continue;
        };
        let mut named: Vec<String> = names_after(&source.code, "crate").collect();
        if source.is_module() {
            named.extend(names_after(source.shipped(), "super"));
        }
        for name in named {
            match level_of(&name) {
                Some(at) if at >= level => {}
                Some(_) => wrong.push(format!(
                    "{} names `{name}`, which is above it",
                    source.path.display()
                )),
                None => wrong.push(format!(
                    "{} names `{name}` through lib.rs, not by its module",
                    source.path.display()
                )),
            }
        }
    }
    none("imports that do not go down", wrong);
}

#[test]
fn every_module_of_lib_has_a_level() {
    let lib = fs::read_to_string(root("src/lib.rs")).unwrap();
    let mut last = 0;
    for line in lib.lines() {
        let declared = line
            .strip_prefix("mod ")
            .or_else(|| line.strip_prefix("pub mod "));
        let Some(module) = declared.and_then(|rest| rest.strip_suffix(';')) else {
            continue;
        };
        let level = level_of(module)
            .unwrap_or_else(|| panic!("lib.rs: `{module}` has no level in this test"));
        assert!(level > 0, "lib.rs: `{module}` cannot be the root");
        last = last.max(level);
    }
    assert_eq!(last, LEVELS.len() - 1, "lib.rs does not declare sys");
}

#[test]
fn unsafe_and_libc_stand_in_sys_alone() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !source.is_in_sys()) {
        for (number, line) in source.lines() {
            if ["unsafe", "libc"]
                .iter()
                .any(|name| word(line, name).next().is_some())
            {
                wrong.push(format!(
                    "{}:{number}: {}",
                    source.path.display(),
                    line.trim()
                ));
            }
        }
    }
    none("outside of sys", wrong);
    let lib = strip(&fs::read_to_string(root("src/lib.rs")).unwrap());
    assert!(lib.contains("#![deny(unsafe_code)]"));
}

#[test]
fn every_unsafe_says_why_it_is_sound() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for source in sources() {
        let text: Vec<&str> = source.text.lines().collect();
        for (number, line) in source.lines() {
            if word(line, "unsafe").next().is_none() {
                continue;
            }
            count += 1;
            let above = &text[number.saturating_sub(1 + SAFETY_ABOVE)..number];
            if !above
                .iter()
                .any(|line| line.contains("// SAFETY:") || line.contains("# Safety"))
            {
                wrong.push(format!(
                    "{}:{number}: {}",
                    source.path.display(),
                    line.trim()
                ));
            }
        }
    }
    none("unsafe without a `// SAFETY:` above it", wrong);
    assert!(count > 10, "the unsafe blocks were not found");
}

#[test]
fn what_loom_checks_stands_on_sync_alone() {
    let shipped = fs::read_to_string(root("loom-tests/src/shipped/mod.rs"))
        .or_else(|_| fs::read_to_string(root("loom-tests/src/shipped.rs")))
        .unwrap();
    let included: Vec<&str> = shipped
        .lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("#[path = \"")?
                .split("src/")
                .nth(1)?
                .strip_suffix("\"]")
        })
        .collect();
    assert!(
        included.contains(&"mailbox.rs") && included.contains(&"waker.rs"),
        "{included:?}"
    );
    assert!(included.contains(&"sys/word_lock.rs"), "{included:?}");
    let mut wrong = Vec::new();
    for name in included {
        let source = strip(&fs::read_to_string(root("src").join(name)).unwrap());
        let code = source.split("#[cfg(test)]\nmod tests").next().unwrap();
        if word(code, "crate").any(|at| code[at..].starts_with("crate::")) {
            wrong.push(format!(
                "{name} names `crate::`, which is another crate under loom"
            ));
        }
        for line in code.lines().map(str::trim) {
            let line = line.strip_prefix("pub ").unwrap_or(line);
            let Some(path) = line.strip_prefix("use ") else {
                continue;
            };
            if !["super::sync", "super::waker", "super::primitives", "std::"]
                .iter()
                .any(|allowed| path.starts_with(allowed))
            {
                wrong.push(format!("{name}: {line}"));
            }
            let concurrent = [
                "std::sync::atomic",
                "std::sync::Mutex",
                "std::sync::Arc",
                "std::thread",
            ];
            if concurrent.iter().any(|hidden| path.starts_with(hidden)) {
                wrong.push(format!("{name}: {line}: loom does not see it"));
            }
        }
    }
    none("imports that the models do not replace", wrong);
}

#[test]
fn no_file_is_longer_than_a_sitting() {
    let lengths: BTreeMap<_, _> = sources()
        .into_iter()
        .map(|s| (s.path, s.text.lines().count()))
        .collect();
    let long = lengths.iter().filter(|(_, lines)| **lines > LINES_MAX);
    none(
        &format!("longer than {LINES_MAX} lines"),
        long.map(|(path, lines)| format!("{}: {lines}", path.display()))
            .collect(),
    );
}

#[test]
fn the_echo_program_of_the_readme_is_the_one_that_is_compiled() {
    let Ok(readme) = fs::read_to_string(root("README.md")) else {
        println!("skipped: there is no README.md yet");
        return;
    };
    let printed = block(&readme, "```rust", "").expect("README.md has a program in Rust");
    let compiled = sources()
        .iter()
        .filter_map(|source| block(&source.text, "/// ```no_run", "///"))
        .find(|example| example.contains("fn main"))
        .expect("the documentation has a whole program");
    assert_eq!(printed, compiled);
}

#[test]
fn the_test_of_the_readme_is_one_that_is_run() {
    let readme = fs::read_to_string(root("README.md")).unwrap();
    let (_, section) = readme.split_once("## Testing your server").unwrap();
    let printed = block(section, "```rust", "").expect("it has a test in Rust");
    let run = fs::read_to_string(root("tests/simulation.rs")).unwrap();
    let run = run.replace("\n    ", "\n");
    let (_, printed) = printed.split_once("\n\n").expect("a use and a call");
    assert!(run.contains(printed), "{printed}");
}

/// The first block of code behind the line `fence`, without `margin`.
fn block(text: &str, fence: &str, margin: &str) -> Option<String> {
    let mut lines = text.lines().skip_while(|line| line.trim() != fence);
    lines.next()?;
    let lines = lines.map(|line| {
        let line = line.strip_prefix(margin).unwrap_or(line);
        if margin.is_empty() {
            line
        } else {
            line.strip_prefix(' ').unwrap_or(line)
        }
    });
    let inside: Vec<&str> = lines.take_while(|line| *line != "```").collect();
    Some(inside.join("\n"))
}

#[test]
fn the_reader_of_this_test_reads_rust() {
    assert_eq!(strip("a // unsafe\nb"), "a          \nb");
    assert_eq!(
        strip("f(\"un\\\"safe\") + '\"' + 'a'; &'a x"),
        "f(          ) +     +    ; &'a x"
    );
    assert_eq!(strip("r#\"libc\"# x"), format!("{:9} x", ""));
    assert_eq!(
        word("unsafe_code unsafe {", "unsafe").collect::<Vec<_>>(),
        [12]
    );
    let names = |code| names_after(code, "crate").collect::<Vec<_>>();
    assert_eq!(
        names("use crate::a::B; pub(crate) fn f() { crate::c() }"),
        ["a", "c"]
    );
    assert_eq!(names("use crate::{a::{B, C}, d, E};"), ["a", "d", "E"]);
}
