//! Sanity of the hot path; run by hand: `cargo test --release --lib sqlite::tests::speed -- --ignored --nocapture`.

use std::time::Instant;

use super::*;
use crate::change::built::{insert, update};

fn batches(relation: &Arc<Relation>, frames: impl Iterator<Item = Vec<u8>>, lsn: u64) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut batch = Batch::default();
    let mut buffer = Vec::new();
    let mut ranges = Vec::new();
    let mut flush = |buffer: &mut Vec<u8>, ranges: &mut Vec<std::ops::Range<usize>>| {
        let number = batch.add_buffer(std::mem::take(buffer).into());
        for range in ranges.drain(..) {
            let position = Position { commit_end: Lsn(lsn), command: CommandIndex(0) };
            batch.push(position, number, range, std::slice::from_ref(relation));
        }
        batches.push(std::mem::take(&mut batch));
    };
    for frame in frames {
        let start = buffer.len();
        buffer.extend(frame);
        ranges.push(start..buffer.len());
        if ranges.len() == 4096 {
            flush(&mut buffer, &mut ranges);
        }
    }
    flush(&mut buffer, &mut ranges);
    batches
}

#[test]
#[ignore = "a measurement"]
fn a_million_inserts_and_updates() {
    const ROWS: usize = 1_000_000;
    let mut fixture = Fixture::new();
    let wide = table(
        "wide",
        &[("id", 20), ("a", 23), ("amount", 701), ("at", 1184), ("name", 25), ("ok", 16), ("payload", 25)],
    )
    .build();
    let payload = "x".repeat(120);
    let inserts = batches(
        &wide,
        (0..ROWS).map(|n| {
            let (id, a, amount) = (n.to_string(), (n % 1000).to_string(), format!("{}.25", n % 77));
            let at = format!("2024-02-01 12:{:02}:{:02}.123456+00", n / 60 % 60, n % 60);
            insert(
                &wide,
                &[Some(&id), Some(&a), Some(&amount), Some(&at), Some("some name here"), Some("t"), Some(&payload)],
            )
            .0
        }),
        16,
    );
    let mut measure = |what: &str, rows: usize, batches: &[Batch], lsn: u64| {
        let start = Instant::now();
        for batch in batches {
            now(fixture.destination.execute(batch, Execution::Net)).unwrap();
        }
        let executed = start.elapsed();
        let end = Position::end_of(Lsn(lsn));
        now(fixture.destination.commit(fixture.position, end, None)).unwrap();
        fixture.position = Some(end);
        let total = start.elapsed();
        println!(
            "{what}: {rows} rows, executed {executed:?}, committed {total:?}, {:.0} rows/s",
            rows as f64 / total.as_secs_f64()
        );
    };
    measure("insert of 7 columns", ROWS, &inserts, 16);
    drop(inserts);
    let small = table("accounts", &[("aid", 23), ("bid", 23), ("balance", 23), ("filler", 1042)]).oid(5).build();
    let filler = " ".repeat(84);
    let rows = batches(
        &small,
        (0..100_000).map(|n: usize| insert(&small, &[Some(&n.to_string()), Some("1"), Some("0"), Some(&filler)]).0),
        32,
    );
    measure("insert of accounts", 100_000, &rows, 32);
    let updates = batches(
        &small,
        (0..ROWS).map(|n| {
            let (id, balance) = ((n * 7919 % 100_000).to_string(), n.to_string());
            update(&small, &[Some(&id), Some("1"), Some(&balance), Some(&filler)]).0
        }),
        48,
    );
    measure("update by key", ROWS, &updates, 48);
    let one: Vec<Batch> = (0..2000)
        .map(|n: usize| {
            let id = (200_000 + n).to_string();
            batches(&small, std::iter::once(insert(&small, &[Some(&id), Some("1"), Some("0"), None]).0), 64).remove(0)
        })
        .collect();
    let start = Instant::now();
    for (batch, lsn) in one.iter().zip(64..) {
        now(fixture.destination.execute(batch, Execution::Net)).unwrap();
        let end = Position::end_of(Lsn(lsn));
        now(fixture.destination.commit(fixture.position, end, None)).unwrap();
        fixture.position = Some(end);
    }
    println!("one row a commit: {:?} each", start.elapsed() / 2000);
}
