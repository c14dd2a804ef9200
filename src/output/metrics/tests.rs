use super::*;

fn group(id: u64, executable: &str, count: u64) -> GroupTotal {
    GroupTotal {
        id,
        signal: "SIGSEGV".to_owned(),
        code: "SEGV_MAPERR".to_owned(),
        disposition: "fatal",
        is_death: true,
        executable: executable.to_owned(),
        is_named: true,
        uid: 7,
        is_others: false,
        count,
    }
}

fn shown(metrics: &Metrics) -> String {
    openmetrics(&metrics.registry.lock().unwrap())
}

fn crashes(executable: &str, count: u64) -> String {
    crashes_of(executable, if executable == "other" { "other" } else { "7" }, count)
}

fn crashes_of(executable: &str, uid: &str, count: u64) -> String {
    format!(
        "crashes_total{{signal=\"SIGSEGV\",code=\"SEGV_MAPERR\",executable=\"{executable}\",uid=\"{uid}\"}} {count}\n"
    )
}

/// Programs that all crash in each update, and that their user has made, kept all labels from one that it can't have made.
#[test]
fn what_its_user_has_made_gives_way_to_what_it_has_not() {
    let mut metrics = Metrics::new(1.0, 10, MetricSets::default());
    let storm = |count: u64| (0..10).map(move |id| group(id, &format!("x-{id}"), count));
    metrics.update(&Totals { groups: storm(1).collect(), ..Totals::default() });
    let own = group(20, "own", 1);
    metrics.update(&Totals { groups: storm(2).chain([own]).collect(), ..Totals::default() });
    assert!(!shown(&metrics).contains("executable=\"own\""), "none is idle");
    let others = GroupTotal { is_others: true, ..group(21, "others", 1) };
    metrics.update(&Totals { groups: storm(3).chain([others]).collect(), ..Totals::default() });
    let text = shown(&metrics);
    assert!(text.contains(&crashes("others", 1)), "{text}");
    assert_eq!(text.matches("executable=\"x-").count(), 4, "{text}");
    assert!(
        text.contains("signals_delivered_total{signal=\"SIGSEGV\",code=\"SEGV_MAPERR\",disposition=\"fatal\"} 32"),
        "{text}"
    );
}

/// A scrape between the metrics of one update had a signal as delivered, and not yet as a crash.
#[test]
fn an_update_is_seen_as_a_whole() {
    let mut metrics = Metrics::new(1.0, 10, MetricSets::default());
    let registry = metrics.registry();
    let scrape = registry.lock().unwrap();
    let update = std::thread::spawn(move || {
        metrics.update(&Totals { groups: vec![group(1, "app", 7)], ..Totals::default() });
        metrics
    });
    std::thread::sleep(std::time::Duration::from_millis(100));
    let text = openmetrics(&scrape);
    assert!(!text.contains("signals_delivered_total{") && !text.contains("crashes_total{"), "{text}");
    drop(scrape);
    let text = shown(&update.join().unwrap());
    assert!(text.contains("signals_delivered_total{") && text.contains(&crashes("app", 7)), "{text}");
}

#[test]
fn counters_follow_the_groups() {
    let mut metrics = Metrics::new(1.0, 10, MetricSets::default());
    let totals = |counts: &[u64]| Totals {
        groups: (0..).zip(counts).map(|(id, &count)| group(id, "app", count)).collect(),
        groups_in_table: counts.len(),
        ..Totals::default()
    };
    metrics.update(&totals(&[2, 3]));
    metrics.update(&totals(&[4, 3]));
    let text = shown(&metrics);
    assert!(text.contains(&crashes("app", 7)), "{text}");
    assert!(text.contains("signals_delivered_total{signal=\"SIGSEGV\",code=\"SEGV_MAPERR\",disposition=\"fatal\"} 7"));
    assert!(text.contains("faultline_crash_groups 2\n") && text.ends_with("# EOF\n"), "{text}");
}

/// A storm of made-up names took all labels, and a program that crashed for the first time was `other` until the agent's restart.
#[test]
fn the_label_that_was_idle_for_longest_leaves_for_a_new_one() {
    let mut metrics = Metrics::new(1.0, 10, MetricSets::default());
    let storm: Vec<_> = (0..10).map(|id| group(id, &format!("x-{id}"), 1)).collect();
    metrics.update(&Totals { groups: storm.clone(), ..Totals::default() });
    assert_eq!(shown(&metrics).matches("executable=\"x-").count(), 5, "a user has half of them");
    let again = group(0, "x-0", 2);
    let groups = [vec![group(20, "new", 1), again.clone()], storm[1..].to_vec()].concat();
    metrics.update(&Totals { groups, ..Totals::default() });
    let text = shown(&metrics);
    assert!(text.contains(&crashes("new", 1)) && text.contains(&crashes("x-0", 2)), "{text}");
    assert!(!text.contains("executable=\"x-1\""), "{text}");
    assert_eq!(text.matches("executable=\"x-").count(), 4);
    // Its group is still there, and strikes again.
    metrics.update(&Totals { groups: vec![group(1, "x-1", 3), again, group(20, "new", 1)], ..Totals::default() });
    let text = shown(&metrics);
    assert!(text.contains(&crashes("x-1", 2)), "it began anew: {text}");
    assert!(
        text.contains("signals_delivered_total{signal=\"SIGSEGV\",code=\"SEGV_MAPERR\",disposition=\"fatal\"} 14"),
        "{text}"
    );
}

