//! `faultline generate DIR`, which `--help` doesn't show: man pages and completions, made of clap's definition of the command line. Whoever
//! installs faultline calls it: the files stand below DIR as they do below /usr/share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::builder::Resettable;
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
    let mut shown = Command::new(NAME).disable_help_subcommand(true);
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

fn page(command: Command) -> Result<(String, Vec<u8>)> {
    const EXAMPLES: &str = "Examples:\n";
    let examples = command.get_after_help().map(ToString::to_string).filter(|text| text.starts_with(EXAMPLES));
    // They have a section of their own, in which the lines stay as they are.
    let command = if examples.is_some() { command.after_help(Resettable::Reset) } else { command };
    let man = Man::new(command);
    let mut text = Vec::new();
    man.render(&mut text).context("failed to write a man page")?;
    if let Some(examples) = examples {
        text.extend_from_slice(section(examples.trim_start_matches(EXAMPLES)).as_bytes());
    }
    Ok((man.get_filename(), text))
}

/// Each example as it is typed, and what it does below it.
fn section(examples: &str) -> String {
    let mut text = ".SH EXAMPLES\n".to_owned();
    for line in examples.lines() {
        let words = line.trim_start().replace('\\', "\\e").replace('-', "\\-");
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
