//! What has arrived at the socket is read at once, whatever its size and the way it came (promise
//! 13).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::database::Database;
use crate::driver::{Pipeline, Running};
use crate::random::Random;

/// A row's way from its commit to the destination.
const AT_ONCE: Duration = Duration::from_secs(2);
/// A row that was not read at once waited for ever; one that a busy machine delays is seldom, and
/// does not wait so long.
const STALLED: Duration = Duration::from_secs(10);
/// What a row of 100 MB needs beside that to be written, decoded and stored in a debug build.
const PER_MEGABYTE: Duration = Duration::from_millis(150);

/// Commits rows of many sizes, each into a pipeline that has nothing else to do, and waits for it.
fn rows_into_silence(database: &mut Database, pipeline: &Pipeline, running: &mut Running, sizes: &[usize]) {
    let mut late = Vec::new();
    for (id, size) in sizes.iter().enumerate() {
        // Not compressible, so that it is large on its way whatever is between.
        let sql = format!(
            "INSERT INTO t SELECT {id}, string_agg(md5(random()::text), '') FROM generate_series(1, {})",
            size.div_ceil(32)
        );
        database.execute(&sql);
        let committed = Instant::now();
        running
            .until(&format!("row {id} of {size} bytes"), || pipeline.has(&format!("SELECT 1 FROM t WHERE id = {id}")));
        let took = committed.elapsed();
        let work = PER_MEGABYTE * u32::try_from(size >> 20).unwrap();
        assert!(took < STALLED + work, "row {id} of {size} bytes took {took:?}: {}", running.said());
        if took > AT_ONCE + work {
            late.push((id, size, took));
        }
    }
    assert!(late.len() <= sizes.len() / 20, "{late:?}: {}", running.said());
}

/// Sizes from 1 KB to 10 MB, every order of magnitude as often as the others; a huge one, and a
/// small one after it.
fn sizes(count: usize, huge: Option<usize>) -> Vec<usize> {
    let mut random = Random::new(0x11);
    let ordinary = (0..count).map(|_| {
        let magnitude = 1000 * 10_usize.pow(u32::try_from(random.below(4)).unwrap());
        magnitude * usize::try_from(1 + random.below(9)).unwrap()
    });
    ordinary.chain(huge).chain([1000]).collect()
}

fn pipeline_over(database: &mut Database, source: &str) -> (Pipeline, Running) {
    database.execute("CREATE TABLE t (id bigint PRIMARY KEY, value text)");
    database.create_slot();
    let pipeline = Pipeline::bare(source, &database.name, &database.name);
    let mut running = pipeline.start();
    running.until_streaming(database);
    running.until_caught_up(&pipeline, database);
    (pipeline, running)
}

/// A port that leads to the server's, with a way of a millisecond: too far for the small receive
/// window.
fn distant(to: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { return };
            let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || forward(client, server));
            std::thread::spawn(move || forward(back.0, back.1));
        }
    });
    port
}

fn forward(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 1 << 20];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        std::thread::sleep(Duration::from_millis(1));
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

on_each_server! {
    fn a_row_of_any_size_into_an_idle_stream_arrives_over_tcp_with_a_small_window(server) {
        let mut database = Database::new(server);
        let source = database.url();
        let (pipeline, mut running) = pipeline_over(&mut database, &source);
        rows_into_silence(&mut database, &pipeline, &mut running, &sizes(150, Some(100_000_000)));
        running.terminate();
    }

    fn a_row_of_any_size_into_an_idle_stream_arrives_over_tcp_from_afar(server) {
        let mut database = Database::new(server);
        let source = format!("postgresql://postgres@127.0.0.1:{}/{}", distant(server.port), database.name);
        let (pipeline, mut running) = pipeline_over(&mut database, &source);
        rows_into_silence(&mut database, &pipeline, &mut running, &sizes(100, Some(30_000_000)));
        running.terminate();
    }

    fn a_row_of_any_size_into_an_idle_stream_arrives_over_a_unix_socket(server) {
        let mut database = Database::new(server);
        let directory = server.directory.to_str().unwrap();
        let source = format!("host={directory} port={} user=postgres dbname={}", server.port, database.name);
        let (pipeline, mut running) = pipeline_over(&mut database, &source);
        rows_into_silence(&mut database, &pipeline, &mut running, &sizes(100, Some(100_000_000)));
        running.terminate();
    }
}

