//! gdb as the oracle: names and lines of files in which they are hidden, as compilers and distributions do it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::elf::{ELFCOMPRESS_ZSTD, SHF_COMPRESSED, SectionHeader64};
use object::pod::{bytes_of, from_bytes};
use object::read::elf::{FileHeader, SectionHeader};
use object::{LittleEndian, Object, ObjectSection, ObjectSymbol, SymbolKind, U64};

use super::elf::ENDIAN;
use super::*;
use crate::evidence::Failure;

mod linked;
mod scope;
mod split;

const PROGRAM: &str = r#"
#include <stdio.h>
#include <stdlib.h>
static int __attribute__((noinline)) parse_header(int *p) { return *p + abs(puts("x")); }
static int __attribute__((noinline)) load_config(int *p)
{
	return parse_header(p) * 2;
}
int main(int argc, char **argv)
{
	int *p = argc > 5 ? &argc : 0;
	printf("%d\n", load_config(p));
	return 0;
}
"#;

/// As gdb's manual says: "MiniDebugInfo".
const EMBED: &str = "mkdir aside
nm -D program --format=posix --defined-only | awk '{print $1}' | sort >dynsyms
nm program --format=posix --defined-only | awk '$2 == \"T\" || $2 == \"t\" || $2 == \"D\" {print $1}' | sort >funcsyms
comm -13 dynsyms funcsyms >keep
objcopy --only-keep-debug program debug
objcopy -S --remove-section .gdb_index --remove-section .comment --keep-symbols=keep debug mini
cp program aside/whole
strip --strip-all -R .comment program
xz mini
mv debug aside
objcopy --add-section .gnu_debugdata=mini.xz program";

/// A folder with a program that `script` has made of the source. Deleted when dropped.
struct Built(PathBuf);

impl Built {
    fn new(name: &str, script: &str) -> Self {
        Self::with(name, script, PROGRAM)
    }

    fn with(name: &str, script: &str, source: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("faultline-oracle-{}-{name}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("program.c"), source).unwrap();
        let built = Self(folder);
        let made = Command::new("sh").args(["-ec", script]).current_dir(&built.0).output().unwrap();
        assert!(made.status.success(), "{script}: {}", String::from_utf8_lossy(&made.stderr));
        built
    }

    /// What gdb says of each address.
    fn by_gdb(&self, addresses: &[u64]) -> Vec<String> {
        let lines: Vec<String> = addresses
            .iter()
            .map(|address| {
                format!(
                    "python line = gdb.find_pc_line({address}); print('SAID', gdb.execute('info symbol {address}', to_string=True).split(' in section')[0].strip(), line.symtab.fullname() if line.symtab else None, line.line)"
                )
            })
            .collect();
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "-batch", "-ex", "set debuginfod enabled off", "-ex", "set print demangle off"]);
        gdb.args(lines.iter().flat_map(|line| ["-ex", line])).arg(self.0.join("program"));
        let output = gdb.output().expect("gdb is needed: apt-get install gdb");
        let text = String::from_utf8_lossy(&output.stdout);
        let said: Vec<String> = text.lines().filter_map(|line| line.strip_prefix("SAID ")).map(str::to_owned).collect();
        assert_eq!(said.len(), addresses.len(), "{text} {}", String::from_utf8_lossy(&output.stderr));
        said
    }

    /// The same by us, in the same words.
    fn by_us(&self, addresses: &[u64]) -> Vec<String> {
        self.by(&mut Namer::default(), addresses)
    }

    fn by(&self, namer: &mut Namer, addresses: &[u64]) -> Vec<String> {
        let path = self.0.join("program");
        let found = MappedFile::at(&path).unwrap();
        let headers = Headers::read_any(&elf::Source::File(found.file.as_deref().unwrap())).unwrap();
        let mut name = |&address: &u64| {
            let code = headers.code().into_iter().find(|code| code.address.contains(&address)).unwrap();
            let offset = address - code.address.start + code.offset.start;
            let place = CodePlace { offset, in_mapping: 0, mapping_bytes: 0, is_return_address: false };
            let functions = namer.functions(&found, place, &mut Beside(&self.0)).unwrap_or_default();
            let Some(function) = functions.last() else { return "none".to_owned() };
            let offset = function.offset.filter(|&offset| offset > 0).map(|offset| format!(" + {offset}"));
            let file = function.file.as_deref().unwrap_or("None");
            format!("{}{} {file} {}", function.name, offset.unwrap_or_default(), function.line.unwrap_or(0))
        };
        addresses.iter().map(&mut name).collect()
    }

    /// A second instruction's address of the program's own functions, by the file before it was stripped.
    fn addresses(&self, file: &str) -> Vec<u64> {
        let content = fs::read(self.0.join(file)).unwrap();
        let file = object::File::parse(&*content).unwrap();
        let own = file.symbols().filter(|symbol| {
            let is_own = ["parse_header", "load_config", "main"].contains(&symbol.name().unwrap());
            symbol.kind() == SymbolKind::Text && is_own
        });
        let addresses: Vec<u64> = own.map(|symbol| symbol.address() + 1).collect();
        assert_eq!(addresses.len(), 3);
        addresses
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Finds debug files in this folder: all that are there.
struct Beside<'a>(&'a Path);

