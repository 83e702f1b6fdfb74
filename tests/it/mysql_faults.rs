//! MySQL and MariaDB when something is in the way: encryption, another writer, a full disk, a
//! server that refuses, restarts, or comes back older than it was.

use std::time::Duration;

use crate::compare::assert_equal;
use crate::database::Database;
use crate::driver::{Pipeline, Running};
use crate::filesystem::Filesystem;
use crate::mysql_server::Client;
use crate::relational::{TABLE, into};
use crate::target::Target;

const TWO: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY, v text)";

/// A row in each of two tables, at the destination too.
fn begun(pipeline: &Pipeline, database: &mut Database) -> Running {
    database.execute("INSERT INTO t VALUES (1, 'a'), (2, 'a'); INSERT INTO u VALUES (1, 'a')");
    let mut running = pipeline.start();
    running.until_caught_up(pipeline, database);
    running
}

fn name(pipeline: &Pipeline) -> String {
    let Target::MySql(database) = pipeline.target() else { panic!("another destination") };
    database.name.clone()
}

/// The number of pg2any's connection that fulfils this condition on its line of the process list.
fn connection(pipeline: &Pipeline, client: &mut Client, condition: &str) -> Option<String> {
    let sql = format!(
        "SELECT id FROM information_schema.processlist WHERE user = 'tester' AND db = '{}' AND {condition}",
        name(pipeline)
    );
    client.rows(&sql).unwrap_or_default().into_iter().next()?.into_iter().next()
}

/// Waits until pg2any's transaction, in which something is written, waits for a lock.
fn until_it_waits(pipeline: &Pipeline, running: &mut Running, client: &mut Client) {
    let waits = "id IN (SELECT trx_mysql_thread_id FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT' AND trx_rows_modified > 0)";
    running.until("it waits for a lock", || {
        // Who asks more often gets the answer of before.
        std::thread::sleep(Duration::from_millis(200));
        connection(pipeline, client, waits).is_some()
    });
}

