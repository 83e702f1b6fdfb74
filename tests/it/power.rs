//! The power is cut: unlike a kill, this loses what was written and not synced, in the spool and at
//! the destination.
//!
//! Data directory and destination lie on a disk whose power goes in the middle of traffic, round
//! after round; PostgreSQL is elsewhere and goes on. Promise 1: what it was told is durable must
//! then be there, and what the spool let go of must be at the destination: looked at on the disk
//! itself, before the next start, and once more when all has arrived.

use std::time::Duration;

use pg2any_lib::Lsn;

use crate::compare::assert_equal;
use crate::database::Database;
use crate::delivery::arrange;
use crate::driver::{self, Pipeline, Running};
use crate::filesystem::Disk;
use crate::random::{Random, seeds};
use crate::server::Server;
use crate::workload::{TABLES, Workload};

/// Everything that is committed now is acknowledged.
fn acknowledged(running: &mut Running, database: &mut Database) {
    let end = database.text("SELECT pg_current_wal_flush_lsn()");
    running.until("the acknowledgement", || {
        database.slot(&format!("confirmed_flush_lsn >= '{end}'")).as_deref() == Some("true")
    });
}

/// What the disk holds is not behind what the slot, and the spool to itself, were told.
#[track_caller]
fn nothing_promised_is_missing(pipeline: &Pipeline, database: &mut Database, applied: bool) {
    let confirmed: Lsn = database.slot("confirmed_flush_lsn").unwrap().parse().unwrap();
    let (code, out, err) = pipeline.run(&["inspect", "verify"]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) = pipeline.run(&["inspect", "--json"]);
    assert_eq!(code, 0, "{err}");
    let summary: serde_json::Value = serde_json::from_str(&out).unwrap();
    let spool = |name: &str| summary[name].as_str().unwrap_or("0/0").parse::<Lsn>().unwrap();
    assert_eq!(pipeline.lines("PRAGMA quick_check"), ["ok"]);
    let sql = "SELECT commit_end_lsn FROM _pg2any_checkpoint WHERE commit_end_lsn IS NOT NULL";
    let checkpoint = pipeline.open().and_then(|file| driver::rows(&file, sql).ok()?.pop()?.pop());
    let checkpoint: Lsn = checkpoint.map_or(Lsn::ZERO, |text| text.parse().unwrap());
    let (durable, released) = (spool("durable"), spool("released"));
    assert!(confirmed <= durable, "{confirmed} was acknowledged, the spool on the disk ends at {durable}");
    assert!(released <= checkpoint, "the spool let go of {released}, the destination ends at {checkpoint}");
    assert!(!applied || confirmed <= checkpoint, "{confirmed} was acknowledged, the destination ends at {checkpoint}");
}

/// Rounds of traffic, each of which ends with a cut somewhere inside it.
fn cut_again_and_again(server: &'static Server, settings: &[(&str, &str)]) {
    let applied = settings.contains(&APPLIED);
    for seed in seeds(1) {
        let mut database = Database::streaming(server);
        database.execute(TABLES);
        database.create_slot_with(true);
        let mut pipeline = Pipeline::new(&database);
        let Some(mut disk) = Disk::attach(pipeline.root()) else { return };
        pipeline.set("PG2ANY_TWO_PHASE", "true").set("PG2ANY_STATUS_INTERVAL", "100ms");
        for (name, value) in settings {
            pipeline.set(name, value);
        }
        let mut random = Random::new(seed);
        let mut workload = Workload::default();
        for round in 0..6 {
            let mut running = pipeline.start();
            workload.round(&mut database, &format!("acknowledged{round}"), true);
            acknowledged(&mut running, &mut database);
            let moment = Duration::from_millis(random.below(500));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(moment);
                    disk.cut();
                });
                workload.round(&mut database, &format!("in-flight{round}"), true);
            });
            running.kill();
            disk.restart();
            nothing_promised_is_missing(&pipeline, &mut database, applied);
        }
        pipeline.catch_up();
        workload.check(&database, &pipeline);
    }
}

/// What is applied leaves the spool at once: a retention would heal what the destination lost.
const RELEASED_AT_ONCE: [(&str, &str); 3] =
    [("PG2ANY_RETAIN", "0s"), ("CDC_TRANSACTION_SEGMENT_SIZE_MB", "1"), ("PG2ANY_ENABLE_COMPRESSION", "false")];
const APPLIED: (&str, &str) = ("PG2ANY_ACK", "applied");

on_each_server! {
    fn what_was_acknowledged_survives_a_loss_of_power(server) {
        cut_again_and_again(server, &[]);
    }

    fn with_ack_applied_what_was_acknowledged_survives_a_loss_of_power(server) {
        cut_again_and_again(server, &[&RELEASED_AT_ONCE[..], &[APPLIED]].concat());
    }

    fn a_loss_of_power_while_the_destination_copies_its_log_loses_nothing(server) {
        let (mut database, mut pipeline) = arrange(server, "CREATE TABLE t (id bigint PRIMARY KEY, v text)");
        let Some(mut disk) = Disk::attach(pipeline.root()) else { return };
        for (name, value) in [RELEASED_AT_ONCE[0], APPLIED] {
            pipeline.set(name, value);
        }
        let mut random = Random::new(4);
        for round in 1..=2 {
            let mut running = pipeline.start();
            // 160 MB: above the length at which the copy is asked for.
            let rows = "SELECT nextval('ids'), repeat(md5(g::text), 64) FROM generate_series(1, 80000) g";
            database.execute(&format!("CREATE SEQUENCE IF NOT EXISTS ids; INSERT INTO t {rows}"));
            running.until("the rows", || pipeline.has(&format!("SELECT 1 FROM t WHERE id = {round} * 80000")));
            std::thread::sleep(Duration::from_millis(random.below(1000)));
            // Where the copy is done, this begins the log anew, over what was copied.
            running.until_caught_up(&pipeline, &mut database);
            disk.cut();
            running.kill();
            disk.restart();
            nothing_promised_is_missing(&pipeline, &mut database, true);
            // They were seen, so they were committed.
            assert_eq!(pipeline.lines("SELECT count(*) FROM t"), [(round * 80_000).to_string()]);
        }
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn a_loss_of_power_in_the_middle_of_the_first_start_leaves_what_the_next_one_can_use(server) {
        let mut database = Database::new(server);
        database.execute("CREATE TABLE t (id int PRIMARY KEY)");
        database.create_slot();
        let mut pipeline = Pipeline::new(&database);
        let Some(mut disk) = Disk::attach(pipeline.root()) else { return };
        let mut random = Random::new(3);
        for round in 0..12 {
            for (name, kind) in [("PG2ANY_DATA_DIR", "data"), ("CDC_DEST_URI", "sqlite")] {
                let place = pipeline.beside(&format!("{kind}{round}"));
                pipeline.set(name, place.to_str().unwrap());
            }
            database.execute(&format!("INSERT INTO t VALUES ({round})"));
            let mut running = pipeline.start();
            running.until("it begins", || pipeline.beside(&format!("data{round}")).exists());
            std::thread::sleep(Duration::from_millis(random.below(80)));
            disk.cut();
            running.kill();
            disk.restart();
            pipeline.catch_up();
        }
    }

    fn nothing_leaves_the_spool_before_the_destination_has_synced_it(server) {
        // Half a second between the last row and the destination's COMMIT, in which the spool could
        // let go of it.
        let pause = [("PG2ANY_FAILPOINTS", "sqlite.checkpoint_written=pause")];
        cut_again_and_again(server, &[&RELEASED_AT_ONCE[..], &pause].concat());
    }
}