impl Open for Beside<'_> {
    fn mapped(&mut self, _: usize) -> Result<Option<File>, Failure> {
        Ok(None)
    }

    fn debug(&mut self, _: usize, _: &[u8], _: Option<&[u8]>) -> Vec<File> {
        fs::read_dir(self.0).unwrap().map(|entry| File::open(entry.unwrap().path()).unwrap()).collect()
    }
}

#[test]
fn a_stripped_program_has_the_names_that_it_carries() {
    let built = Built::new("embedded", &format!("gcc -g -O1 -fno-inline -o program program.c\n{EMBED}"));
    let addresses = built.addresses("aside/whole");
    let gdb = built.by_gdb(&addresses);
    assert!(gdb.iter().all(|said| said.contains(" + 1 ")), "{gdb:?}");
    assert_eq!(built.by_us(&addresses), gdb);
}

/// With the sections that are compressed by zlib compressed by zstd: not every compiler can do that.
fn with_zstd(mut content: Vec<u8>) -> Vec<u8> {
    let headers = Headers::read(&elf::Source::Memory(&content)).unwrap();
    let table = headers.file.e_shoff(ENDIAN) as usize;
    let mut count = 0;
    for number in 0..usize::from(headers.file.e_shnum(ENDIAN)) {
        let at = table + number * size_of::<SectionHeader64<LittleEndian>>();
        let mut header = *from_bytes::<SectionHeader64<LittleEndian>>(&content[at..]).unwrap().0;
        if header.sh_flags(ENDIAN) & u64::from(SHF_COMPRESSED) == 0 {
            continue;
        }
        let start = header.sh_offset(ENDIAN) as usize;
        let old = &content[start..start + header.sh_size(ENDIAN) as usize];
        let compressed =
            zstd::bulk::compress(&inflate::section(old, elf::Compression::Header, 1 << 20).unwrap(), 3).unwrap();
        let new = [&ELFCOMPRESS_ZSTD.to_le_bytes(), &old[4..24], &compressed].concat();
        content.resize(content.len().next_multiple_of(16), 0);
        header.sh_offset = U64::new(ENDIAN, content.len() as u64);
        header.sh_size = U64::new(ENDIAN, new.len() as u64);
        content.extend_from_slice(&new);
        content[at..at + size_of_val(&header)].copy_from_slice(bytes_of(&header));
        count += 1;
    }
    assert!(count > 2);
    content
}

