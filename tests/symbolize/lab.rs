//! A program that is stripped, its debug file, Debian's debuginfod that serves both, and what is asked of them.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use object::elf::{FileHeader64, PF_X, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, Object, ObjectSymbol};
use serde_json::{Value, json};

/// Functions that are inlined and static; `volatile` keeps the compiler from computing all of it. It crashes if it has an argument.
const SOURCE: &str = r"
static volatile int sink;
static inline __attribute__((always_inline)) int innermost(int a)
{
    sink = a;
    return sink * 3;
}
static inline __attribute__((always_inline)) int inlined(int a)
{
    int b = innermost(a + 1);
    return b + sink;
}
static __attribute__((noinline)) int hidden(int a)
{
    if (a > 3)
        *(volatile int *)0 = a;
    int b = inlined(a);
    sink += b;
    return b ^ sink;
}
__attribute__((noinline)) int shown(int a)
{
    int b = hidden(a * 2);
    return b + inlined(b);
}
int main(int argc, char **argv)
{
    (void)argv;
    return shown(argc) + hidden(argc);
}
";

/// How long the server may take to find its files.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder of its own, deleted when dropped.
pub(crate) struct Lab {
    pub(crate) folder: PathBuf,
    /// The program, stripped.
    pub(crate) program: PathBuf,
    /// Its debug file.
    pub(crate) debug: PathBuf,
    pub(crate) build_id: String,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: run ci/install test"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Lab {
    pub(crate) fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("faultline-symbolize-{}-{name}", std::process::id()));
        let served = folder.join("served");
        fs::create_dir_all(&served).unwrap();
        let (source, program, debug) = (folder.join("p.c"), served.join("program"), served.join("program.debug"));
        // A program of its own for each test has a build id of its own.
        fs::write(&source, format!("{SOURCE}const char name[] = \"{name}\";\n")).unwrap();
        run(Command::new("gcc").args(["-g", "-O1", "-Wl,--build-id", "-o"]).args([&program, &source]));
        run(Command::new("objcopy").arg("--only-keep-debug").args([&program, &debug]));
        run(Command::new("strip").arg(&program));
        let build_id = build_id_of(&program);
        Self { folder, program, debug, build_id }
    }

    /// The same, with what the compiler leaves beside the program (split DWARF) instead of debug information in it. It is where its records say.
    pub(crate) fn split(mut self) -> Self {
        // The debug file of the same code stays, for the oracle.
        self.program = self.folder.join("split");
        let mut gcc = Command::new("gcc");
        gcc.args(["-g", "-gsplit-dwarf", "-O1", "-Wl,--build-id", "-o"])
            .args([&self.program, &self.folder.join("p.c")]);
        run(&mut gcc);
        self.build_id = build_id_of(&self.program);
        self
    }

    /// The addresses of each byte of the program's own functions.
    pub(crate) fn addresses(&self) -> Vec<u64> {
        let content = fs::read(&self.debug).unwrap();
        let file = object::File::parse(&*content).unwrap();
        let of = |name: &str| {
            let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name)).unwrap();
            symbol.address()..symbol.address() + symbol.size()
        };
        let addresses: Vec<u64> = ["hidden", "shown", "main"].into_iter().flat_map(of).collect();
        assert!(addresses.len() > 60, "the functions are there");
        addresses
    }

    /// Where in the program an address is.
    pub(crate) fn offset(&self, address: u64) -> u64 {
        let content = fs::read(&self.program).unwrap();
        let header = FileHeader64::<LittleEndian>::parse(&*content).unwrap();
        let programs = header.program_headers(LittleEndian, &*content).unwrap();
        let code = programs
            .iter()
            .find(|program| program.p_type(LittleEndian) == PT_LOAD && program.p_flags(LittleEndian) & PF_X != 0);
        let code = code.unwrap();
        address - code.p_vaddr(LittleEndian) + code.p_offset(LittleEndian)
    }

    /// The address of an offset in the program: the other way round.
    pub(crate) fn address(&self, offset: u64) -> u64 {
        let address = *self.addresses().first().unwrap();
        address.wrapping_add(offset).wrapping_sub(self.offset(address))
    }

    /// What addr2line says of an address, innermost first: functions and their places.
    pub(crate) fn oracle(&self, address: u64) -> Vec<(String, String)> {
        let mut command = Command::new("addr2line");
        let text = run(command.args(["-f", "-i", "-e"]).arg(&self.debug).arg(format!("{address:#x}")));
        let lines: Vec<&str> = text.lines().collect();
        // `p.c:7 (discriminator 2)`
        let place = |line: &str| line.split(" (discriminator").next().unwrap().to_owned();
        lines.chunks(2).map(|pair| (pair[0].to_owned(), place(pair[1]))).collect()
    }

    /// A crash record without names, of a program that isn't at its path any more. The first of the addresses is where it was, the others
    /// are return addresses.
    pub(crate) fn record(&self, addresses: &[u64]) -> Value {
        let frame = |&address: &u64| {
            json!({
                "address": format!("{:#x}", 0x5555_0000_0000_u64 + address), "symbol": null, "module": "/nonexistent/program",
                "build_id": self.build_id, "offset": format!("{:#x}", self.offset(address)), "file": null, "line": null,
                "inlined": false,
            })
        };
        json!({
            "type": "crash", "schema": 1, "pid": 7, "comm": "program", "stack_omitted": null, "symbols_failed": [],
            "instruction_symbol": null, "instruction_pointer": format!("{:#x}", 0x5555_0000_0000_u64 + addresses[0]),
            "stack_trace": addresses.iter().map(frame).collect::<Vec<_>>(),
        })
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.folder.join("cache")
    }

    /// The files that were fetched, in a list.
    pub(crate) fn fetched(&self) -> Vec<String> {
        let folder = self.cache().join(&self.build_id);
        let files = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap());
        let whole = files.filter(|file| file.metadata().unwrap().len() > 0);
        let mut names: Vec<String> = whole.map(|file| file.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// `faultline symbolize` of these records, with these variables and a bound of time that is far from what it needs.
    pub(crate) fn symbolize(&self, records: &[Value], variables: &[(&str, &str)]) -> (Vec<Value>, String) {
        let input = self.folder.join("records.jsonl");
        let lines: Vec<String> = records.iter().map(Value::to_string).collect();
        fs::write(&input, lines.join("\n")).unwrap();
        let mut command = Command::new("timeout");
        command.arg("120").arg(env!("CARGO_BIN_EXE_faultline")).arg("symbolize").arg(&input);
        command.env_clear().env("DEBUGINFOD_CACHE_PATH", self.cache()).envs(variables.iter().copied());
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{:?}: {said}", output.status);
        let text = String::from_utf8(output.stdout).unwrap();
        (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), said)
    }
}

