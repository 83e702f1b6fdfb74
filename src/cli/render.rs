//! JSON as text for people: what `inspect` shows without `--json`.
//!
//! Objects become lines of `name: value`, a list of objects a table. Numbers whose name ends in
//! `bytes` are shown as sizes, those ending in `micros` as points in time or durations where their
//! name says so.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};

use pg2any_lib::config::human_size;
use serde_json::{Map, Value};

use super::exit::{Code, Failure};

/// Prints an answer, or a part of one. Whoever stops reading early (`| head`) has seen what was
/// wanted: `false`.
pub fn print(text: &str) -> Result<bool, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Code::Other, format!("the answer cannot be written: {error}")))
        }
        result => Ok(result.is_ok()),
    }
}

/// A page of a long answer as a part of one JSON object: what is in `list` comes page by page, and
/// what else the first page has before it, the end of the last page behind it.
pub fn json_page(page: &Value, list: &str, next: &str, first: bool, last: bool) -> String {
    let (mut out, none) = (String::new(), Vec::new());
    if first {
        out.push_str("{\n");
        let fields = page.as_object().into_iter().flatten().filter(|(name, _)| ![list, next].contains(&name.as_str()));
        for (name, value) in fields {
            let _ = writeln!(out, "  {}: {value},", Value::from(name.as_str()));
        }
        let _ = write!(out, "  {}: [", Value::from(list));
    }
    for (index, item) in page.get(list).and_then(Value::as_array).unwrap_or(&none).iter().enumerate() {
        let _ = write!(out, "{}\n    {item}", if first && index == 0 { "" } else { "," });
    }
    if last {
        let _ = writeln!(out, "\n  ],\n  {}: {}\n}}", Value::from(next), page.get(next).unwrap_or(&Value::Null));
    }
    out
}

/// The whole text, with a line end.
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    any(&mut out, value, 0);
    out
}

/// The blocks of a summary, and what their lines are called: name and path in the JSON.
const SUMMARY: [(&str, &[(&str, &str)]); 3] = [
    (
        "source",
        &[
            ("system", "/identity/system_identifier"),
            ("timeline", "/identity/timeline"),
            ("database", "/identity/database"),
            ("slot", "/identity/slot"),
        ],
    ),
    (
        "spool",
        &[
            ("synced up to", "/durable"),
            ("newest commit", "/last_commit"),
            ("committed at", "/last_commit_time"),
            ("being received", "/received"),
            ("prepared", "/prepared"),
            ("waiting to be applied", "/pending"),
            ("kept after that", "/retained"),
            ("holds", "/held_bytes"),
            ("on the disk", "/disk_bytes"),
            ("segments", "/segments"),
            ("versions of tables", "/relations"),
            ("damage", "/damage"),
        ],
    ),
    ("destinations", &[("applied up to", "/applied"), ("released up to", "/released")]),
];

/// The summary in blocks; what is unknown is left out.
pub fn summary(value: &Value) -> String {
    let mut out = String::new();
    let width = SUMMARY.iter().flat_map(|(_, lines)| *lines).map(|(name, _)| name.len()).max().unwrap_or(0);
    for (heading, lines) in SUMMARY {
        let found = lines.iter().filter_map(|(name, path)| Some((name, path, value.pointer(path)?)));
        let found: Vec<_> = found.filter(|(_, _, value)| !value.is_null()).collect();
        line(&mut out, 0, heading);
        if found.is_empty() {
            line(&mut out, 1, "(none yet)");
        }
        for (name, path, value) in found {
            let transactions = ["/received", "/prepared", "/pending", "/retained"].contains(path);
            let unit = if transactions { " transactions" } else { "" };
            line(&mut out, 1, &format!("{name:<width$}  {}{unit}", scalar(path, value)));
        }
    }
    for (heading, name) in [("accepted gaps", "accepted_gaps"), ("counted since the start", "metrics")] {
        let found = value.get(name).unwrap_or(&Value::Null);
        if found.as_array().is_some_and(|list| !list.is_empty()) || found.is_object() {
            line(&mut out, 0, heading);
            any(&mut out, found, 1);
        }
    }
    out
}

