//! C++ functions that no other file can call: debug information has their names without the scope.

use super::*;

const HIDDEN: &str = "
namespace
{
struct Parser {
	int value;
	__attribute__((noinline)) int go(volatile int *p) { return *p + value; }
};
}
static __attribute__((noinline)) int hidden(volatile int *p) { return *p; }
template <typename T> static __attribute__((noinline)) T shown(volatile T *p) { return *p * 2; }
int main(int argc, char **)
{
	volatile int value = argc;
	auto lambda = [&](volatile int *p) __attribute__((noinline)) { return *p + argc; };
	return Parser{ argc }.go(&value) + hidden(&value) + shown(&value) + lambda(&value);
}
";

#[test]
fn functions_have_the_scope_that_their_symbols_have() {
    for compiler in ["g++", "clang++"] {
        let script = format!("mv program.c program.cc; {compiler} -g -O1 -o program program.cc");
        let built = Built::with(&format!("scope-{compiler}"), &script, HIDDEN);
        let content = fs::read(built.0.join("program")).unwrap();
        let parsed = object::File::parse(&*content).unwrap();
        let own = parsed.symbols().filter(|symbol| symbol.name().is_ok_and(|name| name.starts_with("_Z")));
        let (addresses, symbols): (Vec<u64>, Vec<String>) = own
            .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 1)
            .map(|symbol| (symbol.address() + 1, demangle::demangle(symbol.name().unwrap())))
            .unzip();
        let scoped = |symbol: &String| symbol == "(anonymous namespace)::Parser::go(int volatile*)";
        assert!(symbols.len() == 4 && symbols.iter().any(scoped), "{compiler}: {symbols:?}");
        for (ours, symbol) in built.by_us(&addresses).iter().zip(&symbols) {
            assert!(ours.starts_with(&format!("{symbol} + 1 /")), "{compiler}: {symbol:?} is {ours:?}");
        }
    }
}