fn build_id_of(program: &Path) -> String {
    let content = fs::read(program).unwrap();
    let build_id = object::File::parse(&*content).unwrap().build_id().unwrap().unwrap().to_vec();
    build_id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The functions and places of each frame of a record, those of inlined functions before the one that they are part of.
pub(crate) fn names(record: &Value) -> Vec<Vec<(String, String)>> {
    let mut calls = vec![Vec::new()];
    for frame in record["stack_trace"].as_array().unwrap() {
        let Some(symbol) = frame["symbol"].as_str() else {
            calls.push(Vec::new());
            continue;
        };
        let name = symbol.split("+0x").next().unwrap().to_owned();
        let place = format!("{}:{}", frame["file"].as_str().unwrap_or("?"), frame["line"]);
        calls.last_mut().unwrap().push((name, place));
        if frame["inlined"] == false {
            calls.push(Vec::new());
        }
    }
    calls.pop();
    calls
}

/// A port of this host that is free now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Debian's debuginfod, which ends when it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
}

impl Server {
    /// One that serves a lab's files and has found them.
    pub(crate) fn of(lab: &Lab) -> Self {
        let port = free_port();
        let mut command = Command::new("debuginfod");
        command.args(["-d", ":memory:", "-F", "-p", &port.to_string()]).arg(lab.folder.join("served"));
        // It asks other servers itself if it is told some.
        command.env_remove("DEBUGINFOD_URLS").env("DEBUGINFOD_CACHE_PATH", lab.folder.join("servers-cache"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("debuginfod: {error}: run ci/install test"));
        let server = Self { child, url: format!("http://127.0.0.1:{port}") };
        let until = Instant::now() + PATIENCE;
        while !["debuginfo", "executable"].iter().all(|kind| server.has(lab, kind)) {
            assert!(Instant::now() < until, "debuginfod has not found its files");
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    fn has(&self, lab: &Lab, kind: &str) -> bool {
        let url = format!("{}/buildid/{}/{kind}", self.url, lab.build_id);
        let mut command = Command::new("curl");
        command.args(["-s", "-f", "-o", "/dev/null", &url]);
        command.status().unwrap_or_else(|error| panic!("curl: {error}: run ci/install test")).success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does a file of this name lie in the folder of an ELF file that a server gave?
pub(crate) fn is_same(one: &Path, other: &Path) -> bool {
    fs::read(one).unwrap() == fs::read(other).unwrap()
}
