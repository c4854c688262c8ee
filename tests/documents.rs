//! What code and documents cite is there: files, headings, links. The README is short.

use std::{collections::BTreeSet, fs, path::Path};

const README_LINES_MAX: usize = 150;

/// Folders whose files may cite a document.
const FOLDERS: [&str; 7] = ["src", "tests", "benches", "perf", "config", "docs", ".ci"];
/// Files at the top that may.
const FILES: [&str; 4] = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Cargo.toml"];
/// Measurements that a program wrote.
const WRITTEN_BY_PROGRAMS: &str = "perf/results/";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text of the repository, with its path from the top.
fn texts() -> Vec<(String, String)> {
    fn collect(folder: &str, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                collect(&name, found);
            } else if !name.starts_with(WRITTEN_BY_PROGRAMS)
                && let Ok(text) = fs::read_to_string(entry.path())
            {
                found.push((name, text));
            }
        }
    }
    let mut found = Vec::new();
    for folder in FOLDERS {
        collect(folder, &mut found);
    }
    for file in FILES {
        let text = fs::read_to_string(root().join(file)).unwrap();
        found.push((file.to_owned(), text));
    }
    assert!(found.len() > 300, "{} texts", found.len());
    found
}

/// A text on one line, without the marks of comments that it runs through.
fn unwrapped(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = line.trim_start();
        ["///", "//!", "//", "#"]
            .iter()
            .find_map(|mark| line.strip_prefix(mark))
            .unwrap_or(line)
            .trim()
    });
    lines.collect::<Vec<_>>().join(" ")
}

fn headings(document: &str) -> BTreeSet<String> {
    let mut is_code = false;
    let lines = document.lines().filter(|line| {
        is_code ^= line.starts_with("```");
        !is_code && line.starts_with('#')
    });
    lines
        .map(|line| line.trim_start_matches('#').trim().to_owned())
        .collect()
}

/// What a citation says behind the document's name: a heading in quotes, or the number of a
/// section.
fn cited(behind: &str) -> Vec<String> {
    let quoted = |text: &str| {
        let (heading, rest) = text.strip_prefix('"')?.split_once('"')?;
        Some((heading.to_owned(), rest.to_owned()))
    };
    let behind = behind.trim_start_matches('`');
    if let Some(first) = behind.strip_prefix(", ").and_then(quoted) {
        let mut found = vec![first.0];
        let mut rest = first.1;
        while let Some(next) = rest.strip_prefix(" and ").and_then(quoted) {
            found.push(next.0);
            rest = next.1;
        }
        return found;
    }
    let Some(numbers) = behind
        .strip_prefix(" sections ")
        .or(behind.strip_prefix(" section "))
    else {
        return vec![];
    };
    let end = numbers.find(|c: char| !(c.is_ascii_digit() || ", andto".contains(c)));
    numbers[..end.unwrap_or(numbers.len())]
        .split(|c: char| !c.is_ascii_digit())
        .filter(|number| !number.is_empty())
        .map(|number| format!("{number}."))
        .collect()
}

/// Phrases that make a reader go back, and what stands for them: a name, "again", a number.
const RIDDLES: [&str; 7] = [
    "whoever",
    " anew",
    "so many",
    "be had",
    "of which",
    "in vain",
    "goes without saying",
];
const COMMENT_COLUMNS_MAX: usize = 100;

/// The comment in a line of source, where there is one.
fn comment(line: &str) -> Option<&str> {
    let start = line.trim_start();
    if start.starts_with("//") {
        return Some(start);
    }
    line.rsplit_once(" // ").map(|(_, comment)| comment)
}

