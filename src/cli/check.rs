//! `pg2any check`.

use std::fmt::Write as _;
use std::net::ToSocketAddrs as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pg2any_lib::change::Relation;
use pg2any_lib::config::{Config, DestinationType, human_size};
use pg2any_lib::finding::{Finding, Level};
use pg2any_lib::source::{check_source, published_relations};
use serde_json::json;

use super::exit::{Code, Failure};
use super::flags::RunFlags;
use super::{logging, render};

const EXAMPLES: &str = "\
Examples, with the settings that `run` will have:
  pg2any check
  pg2any check --json | jq '.findings[] | select(.level != \"ok\")'

It changes nothing and needs no more rights than a run. Exit code 0: nothing stops a run (there may be warnings); 1: something would.";

/// Look at source, data directory and destination before the first run.
///
/// Each line is ok, a warning or an error, with what to do.
#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: RunFlags,
}

/// Looks and prints.
pub fn run(arguments: &Arguments) -> Result<Code, Failure> {
    let config = arguments.flags.config()?;
    logging::start(config.log_format);
    let source = config.source_options(Arc::default());
    let found = check_source(&source, config.destination_type);
    // A source that does not answer is waited for once, and that is all that is found of it.
    let tables = if found.len() > 1 { published_relations(&source).unwrap_or_default() } else { Vec::new() };
    let groups = [
        ("source", found),
        ("spool", spool(&config)),
        ("destination", config.each_destination().iter().flat_map(|config| destination(config, &tables)).collect()),
    ];
    let worst = groups.iter().flat_map(|(_, findings)| findings).map(|finding| finding.level).max();
    let sound = worst != Some(Level::Error);
    render::print(&if arguments.json { as_json(&groups, sound) } else { as_text(&groups, &config) })?;
    Ok(if sound { Code::Success } else { Code::Other })
}

type Groups = [(&'static str, Vec<Finding>)];

fn as_json(groups: &Groups, sound: bool) -> String {
    let findings = groups.iter().flat_map(|(about, findings)| {
        findings.iter().map(move |Finding { level, found, remedy }| {
            json!({"about": about, "level": level, "found": found, "remedy": remedy})
        })
    });
    format!("{:#}\n", json!({"sound": sound, "findings": findings.collect::<Vec<_>>()}))
}

fn as_text(groups: &Groups, config: &Config) -> String {
    let mut out = String::new();
    let mut counts = [0, 0];
    for (about, findings) in groups {
        let what = match *about {
            "source" => config.source_connection_string.redacted(),
            "spool" => config.data_directory.display().to_string(),
            _ => {
                let each = config.each_destination().into_iter();
                each.map(|config| config.destination_connection_string.redacted()).collect::<Vec<_>>().join(", ")
            }
        };
        let _ = writeln!(out, "{about} {}", render::printable(&what));
        for Finding { level, found, remedy } in findings {
            let word = match level {
                Level::Ok => "ok",
                Level::Warning => "warning",
                Level::Error => "error",
            };
            counts[0] += usize::from(*level == Level::Error);
            counts[1] += usize::from(*level == Level::Warning);
            let _ = writeln!(out, "  {word:<8} {}", render::printable(found));
            if let Some(remedy) = remedy {
                let _ = writeln!(out, "           {}", render::printable(remedy));
            }
        }
    }
    let [errors, warnings] = counts;
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let _ = writeln!(out, "{errors} error{}, {warnings} warning{}", plural(errors), plural(warnings));
    out
}

/// The nearest directory that exists: the rest is made at the first run.
fn existing(path: &Path) -> &Path {
    let there = path.ancestors().find(|above| above.is_dir());
    there.unwrap_or_else(|| Path::new("."))
}

fn writable(directory: &Path, what: &str) -> Finding {
    match rustix::fs::access(directory, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
        Ok(()) => Finding::ok(format!("{what} can be written")),
        Err(error) => Finding::error(
            format!("{what} cannot be written: {}: {error}", directory.display()),
            "Give the user who runs pg2any the right to, or choose another place",
        ),
    }
}

fn spool(config: &Config) -> Vec<Finding> {
    let directory = &config.data_directory;
    let place = existing(directory);
    let mut findings = vec![writable(place, "the data directory")];
    if let Ok(stat) = rustix::fs::statvfs(place) {
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        findings.push(if free <= config.disk_headroom {
            Finding::error(
                format!(
                    "{} are free, and {} stay free (--disk-headroom)",
                    human_size(free),
                    human_size(config.disk_headroom)
                ),
                "Make room: reading would pause at once",
            )
        } else if config.disk_quota.is_some_and(|quota| quota > free) {
            Finding::warning(
                format!("{} are free, less than the quota (--disk-quota)", human_size(free)),
                "Reading pauses when the disk is full but for the headroom, before the quota is reached",
            )
        } else {
            Finding::ok(format!("{} are free", human_size(free)))
        });
    }
    if let Ok(pg2any_lib::inspect::Asked::Answered(_)) =
        pg2any_lib::inspect::ask(directory, &pg2any_lib::inspect::Query::Status, Duration::from_secs(5))
    {
        findings.push(Finding::warning("a pg2any runs on this data directory", "`pg2any status` shows how it is"));
    }
    findings
}

/// The way there, then what the destination says itself.
fn destination(config: &Config, tables: &[Arc<Relation>]) -> Vec<Finding> {
    let mut findings = way(config);
    if findings.iter().any(|finding| finding.level == Level::Error) {
        return findings;
    }
    let options = config.destination_options(Arc::default());
    let Some(mut destination) = config.destination_type.make(options) else { return findings };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return vec![Finding::error(
                format!("no runtime can be started: {error}"),
                "See the limits of the process",
            )];
        }
    };
    match runtime.block_on(destination.preflight(tables)) {
        Ok(found) => findings.extend(found),
        Err(error) => findings.push(error.into_finding()),
    }
    findings
}

