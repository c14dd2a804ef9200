use std::fs;
use std::path::{Path, PathBuf};

use super::{seeds, *};
use crate::evidence::{Failure, FilePart, Function, Halt, Handling};
use crate::naming::{Described, Named, NamedFile, Walk, messages};
use crate::symbol::unwind::{Frame, Passage};

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name)
}

/// Each file of the corpus, whole, cut and spoiled: what a fuzzer has found once stays found.
fn check(name: &str, target: impl Fn(&[u8])) {
    let mut files = 0;
    for entry in fs::read_dir(corpus(name)).unwrap() {
        let mut data = fs::read(entry.unwrap().path()).unwrap();
        target(&data);
        target(&data[..data.len() / 2]);
        let (length, mut state) = (data.len(), 88_172_645_463_325_252_u64);
        for _ in 0..50 {
            // Xorshift: the same in each run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if let Some(byte) = data.get_mut(state as usize % length.max(1)) {
                *byte = (state >> 32) as u8;
            }
            target(&data);
        }
        files += 1;
    }
    assert!(files > 0, "no corpus for {name}");
}

#[test]
fn the_corpus_is_harmless() {
    check("elf", elf);
    check("unwind", unwind);
    check("record", record);
    check("container", container);
    check("name", name);
    check("report", super::report);
    check("http", http);
    check("naming", naming);
    check("request", request);
}

/// Seeds are made anew where what they are made of has changed.
fn is_seed(target: &str, name: &str, data: &[u8]) {
    let path = corpus(target).join(name);
    if std::env::var_os("FAULTLINE_BLESS").is_some() {
        fs::create_dir_all(corpus(target)).unwrap();
        fs::write(&path, data).unwrap();
    }
    let stored = fs::read(&path).unwrap_or_default();
    assert!(stored == data, "FAULTLINE_BLESS=1 cargo test --lib fuzz writes {}", path.display());
}

/// All that an answer can have, for a job that this one answers without names.
fn answer(without: &Named) -> Named {
    let function = |number: usize| Function {
        name: format!("outer::inner<{number}>"),
        offset: number.is_multiple_of(2).then_some(number as u64),
        file: Some("/usr/src/program/main.c".to_owned()),
        line: Some(number as u32),
        inlined: number % 2 == 1,
    };
    let files = without.files.iter().zip([None, Some(Failure::OtherFile), Some(Failure::TimedOut)].iter().cycle());
    let mut frames = without.described.walk.frames.clone();
    frames.extend((1..4).map(|number| Frame { address: 0x1000 * number, is_return_address: true }));
    let frames_count = frames.len();
    Named {
        files: files.map(|(_, &failure)| NamedFile { build_id: Some(vec![7; 20]), failure, sources: None }).collect(),
        described: Described {
            functions: (0..frames.len())
                .map(|depth| match depth % 4 {
                    0 => Err(Failure::NoSymbol),
                    count => Ok((0..count).rev().map(function).collect()),
                })
                .collect(),
            walk: Walk {
                complete: true,
                omitted: 5,
                omitted_at: frames.len() / 2,
                used_eh_frame: true,
                used_frame_pointer: false,
                frame_bytes: Some(64),
                is_frame_sized: true,
                is_call_last: true,
                frames,
            },
            more: without.described.more.iter().map(|_| Ok(vec![function(0)])).collect(),
            trail: without.described.trail.clone(),
            variable: Some(0x4000),
            part: Some(FilePart { section: Some(".rodata".to_owned()), is_relocated: true }),
            halt: Some(Halt { is_static: true, ..Halt::default() }),
            handling: (0..frames_count).map(|depth| (depth % 2 == 0).then_some(Handling::Catches)).collect(),
        },
        passage: Passage::Past,
        instead: None,
        ending: vec![Frame { address: 0x2000, is_return_address: false }],
        ending_functions: vec![Ok(vec![function(1)])],
    }
}

/// A sample is what the kernel program of the day sends: the decoder finds in it what was put there.
#[test]
fn the_samples_of_the_corpus_are_of_the_day() {
    for (name, sample) in seeds::samples() {
        let Some(Sample::Crash(crash)) = Sample::from_bytes(sample.sent()) else { panic!("{name}") };
        assert_eq!((crash.comm().as_str(), crash.files[1].inode), ("program", 101), "{name}");
        let record = [&(sample.sent().len() as u16).to_le_bytes()[..], sample.sent(), &seeds::STACK].concat();
        is_seed("record", &format!("made-{name}"), &record);
    }
}

/// The seeds of `naming` go all the way to a record: a fuzzer would hardly find one that answers a real sample.
#[test]
fn the_answers_of_the_corpus_make_records() {
    let mut deepest = 0;
    for (name, sample) in seeds::samples() {
        let (_, job) = Decoder::new(options()).prepare_alone(&sample, StackCopy::default(), true).unwrap();
        let without = Named::failed(&Skeleton::from(&job), Failure::Ended);
        deepest = deepest.max(without.described.walk.frames.len());
        for (kind, named) in [("named", answer(&without)), ("unnamed", without)] {
            let message = messages::answer(named);
            assert!(answered(&message, sample.sent()).is_some(), "{name} {kind}");
            let seed = [&u16::try_from(message.len()).unwrap().to_le_bytes()[..], &message, sample.sent()].concat();
            is_seed("naming", &format!("{name}-{kind}"), &seed);
        }
    }
    assert!(deepest > 10, "{deepest}");
    for (number, message) in messages::others().iter().enumerate() {
        let seed = [&u16::try_from(message.len()).unwrap().to_le_bytes()[..], message].concat();
        is_seed("naming", &format!("other-{number}"), &seed);
    }
}

/// Those of `request` are requests, one of which has a file.
#[test]
fn the_requests_of_the_corpus_are_answered() {
    let mut opener = Opener::new(vec!["/proc/self".into()]);
    let mapped = messages::request(0, None);
    opener.begin(own_program());
    assert_eq!(naming::passed(&mut opener, &mapped), Some(1));
    let second = [
        ("number", messages::request(7, None)),
        ("build_id", messages::request(0, Some((&[0xab; 20], None)))),
        ("no_build_id", messages::request(0, Some((&[], Some(b"program.debug"))))),
        ("link", messages::request(0, Some((&[1, 2], Some(b"../../../../etc/shadow"))))),
        ("absolute", messages::request(0, Some((&[1], Some(b"/dev/zero"))))),
    ];
    for (name, message) in second {
        assert!(naming::passed(&mut opener, &message).is_some(), "{name}");
        is_seed("request", name, &[&[mapped.len() as u8], &mapped[..], &message].concat());
    }
}
