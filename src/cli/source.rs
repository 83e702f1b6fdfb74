//! `pg2any source`.

use std::sync::Arc;

use clap::Subcommand;
use pg2any_lib::metrics::Metrics;
use pg2any_lib::source;
use pg2any_lib::spool::{SourceIdentity, Spool};

use super::exit::{Code, Failure};
use super::flags::SourceFlags;
use super::logging;

/// Commands about the source.
#[derive(Subcommand)]
pub enum Command {
    Adopt(AdoptArguments),
}

const EXAMPLES: &str = "\
Example, after pg_upgrade (the slot has to exist in the new cluster; PostgreSQL 17 and newer carry it over):
  pg2any source adopt            says what it is bound to
  pg2any source adopt --yes      binds the data directory to the new cluster

The next `run` gives the destination's checkpoint the new source's name, in the transaction that takes it.

Nothing can be checked across two clusters: what was committed between the spool's end and the slot's start is lost to the
destination if there is any. Stop the writers before the upgrade, and let pg2any catch up first. In one cluster it
can be checked, and adopting passes no gap over: `run --accept-gap FROM..TO` does, with the positions that the refusal names.";

/// Bind the data directory to the source as it is now.
///
/// The spool remembers which cluster, database, slot and publications it was filled from, and `run`
/// refuses others. This command, and nothing else, changes what it remembers. `run` must be
/// stopped.
#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct AdoptArguments {
    /// Do it; without this only what it is bound to is told.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    flags: SourceFlags,
}

/// Reads who the source is, and records it.
pub fn adopt(arguments: &AdoptArguments) -> Result<Code, Failure> {
    let config = arguments.flags.config()?;
    logging::start(config.log_format);
    if !config.data_directory.is_dir() {
        return Err(Failure::no_directory(&config.data_directory));
    }
    let metrics = Arc::<Metrics>::default();
    let spool = Spool::open(config.spool_options(Arc::clone(&metrics)))?;
    println!("The data directory belongs to:\n{}", describe(spool.identity()?.as_ref()));
    if !arguments.yes {
        println!("Say --yes to bind it to what --source, --slot and --publication lead to now.");
        spool.close();
        return Ok(Code::Success);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Other, error.to_string()))?;
    let adopted = runtime.block_on(source::adopt(&config.source_options(metrics), &spool));
    spool.close();
    let adopted = adopted?;
    if adopted.before == adopted.after {
        println!("The source is still the same: nothing was changed.");
    } else {
        println!("It belongs to this source now:\n{}", describe(Some(&adopted.after)));
    }
    println!("The spool ends at {}; it ended at {} before.", adopted.durable_after, adopted.durable_before);
    adopted.gap.map_or(Ok(Code::Success), |gap| Err(Failure::from(source::SourceError::from(gap))))
}

fn describe(identity: Option<&SourceIdentity>) -> String {
    let Some(identity) = identity else { return "  nobody yet".to_owned() };
    let publications: Vec<_> = identity
        .publications
        .iter()
        .map(|publication| format!("{} (OID {})", publication.name, publication.oid))
        .collect();
    format!(
        "  system {}, timeline {}, database {}, slot {}, publications {}",
        identity.system_identifier,
        identity.timeline,
        identity.database,
        identity.slot,
        publications.join(", ")
    )
}
