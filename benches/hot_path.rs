//! The steps that every row passes, one by one: decoding, the spool's way in and out, SQLite's
//! apply.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pg2any_lib::change::{Batch, Catalogue, Command, Execution, Relation, RelationRecord, RelationVersion};
use pg2any_lib::spool::{ChunkRead, Commit, Spool, SpoolOptions};
use pg2any_lib::{CommandIndex, Config, DestinationType, Lsn, PgTimestamp, Position};

const ROWS: u64 = 10_000;

/// A table of seven columns with rows of about 220 bytes, as in the end-to-end benchmark.
fn relation_record() -> RelationRecord {
    let columns: [(&str, u32, u8); 7] =
        [("id", 20, 1), ("a", 25, 0), ("b", 25, 0), ("at", 1184, 0), ("n", 23, 0), ("d", 701, 0), ("flag", 16, 0)];
    let mut frame = vec![b'R'];
    frame.extend(16_384_u32.to_be_bytes());
    frame.extend(b"public\0w1\0d");
    frame.extend(7_u16.to_be_bytes());
    for (name, oid, flags) in columns {
        frame.push(flags);
        frame.extend(name.as_bytes());
        frame.push(0);
        frame.extend(oid.to_be_bytes());
        frame.extend((-1_i32).to_be_bytes());
    }
    let catalogue = Catalogue { found: true, primary_key: vec!["id".to_owned()], ..Catalogue::default() };
    RelationRecord { frame, catalogue }
}

fn insert(id: u64) -> Vec<u8> {
    let mut frame = vec![b'I'];
    frame.extend(16_384_u32.to_be_bytes());
    frame.push(b'N');
    frame.extend(7_u16.to_be_bytes());
    let text = format!("{:032x}{:032x}", id.wrapping_mul(0x9E37_79B9_7F4A_7C15), id);
    let cells = [&id.to_string(), &text, &text, "2026-01-02 03:04:05.678901+00", &id.to_string(), "1234.5", "t"];
    for cell in cells {
        frame.push(b't');
        frame.extend(u32::try_from(cell.len()).unwrap().to_be_bytes());
        frame.extend(cell.as_bytes());
    }
    frame
}

fn decoding(criterion: &mut Criterion) {
    let relations = [Arc::new(Relation::decode(RelationVersion(1), &relation_record()).unwrap())];
    let frame = insert(42);
    let mut group = criterion.benchmark_group("decoder");
    group.throughput(Throughput::Elements(1));
    group.bench_function("insert of 7 columns", |bencher| {
        bencher.iter(|| black_box(Command::decode(black_box(&frame), &relations).unwrap()));
    });
    group.finish();
}

fn spooling(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let frames: Vec<_> = (0..ROWS).map(insert).collect();
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(SpoolOptions::new(directory.path())).unwrap();
    let mut intake = spool.intake().unwrap();
    intake.relation(None, relation_record()).unwrap();
    let mut end = 1_000;
    let mut write = |rows_each: usize| {
        for rows in frames.chunks(rows_each) {
            end += 1_000;
            intake.begin(7, Lsn(end - 500), PgTimestamp(0)).unwrap();
            for frame in rows {
                intake.append(7, None, frame).unwrap();
            }
            intake
                .commit(Commit {
                    xid: 7,
                    commit_lsn: Lsn(end - 500),
                    commit_end: Lsn(end),
                    commit_time: PgTimestamp(0),
                    origin: None,
                })
                .unwrap();
        }
        runtime.block_on(async {
            intake.flush().await.unwrap();
            let mut durable = spool.durable_changes();
            while durable.borrow_and_update().lsn() < Lsn(end) {
                durable.changed().await.unwrap();
            }
        });
        end
    };
    let mut group = criterion.benchmark_group("spool");
    group.throughput(Throughput::Elements(ROWS));
    group.sample_size(20);
    group.bench_function("write and sync rows of one transaction", |bencher| bencher.iter(|| write(frames.len())));
    group.bench_function("write and sync transactions of 4 rows", |bencher| bencher.iter(|| write(4)));
    let last = write(frames.len());
    let mut reader = spool.reader("bench");
    group.bench_function("read rows of one transaction", |bencher| {
        bencher.iter(|| {
            reader.seek(Position { commit_end: Lsn(last), command: CommandIndex(0) });
            let mut transaction = reader.try_next().unwrap().unwrap();
            let mut rows = 0;
            while let ChunkRead::Ready(chunk) = transaction.next_chunk().unwrap() {
                rows += chunk.commands().count();
            }
            assert_eq!(rows, frames.len());
        });
    });
    group.finish();
}

fn applying(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = Config::builder()
        .source_connection_string("postgresql://user@127.0.0.1/db")
        .destination_type(DestinationType::SQLite)
        .destination_connection_string(directory.path().join("target.db").to_string_lossy())
        .data_directory(directory.path().join("data"))
        .build()
        .unwrap();
    let spool = Spool::open(config.spool_options(Arc::default())).unwrap();
    let mut destination =
        pg2any_lib::pipeline::destination_of(&config, &spool, &Arc::default(), &Arc::default()).unwrap();
    let relations = [Arc::new(Relation::decode(RelationVersion(1), &relation_record()).unwrap())];
    let mut position = runtime.block_on(destination.connect()).unwrap().position;
    let mut next = 0;
    let mut group = criterion.benchmark_group("sqlite");
    group.throughput(Throughput::Elements(ROWS));
    group.sample_size(20);
    group.bench_function("insert and commit", |bencher| {
        bencher.iter(|| {
            let mut batch = Batch::default();
            let end = Lsn(position.map_or(1, |position| position.commit_end.0 + 1));
            for n in 0..ROWS {
                next += 1;
                let frame = insert(next);
                let length = frame.len();
                let buffer = batch.add_buffer(Bytes::from(frame));
                batch.push(Position { commit_end: end, command: CommandIndex(n) }, buffer, 0..length, &relations);
            }
            runtime.block_on(async {
                destination.prepare(&relations).await.unwrap();
                destination.execute(&batch, Execution::Net).await.unwrap();
                destination.commit(position, Position::end_of(end), None).await.unwrap();
            });
            position = Some(Position::end_of(end));
        });
    });
    group.finish();
}

criterion_group!(benches, decoding, spooling, applying);
criterion_main!(benches);
