//! The layer table of `src/lib.rs` holds: a module uses those above it, never those below.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The modules in the order of the table.
fn layers(library: &str) -> Vec<String> {
    let rows = library
        .lines()
        .filter_map(|line| line.strip_prefix("//! | [`"));
    let names = rows
        .filter_map(|row| row.split_once("`]"))
        .map(|(name, _)| name.to_owned());
    names.collect()
}

/// Modules that may use nothing of the server, whatever the table has above them, and what they may
/// use.
const APART: [(&str, &[&str]); 3] = [
    (
        "client",
        &[
            "coin",
            "folder_lock",
            "hex",
            "plain_file",
            "protocol",
            "shown",
        ],
    ),
    (
        "load",
        &["coin", "hex", "plain_file", "protocol", "shown", "client"],
    ),
    (
        "network",
        &[
            "coin",
            "folder_lock",
            "plain_file",
            "protocol",
            "shown",
            "client",
        ],
    ),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = paths
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    found.sort();
    found
}

/// The modules of this crate that a source names after `crate::`, with the line: one by one or in
/// braces.
fn used(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let code: String = source
        .lines()
        .map(|line| line.split("//").next().unwrap_or("").to_owned() + "\n")
        .collect();
    for (at, _) in code.match_indices("crate::") {
        let line = code[..at].lines().count().max(1);
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.push((line, name(rest))),
            Some(list) => found.extend(top_level(list).into_iter().map(|name| (line, name))),
        }
    }
    found
}

fn name(text: &str) -> String {
    let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    text.trim_start().chars().take_while(is_name).collect()
}

/// The first names in a list in braces, inner braces aside.
fn top_level(list: &str) -> Vec<String> {
    let mut depth = 1;
    let mut items = vec![String::new()];
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => items.push(String::new()),
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && c != ',' {
            items.last_mut().unwrap().push(c);
        }
    }
    items
        .iter()
        .map(|item| name(item))
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn no_module_uses_one_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let layers = layers(&fs::read_to_string(root.join("lib.rs")).unwrap());
    let rank: BTreeMap<&str, usize> = layers
        .iter()
        .enumerate()
        .map(|(rank, name)| (name.as_str(), rank))
        .collect();
    assert!(
        rank.len() > 8,
        "the table of src/lib.rs was not found: {rank:?}"
    );
    let mut wrong = Vec::new();
    let mut looked_at = 0;
    for folder in fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if !folder.is_dir() {
            continue;
        }
        let module = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(&own) = rank.get(module.as_str()) else {
            wrong.push(format!("src/{module} is not in the table of src/lib.rs"));
            continue;
        };
        let apart = APART.iter().find(|(name, _)| *name == module);
        for path in sources(&folder) {
            let source = fs::read_to_string(&path).unwrap();
            for (line, user) in used(&source) {
                let Some(&other) = rank.get(user.as_str()) else {
                    continue;
                };
                looked_at += 1;
                let allowed = match apart {
                    _ if user == module => true,
                    Some((_, allowed)) => allowed.contains(&user.as_str()),
                    None => other < own,
                };
                if !allowed {
                    let path = path.strip_prefix(&root).unwrap().display();
                    wrong.push(format!("src/{path}:{line} ({module}) uses {user}"));
                }
            }
        }
    }
    assert!(
        looked_at > 50,
        "only {looked_at} uses were found: the search is broken"
    );
    assert!(wrong.is_empty(), "layers broken:\n{}", wrong.join("\n"));
}

/// What knows the executor; beside it a whole node and tests do.
const EXECUTOR: [&str; 2] = ["runtime", "node"];

#[test]
fn one_room_knows_the_executor() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut known = 0;
    for path in sources(&root) {
        let source = fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(&root).unwrap();
        let module = path.components().next().unwrap().as_os_str();
        let (code, _tests) = source
            .split_once("#[cfg(test)]\nmod tests")
            .unwrap_or((&source, ""));
        let names = |line: &&str| line.split("//").next().unwrap().contains("glommio");
        let lines = code.lines().filter(names).count();
        match EXECUTOR.iter().any(|room| module == *room) {
            true => known += lines,
            false if lines > 0 => wrong.push(path.display().to_string()),
            false => {}
        }
    }
    assert!(
        known > 10,
        "only {known} lines name glommio: the search is broken"
    );
    assert!(wrong.is_empty(), "these name glommio: {wrong:?}");
}

#[test]
fn the_search_finds_what_is_used() {
    let source = "use crate::{\n    net::{self, Stop},\n    store::Disk,\n};\n// crate::cli\nlet x = crate::coin::An::ZERO;";
    let names: Vec<String> = used(source).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["net", "store", "coin"]);
}
