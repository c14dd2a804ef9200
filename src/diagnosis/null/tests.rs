use super::super::Confidence;
use super::super::cases::{Case, confidence, far, fault, kind, region, text};
use super::*;

/// `mov eax, [rdi+0x18]` with rdi 0.
fn field() -> Case {
    Case { code: vec![0x8b, 0x47, 0x18], ..fault(1, 0x18, 4) }
}

#[test]
fn the_register_and_the_offset_are_named() {
    assert_eq!(text(&field()), "reads the field at offset 0x18 of a NULL pointer (rdi is 0)");
    assert_eq!(confidence(&field()), Some(Confidence::Certain));
}

#[test]
fn a_small_number_of_which_something_was_subtracted_is_no_address_of_the_kernel() {
    // mov rax, [rdi-8], as free() reads the size of a block.
    let of = |rdi: u64| {
        let mut case = Case { code: vec![0x48, 0x8b, 0x47, 0xf8], ..fault(1, rdi.wrapping_sub(8), 4) };
        case.registers.rdi = rdi;
        case.mapped(&[far()])
    };
    assert!(text(&of(5)).ends_with("or an integer (5) used as a pointer (rdi is 0x5)"), "{}", text(&of(5)));
    assert_eq!(text(&of(0)), "reads 0x8 before a NULL pointer (rdi is 0)");
    assert_eq!(kind(&of(3u64.wrapping_neg())), Some(Kind::KernelAddress));
}

#[test]
fn the_address_alone_is_likely() {
    let of = |address| {
        let mut evidence = fault(1, address, 4).called(&["main.get", "main.main"]).evidence();
        (evidence.page_fault, evidence.registers, evidence.code) = (None, None, None);
        evidence.frames[0].address = 0x40_1000;
        super::super::diagnose(&evidence)
    };
    let found = of(0x328).unwrap();
    assert_eq!(
        found.text, "accesses address 0x328: near NULL, as a field at that offset of a NULL pointer is",
        "a panic of Go"
    );
    assert_eq!((found.kind, found.confidence), (Kind::NullDereference, Confidence::Likely));
    assert_eq!(of(0).unwrap().text, "accesses address 0: a NULL pointer");
    assert!(of(8080).unwrap().text.ends_with(" of a NULL pointer is, or an integer (8080) used as a pointer"));
    assert_eq!((of(NEAR), of(0x40_1000)), (None, None), "no field has such an offset; and a jump");
}

#[test]
fn a_length_is_no_part_of_the_pointer() {
    // mov rax, [rsi+rdx-8], as memcpy() reads the end of a short block.
    let code = vec![0x48, 0x8b, 0x44, 0x16, 0xf8];
    let mut case = Case { code, modules: vec!["/lib/libc.so.6"], ..fault(1, 0x7530, 4) }
        .called(&["__memmove_avx_unaligned_erms", "main"]);
    (case.registers.rsi, case.registers.rdx) = (0x7530, 8);
    assert!(text(&case).contains("an integer (30000) used as a pointer to a string or memory"), "{}", text(&case));
    case.frames = vec!["load".to_owned()];
    assert_eq!(kind(&case), Some(Kind::NullDereference), "a function that may know a field there");
    assert_eq!(confidence(&case), Some(Confidence::Likely));
}

#[test]
fn a_register_that_does_not_explain_the_address_is_not_named() {
    let mut case = field();
    case.registers.rdi = 0x1000_0000;
    assert_eq!(text(&case), "reads address 0x18: near NULL, as a field at that offset of a NULL pointer is");
    assert_eq!(confidence(&case), Some(Confidence::Likely));
    let mut case = field();
    case.error_code = 6;
    assert!(!text(&case).contains("rdi"), "the instruction reads, the fault was a write");
    let mut case = field();
    case.code.clear();
    assert!(!text(&case).contains("rdi"));
    let mut case = field();
    case.is_compat = true;
    assert!(!text(&case).contains("rdi"), "32-bit code reads otherwise");
}

#[test]
fn a_small_address_that_was_computed_before_is_likely() {
    // mov dword [rdi], 1 with rdi 0x18: tests/programs/null-write.c
    let mut case = Case { code: vec![0xc7, 0x07, 1, 0, 0, 0], ..fault(1, 0x18, 6) };
    case.registers.rdi = 0x18;
    assert_eq!(confidence(&case), Some(Confidence::Likely));
    assert!(text(&case).ends_with("or an integer (24) used as a pointer (rdi is 0x18)"), "{}", text(&case));
}

#[test]
fn a_place_behind_minus_1_is_said() {
    // movsx eax, byte [rax]: mmap() has failed, and 100 was added.
    let mut case = Case { code: vec![0x0f, 0xbe, 0x00], ..fault(1, 99, 4) };
    case.registers.rax = 99;
    assert!(text(&case).ends_with(
        "or an integer (99) used as a pointer, or a place behind -1, as a failed call returns it (rax is 0x63)"
    ));
    case.registers.rax = 100;
    assert!(text(&case.at(100)).ends_with("or an integer (100) used as a pointer (rax is 0x64)"));
}

