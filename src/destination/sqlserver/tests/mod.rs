//! What can be said of SQL Server without one: which failure an answer is, and the bytes of a bulk
//! load. A listener answers by a script.
#![allow(clippy::unwrap_used)]

mod loopback;

use std::future::Future;
use std::time::Duration;

use tiberius::{SqlBulkCopyOption, SqlBulkCopyOptions, TokenRow};

use self::loopback::{Answer, Loopback, Message, column, columns, done, error, routing, row, row_of, session};
use super::SqlServer;
use super::address::Address;
use super::checkpoint;
use super::connection::Session;
use super::error::failed;
use super::value::{form, value};
use crate::destination::value::Family;
use crate::destination::{Destination, DestinationError, FailureKind, Options};

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// How connecting there fails.
fn connecting(uri: String) -> DestinationError {
    let options = Options { connect_timeout: Duration::from_millis(500), ..Options::new(uri, "c") };
    wait(SqlServer::new(options).connect()).unwrap_err()
}

/// Does something in a session of a server that answers so to all but the session's own questions.
fn with<T>(
    script: impl Fn(&Message) -> Answer + Send + 'static,
    act: impl AsyncFnOnce(&mut Session, &Options) -> T,
) -> (T, Vec<Message>) {
    let server = Loopback::new(move |message| session(message).or_else(|| script(message)));
    let options = Options::new(server.uri(), "c");
    let done = wait(async {
        let address = Address::parse(&server.uri()).unwrap();
        let mut session = Session::open(&address, &options).await.unwrap();
        act(&mut session, &options).await
    });
    (done, server.heard())
}