#[test]
fn the_series_of_crashes_are_bounded_and_a_new_executable_has_one() {
    let mut metrics = Metrics::new(1.0, 100, MetricSets::default());
    let kinds = |uid: u32, name: &str, first: u64| -> Vec<GroupTotal> {
        let of = |code: u64| GroupTotal { uid, code: format!("CODE_{code}"), ..group(first + code, name, 1) };
        (0..169).map(of).collect()
    };
    let groups = (0..50).flat_map(|user| kinds(user, "many", u64::from(user) * 1000)).collect();
    metrics.update(&Totals { groups, ..Totals::default() });
    metrics.update(&Totals { groups: vec![group(1_000_000, "new", 1)], ..Totals::default() });
    let text = shown(&metrics);
    assert!(text.contains(&crashes("new", 1)));
    let series = text.lines().filter(|line| line.starts_with("faultline_crashes_total{")).count();
    assert!(series > 3000 && series <= CRASH_SERIES_MAX, "{series}");
    let sum: u64 = text
        .lines()
        .filter(|line| line.starts_with("faultline_crashes_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(sum, 50 * 169 + 1);
}

#[test]
fn what_found_no_group_is_counted_under_its_executable() {
    let mut metrics = Metrics::new(1.0, 10, MetricSets::default());
    let unnamed = GroupTotal { is_named: false, ..group(0, "", 4) };
    let totals = Totals { rests: vec![group(0, "app", 3), unnamed], ..Totals::default() };
    metrics.update(&totals);
    metrics.update(&totals);
    let text = shown(&metrics);
    assert!(text.contains(&crashes("app", 6)) && text.contains(&crashes("other", 8)), "{text}");
}

#[test]
fn executables_are_capped_and_keep_their_label() {
    let mut metrics = Metrics::new(1.0, 1, MetricSets::default());
    metrics.update(&Totals { groups: vec![group(0, "a", 1), group(1, "b", 2)], ..Totals::default() });
    // Group 1 has got another name meanwhile: its counter must not move.
    metrics.update(&Totals { groups: vec![group(0, "a", 1), group(1, "a", 5)], ..Totals::default() });
    let text = shown(&metrics);
    assert!(text.contains(&crashes("a", 1)) && text.contains(&crashes("other", 5)), "{text}");
}

/// A file can have any name, and its crashes were those of the service of that name.
#[test]
fn a_name_is_no_other_users_identity() {
    let mut metrics = Metrics::new(1.0, 10, MetricSets::default());
    let of = |id: u64, uid: u32, count: u64| GroupTotal { uid, ..group(id, "nginx", count) };
    metrics.update(&Totals { groups: vec![of(0, 33, 1), of(1, 1000, 500)], ..Totals::default() });
    let text = shown(&metrics);
    assert!(text.contains(&crashes_of("nginx", "33", 1)) && text.contains(&crashes_of("nginx", "1000", 500)), "{text}");
}

/// A user that crashed a hundred executables took all labels, and whatever crashed afterwards was `other`.
#[test]
fn a_user_that_makes_up_names_leaves_room_for_others() {
    let mut metrics = Metrics::new(1.0, 100, MetricSets::default());
    let of = |id: u64, uid: u32| GroupTotal { uid, ..group(id, &format!("x-{id}"), 1) };
    let mut groups: Vec<_> = (0..200).map(|id| of(id, 1000)).collect();
    groups.extend((200..400).map(|id| of(id, 1001)));
    groups.extend((400..500).map(|id| of(id, 0)));
    metrics.update(&Totals { groups, ..Totals::default() });
    let text = shown(&metrics);
    let taken = |uid: &str| text.lines().filter(|line| line.contains(&format!("uid=\"{uid}\""))).count();
    assert_eq!((taken("1000"), taken("1001"), taken("0")), (50, 25, 25), "{text}");
    assert!(text.contains(&crashes_of("other", "other", 400)), "{text}");
}

#[test]
fn the_older_format_has_its_suffixes_in_the_comments() {
    let mut metrics = Metrics::new(1.0, 1, MetricSets::default());
    metrics.update(&Totals { groups: vec![group(0, "a", 1)], ..Totals::default() });
    let text = text_format(&shown(&metrics));
    assert!(text.contains("# TYPE faultline_crashes_total counter\n"), "{text}");
    assert!(text.contains("# TYPE faultline_build_info gauge\nfaultline_build_info{version="), "{text}");
    assert!(text.contains("# TYPE faultline_crash_groups gauge\n") && !text.contains("EOF"), "{text}");
}

fn all() -> MetricSets {
    MetricSets { signals: true, pagefaults: true, executable_memory: true }
}

fn sent(sender: &str, target: &str) -> SentLabels {
    let sender = (!sender.is_empty()).then(|| sender.to_owned());
    SentLabels::new("SIGTERM".to_owned(), sender, target.to_owned(), Some("delivered"))
}

fn has_sent(text: &str, sender: &str, target: &str, count: u64) -> bool {
    let labels = format!("signal=\"SIGTERM\",sender=\"{sender}\",target=\"{target}\",result=\"delivered\"");
    text.contains(&format!("signals_sent_total{{{labels}}} {count}\n"))
}

#[test]
fn senders_and_targets_are_capped_and_counters_grow() {
    let mut metrics = Metrics::new(1.0, 2, all());
    metrics.add_sent([(sent("a", "b"), 3), (sent("", "c"), 1), (sent("d", "c"), 2)]);
    metrics.add_sent([(sent("a", "b"), 2), (sent("d", "c"), 2)]);
    let text = shown(&metrics);
    assert!(has_sent(&text, "a", "b", 5) && has_sent(&text, "(kernel)", "other", 1), "{text}");
    assert!(has_sent(&text, "other", "other", 4), "{text}");
}

/// Seventy names that signal one another made 4 900 series, and with those of crashes more than Prometheus takes.
#[test]
fn pairs_of_names_are_bounded_and_the_sum_is_exact() {
    let mut metrics = Metrics::new(1.0, 100, all());
    let names: Vec<String> = (0..70).map(|name| format!("name-{name}")).collect();
    for _ in 0..2 {
        metrics.add_sent(names.iter().flat_map(|sender| names.iter().map(move |target| (sent(sender, target), 1))));
        metrics.add_sent(names.iter().map(|target| (sent("", target), 1)));
    }
    let text = shown(&metrics);
    let values = text.lines().filter_map(|line| line.strip_prefix("faultline_signals_sent_total")?.split(' ').nth(1));
    let values: Vec<u64> = values.map(|value| value.parse().unwrap()).collect();
    assert_eq!(values.len(), SENT_SERIES_MAX + 2, "and those of `other`, by processes and by the kernel");
    assert_eq!(values.iter().sum::<u64>(), 2 * (70 * 70 + 70));
    assert!(has_sent(&text, "name-0", "name-0", 2) && has_sent(&text, "(kernel)", "other", 140), "{text}");
}

#[test]
fn page_faults_are_capped_by_name() {
    let fault = |comm: &str| FaultLabels { comm: comm.to_owned(), mode: "user", access: "write", cause: "not_present" };
    let mut metrics = Metrics::new(1.0, 1, all());
    metrics.add_faults([(fault("a"), 3), (fault("b"), 2)], [(ProcessLabels { comm: "a".to_owned() }, 1)]);
    metrics.add_faults([(fault("a"), 1)], []);
    let text = shown(&metrics);
    let of = |comm: &str, count: u64| {
        let kind = "mode=\"user\",access=\"write\",cause=\"not_present\"";
        format!("page_faults_total{{comm=\"{comm}\",{kind}}} {count}\n")
    };
    assert!(text.contains(&of("a", 4)) && text.contains(&of("other", 2)), "{text}");
    assert!(text.contains("major_page_faults_total{comm=\"a\"} 1\n"), "{text}");
}

#[test]
fn only_what_is_counted_is_there() {
    let shown = |beside: MetricSets| {
        let mut metrics = Metrics::new(1.0, 1, beside);
        metrics.add_sent([(sent("a", "b"), 1)]);
        metrics.add_executable([(ExecutableLabels::new("a".to_owned(), "mmap", true), 1)]);
        let labels = FaultLabels { comm: "a".to_owned(), mode: "user", access: "", cause: "" };
        metrics.add_faults([(labels, 1)], [(ProcessLabels { comm: "a".to_owned() }, 1)]);
        shown(&metrics)
    };
    for name in ["signals_sent", "page_faults", "major_page_faults", "executable_memory_calls"] {
        let family = format!("# TYPE faultline_{name} counter\n");
        assert!(!shown(MetricSets::default()).contains(&family) && shown(all()).contains(&family), "{name}");
    }
}

#[test]
fn the_process_itself_has_the_names_of_the_client_libraries() {
    let text = shown(&Metrics::new(1.0, 1, MetricSets::default()));
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
    };
    assert!(value("process_cpu_seconds_total") > 0.0);
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
    assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") >= value("process_open_fds"));
    let now = crate::time::Timestamp::now().unix_ns() as f64 / 1e9;
    assert!((now - 86400.0..=now).contains(&value("process_start_time_seconds")));
    assert!(text_format(&text).contains("# TYPE process_cpu_seconds_total counter\n"));
}