#[test]
fn what_counts_from_the_threads_own_data_is_no_field() {
    // mov rax, fs:[0x28], as a stack protector reads its value
    let mut case = Case { code: vec![0x64, 0x48, 0x8b, 4, 0x25, 0x28, 0, 0, 0], ..fault(1, 0x28, 4) };
    assert_eq!(
        text(&case),
        "reads address 0x28: the data of its own that a thread has is not set up (fs or gs leads to NULL)"
    );
    case.code.remove(0);
    assert!(text(&case).contains("(the instruction holds the address itself)"), "{}", text(&case));
    case.code = vec![0x48, 0x8b, 0x47, 0x28];
    assert!(text(&case).contains("the field at offset 0x28 of a NULL pointer"));
}

#[test]
fn what_a_failed_call_returns_is_no_integer() {
    // mov eax, [rdi+0x10] with rdi -1
    let mut case = Case { code: vec![0x8b, 0x47, 0x10], ..fault(1, 0xf, 4) };
    case.registers.rdi = u64::MAX;
    assert_eq!(text(&case), "reads 0xf: the pointer is -1, as a failed call returns it (rdi is 0xffffffffffffffff)");
    assert_eq!((kind(&case), confidence(&case)), (Some(Kind::KernelAddress), Some(Confidence::Certain)));
    case.registers.rdi = 8u64.wrapping_neg();
    assert!(
        text(&case.at(8))
            .starts_with("reads 0x8: the pointer is -8, a negative number, or what lies before a NULL pointer")
    );
}

#[test]
fn an_integer_is_no_field() {
    // movzx eax, byte [rdi] with rdi 8080
    let mut case = Case { code: vec![0x0f, 0xb6, 0x07], ..fault(1, 8080, 4) };
    case.registers.rdi = 8080;
    assert_eq!(
        text(&case),
        "reads address 0x1f90: an integer (8080) used as a pointer, or a field far behind a NULL pointer (rdi is 0x1f90)"
    );
    case.modules = vec!["/lib/libc.so.6"];
    let string = case.clone().called(&["__strlen_avx2", "printf", "main"]);
    assert_eq!((kind(&string), confidence(&string)), (Some(Kind::IntegerAsPointer), Some(Confidence::Likely)));
    assert!(text(&string).ends_with(": an integer (8080) used as a pointer to a string or memory (rdi is 0x1f90)"));
    let mut pages = case.clone().at(8191);
    pages.registers.rdi = 8191;
    assert!(text(&pages).contains("(8191) used as a pointer, or a place whole pages behind -1"), "{}", text(&pages));
    // The same of a string: strlen() has rounded what it was given.
    let mut advanced = string.clone().at(8191);
    advanced.registers.rdi = 8191;
    assert!(text(&advanced).contains("(8191) used as a pointer to a string or memory"), "{}", text(&advanced));
    let mut rounded = string.clone().at(8160);
    rounded.registers.rdi = 8160;
    assert!(text(&rounded).contains(": an integer (8160, or somewhat more) used as a pointer to a string or memory"));
    let own = Case { modules: vec!["/bin/x"], ..string.clone() };
    assert!(text(&own).contains("or a field far"), "a strlen() of the program's own");
    let other = string.called(&["qsort", "main"]);
    assert!(text(&other).contains("or a field far"));
}

