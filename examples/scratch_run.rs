//! scratch
use std::sync::Arc;
#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_env_filter(std::env::var("RUST_LOG").unwrap_or("info,pg_walstream=warn".into())).with_writer(std::io::stderr).init();
     let mut b = pg2any_lib::load_config_from_env().unwrap();
    if let Ok(l) = std::env::var("UNTIL") { b.until = Some(if l == "caught-up" { pg2any_lib::config::Until::CaughtUp } else { pg2any_lib::config::Until::Lsn(l.parse().unwrap()) }); }
    let o = pg2any_lib::pipeline::RunOptions::default();
    let n = Arc::clone(&o.numbers);
    let r = pg2any_lib::pipeline::run(&b, o).await;
    for (name, _, v) in n.all() { if v != 0 { eprintln!("{name} {v}"); } }
    match r { Ok(o) => println!("{o:?}"), Err(e) => { println!("ERR {e}"); std::process::exit(1) } }
}
