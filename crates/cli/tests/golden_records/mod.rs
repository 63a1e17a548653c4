//! Records of GlusterFS's command line (`$ command`, output, `--- stderr`, `--- exit N`) and comparisons with them.

use mortar_api::{Error, ErrorKind};
use mortar_cli::client::CallError;
use mortar_cli::command::{Asked, parse};
use mortar_cli::execute::Answer;
use mortar_cli::face::{Output, gluster};
use mortar_cli::run::{Face, word};
use mortar_cli::{Command, Globals};

/// The record of `file` whose command line is `line`; the one after `earlier` others of the same line.
pub(crate) fn golden(file: &str, line: &str, earlier: usize) -> Output {
    let text = std::fs::read_to_string(format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let start = format!("$ {line}\n");
    let record = text.split_inclusive('\n').collect::<Vec<_>>();
    let mut found = record.iter().enumerate().filter(|(_, found)| ***found == start).map(|(at, _)| at);
    let at = found.nth(earlier).unwrap_or_else(|| panic!("no record {line:?} in {file}"));
    let mut output = Output::default();
    let mut errors = false;
    for found in &record[at + 1..] {
        if let Some((front, code)) = found.split_once("--- exit ") {
            output.stdout.push_str(front);
            output.code = code.trim().parse().unwrap();
            return output;
        }
        if *found == "--- stderr\n" {
            errors = true;
        } else if errors {
            output.stderr.push_str(found);
        } else {
            output.stdout.push_str(found);
        }
    }
    panic!("record {line:?} in {file} has no exit line");
}

pub(crate) fn words(line: &str) -> (Globals, Vec<String>) {
    let words = line.split_whitespace().skip(1).map(str::to_owned).collect();
    Globals::extract(words).unwrap()
}

pub(crate) fn command(line: &str) -> Command {
    match parse(&words(line).1, false) {
        Ok(Asked::Command(command)) => command,
        other => panic!("{line}: {other:?}"),
    }
}

/// Comparisons with the records of one file.
pub(crate) struct Check(pub(crate) &'static str);

impl Check {
    pub(crate) fn command(&self, line: &str) -> Command {
        command(line)
    }

    pub(crate) fn answered(&self, line: &str, answer: Answer) {
        self.answered_at(line, self.first_success(line), answer);
    }

    pub(crate) fn answered_at(&self, line: &str, earlier: usize, answer: Answer) {
        self.same(line, earlier, &Ok(answer));
    }

    pub(crate) fn refused(&self, line: &str, message: &str) {
        let earlier =
            (0..).find(|at| golden(self.0, line, *at).stdout.contains(message) || golden(self.0, line, *at).code != 0);
        self.refused_at(line, earlier.unwrap_or(0), message);
    }

    pub(crate) fn refused_at(&self, line: &str, earlier: usize, message: &str) {
        let refused = Err(CallError::Refused(Error::new(ErrorKind::Invalid, message)));
        self.same(line, earlier, &refused);
    }

    pub(crate) fn misused(&self, line: &str) {
        let misuse = parse(&words(line).1, false).expect_err(line);
        assert_eq!(gluster::misuse(&misuse), golden(self.0, line, 0), "{line}");
    }

    fn first_success(&self, line: &str) -> usize {
        (0..).find(|at| golden(self.0, line, *at).code == 0).unwrap_or(0)
    }

    fn same(&self, line: &str, earlier: usize, result: &Result<Answer, CallError>) {
        let output = word(Face::Gluster, words(line).0.format, &self.command(line), result);
        assert_eq!(output, golden(self.0, line, earlier), "{line}");
    }
}
