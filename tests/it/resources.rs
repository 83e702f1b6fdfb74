//! What it takes stays bounded: by a row among others, by savepoints, by tables, by hours of churn;
//! and a server that is none gets nothing.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::compare::assert_equal;
use crate::database::Database;
use crate::delivery::{arrange, arrange_streaming};
use crate::driver::{PATIENCE, Pipeline, Running};

/// A number in kB that the system keeps of the process, or its threads.
fn status(running: &Running, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

fn descriptors(running: &Running) -> u64 {
    std::fs::read_dir(format!("/proc/{}/fd", running.id())).unwrap().count() as u64
}

/// Bytes on the disk below the data directory.
fn disk(pipeline: &Pipeline) -> u64 {
    let output = std::process::Command::new("du").args(["-sk"]).arg(pipeline.data()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

on_each_server! {
    fn a_row_of_a_hundred_megabytes_arrives_among_small_ones_and_takes_a_few_times_its_size(server) {
        let (mut database, pipeline) = arrange(server, "CREATE TABLE t (id int PRIMARY KEY, v text)");
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let before = status(&running, "VmHWM");
        database.execute("INSERT INTO t VALUES (1, 'before'), (2, repeat(md5('x'), 3276800)), (3, 'behind')");
        running.until_caught_up(&pipeline, &mut database);
        let (peak, row) = (status(&running, "VmHWM") - before, 100 << 10);
        assert!(peak < 6 * row, "{peak} kB for a row of {row} kB");
        running.terminate();
        assert_eq!(pipeline.lines("SELECT id, length(v) FROM t ORDER BY id"), ["1|6", "2|104857600", "3|6"]);
    }

    fn twenty_thousand_savepoints_of_which_half_are_rolled_back_cost_no_memory(server) {
        let (mut database, pipeline) = arrange_streaming(server, "CREATE TABLE t (id int PRIMARY KEY, v text)");
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        let before = status(&running, "VmHWM");
        database.execute(
            "DO $$ BEGIN FOR i IN 1..20000 LOOP
               BEGIN
                 INSERT INTO t VALUES (i, repeat('x', 100));
                 IF i % 2 = 0 THEN RAISE EXCEPTION 'no'; END IF;
               EXCEPTION WHEN raise_exception THEN NULL; END;
             END LOOP; END $$",
        );
        running.until_caught_up(&pipeline, &mut database);
        let more = status(&running, "VmHWM") - before;
        assert!(more < 64 << 10, "{more} kB");
        running.terminate();
        assert_eq!(pipeline.lines("SELECT count(*), sum(id % 2) FROM t"), ["10000|10000"]);
    }

    fn a_thousand_tables_arrive(server) {
        let (mut database, pipeline) = arrange(server, "");
        let create = (0..1000).map(|n| format!("CREATE TABLE t{n} (id int PRIMARY KEY, v text);")).collect::<String>();
        let insert = (0..1000).map(|n| format!("INSERT INTO t{n} VALUES ({n}, 'x');")).collect::<String>();
        database.execute(&create);
        database.execute(&insert);
        database.execute(&(0..1000).map(|n| format!("UPDATE t{n} SET v = 'y';")).collect::<String>());
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        assert!(descriptors(&running) < 200, "{} descriptors", descriptors(&running));
        running.terminate();
        let union = (0..1000).step_by(100).map(|n| format!("SELECT id, v FROM t{n}")).collect::<Vec<_>>().join(" UNION ALL ");
        let expected: Vec<String> = (0..1000).step_by(100).map(|n| format!("{n}|y")).collect();
        assert_eq!(pipeline.lines(&union), expected);
    }

    fn descriptors_threads_memory_and_disk_stay_flat_over_churn(server) {
        let (mut database, mut pipeline) = arrange_streaming(server, "CREATE TABLE t (id int PRIMARY KEY, v text)");
        pipeline.set("PG2ANY_RETAIN", "0s").set("CDC_TRANSACTION_SEGMENT_SIZE_MB", "1");
        let mut running = pipeline.start();
        let churn = |database: &mut Database, running: &mut Running| {
            for _ in 0..6 {
                database.execute("INSERT INTO t SELECT g, repeat(md5(g::text), 20) FROM generate_series(1, 4000) g");
                database.execute("UPDATE t SET v = v || 'x'; TRUNCATE t");
                // A lost connection leaves nothing behind either.
                database.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND slot_name = current_database()");
            }
            running.until_caught_up(&pipeline, database);
            std::thread::sleep(Duration::from_millis(1500));
            (descriptors(running), status(running, "Threads"), status(running, "VmRSS"), disk(&pipeline))
        };
        churn(&mut database, &mut running);
        let first = churn(&mut database, &mut running);
        let mut last = first;
        for _ in 0..3 {
            last = churn(&mut database, &mut running);
        }
        running.terminate();
        assert!(last.0 <= first.0 + 10 && last.1 <= first.1, "descriptors, threads: {first:?} became {last:?}");
        assert!(last.2 <= first.2 + (48 << 10), "memory: {first:?} became {last:?}");
        assert!(last.3 <= first.3 + (80 << 10), "disk: {first:?} became {last:?}");
        assert_equal(&database, &pipeline);
    }
}

/// A server that does this with each connection.
fn impostor(serve: fn(TcpStream)) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    port
}

/// Says yes to whoever comes, then this.
fn authenticated(mut stream: TcpStream, says: &[u8]) {
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.write_all(says);
    let _ = stream.read(&mut [0; 4096]);
}

#[test]
fn a_server_that_sends_garbage_absurd_lengths_or_nothing_gets_a_failure_with_a_cause_and_no_memory() {
    type Impostor = (&'static str, fn(TcpStream));
    let impostors: [Impostor; 6] = [
        ("closes", drop),
        ("is silent", |mut stream| drop(stream.read(&mut [0; 1 << 20]).and_then(|_| stream.read(&mut [0; 16])))),
        ("sends garbage", |mut stream| drop(stream.write_all(&[0xA5; 1 << 16]))),
        ("sends an absurd length", |mut stream| {
            drop(stream.write_all(b"R\x7f\xff\xff\xff").and_then(|()| stream.read(&mut [0; 16])))
        }),
        ("answers with garbage", |stream| authenticated(stream, &[0xA5; 1 << 16])),
        ("answers with an absurd row", |stream| authenticated(stream, b"T\0\0\0\x06\xff\xffD\x7f\xff\xff\xff\xff\xff")),
    ];
    for (what, serve) in impostors {
        let port = impostor(serve);
        let mut pipeline = Pipeline::bare(&format!("postgresql://u@127.0.0.1:{port}/d?sslmode=disable"), "s", "p");
        pipeline.set("CDC_CONNECTION_TIMEOUT", "2");
        let mut running = pipeline.start();
        let deadline = Instant::now() + PATIENCE;
        // It tries again for ever, or says why not; either way it has said what is wrong.
        while running.ended().is_none() && !running.said().contains("failed") {
            assert!(Instant::now() < deadline, "{what}: {}", running.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        match running.ended() {
            None => {
                assert!(status(&running, "VmHWM") < 200 << 10, "{what}");
                running.terminate();
            }
            Some(ended) => assert!(ended.code().is_some_and(|code| code != 101), "{what}: {}", running.said()),
        }
    }
}