on_each_mysql! {
    fn every_mode_of_encryption_connects_where_it_may_and_says_why_where_not(server, mysql) {
        let (mut database, mut pipeline) = into(server, TABLE, mysql);
        let (ca, other) = (mysql.file("ca.crt"), mysql.file("other.crt"));
        let user = format!("secure_{}", name(&pipeline));
        mysql.execute("", &format!("CREATE USER {user}@'%' IDENTIFIED BY 'p@ss/w:rd' REQUIRE SSL; GRANT ALL ON *.* TO {user}@'%'"));
        let by = |uri: &str, parameters: &str| format!("{}?{parameters}", uri.replace("tester", &user));
        for (id, parameters) in [
            "ssl-mode=PREFERRED".to_owned(),
            "ssl-mode=REQUIRED".to_owned(),
            format!("ssl-mode=VERIFY_CA&ssl-ca={ca}"),
            format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={ca}"),
        ].into_iter().enumerate() {
            pipeline.write_by(|uri, _| by(uri, &parameters));
            database.execute(&format!("INSERT INTO t VALUES ({id}, 'x')"));
            let mut running = pipeline.start();
            running.until("the row", || pipeline.has(&format!("SELECT 1 FROM t WHERE id = {id}")));
            running.terminate();
        }
        pipeline.write_by(|uri, _| by(uri, "ssl-mode=DISABLED"));
        let said = pipeline.fails();
        assert!(said.contains("Access denied"), "{said}");
        for (place, parameters) in [
            ("127.0.0.1", format!("ssl-mode=VERIFY_CA&ssl-ca={other}")),
            ("127.0.0.1", format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={other}")),
            // The certificate is for the address, not for a name.
            ("localhost", format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={ca}")),
        ] {
            pipeline.write_by(|uri, _| format!("{}?{parameters}", uri.replace("127.0.0.1", place)));
            let said = pipeline.fails();
            assert!(said.contains("Check ssl-mode and ssl-ca") && !said.contains("p@ss"), "{parameters}: {said}");
        }
        pipeline.write_by(|uri, _| format!("{}?ssl-mode=VERIFY_CA&ssl-ca={ca}", uri.replace("127.0.0.1", "localhost")));
        database.execute("INSERT INTO t VALUES (100, 'x')");
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn a_unix_socket_is_used_where_the_uri_names_one(server, mysql) {
        let (mut database, mut pipeline) = into(server, TABLE, mysql);
        let socket = mysql.file("socket");
        pipeline.write_by(|_, name| format!("mysql://tester:p%40ss%2Fw%3Ard@nowhere.invalid:1/{name}?socket={socket}"));
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        assert!(connection(&pipeline, &mut mysql.connect(""), "host = 'localhost'").is_some());
        running.terminate();
    }

    fn a_full_disk_is_waited_for(server, mysql) {
        // One of its own: its files are gone with the disk.
        let Some(own) = MySqlServer::own(mysql.kind) else { return };
        let mysql: &'static MySqlServer = Box::leak(Box::new(own));
        let (mut database, pipeline) = into(server, TABLE, mysql);
        let directory = mysql.database_directory(&name(&pipeline));
        let Some(disk) = Filesystem::in_memory(&directory, 40) else { return };
        mysql.own_file(&directory);
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        // Long values: MariaDB 10.11 ends itself when it has to split a page of short rows and
        // there is no room.
        database.execute("INSERT INTO t SELECT g, repeat('x', 10000) FROM generate_series(1, 6000) g");
        running.until_said("Make room on the server's disk");
        assert_eq!(pipeline.lines("SELECT count(*) FROM t"), ["0"]);
        disk.remount("size=200m");
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_equal(&database, &pipeline);
        mysql.kill();
    }

    fn a_deadlock_with_another_writer_costs_the_batch_only(server, mysql) {
        let (mut database, pipeline) = into(server, TWO, mysql);
        let mut running = begun(&pipeline, &mut database);
        pipeline.own("CREATE TABLE weight (id int PRIMARY KEY)");
        let mut other = mysql.connect(&name(&pipeline));
        other.rows("START TRANSACTION").unwrap();
        // Who has written less is the one whose transaction is undone.
        other.rows("INSERT INTO weight WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < 900) SELECT n FROM g").unwrap();
        other.rows("UPDATE u SET v = 'other' WHERE id = 1").unwrap();
        database.execute("BEGIN; UPDATE t SET v = 'b' WHERE id = 1; UPDATE u SET v = 'b' WHERE id = 1; COMMIT");
        until_it_waits(&pipeline, &mut running, &mut mysql.connect(""));
        other.rows("UPDATE t SET v = 'other' WHERE id = 1").unwrap();
        running.until_said("Deadlock found");
        other.rows("ROLLBACK").unwrap();
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_equal(&database, &pipeline);
    }

    fn a_lock_of_another_writer_is_waited_for(server, mysql) {
        let (mut database, mut pipeline) = into(server, TWO, mysql);
        pipeline.set("PG2ANY_QUERY_TIMEOUT", "4s");
        let mut running = begun(&pipeline, &mut database);
        let mut other = mysql.connect(&name(&pipeline));
        other.rows("START TRANSACTION").unwrap();
        other.rows("UPDATE u SET v = 'other' WHERE id = 1").unwrap();
        database.execute("BEGIN; UPDATE t SET v = 'b' WHERE id = 1; UPDATE u SET v = 'b' WHERE id = 1; COMMIT");
        running.until_said("Lock wait timeout exceeded");
        assert_eq!(pipeline.lines("SELECT v FROM t WHERE id = 1"), ["a"]);
        other.rows("ROLLBACK").unwrap();
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_equal(&database, &pipeline);
    }

    fn a_connection_that_is_killed_again_and_again_loses_and_doubles_nothing(server, mysql) {
        let (mut database, pipeline) = into(server, TWO, mysql);
        let mut running = begun(&pipeline, &mut database);
        let mut client = mysql.connect("");
        for round in 1..=4 {
            database.execute(&format!(
                "INSERT INTO t SELECT {round} * 10000 + g, 'a' FROM generate_series(1, 2000) g; INSERT INTO u SELECT {round} * 10000 + g, 'a' FROM generate_series(1, 500) g;
                 UPDATE t SET v = v || 'b'"
            ));
            let mut killed = 0;
            running.until("a connection to kill", || {
                // The one that was there first may be gone by now.
                if let Some(number) = connection(&pipeline, &mut client, "command <> 'Killed'") {
                    killed += u32::from(client.rows(&format!("KILL {number}")).is_ok());
                }
                killed > 0
            });
        }
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_equal(&database, &pipeline);
    }

    fn a_server_that_ends_idle_connections_does_not_end_ours(server, mysql) {
        let Some((_turn, mysql)) = MySqlServer::alone(mysql.kind) else { return };
        let (mut database, pipeline) = into(server, TWO, mysql);
        let mut client = mysql.connect("");
        client.rows("SET GLOBAL wait_timeout = 1; SET GLOBAL interactive_timeout = 1").unwrap();
        let mut running = begun(&pipeline, &mut database);
        let ours = connection(&pipeline, &mut client, "true").unwrap();
        running.until("it was idle for long", || connection(&pipeline, &mut client, "time >= 3").is_some());
        running.until_caught_up(&pipeline, &mut database);
        assert_eq!(connection(&pipeline, &mut client, "true"), Some(ours));
        client.rows("SET GLOBAL wait_timeout = 28800; SET GLOBAL interactive_timeout = 28800").unwrap();
        running.terminate();
    }

    fn a_row_that_the_server_takes_no_packet_for_is_named_and_arrives_when_it_may(server, mysql) {
        let Some((_turn, mysql)) = MySqlServer::alone(mysql.kind) else { return };
        let (mut database, pipeline) = into(server, TABLE, mysql);
        mysql.execute("", "SET GLOBAL max_allowed_packet = 1048576");
        database.execute("INSERT INTO t VALUES (1, 'before')");
        database.execute("INSERT INTO t SELECT 2, repeat('x', 2000000)");
        let first = pipeline.fails();
        mysql.execute("", "SET GLOBAL max_allowed_packet = 67108864");
        assert!(first.contains("max_allowed_packet") && first.contains("id=\"2\"") || first.contains("id=\\\"2\\\""), "{first}");
        assert_eq!(pipeline.lines("SELECT v FROM t"), ["before"]);
        pipeline.catch_up();
        assert_equal(&database, &pipeline);
    }

    fn a_server_that_is_read_only_is_waited_for(server, mysql) {
        let Some((_turn, mysql)) = MySqlServer::alone(mysql.kind) else { return };
        let (mut database, mut pipeline) = into(server, TABLE, mysql);
        let (user, own) = (format!("plain_{}", name(&pipeline)), name(&pipeline));
        // What the README says is granted, and nothing that may write all the same.
        mysql.execute("", &format!(
            "CREATE USER {user}@'%' IDENTIFIED BY 'p@ss/w:rd';
             GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, TRIGGER ON {own}.* TO {user}@'%'"
        ));
        pipeline.write_by(|uri, _| uri.replace("tester", &user));
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        mysql.execute("", "SET GLOBAL read_only = 1");
        database.execute("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 100) g");
        running.until_said("The server is read-only");
        mysql.execute("", "SET GLOBAL read_only = 0");
        running.until_caught_up(&pipeline, &mut database);
        // So does a schema change, with these grants alone.
        database.execute("ALTER TABLE t ADD w int DEFAULT 7; INSERT INTO t VALUES (1000, 'x', 1)");
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_equal(&database, &pipeline);
    }

    fn a_restart_in_the_middle_of_a_transaction_costs_time_only(server, mysql) {
        let Some((_turn, mysql)) = MySqlServer::alone(mysql.kind) else { return };
        let (mut database, pipeline) = into(server, TWO, mysql);
        let mut running = begun(&pipeline, &mut database);
        let mut other = mysql.connect(&name(&pipeline));
        other.rows("START TRANSACTION").unwrap();
        other.rows("UPDATE u SET v = 'other' WHERE id = 1").unwrap();
        database.execute("BEGIN; UPDATE t SET v = 'b' WHERE id = 1; INSERT INTO t SELECT g, 'a' FROM generate_series(10, 3000) g; UPDATE u SET v = 'b' WHERE id = 1; COMMIT");
        until_it_waits(&pipeline, &mut running, &mut mysql.connect(""));
        mysql.kill();
        database.execute("UPDATE t SET v = 'c' WHERE id % 2 = 0");
        mysql.launch();
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_equal(&database, &pipeline);
    }

    fn a_server_that_comes_back_older_than_it_was_is_continued_from_its_own_checkpoint(server, mysql) {
        let Some((_turn, mysql)) = MySqlServer::alone(mysql.kind) else { return };
        let (mut database, pipeline) = into(server, TWO, mysql);
        let mut running = begun(&pipeline, &mut database);
        mysql.kill();
        mysql.copy_data("data", "image");
        mysql.launch();
        database.execute("INSERT INTO t SELECT g, 'a' FROM generate_series(10, 2000) g; UPDATE u SET v = 'b'");
        running.until_caught_up(&pipeline, &mut database);
        database.execute("UPDATE t SET v = 'c' WHERE id % 3 = 0; ALTER TABLE u ADD w int DEFAULT 3; INSERT INTO u VALUES (5, 'x', 1)");
        running.until_caught_up(&pipeline, &mut database);
        // The replica that takes over had not got this far.
        mysql.kill();
        mysql.copy_data("image", "data");
        mysql.launch();
        assert_eq!(pipeline.lines("SELECT count(*) FROM t"), ["2"]);
        database.execute("DELETE FROM t WHERE id % 5 = 0");
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
        assert_equal(&database, &pipeline);
    }
}
