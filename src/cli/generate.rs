//! `faultline generate DIR`, which `--help` doesn't show: man pages and completions, made of clap's definition of the command line. Whoever
//! installs faultline calls it: the files stand below DIR as they do below /usr/share.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;

const NAME: &str = "faultline";
const SHELLS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions/faultline"),
    (Shell::Zsh, "zsh/site-functions/_faultline"),
    (Shell::Fish, "fish/vendor_completions.d/faultline.fish"),
];

/// docs/output.md has the same table.
const EXIT_STATUS: [(&str, &str); 7] = [
    ("0", "all went well; the reader of a pipe has gone; or the processes of `-p` have ended"),
    ("the command's own, 128+N if signal N ended it", "with `-- COMMAND`"),
    ("1", "`report` skipped lines; `list` or `show` skipped lines, or found nothing"),
    (
        "1, with `--strict`",
        "something was lost or missing (but a command's own status other than 0 stays); `doctor --symbols` found something missing; \
         `symbolize` left a frame without a name, or skipped a line",
    ),
    ("127", "the COMMAND behind `--` isn't there"),
    ("126", "the COMMAND behind `--` can't be executed"),
    ("2", "another error, or a wrong command line"),
];

const FILES: [(&str, &str); 3] = [
    (super::config::DEFAULT, "What the service is told: each flag of faultline\\-agent(1) is a key."),
    (crate::history::OF_SERVICE, "What the service writes, and faultline\\-list(1) and faultline\\-show(1) read."),
    (
        "/usr/share/doc/faultline/docs",
        "Every field of the records, every cause that is named, and what faultline can't do.",
    ),
];

