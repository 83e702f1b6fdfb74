//! Keeps connection strings out of the process list.
//!
//! What is on a command line, every user of the machine can read for as long as the process runs.
//! So a process that was given a connection string as a flag starts itself again, in place, with
//! the flag's value in an environment variable (which only its owner can read). The process id
//! stays the same.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use pg2any_lib::config::{Form, SETTINGS};

use super::exit::{Code, Failure};

/// Starts the program again without its secret flags; returns when there are none.
pub fn move_secrets_to_the_environment() -> Result<(), Failure> {
    let (arguments, secrets) = split(std::env::args_os().skip(1));
    if secrets.is_empty() {
        return Ok(());
    }
    for setting in SETTINGS.iter().filter(|setting| secrets.iter().any(|(variable, _)| *variable == setting.variable)) {
        let file = format!("--{}-file", setting.flag);
        if arguments.iter().any(|argument| argument.as_bytes().starts_with(file.as_bytes())) {
            let message = format!("--{} and {file} are both given: leave one out", setting.flag);
            return Err(Failure::new(Code::Usage, message));
        }
    }
    let program = std::env::current_exe().map_err(|error| Failure::new(Code::Other, error.to_string()))?;
    let mut command = Command::new(program);
    command.args(arguments);
    for (variable, value) in secrets {
        // A flag wins over the variable, and over the file that a variable names.
        command.env_remove(format!("{variable}_FILE")).env(variable, value);
    }
    let error = command.exec();
    Err(Failure::new(
        Code::Other,
        format!("cannot start again without the connection strings on the command line: {error}"),
    )
    .hint("Name them by CDC_SOURCE_CONNECTION_STRING and CDC_DEST_URI, or by --source-file and --dest-uri-file."))
}

/// The arguments that may be seen, and the variables for the others. A flag without a value, an
/// empty one and one that is given together with its file stay where they are, for the parser to
/// complain about.
fn split(arguments: impl Iterator<Item = OsString>) -> (Vec<OsString>, Vec<(&'static str, OsString)>) {
    let mut kept = Vec::new();
    let mut secrets: Vec<(&'static str, OsString)> = Vec::new();
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            kept.push(argument);
            break;
        }
        let found = SETTINGS.iter().filter(|setting| setting.is_secret()).find_map(|setting| {
            let rest = argument.as_bytes().strip_prefix(b"--")?.strip_prefix(setting.flag.as_bytes())?;
            match rest {
                [] => Some((setting, None)),
                [b'=', value @ ..] => Some((setting, Some(OsString::from_vec(value.to_vec())))),
                _ => None,
            }
        });
        let Some((setting, inline)) = found else {
            kept.push(argument);
            continue;
        };
        let twice = secrets.iter().any(|(variable, _)| *variable == setting.variable);
        let value = inline.or_else(|| arguments.next_if(|value| !value.as_bytes().starts_with(b"--")));
        match value {
            Some(value) if !value.is_empty() && !twice => secrets.push((setting.variable, value)),
            Some(value) if !value.is_empty() && matches!(setting.form, Form::Secrets { .. }) => {
                for (_, lines) in secrets.iter_mut().filter(|(variable, _)| *variable == setting.variable) {
                    lines.push("\n");
                    lines.push(&value);
                }
            }
            // The value of a second one is not repeated: it must not be seen either.
            Some(_) => kept.push(OsString::from(format!("--{}=", setting.flag))),
            None => kept.push(argument),
        }
    }
    kept.extend(arguments);
    (kept, secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_text(arguments: &[&str]) -> (Vec<String>, Vec<(&'static str, String)>) {
        let (kept, secrets) = split(arguments.iter().map(OsString::from));
        let text = |value: OsString| value.into_string().unwrap();
        (kept.into_iter().map(text).collect(), secrets.into_iter().map(|(name, value)| (name, text(value))).collect())
    }

    #[test]
    fn connection_strings_move_and_everything_else_stays() {
        let (kept, secrets) = split_text(&[
            "run",
            "--source",
            "postgresql://u:p@h/d",
            "--slot",
            "s",
            "--dest-uri=x:p",
            "--source-file",
            "f",
        ]);
        assert_eq!(kept, ["run", "--slot", "s", "--source-file", "f"]);
        assert_eq!(
            secrets,
            [("CDC_SOURCE_CONNECTION_STRING", "postgresql://u:p@h/d".to_owned()), ("CDC_DEST_URI", "x:p".to_owned())]
        );
    }

    #[test]
    fn a_flag_without_a_value_is_left_for_the_parser() {
        assert_eq!(split_text(&["run", "--source", "--slot", "s"]).0, ["run", "--source", "--slot", "s"]);
        assert_eq!(split_text(&["run", "--", "--source", "x"]).0, ["run", "--", "--source", "x"]);
    }
}