/// A page of a transaction: how it committed, then a line for each command.
pub fn transaction(value: &Value) -> String {
    let mut out = String::new();
    if let Some(commit) = value.get("commit") {
        any(&mut out, commit, 0);
    }
    let none = Vec::new();
    for command in value.get("commands").and_then(Value::as_array).unwrap_or(&none) {
        let field = |name: &str| command.get(name).unwrap_or(&Value::Null);
        let tables = scalar("", field("tables"));
        let _ = write!(out, "#{} {} {tables}", field("index"), field("kind").as_str().unwrap_or("?"));
        for (name, introduction) in [("old", "where"), ("new", "with")] {
            let cells: Vec<String> = field(name).as_array().unwrap_or(&none).iter().map(cell).collect();
            if !cells.is_empty() {
                let _ = write!(out, " {introduction} {}", cells.join(", "));
            }
        }
        out.push('\n');
    }
    if let Some(next) = value.get("next").and_then(Value::as_u64) {
        let _ = writeln!(out, "more from #{next} on");
    }
    out
}

/// `name=value`; a value's text is cut, JSON has all of it.
fn cell(pair: &Value) -> String {
    const LONGEST: usize = 60;
    let name = pair.get(0).and_then(Value::as_str).unwrap_or("?");
    let value = match pair.get(1) {
        Some(Value::String(word)) if word == "null" => "NULL".to_owned(),
        Some(Value::String(word)) => format!("({word})"),
        Some(Value::Object(fields)) => match fields.iter().next() {
            Some((kind, Value::String(text))) => {
                let shown: String = text.chars().take(LONGEST).collect();
                let more = if shown.len() < text.len() { "..." } else { "" };
                let prefix = if kind == "bytes" { "\\x" } else { "" };
                format!("'{prefix}{}{more}'", printable(&shown))
            }
            _ => "?".to_owned(),
        },
        _ => "?".to_owned(),
    };
    format!("{}={value}", printable(name))
}

fn any(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(fields) => object(out, fields, depth),
        Value::Array(items) if items.is_empty() => line(out, depth, "(none)"),
        Value::Array(items) if items.iter().all(Value::is_object) => table(out, items, depth),
        Value::Array(items) => items.iter().for_each(|item| line(out, depth, &scalar("", item))),
        other => line(out, depth, &scalar("", other)),
    }
}

fn line(out: &mut String, depth: usize, text: &str) {
    let _ = writeln!(out, "{:depth$}{text}", "", depth = depth * 2);
}

fn object(out: &mut String, fields: &Map<String, Value>, depth: usize) {
    let width =
        fields.iter().filter(|(_, value)| is_scalar(value)).map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in fields {
        let label = label(name);
        if is_scalar(value) {
            line(out, depth, format!("{label:<width$}  {}", scalar(name, value)).trim_end());
        } else {
            line(out, depth, &format!("{label}:"));
            any(out, value, depth + 1);
        }
    }
}

/// Columns in the order in which they first appear; a nested value is shown as JSON in its cell.
fn table(out: &mut String, items: &[Value], depth: usize) {
    let mut names: Vec<&String> = Vec::new();
    for name in items.iter().filter_map(Value::as_object).flat_map(Map::keys) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let cell = |item: &Value, name: &String| item.get(name).map_or_else(String::new, |value| scalar(name, value));
    let mut rows = vec![names.iter().map(|name| label(name)).collect::<Vec<_>>()];
    rows.extend(items.iter().map(|item| names.iter().map(|name| cell(item, name)).collect()));
    let numeric: Vec<bool> = names
        .iter()
        .map(|name| items.iter().filter_map(|item| item.get(*name)).all(|v| v.is_number() || v.is_null()))
        .collect();
    let mut widths = vec![0; names.len()];
    for row in &rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    for row in rows {
        let mut text = String::new();
        for ((cell, width), numeric) in row.iter().zip(&widths).zip(&numeric) {
            let _ = if *numeric { write!(text, "{cell:>width$}  ") } else { write!(text, "{cell:<width$}  ") };
        }
        line(out, depth, text.trim_end());
    }
}

fn is_scalar(value: &Value) -> bool {
    match value {
        Value::Object(_) => false,
        Value::Array(items) => !items.is_empty() && items.iter().all(|item| !item.is_object() && !item.is_array()),
        _ => true,
    }
}

fn scalar(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => match number.as_u64() {
            Some(bytes) if name.ends_with("bytes") => human_size(bytes),
            // Names and addresses of things are no amounts.
            Some(count)
                if !["xid", "oid", "number", "sequence", "version", "pid", "timeline", "index"]
                    .iter()
                    .any(|end| name.ends_with(end)) =>
            {
                human_count(count)
            }
            _ => number.to_string(),
        },
        Value::String(text) => printable(text),
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            items.iter().map(|item| scalar("", item)).collect::<Vec<_>>().join(", ")
        }
        other => printable(&other.to_string()),
    }
}