/// Without a libc, which a machine need not have for 32-bit programs.
const COMPAT: &str = "
static int __attribute__((noinline)) parse_header(volatile int *p) { return *p * 3; }
static int __attribute__((noinline)) load_config(volatile int *p)
{
	return parse_header(p) * 2;
}
int __attribute__((noinline)) main(volatile int *p) { return load_config(p + 1) + 1; }
void _start(void)
{
	__asm__ volatile(\"int $0x80\" ::\"a\"(1), \"b\"(main(0)));
	__builtin_unreachable();
}
";

#[test]
fn a_32_bit_program_has_lines() {
    let kinds = [("fixed", "-static"), ("four", "-static -gdwarf-4 -gz=zlib"), ("pie", "-static-pie -fPIE")];
    for (kind, options) in kinds {
        let build = format!("gcc -m32 -nostdlib -ffreestanding -g -O1 -fno-inline {options} -o program program.c");
        let split = "cp program whole; objcopy --only-keep-debug program debug; strip program";
        for (debug, script) in [("own", build.clone()), ("split", format!("{build} -Wl,--build-id\n{split}"))] {
            let built = Built::with(&format!("compat-{kind}-{debug}"), &script, COMPAT);
            let whole = if debug == "own" { "program" } else { "whole" };
            let addresses = built.addresses(whole);
            let ours = built.by_us(&addresses);
            // gdb looks for debug files in other places.
            let _ = fs::rename(built.0.join("whole"), built.0.join("program"));
            let gdb = built.by_gdb(&addresses);
            assert!(gdb.iter().all(|said| said.contains(" + 1 /") && said.contains("/program.c ")), "{gdb:?}");
            assert_eq!(ours, gdb, "{kind} {debug}");
        }
    }
}

#[test]
fn compressed_sections_have_lines() {
    let built = Built::new("compressed", "gcc -g -O1 -fno-inline -gz=zlib -o program program.c");
    let addresses = built.addresses("program");
    let gdb = built.by_gdb(&addresses);
    assert!(gdb.iter().all(|said| said.contains("program.c ")), "{gdb:?}");
    assert_eq!(built.by_us(&addresses), gdb, "zlib");
    let by_name = "gcc -g -O1 -fno-inline -Wl,--compress-debug-sections=zlib-gnu -o program program.c";
    let by_name = Built::new("compressed-by-name", by_name);
    let content = fs::read(by_name.0.join("program")).unwrap();
    assert!(memchr::memmem::find(&content, b".zdebug_info").is_some(), "its name says so");
    assert_eq!(by_name.by_us(&addresses), by_name.by_gdb(&addresses), "by name");
    let path = built.0.join("program");
    fs::write(&path, with_zstd(fs::read(&path).unwrap())).unwrap();
    assert_eq!(built.by_us(&addresses), gdb, "zstd");
}

/// A program and what it shares of its debug information: `dwz -m`.
#[test]
fn what_debug_files_share_has_names_and_lines() {
    let built = Built::new("shared", "mkdir debug");
    fs::write(built.0.join("program"), include_bytes!("../../fuzz/corpus/elf/dwz")).unwrap();
    let common = include_bytes!("../../fuzz/corpus/elf/dwz-common");
    let names = |folder: &str| {
        let found = MappedFile::at(&built.0.join("program")).unwrap();
        let place = CodePlace { offset: 0xb0, in_mapping: 0, mapping_bytes: 0, is_return_address: false };
        let functions =
            Namer::default().functions(&found, place, &mut Beside(&built.0.join(folder))).unwrap_or_default();
        let text = |function: &Function| format!("{} {:?} {:?}", function.symbol(), function.file, function.line);
        functions.iter().map(text).collect::<Vec<_>>()
    };
    let without = ["visit_one+0x0 None None"];
    assert_eq!(names("debug"), without, "it isn't there");
    let mut other = common.to_vec();
    let id = Headers::read(&elf::Source::Memory(common)).unwrap().build_id(&elf::Source::Memory(common)).unwrap();
    other[memchr::memmem::find(common, &id).unwrap()] ^= 1;
    fs::write(built.0.join("debug/common"), other).unwrap();
    assert_eq!(names("debug"), without, "it is another one");
    fs::write(built.0.join("debug/common"), common).unwrap();
    // What is inlined is in a header, and shared.
    let with = [
        r#"shared_inner Some("/src/shared.h") Some(3)"#,
        r#"shared_outer Some("/src/shared.h") Some(7)"#,
        r#"visit_one+0x0 Some("/src/one.c") Some(4)"#,
    ];
    assert_eq!(names("debug"), with);
}

#[test]
fn stubs_are_named_by_where_they_lead() {
    let kinds = [
        ("lazy", "-fcf-protection=none -Wl,-z,lazy"),
        ("now", "-fcf-protection=none -Wl,-z,now"),
        ("branch", "-fcf-protection=full -Wl,-z,lazy,-z,ibtplt"),
        ("fixed", "-no-pie -Wl,-z,now"),
    ];
    for (kind, options) in kinds {
        let built = Built::new(kind, &format!("gcc -O1 {options} -o program program.c; strip program"));
        let content = fs::read(built.0.join("program")).unwrap();
        let file = object::File::parse(&*content).unwrap();
        let sections = file.sections().filter(|section| section.name().is_ok_and(|name| name.starts_with(".plt")));
        let stubs: Vec<u64> =
            sections.flat_map(|section| (section.address()..section.address() + section.size()).step_by(8)).collect();
        let gdb = built.by_gdb(&stubs);
        for name in ["puts@plt", "printf@plt"] {
            assert!(gdb.iter().any(|said| said.starts_with(name)), "{kind}: {gdb:?}");
        }
        for (address, (gdb, ours)) in stubs.iter().zip(gdb.iter().zip(built.by_us(&stubs))) {
            let gdb = if gdb.contains("@plt") { gdb } else { "none" };
            assert_eq!(ours, gdb, "{kind} {address:#x}");
        }
    }
}

/// What stays in the file has the lines of all functions; what compilers put beside it has more names.
#[test]
fn split_debug_information_has_lines() {
    for compiler in ["gcc -gdwarf-5", "gcc -gdwarf-4", "clang -gdwarf-5"] {
        let name = compiler.replace(' ', "");
        let built = Built::new(&name, &format!("{compiler} -O1 -fno-inline -gsplit-dwarf -o program program.c"));
        let addresses = built.addresses("program");
        let gdb = built.by_gdb(&addresses);
        assert!(gdb.iter().all(|said| said.contains(" + 1 /") && said.contains("/program.c ")), "{gdb:?}");
        assert_eq!(built.by_us(&addresses), gdb, "{compiler}");
    }
}

const GO: &str = r#"
package main

import (
	"os"
	"strconv"
)

type conf struct{ a, b int }

//go:noinline
func load(c *conf) int { return c.b }

func twice(c *conf) int { return load(c) * 2 }

func main() {
	var c *conf
	if len(os.Args) > 5 {
		c = &conf{}
	}
	os.Exit(twice(c) + len(strconv.Itoa(len(os.Args))))
}
"#;

#[test]
fn a_stripped_go_program_has_the_names_of_its_runtime() {
    for kind in ["exe", "pie"] {
        let build = format!("HOME=$PWD CGO_ENABLED=0 go build -buildmode={kind}");
        let script = format!(
            "mv program.c main.go
{build} -ldflags=-w -o whole main.go
{build} -ldflags='-s -w' -o bare main.go
{build} -o program main.go"
        );
        let built = Built::with(kind, &script, GO);
        let content = fs::read(built.0.join("whole")).unwrap();
        let parsed = object::File::parse(&*content).unwrap();
        let functions = parsed.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 1);
        let named = |name: &str| ["main.load", "main.main", "runtime.main", "runtime.schedinit"].contains(&name);
        let functions: Vec<_> = functions.filter(|symbol| symbol.name().is_ok_and(named)).collect();
        assert_eq!(functions.len(), 4, "{kind}");
        let addresses: Vec<u64> = functions.iter().map(|symbol| symbol.address() + 1).collect();
        let gdb = built.by_gdb(&addresses);
        fs::rename(built.0.join("bare"), built.0.join("program")).unwrap();
        // Debug information names Go's own folder another way.
        let without_folder = |said: &String| {
            let (name, place) = said.split_once(" /").unwrap();
            format!("{name} {}", place.rsplit('/').next().unwrap())
        };
        let all = |said: &[String]| said.iter().map(without_folder).collect::<Vec<_>>();
        assert_eq!(all(&built.by_us(&addresses)), all(&gdb), "{kind}");
    }
}

