//! The examples at the end of each command's `--help`. A test parses each line that begins with `faultline`.

pub(super) const CRASH: &str = "\
Examples:
  faultline crash
      Every crash of this host, until Ctrl-C
  faultline crash -- ./program --its-own-flag
      One command and its descendants, from the first instruction; ends with the command's status
  faultline crash -n nginx -d 1h --format json -o crashes.jsonl
      An hour of crashes of processes with nginx in their name, as JSON Lines in a file
  faultline crash --signal TERM,KILL --summary 1m
      Who was ended by these signals, and every minute how often";

pub(super) const SIGNAL: &str = "\
Examples:
  faultline signal -s KILL
      Who killed whom: a process, or the kernel because memory was short
  faultline signal -a --processes -- ./service
      All signals to and from one command and its descendants, with fork, exec and exit
  faultline signal -a --summary 10s
      Who sends what to whom, and how often, counted in the kernel";

pub(super) const PAGEFAULT: &str = "\
Examples:
  faultline pagefault --by file --top 10
      Each second the ten processes and files with the most page faults
  faultline pagefault -p 1234 --interval 10s -d 5m
      The faults of one process, every ten seconds, for five minutes or until it has ended
  faultline pagefault --flamegraph faults.svg -- ./program
      Where a program has its page faults, as a flame graph";

pub(super) const CALL: &str = "\
Examples:
  faultline call --preset memory -- ./program
      The last calls that mapped or unmapped memory before a crash, and the one that explains it
  faultline call do_truncate 'vfs_*' -n nginx
      Functions of the kernel by name, with their arguments decoded
  faultline call mmap --trigger mmap=-ENOMEM -p 1234
      The calls of a thread of this process when mmap() fails for want of memory
  faultline call 'bpf:*' --bpf-of 1234 --live
      The calls of the BPF programs that a process has loaded, a scheduler's say";

pub(super) const AGENT: &str = "\
Examples:
  faultline agent -o crashes.jsonl --append
      A summary every ten seconds, and a few crashes of each kind with all that is known of them
  faultline agent --metrics-listen 9464 --interval 1m
      The same for Prometheus, at http://127.0.0.1:9464/metrics; summaries go to standard output
  faultline agent --metrics-listen unix:/run/faultline/metrics --metrics-allow-user prometheus
      Metrics for one user of this machine";

pub(super) const MEMORY: &str = "\
Examples:
  faultline memory -- ./program
      The calls by which a program makes memory executable
  faultline memory --dump pages --elf -p 1234
      Every page of a process that becomes executable, and ELF files made of these pages, until it has ended
  faultline memory --watch-all --interval 1m
      Which processes of this host make anonymous memory executable, every minute";

pub(super) const DOCTOR: &str = "\
Examples:
  faultline doctor
      What works on this host, what is used instead, and what to do about the rest
  faultline doctor --symbols /usr/sbin/nginx
      Where the names of a program's functions come from, and what would get the missing ones
  faultline doctor --strict --format json
      For a script: status 1 if `faultline crash` doesn't work here";

pub(super) const REPORT: &str = "\
Examples:
  faultline report hosts/*.jsonl
      The summaries of many hosts as one ranking of bugs
  faultline report --diff before.jsonl after.jsonl
      What is new, gone, worse and better since a deploy
  faultline report --signature 75ddfa40caaf60a4 crashes.jsonl.zst
      One bug with all of its frames";

pub(super) const LIST: &str = "\
Examples:
  faultline list --since yesterday
      What crashed since then, as the service has recorded it, the newest last
  faultline list -n 20 --executable nginx --signal SEGV
      The last twenty segmentation faults of nginx
  faultline list hosts/a.jsonl hosts/b.jsonl.2.gz
      The crashes in files of other hosts";

pub(super) const SHOW: &str = "\
Examples:
  faultline show
      The newest crash that the service has recorded, as `faultline crash` shows it
  faultline show 75ddfa40caaf60a4 -n 3
      The last three crashes of one bug
  faultline show 2026-11-29T18:19 crashes.jsonl
      All crashes of one minute, from a file";

pub(super) const SYMBOLIZE: &str = "\
Examples:
  faultline symbolize crashes.jsonl
      The same records with names, from files of this machine and, if DEBUGINFOD_URLS is set, from servers
  faultline symbolize --debug-dir /srv/debug -o named.jsonl crashes.jsonl
      With debug files of another folder
  faultline symbolize --strict -
      From standard input, with status 1 if a frame stays without a name";

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::super::Cli;

    /// As a shell divides it.
    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(|word| word.trim_matches('\'').to_owned()).collect()
    }

    #[test]
    fn every_command_has_three_examples_which_are_right() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("  faultline")).collect();
            assert!(examples.len() >= 3, "{name}: {text}");
            for example in examples {
                assert!(example.starts_with(&format!(" {name}")), "{name}: {example}");
                let parsed = Cli::try_parse_from(words(&format!("faultline{example}")));
                // A user of the machine where this is read.
                if !example.contains("--metrics-allow-user") {
                    assert!(
                        parsed.is_ok(),
                        "{example}: {}",
                        parsed.err().map(|why| why.to_string()).unwrap_or_default()
                    );
                }
            }
        }
    }
}
