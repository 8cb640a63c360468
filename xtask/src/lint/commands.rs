// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every command that a document tells the reader to type is one that the programs understand.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::{CommandFactory, Parser};

use super::Finding;
use super::documents::{DOCUMENTS, code};
use super::tree::Tree;
use crate::{Task, cargo_run};

/// Answers what the program says of itself.
pub(crate) trait Help {
    /// The help of a command, or of the program itself for an empty name.
    fn help(&self, command: &str) -> Result<String>;
}

/// The program that was just built.
pub(crate) struct Built {
    path: std::path::PathBuf,
}

impl Built {
    pub(crate) fn new() -> Result<Self> {
        let built = cargo_run::build(&["build", "--quiet"])?;
        let program = built.into_iter().find(|built| built.name == "superpose");
        Ok(Self {
            path: program.context("no program was built")?.path,
        })
    }
}

impl Help for Built {
    fn help(&self, command: &str) -> Result<String> {
        let mut program = Command::new(&self.path);
        if !command.is_empty() {
            program.arg(command);
        }
        let output = program.arg("--help").output().context("starting superpose")?;
        ensure!(output.status.success(), "superpose {command} --help failed");
        String::from_utf8(output.stdout).context("the help of superpose")
    }
}

/// Checks the commands of all documents.
pub(crate) fn check(tree: &Tree, program: &impl Help) -> Result<Vec<Finding>> {
    let mut superpose = Superpose {
        program,
        overall: program.help("")?,
        known: BTreeMap::new(),
    };
    let mut findings = Vec::new();
    for document in DOCUMENTS {
        for (line, text) in code(tree.text(document).unwrap_or_default()) {
            for words in simple_commands(text) {
                if let Some(what) = fault(&words, &mut superpose)? {
                    findings.push(Finding::at(document, line, what));
                }
            }
        }
    }
    Ok(findings)
}

fn fault(words: &[&str], superpose: &mut Superpose<'_, impl Help>) -> Result<Option<String>> {
    match words {
        ["cargo", "xtask", args @ ..] => Ok(xtask_fault(args)),
        [program, args @ ..] if *program == "superpose" || program.ends_with("/superpose") => {
            superpose.fault(args)
        }
        _ => Ok(None),
    }
}

/// The simple commands of a line of shell, without what stands before the program's name.
fn simple_commands(line: &str) -> Vec<Vec<&str>> {
    let line = line.strip_prefix("$ ").unwrap_or(line);
    let mut commands = vec![Vec::new()];
    for word in line.split_whitespace() {
        if word.starts_with('#') {
            break;
        }
        if matches!(word, "&&" | "||" | "|" | ";" | "&" | "\\") {
            commands.push(Vec::new());
        } else if let Some(command) = commands.last_mut() {
            let is_prefix = command.is_empty() && (word == "sudo" || word == "time" || is_assignment(word));
            if !is_prefix {
                command.push(word);
            }
        }
    }
    commands
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=')
        .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
}

/// A word that stands for something the reader puts in.
fn is_placeholder(word: &str) -> bool {
    let has_letters = word.chars().any(|c| c.is_ascii_uppercase());
    word.contains(['<', '[', '…', '|'])
        || word.contains("...")
        || (has_letters && word.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
}

/// The definition of our own tasks is at hand: the arguments are simply parsed.
fn xtask_fault(args: &[&str]) -> Option<String> {
    let task = args
        .first()
        .filter(|word| !word.starts_with('-') && !is_placeholder(word))?;
    if Task::command().find_subcommand(task).is_none() {
        return Some(format!("there is no task `cargo xtask {task}`"));
    }
    if args.iter().any(|word| is_placeholder(word)) {
        return None;
    }
    let error = Task::try_parse_from(["cargo xtask"].iter().chain(args)).err()?;
    error.use_stderr().then(|| {
        format!(
            "`cargo xtask {}`: {}",
            args.join(" "),
            first_line(&error.to_string())
        )
    })
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// What the program says of itself, asked once for each command.
struct Superpose<'a, P> {
    program: &'a P,
    overall: String,
    known: BTreeMap<String, String>,
}

impl<P: Help> Superpose<'_, P> {
    fn fault(&mut self, args: &[&str]) -> Result<Option<String>> {
        // What follows `--` is another program's.
        let args: Vec<&str> = args.iter().copied().take_while(|&word| word != "--").collect();
        let mut words = args.iter();
        let command = loop {
            match words.next() {
                None => break None,
                Some(&"--store") => drop(words.next()),
                Some(word) if word.starts_with('-') => {}
                Some(word) => break Some(*word),
            }
        };
        let help = match command.filter(|word| !is_placeholder(word)) {
            None => self.overall.clone(),
            Some(word) if !has_command(&self.overall, word) => {
                return Ok(Some(format!("there is no command `superpose {word}`")));
            }
            Some(word) => self.help(word)?,
        };
        for option in args.iter().filter(|word| word.starts_with("--")) {
            let name = option.split('=').next().unwrap_or(option);
            if !is_placeholder(name) && !has_option(&help, name) && !has_option(&self.overall, name) {
                return Ok(Some(format!(
                    "`superpose {}` has no option `{name}`",
                    command.unwrap_or_default()
                )));
            }
        }
        Ok(None)
    }

    fn help(&mut self, command: &str) -> Result<String> {
        if let Some(text) = self.known.get(command) {
            return Ok(text.clone());
        }
        let text = self.program.help(command)?;
        self.known.insert(command.to_owned(), text.clone());
        Ok(text)
    }
}

/// Whether a command is in the list that follows `Commands:`.
fn has_command(help: &str, command: &str) -> bool {
    let list = help.lines().skip_while(|line| line.trim() != "Commands:").skip(1);
    let mut list = list.take_while(|line| line.starts_with(' ') || line.is_empty());
    list.any(|line| line.split_whitespace().next() == Some(command))
}

fn has_option(help: &str, name: &str) -> bool {
    let is_end = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
    help.match_indices(name)
        .any(|(at, _)| help[at + name.len()..].chars().next().is_none_or(is_end))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Help for Fixed {
        fn help(&self, command: &str) -> Result<String> {
            Ok(match command {
                "" => "Usage: superpose\n\nCommands:\n  add     Adds\n  run     Runs\n\nOptions:\n      --store <URL>\n",
                "add" => "Usage: superpose add\n\nOptions:\n      --name <NAME>\n      --json\n",
                _ => "Usage\n",
            }
            .to_owned())
        }
    }

    fn check_readme(text: &str) -> Vec<Finding> {
        check(&Tree::of(&[("README.md", text)]), &Fixed).unwrap()
    }

    #[test]
    fn known_commands_are_left_alone() {
        let text = "`superpose`, `superpose --store URL add --name=x PATH`, `superpose COMMAND`\n\
            ```sh\n$ sudo X=1 target/debug/superpose --store /s run -- ls --color # superpose gone\n\
            cargo xtask test --tier root -- name && cargo xtask <task>\n\
            # superpose shows the layer\n```\n`cargo xtask stock-nix --help`\n";
        assert_eq!(check_readme(text), []);
    }

    #[test]
    fn unknown_commands_options_and_tasks_are_found() {
        for text in [
            "`superpose gone`",
            "`superpose --store /s remove x`",
            "`superpose add --nam x`",
            "`superpose --jsn`",
            "```\nls && cargo xtask gone\n```",
            "`cargo xtask test --tier moon`",
        ] {
            assert_eq!(check_readme(text).len(), 1, "{text}");
        }
    }
}