/// Each function at an address, with the inlined ones, and its line. gdb's Python knows them without a process.
const CHAINS: &str = "
for address in ADDRESSES:
    names, block = [], gdb.block_for_pc(address)
    while block and not block.is_static:
        names += [block.function.name] if block.function else []
        block = block.superblock
    print('SAID', *names, gdb.find_pc_line(address).line)
";

#[test]
fn a_stripped_go_program_has_its_inlined_functions() {
    for kind in ["exe", "pie"] {
        let build = format!("HOME=$PWD CGO_ENABLED=0 go build -buildmode={kind}");
        let script = format!(
            "mv program.c main.go
{build} -o program main.go
{build} -ldflags='-s -w' -o bare main.go"
        );
        let built = Built::with(&format!("inlined-{kind}"), &script, GO);
        let content = fs::read(built.0.join("program")).unwrap();
        let parsed = object::File::parse(&*content).unwrap();
        let of = |name: &str| parsed.symbols().find(|symbol| symbol.name() == Ok(name)).unwrap();
        let ranges = ["main.main", "strconv.FormatInt", "os.Exit"].map(|name| (of(name).address(), of(name).size()));
        let addresses: Vec<u64> = ranges.iter().flat_map(|&(start, bytes)| (start..start + bytes).step_by(3)).collect();
        fs::write(built.0.join("chains.py"), CHAINS.replace("ADDRESSES", &format!("{addresses:?}"))).unwrap();
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "-batch", "-ex", "set debuginfod enabled off"]).arg(built.0.join("program"));
        let output = gdb.arg("-x").arg(built.0.join("chains.py")).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let theirs: Vec<String> =
            text.lines().filter_map(|line| line.strip_prefix("SAID ")).map(str::to_owned).collect();
        assert_eq!(theirs.len(), addresses.len(), "{text} {}", String::from_utf8_lossy(&output.stderr));
        fs::rename(built.0.join("bare"), built.0.join("program")).unwrap();
        let found = MappedFile::at(&built.0.join("program")).unwrap();
        let headers = Headers::read(&elf::Source::File(found.file.as_deref().unwrap())).unwrap();
        let mut namer = Namer::default();
        let mut inlined = 0;
        for (address, theirs) in addresses.iter().zip(&theirs) {
            let code = headers.code().into_iter().find(|code| code.address.contains(address)).unwrap();
            let offset = address - code.address.start + code.offset.start;
            let place = CodePlace { offset, in_mapping: 0, mapping_bytes: 0, is_return_address: false };
            let functions = namer.functions(&found, place, &mut Beside(&built.0)).unwrap();
            let names: Vec<&str> = functions.iter().map(|function| function.name.as_str()).collect();
            let ours = format!("{} {}", names.join(" "), functions[0].line.unwrap_or(0));
            assert_eq!(&ours, theirs, "{kind} {address:#x}");
            inlined += usize::from(functions.len() > 1);
        }
        assert!(inlined > 5, "{kind}: {theirs:?}");
    }
}