#[test]
fn prose_is_in_plain_words_and_comments_fit_the_page() {
    let (mut comments, mut wrong) = (0, Vec::new());
    for (name, text) in texts() {
        let is_source = name.ends_with(".rs");
        if !is_source && !name.ends_with(".md") {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            let prose = match is_source {
                true => comment(line),
                // What is indented is a transcript.
                false => (!line.starts_with("    ")).then_some(line),
            };
            let Some(prose) = prose else { continue };
            comments += usize::from(is_source);
            // A row of a table is one line, and a link has no place to break.
            let is_whole = line.contains("| ") || line.contains("](");
            let is_long = line.trim_start().starts_with("//") && !is_whole;
            if is_source && is_long && line.chars().count() > COMMENT_COLUMNS_MAX {
                wrong.push(format!("{name}:{number} is too long"));
            }
            let lower = prose.to_lowercase();
            for riddle in RIDDLES.iter().filter(|riddle| lower.contains(**riddle)) {
                wrong.push(format!("{name}:{number} says \"{}\"", riddle.trim()));
            }
        }
    }
    assert!(comments > 5_000, "only {comments} comments were found");
    assert!(
        wrong.is_empty(),
        "{} places:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_citation_names_a_document_and_a_heading_that_are_there() {
    let mut count = 0;
    for (name, text) in texts() {
        if name == "tests/documents.rs" {
            continue;
        }
        let text = unwrapped(&text);
        for (place, _) in text.match_indices("docs/") {
            let rest = &text[place..];
            let Some(end) = rest.find(".md") else {
                continue;
            };
            let path = &rest[..end + 3];
            let is_name = |c: char| c.is_ascii_lowercase() || c == '-';
            if !path["docs/".len()..end].chars().all(is_name) {
                continue;
            }
            let document = fs::read_to_string(root().join(path));
            let document = document.unwrap_or_else(|error| panic!("{name}: {path}: {error}"));
            let headings = headings(&document);
            for heading in cited(&rest[end + 3..]) {
                let is_there = |there: &String| match heading.ends_with('.') {
                    true => there.starts_with(&heading),
                    false => *there == heading,
                };
                assert!(
                    headings.iter().any(is_there),
                    "{name}: {path} has no heading {heading:?}"
                );
            }
            count += 1;
        }
    }
    assert!(count > 100, "{count} citations");
}

#[test]
fn every_link_of_a_document_leads_somewhere() {
    let mut count = 0;
    for (name, text) in texts() {
        if !name.ends_with(".md") {
            continue;
        }
        let folder = root().join(&name);
        let folder = folder.parent().unwrap();
        for (place, _) in text.match_indices("](") {
            let rest = &text[place + 2..];
            let link = &rest[..rest.find(')').expect("the end of a link")];
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            if path.starts_with("http") {
                continue;
            }
            assert!(folder.join(path).exists(), "{name}: {link}");
            assert_eq!(fragment, "", "{name}: cite headings by their names: {link}");
            count += 1;
        }
    }
    assert!(count > 10, "{count} links");
}

#[test]
fn every_file_that_a_document_names_is_there() {
    let mut count = 0;
    for (name, text) in texts() {
        if !name.ends_with(".md") || name.starts_with("perf/") || name == "CHANGELOG.md" {
            continue;
        }
        for quoted in text.split('`').skip(1).step_by(2) {
            let folder = quoted.split('/').next().unwrap();
            let is_path = quoted.contains('/')
                && ["src", "tests", "perf", "benches", "docs"].contains(&folder)
                && !quoted.contains(|c: char| c.is_whitespace() || "{*<".contains(c));
            if is_path && !quoted.contains("GROUP") {
                assert!(root().join(quoted).exists(), "{name}: {quoted}");
                count += 1;
            }
        }
    }
    assert!(count > 60, "{count} files");
}

#[test]
fn a_page_of_the_readme_is_one_screen_for_each_idea() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let lines = readme.lines().count();
    assert!(lines <= README_LINES_MAX, "{lines} lines");
    let set_up = readme.split("## ").find(|part| part.starts_with("Set up"));
    let commands: Vec<&str> = (set_up.unwrap().lines())
        .filter_map(|line| line.strip_prefix("    "))
        .collect();
    assert_eq!(commands, ["cargo run --release -- serve", "cargo test"]);
}

#[test]
fn no_text_cites_a_page_that_is_not_in_the_repository() {
    for (name, text) in texts() {
        for page in [
            "PROTOCOL",
            "DESIGN",
            "CLUSTER",
            "STYLE",
            "OPERATING",
            "PLANNER",
        ] {
            assert!(
                !text.contains(&format!("{page}.md")),
                "{name} cites {page}.md"
            );
        }
    }
}