#[test]
fn a_refused_login_is_final_and_a_server_that_cannot_be_reached_is_tried_again() {
    for (number, kind, said) in [
        (18456, FailureKind::Permanent, "user and password"),
        (4060, FailureKind::Permanent, "Create the database"),
        (40613, FailureKind::Reconnect, ""),
        (40197, FailureKind::Reconnect, ""),
        (10928, FailureKind::Reconnect, ""),
    ] {
        let server = Loopback::new(move |_| Some(error(number, 14)));
        let failure = connecting(server.uri());
        assert_eq!(failure.kind(), kind, "{failure}");
        assert!(failure.to_string().contains(said) && !failure.to_string().contains("u:p"), "{failure}");
    }
    // The database was there before: its server has started, and recovers it.
    for (number, kind) in [(4060, FailureKind::Reconnect), (18456, FailureKind::Permanent)] {
        let server = Loopback::new(move |_| Some(error(number, 14)));
        let mut connected = SqlServer { epoch: Some(1), ..SqlServer::new(Options::new(server.uri(), "c")) };
        assert_eq!(wait(connected.connect()).unwrap_err().kind(), kind, "{number}");
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let failure = connecting(format!("sqlserver://u:p@127.0.0.1:{closed}/d"));
    assert!(failure.kind() == FailureKind::Reconnect && failure.to_string().contains("host and port"), "{failure}");
    // Something accepts and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let failure = connecting(format!("sqlserver://u:p@127.0.0.1:{}/d", silent.local_addr().unwrap().port()));
    assert!(failure.kind() == FailureKind::Reconnect && failure.to_string().contains("did not answer"), "{failure}");
    // A server that encrypts nothing is not talked to unless the URI says so.
    let plain = Loopback::new(session);
    let failure = connecting(plain.uri().replace("off", "true"));
    assert!(!plain.heard().iter().any(Message::is_login), "{failure}");
    assert!(failure.to_string().contains("encryption"), "{failure}");
}

#[test]
fn another_server_that_the_first_one_names_is_connected_to() {
    let second = Loopback::new(session);
    let port = second.port;
    let first = Loopback::new(move |_| Some(routing(port)));
    wait(async { Session::open(&Address::parse(&first.uri()).unwrap(), &Options::new("", "c")).await }).unwrap();
    assert!(second.heard().iter().any(Message::is_login));
}

#[test]
fn what_the_server_answers_says_whether_to_try_again_to_connect_again_or_to_stop() {
    use FailureKind::{Permanent, Reconnect, Retry};
    let answers = [1205, 1222, 9002, 1105, 40544, 2714].map(|number| (number, Retry)).into_iter();
    let answers = answers.chain([40613, 40197, 40501, 10928, 922, 976, 17187, 18401].map(|number| (number, Reconnect)));
    let stops = [2627, 2601, 547, 8152, 2628, 208, 229, 4060, 18456, 50000];
    for (number, kind) in answers.chain(stops.map(|number| (number, Permanent))) {
        let answered = with(
            move |_| Some(error(number, 16)),
            async |session, _| {
                let failure = session.run("work", "working failed").await.unwrap_err();
                (failure.kind(), session.usable)
            },
        );
        assert_eq!(answered.0, (kind, true), "{number}");
    }
    let input = tiberius::error::Error::BulkInput("too long".into());
    assert_eq!(failed("loading failed", input).kind(), Permanent);
    // What ends the connection is no verdict on the work, whatever its number.
    for lost in [Some(error(208, 20)), None] {
        let answered = with(
            move |_| lost.clone(),
            async |session, _| (session.run("work", "working failed").await.unwrap_err().kind(), session.usable),
        );
        assert_eq!(answered.0, (Reconnect, false));
    }
}

#[test]
fn a_commit_that_is_not_answered_is_looked_up_by_a_new_connection() {
    for answer in [None, Some(error(1205, 13)), Some(error(9002, 17))] {
        let answered = with(
            move |_| answer.clone(),
            async |session, options| (session.commit(options).await.unwrap_err().kind(), session.usable),
        );
        assert_eq!(answered.0, (FailureKind::Reconnect, false));
    }
}

#[test]
fn a_lock_that_a_session_of_an_unknown_number_has_is_waited_for_and_nobody_is_ended() {
    let answer = |message: &Message| {
        Some(if message.sql().contains("sp_getapplock") { row_of(&[Some("7"), Some("-1"), None]) } else { done(0) })
    };
    let (waited, heard) = with(answer, async |session, options| checkpoint::replace_writer(session, options, 7).await);
    waited.unwrap();
    let said: Vec<String> = heard.iter().map(Message::sql).collect();
    let asked: Vec<bool> =
        said.iter().filter(|sql| sql.contains("sp_getapplock")).map(|sql| sql.contains("@LockTimeout = 0;")).collect();
    assert_eq!(asked, [true, false], "the second time it is waited for: {said:?}");
    assert!(!said.iter().any(|sql| sql.contains("KILL")), "{said:?}");
}

#[test]
fn a_rollback_takes_back_what_a_batch_that_failed_left_in_its_session() {
    let (usable, heard) = with(
        |_| Some(done(0)),
        async |session, _| {
            session.numbered = Some("[dbo].[t]".to_owned());
            session.roll_back().await.unwrap();
            session.roll_back().await.unwrap();
            session.usable
        },
    );
    let said: Vec<String> = heard.iter().map(Message::sql).collect();
    let off = "SET IDENTITY_INSERT [dbo].[t] OFF";
    assert!(usable && said.iter().filter(|sql| *sql == off).count() == 1, "{said:?}");
}

#[test]
fn a_transaction_that_a_trigger_ended_does_not_go_on() {
    for (state, goes_on) in [("1", true), ("0", false), ("-1", false)] {
        let (found, _) = with(move |_| Some(row(&[state])), async |session, _| session.goes_on().await.unwrap());
        assert_eq!(found, goes_on, "{state}");
    }
}

#[test]
fn a_statement_that_takes_too_long_costs_the_connection() {
    let server = Loopback::new(|message| {
        session(message).or_else(|| {
            std::thread::sleep(Duration::from_secs(2));
            None
        })
    });
    let options = Options { query_timeout: Duration::from_millis(300), ..Options::new(server.uri(), "c") };
    wait(async {
        let mut session = Session::open(&Address::parse(&server.uri()).unwrap(), &options).await.unwrap();
        let failure = session.run("work", "working failed").await.unwrap_err();
        assert!(failure.kind() == FailureKind::Reconnect && !session.usable, "{failure}");
    });
    // The server gives up on a lock before, which costs the statement only.
    assert!(server.heard().iter().any(|message| message.sql().contains("SET LOCK_TIMEOUT 225")));
}

/// `int NOT NULL`, `decimal(10,2)`, `nvarchar(20)`.
fn table() -> Vec<Vec<u8>> {
    vec![
        column("id", false, &[0x38]),
        column("n", true, &[0x6a, 9, 10, 2]),
        column("v", true, &[0xe7, 40, 0, 9, 4, 0xd0, 0, 52]),
    ]
}

const FAMILIES: [Family; 3] = [Family::Integer(4), Family::Decimal { precision: 10, scale: 2 }, Family::Text];

fn rows<'v>(rows: &'v [[Option<&'v str>; 3]]) -> impl Iterator<Item = Result<TokenRow<'v>, DestinationError>> + Send {
    rows.iter().map(|row| {
        let mut token = TokenRow::with_capacity(row.len());
        for (text, family) in row.iter().zip(FAMILIES) {
            token.push(text.map_or_else(|| form(family).null(), |text| value(form(family), text.as_bytes()).unwrap()));
        }
        Ok(token)
    })
}

/// Answers to a bulk load of this table; to the rows themselves so.
fn bulk(message: &Message, loaded: &[u8]) -> Answer {
    match () {
        () if message.is_bulk() => Some(loaded.to_vec()),
        () if message.sql().starts_with("SELECT TOP 0") => Some([columns(&table()), done(0)].concat()),
        () => Some(done(0)),
    }
}

#[test]
fn a_bulk_load_sends_its_columns_and_the_values_of_its_rows() {
    let sent = [[Some("1"), Some("-1.50"), Some("a🌍")], [Some("-2"), None, Some("")], [Some("3"), Some("0.01"), None]];
    let copy = SqlBulkCopyOption::CheckConstraints | SqlBulkCopyOption::KeepIdentity | SqlBulkCopyOption::KeepNulls;
    let (loaded, heard) = with(
        |message| bulk(message, &done(3)),
        async |session, options| {
            let loaded = session.bulk("[dbo].[t]", &["[id]", "[n]", "[v]"], copy, rows(&sent), options).await.unwrap();
            assert!(session.usable);
            loaded
        },
    );
    assert_eq!(loaded, 3);
    let said: Vec<String> = heard.iter().map(Message::sql).collect();
    assert!(said.contains(&"SELECT TOP 0 [id], [n], [v] FROM [dbo].[t]".to_owned()), "{said:?}");
    // The driver takes the bytes of a text's column for its characters.
    let insert =
        "INSERT BULK [dbo].[t] ([id] int, [n] decimal(10,2), [v] nvarchar(40)) WITH (CHECK_CONSTRAINTS, KEEP_NULLS)";
    assert_eq!(said.iter().find(|sql| sql.starts_with("INSERT BULK")).unwrap(), insert);
    let rows = [
        // A sign, then the digits as a number of little end; texts are their bytes and UTF-16.
        &[0xd1, 1, 0, 0, 0, 5, 0, 150, 0, 0, 0, 6, 0, b'a', 0, 0x3c, 0xd8, 0x0d, 0xdf][..],
        &[0xd1, 0xfe, 0xff, 0xff, 0xff, 0, 0, 0],
        &[0xd1, 3, 0, 0, 0, 5, 1, 1, 0, 0, 0, 0xff, 0xff],
        &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    let bulk: Vec<Vec<u8>> = heard.into_iter().filter(Message::is_bulk).map(|message| message.body).collect();
    assert_eq!(bulk, [[columns(&table()), rows.concat()].concat()]);
}

#[test]
fn after_an_error_inside_a_bulk_load_the_connection_is_not_used_again() {
    // The server refuses a row; the second row cannot be made into one.
    let whole = [[Some("1"), None, None]];
    let refused = with(
        |message| bulk(message, &error(2627, 14)),
        async |session, options| {
            let done = session.bulk("t", &["id", "n", "v"], SqlBulkCopyOptions::empty(), rows(&whole), options).await;
            (done.unwrap_err().kind(), session.usable)
        },
    );
    assert_eq!(refused.0, (FailureKind::Permanent, false));
    let broken = rows(&whole).chain(std::iter::once(Err(DestinationError::permanent("no value"))));
    let (_, heard) = with(
        |message| bulk(message, &done(1)),
        async |session, options| {
            let done = session.bulk("t", &["id", "n", "v"], SqlBulkCopyOptions::empty(), broken, options).await;
            assert!(done.unwrap_err().to_string().contains("no value") && !session.usable);
        },
    );
    // The rows before it were not sent: the server would have stored them.
    assert!(!heard.iter().any(Message::is_bulk));
}