/// A file of which nothing may be copied stands for one that is larger than the bound.
#[test]
fn what_is_too_large_to_copy_has_names_and_says_so() {
    let built = Built::new("large", "gcc -g -O1 -fno-inline -o program program.c");
    let addresses = built.addresses("program");
    let named = |gdb: &String| gdb.split(" /").next().unwrap().to_owned() + " None 0";
    let gdb: Vec<String> = built.by_gdb(&addresses).iter().map(named).collect();
    let found = MappedFile::at(&built.0.join("program")).unwrap();
    let mut namer = Namer { copied_max: 0, ..Namer::default() };
    assert_eq!(built.by(&mut namer, &addresses), gdb);
    assert_eq!(namer.failure(&found), Some(Failure::TooLarge), "lines are missing");
    let mut whole = Namer::default();
    built.by(&mut whole, &addresses);
    assert_eq!(whole.failure(&found), None);
    // What was written to since has none.
    fs::write(built.0.join("program"), b"another").unwrap();
    let gone = MappedFile { file: found.file.clone(), ..found };
    let place = CodePlace { offset: addresses[0], in_mapping: 0, mapping_bytes: 0, is_return_address: false };
    assert!(namer.functions(&gone, place, &mut Beside(&built.0)).is_err());
}

/// A part of the functions of a large program: of this test itself.
#[test]
fn an_index_has_the_functions_of_the_table() {
    let own = MappedFile::at(&std::env::current_exe().unwrap()).unwrap();
    let file = own.file.as_deref().unwrap();
    let headers = Headers::read(&elf::Source::File(file)).unwrap();
    let index = Index::read(file, &headers, true).unwrap();
    let content = fs::read(std::env::current_exe().unwrap()).unwrap();
    let parsed = object::File::parse(&*content).unwrap();
    let functions = parsed.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 2);
    let mut names: HashMap<u64, Vec<String>> = HashMap::new();
    for symbol in functions {
        names.entry(symbol.address()).or_default().push(demangle::demangle(symbol.name().unwrap()));
    }
    assert!(names.len() > 5000, "{}", names.len());
    for (&address, names) in names.iter().step_by(7) {
        let function = index.function(address + 1, 0, &own).unwrap();
        // Linkers fold functions with the same code: a place has several names then.
        assert!(names.contains(&function.name) && function.offset == Some(1), "{address:#x} {function:?} {names:?}");
    }
    let last = names.keys().max().unwrap();
    assert_eq!(index.function(last + (1 << 30), 0, &own), None, "behind all of them");
}