#[test]
fn an_address_in_the_instruction_is_certain() {
    // mov dword [0x18], 0: tests/programs/many-faults.c
    let code = vec![0xc7, 0x04, 0x25, 0x18, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(confidence(&Case { code, ..fault(1, 0x18, 6) }), Some(Confidence::Certain));
}

#[test]
fn of_two_registers_the_pointer_is_named_only_if_it_is_known() {
    // mov eax, [rdi+rsi*4]
    let mut case = Case { code: vec![0x8b, 0x04, 0xb7], ..fault(1, 0x20, 4) };
    case.registers.rsi = 8;
    assert_eq!(text(&case), "reads at offset 0x20 of a NULL pointer (rdi is 0)");
    // Both are far, and their sum is small by chance.
    case.registers.rdi = 0x20u64.wrapping_sub(4 * 0x1000_0000);
    case.registers.rsi = 0x1000_0000;
    assert_eq!(kind(&case), None);
    case.registers.rdi = 0;
    case.registers.rsi = (1 << 62) + 8;
    assert_eq!(kind(&case), None, "an index that overflows");
    // movzx eax, byte [rdi+rsi]
    case.code = vec![0x0f, 0xb6, 0x04, 0x37];
    for (rdi, rsi) in [(0, 0x20), (0x20, 0)] {
        case.registers.rdi = rdi;
        case.registers.rsi = rsi;
        assert_eq!(confidence(&case), Some(Confidence::Likely));
    }
    assert!(text(&case).ends_with("(rdi is 0x20, rsi is 0)"), "either may be the pointer");
}

#[test]
fn a_field_before_the_pointer() {
    // mov eax, [rdi-8]
    let mut case = Case { code: vec![0x8b, 0x47, 0xf8], ..fault(1, 8u64.wrapping_neg(), 5) };
    assert_eq!(text(&case), "reads 0x8 before a NULL pointer (rdi is 0)");
    case.registers.rdi = 0x10;
    case = case.at(8);
    assert_eq!(confidence(&case), Some(Confidence::Likely));
}

#[test]
fn near_is_below_64_kib() {
    assert_eq!(kind(&fault(1, NEAR - 1, 4)), Some(Kind::NullDereference));
    assert_eq!(kind(&fault(1, NEAR, 4)), None);
    // mov eax, [rdi+0x100000] with rdi 0
    let far = Case { code: vec![0x8b, 0x87, 0, 0, 0x10, 0], ..fault(1, 0x10_0000, 4) };
    assert_eq!(text(&far), "reads 0x100000, far behind a NULL pointer (rdi is 0): a field or an element there");
    assert_eq!(confidence(&far), Some(Confidence::Likely));
    // mov eax, [rdi+0x404040]: it may be an index into a table at that address.
    let table = Case { code: vec![0x8b, 0x87, 0x40, 0x40, 0x40, 0], ..fault(1, 0x40_4040, 4) };
    assert_eq!(kind(&table), None);
    // mov eax, [rdi+rsi*4], and the same behind 0x404040
    let element = Case { code: vec![0x8b, 0x04, 0xb7], ..fault(1, 0x10_0000, 4) };
    let with = |mut case: Case, rsi| {
        case.registers.rsi = rsi;
        case
    };
    assert!(text(&with(element, 0x4_0000)).starts_with("reads 0x100000, far behind a NULL pointer (rdi is 0)"));
    let table = Case { code: vec![0x8b, 0x84, 0xb7, 0x40, 0x40, 0x40, 0], ..fault(1, 0x10_0000, 4) };
    assert_eq!(kind(&with(table, 0xc_1010u64.wrapping_neg())), None);
}

#[test]
fn what_leads_back_from_a_pointer_or_a_table_is_no_null_pointer() {
    const VALID: u64 = 0x5555_0000_1000;
    // mov eax, [rdi+rsi]; mov eax, [0x404040+rsi*8]; movzx eax, byte [rdi+0x404040]; bt [rdi], rsi
    let summed = vec![0x8b, 0x04, 0x37];
    let table = vec![0x8b, 0x04, 0xf5, 0x40, 0x40, 0x40, 0];
    let bytes = vec![0x0f, 0xb6, 0x87, 0x40, 0x40, 0x40, 0];
    let bits = vec![0x48, 0x0f, 0xa3, 0x37];
    let with = |code: &Vec<u8>, rdi: u64, rsi: u64| {
        let mut case = Case { code: code.clone(), ..fault(1, 0x48, 4) };
        (case.registers.rdi, case.registers.rsi) = (rdi, rsi);
        case
    };
    for case in [
        with(&summed, VALID, 0x48u64.wrapping_sub(VALID)),
        with(&table, 0, 0x8_07ffu64.wrapping_neg()),
        with(&bytes, 0x48u64.wrapping_sub(0x40_4040), 0),
        with(&bits, VALID, 0x48u64.wrapping_sub(VALID).wrapping_mul(8)),
    ] {
        assert_eq!(kind(&case), None, "{:x?}", case.code);
    }
    let near = with(&bits, 0, 0x48 * 8);
    assert!(text(&near).ends_with("of a NULL pointer is (rdi is 0, rsi is 0x240)"), "{}", text(&near));
    // vpgatherqq ymm3, [rdi+ymm1*8], ymm2
    let gathered = vec![0xc4, 0xe2, 0xed, 0x91, 0x1c, 0xcf];
    assert_eq!(kind(&with(&gathered, VALID, 0)), None);
    assert!(text(&with(&gathered, 0, 0)).ends_with("of a NULL pointer is (rdi is 0)"));
}

#[test]
fn not_where_something_is_mapped_or_the_stack_pointer_is_broken() {
    let mut case = field();
    case.regions = vec![region(0, 0x1000, "---")];
    assert_eq!(kind(&case), None);
    // pop rax
    let mut case = Case { code: vec![0x58], ..fault(1, 0x18, 4) }.mapped(&[far()]);
    case.registers.rsp = 0x18;
    assert_eq!(text(&case), "reads the stack at 0x18, where none can be: the stack pointer is broken (rsp is 0x18)");
    assert_eq!((kind(&case), confidence(&case)), (Some(Kind::BrokenStackPointer), Some(Confidence::Certain)));
    // push rax
    let pushed = Case { code: vec![0x50], error_code: 6, ..case.clone().at(8u64.wrapping_neg()) };
    let mut zero = pushed.clone();
    zero.registers.rsp = 0;
    assert!(text(&zero).ends_with("the stack pointer is broken (rsp is 0)"), "{}", text(&zero));
    // mov rax, [rsp+0x18] with a valid stack pointer leads elsewhere.
    let mut valid = Case { code: vec![0x48, 0x8b, 0x44, 0x24, 0x18], ..case };
    valid.registers.rsp = 0x7ffd_0000_1000;
    assert_ne!(kind(&valid), Some(Kind::BrokenStackPointer));
}