fn way(config: &Config) -> Vec<Finding> {
    let uri = config.destination_options(Arc::default()).uri;
    match config.destination_type {
        DestinationType::SQLite => {
            let file = Path::new(uri.expose());
            let directory =
                file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
            if file.exists() {
                let file_itself = match std::fs::File::options().write(true).open(file) {
                    Ok(_) => Finding::ok("the file exists and can be written"),
                    Err(error) => Finding::error(
                        format!("the file cannot be written: {error}"),
                        "Give the user who runs pg2any the right to",
                    ),
                };
                vec![file_itself, writable(directory, "its directory (for SQLite's log)")]
            } else if directory.is_dir() {
                vec![
                    Finding::ok("the file does not exist: the first run makes it"),
                    writable(directory, "its directory"),
                ]
            } else {
                vec![Finding::error(format!("there is no directory {}", directory.display()), "Make it")]
            }
        }
        _ => addresses(uri.expose()).iter().map(|address| reachable(address, config.connection_timeout)).collect(),
    }
}

/// The hosts of a list of brokers, of a URI, or of an ADO connection string
/// (`server=tcp:host,port;…`).
fn addresses(uri: &str) -> Vec<String> {
    let server = uri.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let name = name.trim().to_lowercase();
        matches!(name.as_str(), "server" | "data source" | "addr" | "address").then_some(value.trim())
    });
    if let Some(server) = server.filter(|_| !uri.contains("://")) {
        let place = server.strip_prefix("tcp:").unwrap_or(server);
        return vec![
            place.split_once(',').map_or_else(|| format!("{place}:1433"), |(host, port)| format!("{host}:{port}")),
        ];
    }
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let authority = rest.split(['/', '?', ';']).next().unwrap_or_default();
    let hosts = authority.rsplit('@').next().unwrap_or_default();
    hosts.split(',').map(|host| host.trim().to_owned()).filter(|host| !host.is_empty()).collect()
}

fn reachable(address: &str, timeout: Duration) -> Finding {
    let result = address.to_socket_addrs().and_then(|mut found| {
        let address = found.next().ok_or_else(|| std::io::Error::other("the name has no address"))?;
        std::net::TcpStream::connect_timeout(&address, timeout.min(Duration::from_secs(10)))
    });
    match result {
        Ok(_) => Finding::ok(format!("{address} answers")),
        Err(error) => {
            Finding::error(format!("{address} does not answer: {error}"), "Check --dest-uri, and the way there")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_of_a_destination_are_found_without_its_password() {
        for (uri, hosts) in [
            ("a:9092, b:9093", &["a:9092", "b:9093"][..]),
            ("mysql://u:p@ss@h:3306/db?x=1", &["h:3306"]),
            ("kafka://h:1", &["h:1"]),
            ("server=tcp:h,1444;user=u;password='p=w';database=d", &["h:1444"]),
            ("Data Source=h;password=server=x", &["h:1433"]),
        ] {
            assert_eq!(addresses(uri), hosts, "{uri}");
        }
    }
}
