//! Named points between the steps of the path at which a test may stop the process or make the step
//! fail.
//!
//! Compiled in with the feature `failpoints` alone.
//! `PG2ANY_FAILPOINTS=spool.committed=kill@3,apply.executed=fail` ends the process, as `kill -9`
//! would, when the point `spool.committed` is passed for the third time, and makes the first
//! passing of `apply.executed` an error. Without `@N` it is the first passing.
//! `freeze` stops it there, as SIGSTOP does. `spool.written=pause` makes every passing take half a
//! second, so that what must wait for it is seen to wait.

/// What a failpoint was told to do, as an I/O error that the step reports as its own.
///
/// # Errors
///
/// An error when the environment asks for one here.
#[cfg(feature = "failpoints")]
pub fn pass(name: &str) -> std::io::Result<()> {
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex, PoisonError};

    static PLAN: LazyLock<Mutex<HashMap<String, (String, u64)>>> = LazyLock::new(|| {
        let plan = std::env::var("PG2ANY_FAILPOINTS").unwrap_or_default();
        Mutex::new(
            plan.split(',')
                .filter_map(|entry| entry.trim().split_once('='))
                .map(|(name, action)| {
                    let (action, count) = action.split_once('@').unwrap_or((action, "1"));
                    (name.to_owned(), (action.to_owned(), count.parse().unwrap_or(1)))
                })
                .collect(),
        )
    });
    let mut plan = PLAN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((action, left)) = plan.get_mut(name) else { return Ok(()) };
    if action == "pause" {
        drop(plan);
        std::thread::sleep(std::time::Duration::from_millis(500));
        return Ok(());
    }
    *left = left.wrapping_sub(1);
    if *left != 0 {
        return Ok(());
    }
    match action.as_str() {
        "freeze" => {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP)?;
            // Another thread may have taken the signal: this one stops a moment later.
            std::thread::sleep(std::time::Duration::from_millis(50));
            Ok(())
        }
        "kill" => {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            std::process::abort()
        }
        _ => Err(std::io::Error::other(format!("failpoint {name}"))),
    }
}

/// Does nothing: the feature `failpoints` is off.
///
/// # Errors
///
/// Never.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub const fn pass(_name: &str) -> std::io::Result<()> {
    Ok(())
}
