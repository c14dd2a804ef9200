//! What is inlined into functions of split debug information: as in the same program with all of it in one file.

use super::*;

const INLINED: &str = r#"
#include <stdio.h>
#include <stdlib.h>
static inline __attribute__((always_inline)) int twice(int *p)
{
	return *p * abs(puts("y")) * 2;
}
static inline __attribute__((always_inline)) int more(int *p)
{
	return 1 +
	       twice(p);
}
int __attribute__((noinline)) load(int *p)
{
	return more(p) + puts("x");
}
int main(int argc, char **argv)
{
	return load(argc > 5 ? &argc : 0);
}
"#;

/// Gives what lies at the path, or the package.
struct Elsewhere<'a>(&'a Path);

impl Open for Elsewhere<'_> {
    fn mapped(&mut self, _: usize) -> Result<Option<File>, Failure> {
        Ok(None)
    }

    fn debug(&mut self, _: usize, _: &[u8], _: Option<&[u8]>) -> Vec<File> {
        Vec::new()
    }

    fn split(&mut self, _: usize, path: Option<&[u8]>) -> Option<File> {
        let path = path.map_or_else(|| self.0.join("program.dwp"), |path| std::str::from_utf8(path).unwrap().into());
        File::open(path).ok()
    }
}

impl Built {
    /// The functions at the second word of the code of `load`, which is in what is inlined there, and the next ones.
    fn inlined(&self, namer: &mut Namer) -> Vec<Vec<String>> {
        let content = fs::read(self.0.join("program")).unwrap();
        let parsed = object::File::parse(&*content).unwrap();
        let is_load = |name: &str| name == "load" || name.starts_with("load.");
        let load = parsed.symbols().find(|symbol| symbol.name().is_ok_and(is_load)).unwrap();
        let headers = Headers::read(&elf::Source::Memory(&content)).unwrap();
        let code = headers.code().into_iter().find(|code| code.address.contains(&load.address())).unwrap();
        let found = MappedFile::at(&self.0.join("program")).unwrap();
        let text = |function: &Function| format!("{} {}", function.name, function.line.unwrap_or(0));
        let mut all: Vec<Vec<String>> = (0..load.size())
            .map(|byte| {
                let offset = load.address() + byte - code.address.start + code.offset.start;
                let place = CodePlace { offset, in_mapping: 0, mapping_bytes: 0, is_return_address: false };
                namer.functions(&found, place, &mut Elsewhere(&self.0)).unwrap().iter().map(text).collect()
            })
            .collect();
        all.dedup();
        all
    }
}

/// What is inlined stands beside the objects, or is packed beside the program; of another build nothing is believed.
#[test]
fn split_debug_information_says_what_is_inlined() {
    for compiler in ["gcc -gdwarf-5", "gcc -gdwarf-4", "clang -gdwarf-5"] {
        let name = format!("inlined-{}", compiler.replace(' ', ""));
        // As a compiler names a copy of a function that knows an argument.
        let build = |more: &str| {
            let copy = "objcopy --redefine-sym load=load.constprop.0 program.o";
            format!("{compiler} -O1 -c {more} program.c && {copy} && {compiler} -o program program.o")
        };
        let script = format!("{} && cp program plain && {}", build(""), build("-gsplit-dwarf"));
        let built = Built::with(&name, &script, INLINED);
        let split = built.inlined(&mut Namer::default());
        fs::rename(built.0.join("program"), built.0.join("split")).unwrap();
        fs::rename(built.0.join("plain"), built.0.join("program")).unwrap();
        // The same code, with all of its debug information in the program.
        let whole = built.inlined(&mut Namer::default());
        assert!(whole.iter().any(|functions| functions.len() == 3), "{compiler}: {whole:?}");
        assert_eq!(split, whole, "{compiler}");
        fs::rename(built.0.join("split"), built.0.join("program")).unwrap();
        let unit = fs::read_dir(&built.0).unwrap().map(|entry| entry.unwrap().path());
        let unit = unit.into_iter().find(|path| path.extension().is_some_and(|end| end == "dwo")).unwrap();
        let content = fs::read(&unit).unwrap();
        fs::remove_file(&unit).unwrap();
        let without = built.inlined(&mut Namer::default());
        assert!(without.iter().all(|functions| functions.len() == 1), "{compiler}: {without:?}");
        assert!(whole.iter().all(|functions| functions.last().unwrap().starts_with("load ")), "{compiler}: {whole:?}");
        // Of another build: with another id.
        let source = INLINED.replace("twice", "thrice");
        let other = Built::with(&format!("{name}-other"), &build("-gsplit-dwarf"), &source);
        fs::copy(other.0.join(unit.file_name().unwrap()), &unit).unwrap();
        assert_eq!(built.inlined(&mut Namer::default()), without, "{compiler}: another one");
        fs::write(&unit, &content[..content.len() / 2]).unwrap();
        assert_eq!(built.inlined(&mut Namer::default()), without, "{compiler}: half of it");
        // The tool of binutils knows no DWARF 5: the next test has a package of that.
        if compiler == "gcc -gdwarf-4" {
            fs::write(&unit, &content).unwrap();
            let packed = Command::new("dwp").args(["-e", "program"]).current_dir(&built.0).output().unwrap();
            assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
            fs::remove_file(&unit).unwrap();
            assert_eq!(built.inlined(&mut Namer::default()), whole, "{compiler}: packed");
        }
    }
}

const RUST: &str = r#"
use std::hint::black_box;
#[inline(always)]
fn twice(p: *const i32) -> i32 { unsafe { p.read_volatile() * black_box(2) } }
#[inline(always)]
fn more(p: *const i32) -> i32 {
    1 + twice(p)
}
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn load(p: *const i32) -> i32 { more(p) + black_box(3) }
fn main() {
    std::process::exit(load(&std::env::args().count() as *const usize as *const i32));
}
"#;

/// rustc packs by itself.
#[test]
fn a_package_of_either_version_says_what_is_inlined() {
    for version in ["4", "5"] {
        let build = format!("rustc -g -O -C dwarf-version={version} -o program program.c");
        let script = format!("{build} && mv program plain && {build} -C split-debuginfo=packed");
        let built = Built::with(&format!("package-{version}"), &script, RUST);
        let packed = built.inlined(&mut Namer::default());
        fs::rename(built.0.join("program.dwp"), built.0.join("away")).unwrap();
        let without = built.inlined(&mut Namer::default());
        assert!(without.iter().all(|functions| functions.len() == 1), "{version}: {without:?}");
        fs::rename(built.0.join("plain"), built.0.join("program")).unwrap();
        let whole = built.inlined(&mut Namer::default());
        assert!(whole.iter().any(|functions| functions.len() > 3), "{version}: {whole:?}");
        assert_eq!(packed, whole, "{version}");
    }
}