/// `faultline generate`
#[derive(Args, Debug)]
pub(super) struct GenerateArgs {
    /// Write man pages and completions below DIR, which is /usr/share or /usr/local/share
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl GenerateArgs {
    /// Writes all of them.
    pub(super) fn run(self) -> Result<ExitCode> {
        for (shell, path) in SHELLS {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut shown(), NAME, &mut text);
            write(&self.folder.join(path), &text)?;
        }
        for (name, text) in pages()? {
            write(&self.folder.join("man/man1").join(name), &text)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn write(path: &Path, text: &[u8]) -> Result<()> {
    let what = || format!("failed to write `{}`", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(what)?;
    }
    fs::write(path, text).with_context(what)
}

/// The command line without what is hidden in it.
fn shown() -> Command {
    let all = Cli::command().disable_help_subcommand(true);
    let mut shown = Command::new(NAME).disable_help_subcommand(true).subcommand_required(true);
    if let Some(about) = all.get_about() {
        shown = shown.about(about.clone());
    }
    if let Some(version) = all.get_version() {
        // Clap wants it for as long as the process lives, which ends after this.
        let version: &'static str = version.to_owned().leak();
        shown = shown.version(version);
    }
    if let Some(after) = all.get_after_help() {
        shown = shown.after_help(after.clone());
    }
    shown.subcommands(all.get_subcommands().filter(|command| !command.is_hide_set()).cloned())
}

/// A page for the program and one for each command, by the name of its file.
fn pages() -> Result<Vec<(String, Vec<u8>)>> {
    let mut all = shown();
    all.build();
    let mut pages = vec![page(all.clone())?];
    for command in all.get_subcommands() {
        pages.push(page(command.clone())?);
    }
    Ok(pages)
}

/// Clap's sections, but for its synopsis, which is all flags in a row, and for the examples, whose lines stay as they are.
fn page(command: Command) -> Result<(String, Vec<u8>)> {
    const EXAMPLES: &str = "Examples:\n";
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let is_whole = command.has_subcommands();
    let man = Man::new(command).source(concat!("faultline ", env!("CARGO_PKG_VERSION"))).manual("faultline");
    let mut text = Vec::new();
    man.render_title(&mut text)
        .and_then(|()| man.render_name_section(&mut text))
        .and_then(|()| text.write_all(synopsis(&usage).as_bytes()))
        .and_then(|()| man.render_description_section(&mut text))
        .and_then(|()| man.render_options_section(&mut text))
        .and_then(|()| if is_whole { man.render_subcommands_section(&mut text) } else { Ok(()) })
        .context("failed to write a man page")?;
    let rest = match after.strip_prefix(EXAMPLES) {
        Some(examples) => section(examples),
        None => format!(".SH NOTES\n{}\n", escaped(&after)),
    };
    text.extend_from_slice(rest.as_bytes());
    text.extend_from_slice(closing(is_whole).as_bytes());
    Ok((man.get_filename(), text))
}

/// Text in which nothing is a command of roff.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// How the command is typed: its name, and what may stand behind it.
fn synopsis(usage: &str) -> String {
    let mut text = ".SH SYNOPSIS\n".to_owned();
    for line in usage.lines() {
        let line = line.trim().trim_start_matches("Usage: ");
        let (name, rest) = line.split_at(name_length(line));
        text.push_str(&format!(".PP\n\\fB{}\\fR{}\n", escaped(name), escaped(rest)));
    }
    text
}

/// `faultline crash` of `faultline crash [OPTIONS]`.
fn name_length(line: &str) -> usize {
    line.find(" [").into_iter().chain(line.find(" <")).min().unwrap_or(line.len())
}

/// What ends each page: the exit status, the files of the service, and other pages.
fn closing(is_whole: bool) -> String {
    let mut text = ".SH \"EXIT STATUS\"\n".to_owned();
    for (status, when) in EXIT_STATUS {
        text.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", escaped(status), escaped(when)));
    }
    text.push_str(".SH FILES\n");
    for (file, what) in FILES {
        text.push_str(&format!(".TP\n.I {file}\n{what}\n"));
    }
    text.push_str(".SH \"SEE ALSO\"\n");
    text.push_str(if is_whole { ".BR coredumpctl (1)\n" } else { ".BR faultline (1)\n" });
    text
}

/// Each example as it is typed, and what it does below it.
fn section(examples: &str) -> String {
    let mut text = ".SH EXAMPLES\n".to_owned();
    for line in examples.lines() {
        let words = escaped(line.trim_start());
        match line.strip_prefix("      ") {
            Some(_) => text.push_str(&format!(".RS 4\n{words}\n.RE\n")),
            None => text.push_str(&format!(".PP\n.EX\n{words}\n.EE\n")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_with_its_examples() {
        let pages = pages().unwrap();
        let commands = Cli::command();
        let commands = commands.get_subcommands().filter(|command| !command.is_hide_set());
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in commands.map(|command| format!("faultline-{}.1", command.get_name())) {
            assert!(names.contains(&name.as_str()), "{name}: {names:?}");
        }
        assert!(names.contains(&"faultline.1") && !names.contains(&"faultline-generate.1"), "{names:?}");
        let (_, crash) = pages.iter().find(|(name, _)| name == "faultline-crash.1").unwrap();
        let crash = String::from_utf8_lossy(crash);
        assert!(crash.contains("\n.SH EXAMPLES\n.PP\n.EX\nfaultline crash\n.EE\n.RS 4\n"), "{crash}");
        assert!(crash.contains("\\-\\-process\\-name") && !crash.contains("\nExamples:"), "{crash}");
    }

    #[test]
    fn a_page_says_how_the_command_is_typed_and_how_it_ends() {
        let pages = pages().unwrap();
        let page = |name: &str| {
            let (_, text) = pages.iter().find(|(of, _)| of == name).unwrap();
            String::from_utf8(text.clone()).unwrap()
        };
        let crash = page("faultline-crash.1");
        assert!(
            crash.contains("\n.SH SYNOPSIS\n.PP\n\\fBfaultline crash\\fR [OPTIONS] [\\-\\- <COMMAND>...]\n"),
            "{crash}"
        );
        assert!(crash.contains(".TP\n\\fB127\\fR\nthe COMMAND behind `\\-\\-` isn't there\n"), "{crash}");
        assert!(page("faultline.1").contains("\n\\fBfaultline\\fR <COMMAND>\n"), "{}", page("faultline.1"));
        for (_, text) in &pages {
            let text = String::from_utf8_lossy(text);
            assert!(text.lines().all(|line| !line.starts_with('\'')), "a command of roff: {text}");
        }
    }

    #[test]
    fn the_exit_statuses_are_those_of_the_docs() {
        let docs = include_str!("../../docs/output.md");
        let table = docs.split("## Exit status\n").nth(1).unwrap().split("\n#").next().unwrap();
        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
        let ours: Vec<String> = EXIT_STATUS.iter().map(|(status, when)| format!("| {status} | {when} |")).collect();
        assert_eq!(rows, ours);
    }

    #[test]
    fn each_shell_completes_commands_and_flags() {
        for (shell, path) in SHELLS {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut shown(), NAME, &mut text);
            let text = String::from_utf8(text).unwrap();
            for word in ["pagefault", "process-name", "executable"] {
                assert!(text.contains(word), "{path}: {word}");
            }
            for hidden in ["faultline,generate", "(generate)", "\"generate\""] {
                assert!(!text.contains(hidden), "{path}: {hidden}");
            }
        }
    }
}