/// A replicated value may hold line ends and control characters, which must neither break a table
/// nor steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if c.is_control() {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
        out
    })
}

/// A number with its thousands apart: `1 234 567`.
pub fn human_count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// A duration in the units that people use: `0.3 s`, `4 min 10 s`, `2 h 3 min`.
pub fn human_seconds(seconds: f64) -> String {
    let whole = seconds as u64;
    match seconds {
        0.0 => "0 s".to_owned(),
        ..0.0995 => format!("{:.0} ms", seconds * 1000.0),
        ..60.0 => format!("{seconds:.1} s"),
        ..3600.0 => format!("{} min {} s", whole / 60, whole % 60),
        ..86_400.0 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

fn label(name: &str) -> String {
    name.replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_lines_lists_of_objects_are_tables_and_bytes_are_sizes() {
        let value = serde_json::json!({
            "pending_bytes": 2048,
            "slot": "s\u{1b}[1m",
            "nothing": null,
            "segments": [{"name": "data-1", "bytes": 17}, {"name": "data-22", "bytes": 1048576, "sealed": true}],
            "empty": [],
        });
        let shown = text(&value);
        for part in [
            "pending bytes  2.0 kB\n",
            "slot           s\\u{1b}[1m\n",
            "nothing        -\n",
            "  name      bytes  sealed\n",
            "  data-22  1.0 MB  yes\n",
            "empty:\n  (none)\n",
        ] {
            assert!(shown.contains(part), "{part:?} is missing in:\n{shown}");
        }
    }

    #[test]
    fn amounts_and_durations_are_written_for_people() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1 000"), (1_234_567, "1 234 567")] {
            assert_eq!(human_count(number), text);
        }
        for (seconds, text) in [
            (0.0, "0 s"),
            (0.0042, "4 ms"),
            (0.3, "0.3 s"),
            (59.0, "59.0 s"),
            (250.0, "4 min 10 s"),
            (7380.0, "2 h 3 min"),
            (90_000.0, "1 d 1 h"),
        ] {
            assert_eq!(human_seconds(seconds), text);
        }
    }

    #[test]
    fn a_summary_has_a_heading_for_each_block_and_units() {
        let shown = summary(&serde_json::json!({
            "identity": {"system_identifier": "77", "timeline": 1, "database": "d", "slot": "s"}, "durable": "0/1A2B",
            "pending": 12345, "held_bytes": 2048, "damage": null, "accepted_gaps": [], "metrics": {"feedback_sent": 3},
        }));
        for part in [
            "source\n  system                 77\n",
            "spool\n  synced up to           0/1A2B\n  waiting to be applied  12 345 transactions\n",
            "  holds                  2.0 kB\n",
            "destinations\n  (none yet)\n",
            "counted since the start\n  feedback sent  3\n",
        ] {
            assert!(shown.contains(part), "{part:?} is missing in:\n{shown}");
        }
        assert!(!shown.contains("damage") && !shown.contains("gaps"), "{shown}");
    }

    #[test]
    fn pages_are_together_one_object() {
        let pages = [
            serde_json::json!({"list": [{"n": 1}, {"n": 2}], "other": "x", "next": 3}),
            serde_json::json!({"list": [{"n": 3}], "other": "x", "next": 4}),
        ];
        let text: String = pages
            .iter()
            .zip([true, false])
            .map(|(page, first)| json_page(page, "list", "next", first, !first))
            .collect();
        let all: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(all, serde_json::json!({"list": [{"n": 1}, {"n": 2}, {"n": 3}], "other": "x", "next": 4}));
        let empty = json_page(&serde_json::json!({"list": [], "next": null}), "list", "next", true, true);
        assert_eq!(serde_json::from_str::<Value>(&empty).unwrap(), serde_json::json!({"list": [], "next": null}));
    }

    #[test]
    fn a_transaction_is_a_line_for_each_command() {
        let value = serde_json::json!({
            "commit": {"xid": 7},
            "commands": [
                {"index": 3, "kind": "update", "tables": ["public.t"], "old": [["id", {"text": "1"}]],
                 "new": [["id", {"text": "2"}], ["note", "null"], ["big", "unchanged"], ["raw", {"bytes": "ff00"}]]},
            ],
            "next": 4,
        });
        assert_eq!(
            transaction(&value),
            "xid  7\n#3 update public.t where id='1' with id='2', note=NULL, big=(unchanged), raw='\\xff00'\nmore from #4 on\n"
        );
    }
}