#[test]
fn a_row_of_any_size_into_an_idle_stream_arrives_over_tls() {
    let Some((server, _files, _)) = crate::connections::guarded() else { return };
    let server: &'static crate::server::Server = Box::leak(Box::new(server));
    let mut database = Database::new(server);
    let source = format!("postgresql://secure:Tr0ub4dor-3@127.0.0.1:{}/{}?sslmode=require", server.port, database.name);
    let (pipeline, mut running) = pipeline_over(&mut database, &source);
    rows_into_silence(&mut database, &pipeline, &mut running, &sizes(150, Some(100_000_000)));
    running.terminate();
    drop(database);
    server.stop("fast");
}

#[cfg(feature = "failpoints")]
on_each_server! {
    fn a_reader_that_misses_its_wake_up_gets_a_new_connection(server) {
        let (mut database, mut pipeline) = crate::delivery::arrange(server, "CREATE TABLE t (id int PRIMARY KEY)");
        pipeline.set("PG2ANY_FAILPOINTS", "source.deaf=fail@30");
        pipeline.set("PG2ANY_STALL_TIMEOUT", "1s").set("PG2ANY_STATUS_INTERVAL", "200ms");
        let mut running = pipeline.start();
        running.until_streaming(&mut database);
        running.mark_until_said(&mut database, "the stream has not moved");
        running.until_caught_up(&pipeline, &mut database);
        let said = running.terminate();
        assert!(said.contains("the next message") && said.contains("bytes have arrived and were not read"), "{said}");
    }
}

#[cfg(feature = "failpoints")]
on_each_server! {
    fn an_applier_that_misses_its_wake_up_gets_a_new_connection(server) {
        let (mut database, mut pipeline) = crate::delivery::arrange(server, "CREATE TABLE t (id int PRIMARY KEY)");
        pipeline.set("PG2ANY_FAILPOINTS", "apply.deaf=fail").set("PG2ANY_STALL_TIMEOUT", "1s");
        let mut running = pipeline.start();
        running.until_streaming(&mut database);
        running.mark_until_said(&mut database, "applying has not moved");
        running.until_caught_up(&pipeline, &mut database);
        let said = running.terminate();
        assert!(said.contains("waiting for transactions") && said.contains("newest_in_spool"), "{said}");
    }
}

on_each_server! {
    fn a_long_statement_at_the_destination_is_no_standstill(server) {
        let (mut database, mut pipeline) = crate::delivery::arrange(server, "CREATE TABLE t (id int PRIMARY KEY)");
        database.execute("INSERT INTO t VALUES (1)");
        pipeline.set("PG2ANY_STALL_TIMEOUT", "1s").set("CDC_QUERY_TIMEOUT", "60s").set("PG2ANY_ENFORCE_CONSTRAINTS", "true");
        pipeline.catch_up();
        pipeline.own(
            "CREATE TABLE seen (n); CREATE TABLE many (n);
             WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 500) INSERT INTO many SELECT n FROM c;
             CREATE TRIGGER slow AFTER INSERT ON t BEGIN
               INSERT INTO seen SELECT count(*) FROM (SELECT a.n + b.n + c.n AS n FROM many a, many b, many c) WHERE n > 5;
             END",
        );
        database.execute("INSERT INTO t VALUES (2)");
        let started = Instant::now();
        let said = pipeline.catch_up();
        assert!(started.elapsed() > Duration::from_secs(3), "the statement was not long: {:?}", started.elapsed());
        assert!(!said.contains("while executing"), "{said}");
    }
}
