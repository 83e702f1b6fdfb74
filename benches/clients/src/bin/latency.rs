//! Commit-to-visible latency: single-row transactions at a fixed rate, and a poller at the
//! destination.
//!
//! `latency SOURCE_CONNECTION
//! sqlite:FILE|kafka:BROKER/TOPIC|mariadb:PORT/DATABASE|sqlserver:ADO|POSTGRES_CONNECTION RATE
//! SECONDS`; the table is `w4 (id bigint primary key, note text)`. Prints `p50 p95 p99 max missing` in
//! milliseconds.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

type Poll = Box<dyn FnMut(i64) -> Vec<i64> + Send>;

/// What a `read_committed` reader of one partition sees.
#[cfg(feature = "kafka")]
fn reader(place: &str) -> Poll {
    use rdkafka::Message;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let (broker, topic) = place.split_once('/').unwrap();
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", broker).set("group.id", "latency").set("isolation.level", "read_committed");
    config.set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut places = rdkafka::TopicPartitionList::new();
    places.add_partition_offset(topic, 0, rdkafka::Offset::Beginning).unwrap();
    consumer.assign(&places).unwrap();
    // The topic has a first record: from it on, the reader reads, and its start is not measured.
    consumer.poll(Duration::from_secs(30)).unwrap().unwrap();
    Box::new(move |after| {
        let mut ids = vec![];
        while let Some(Ok(message)) = consumer.poll(Duration::from_millis(u64::from(ids.is_empty()))) {
            let text = String::from_utf8_lossy(message.payload().unwrap_or_default());
            let id = text
                .split("\"after\":{\"id\":")
                .nth(1)
                .and_then(|rest| rest.split([',', '}']).next()?.parse::<i64>().ok());
            ids.extend(id.filter(|id| *id > after));
        }
        ids
    })
}

/// Through a program that stays open, executes each line, and prints the rows, then `=end=` when
/// `end` says so. It goes on after an error (a table that is not there yet).
fn session(command: &mut Command, end: &'static str) -> Poll {
    let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut asks, mut answers) = (client.stdin.take().unwrap(), BufReader::new(client.stdout.take().unwrap()).lines());
    Box::new(move |after| {
        writeln!(asks, "select id from w4 where id > {after};{end}").unwrap();
        let lines = answers.by_ref().map_while(Result::ok).take_while(|line| line != "=end=");
        lines.map(|line| line.parse().unwrap()).collect()
    })
}

fn mariadb(place: &str) -> Poll {
    let (port, database) = place.split_once('/').unwrap();
    let arguments = ["--no-defaults", "-h127.0.0.1", "-uroot", "-BNn", "--force", "-P", port, database];
    session(Command::new("mariadb").args(arguments), " select '=end=';")
}

fn poller(destination: &str) -> Poll {
    if let Some(place) = destination.strip_prefix("mariadb:") {
        return mariadb(place);
    }
    if let Some(ado) = destination.strip_prefix("sqlserver:") {
        let program = std::env::current_exe().unwrap().with_file_name("sqlserver");
        return session(Command::new(program).args(["session", ado]), "\n=end=");
    }
    #[cfg(feature = "kafka")]
    if let Some(place) = destination.strip_prefix("kafka:") {
        return reader(place);
    }
    if let Some(file) = destination.strip_prefix("sqlite:") {
        let database = loop {
            let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
            if let Ok(database) = rusqlite::Connection::open_with_flags(file, flags) {
                break database;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        database.busy_timeout(Duration::from_secs(5)).unwrap();
        Box::new(move |after| {
            let Ok(mut query) = database.prepare_cached("select id from w4 where id > ?1") else { return vec![] };
            let Ok(rows) = query.query_map([after], |row| row.get(0)) else { return vec![] };
            rows.filter_map(Result::ok).collect()
        })
    } else {
        let mut client = postgres::Client::connect(destination, postgres::NoTls).unwrap();
        let query = client.prepare("select id from w4 where id > $1").unwrap();
        Box::new(move |after| client.query(&query, &[&after]).unwrap().iter().map(|row| row.get(0)).collect())
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let (source, destination) = (&args[1], &args[2]);
    let (rate, seconds): (u64, u64) = (args[3].parse().unwrap(), args[4].parse().unwrap());
    let count = rate * seconds;
    let mut client = postgres::Client::connect(source, postgres::NoTls).unwrap();
    let first: i64 = client.query_one("select coalesce(max(id), 0) from w4", &[]).unwrap().get(0);
    let insert = client.prepare("insert into w4 values ($1, 'a row of the fourth workload')").unwrap();
    let (sender, receiver) = mpsc::channel::<(i64, Instant)>();
    let mut poll = poller(destination);
    let last = first + count as i64;
    let watcher = std::thread::spawn(move || {
        let mut seen = vec![];
        let mut after = first;
        let deadline = Instant::now() + Duration::from_secs(seconds + 60);
        while after < last && Instant::now() < deadline {
            let ids = poll(after);
            let now = Instant::now();
            for id in ids {
                after = after.max(id);
                seen.push((id, now));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        seen
    });
    let start = Instant::now();
    for n in 0..count {
        let due = start + Duration::from_secs_f64(n as f64 / rate as f64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let id = first + 1 + n as i64;
        client.execute(&insert, &[&id]).unwrap();
        sender.send((id, Instant::now())).unwrap();
    }
    drop(sender);
    let seen: std::collections::HashMap<_, _> = watcher.join().unwrap().into_iter().collect();
    let mut waits = vec![];
    let mut missing = 0;
    for (id, committed) in receiver {
        match seen.get(&id) {
            Some(visible) => waits.push(visible.saturating_duration_since(committed).as_secs_f64() * 1000.0),
            None => missing += 1,
        }
    }
    waits.sort_by(f64::total_cmp);
    let at = |share: f64| {
        waits
            .get(((waits.len() as f64 * share) as usize).min(waits.len().saturating_sub(1)))
            .copied()
            .unwrap_or(f64::NAN)
    };
    println!("{:.1} {:.1} {:.1} {:.1} {missing}", at(0.5), at(0.95), at(0.99), at(1.0));
}
