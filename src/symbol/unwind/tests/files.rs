//! Call frame information that is cut, crafted, without an index, or without an end.

use super::*;

#[test]
fn cut_and_crafted_files_are_harmless() {
    let libc = own_libc();
    let whole = Sections::read(&Source::Memory(&libc)).expect("a whole one");
    let tables = whole.eh_frame_hdr.unwrap().address.start as usize..whole.eh_frame.address.end as usize;
    let path = std::env::temp_dir().join(format!("faultline-unwind-{}", std::process::id()));
    for length in [0, 3, 63, 64, 100, 1000, libc.len() / 2, libc.len() - 1] {
        std::fs::write(&path, &libc[..length]).unwrap();
        let found = MappedFile::at(&path).unwrap();
        assert!(Unwinder::default().sections(Image::File(&found)).is_none(), "{length} bytes");
    }
    let found = MappedFile::at(&path).unwrap();
    std::fs::write(&path, b"another").unwrap();
    assert!(!found.version.is_of(found.file.as_deref().unwrap()), "another version lies there");
    std::fs::remove_file(&path).unwrap();

    let mut state = 7_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let stack = StackCopy::new(vec![(0x1000, words(&[JIT + 0x1234; 512]))]);
    for round in 0..300 {
        let mut crafted = libc.clone();
        // The headers, which say where everything is; then the tables themselves.
        let header = u64::from_le_bytes(libc[40..48].try_into().unwrap()) as usize;
        let places = [0..64, 64..1024, header..libc.len(), tables.clone()];
        for _ in 0..20 {
            let place = &places[round % places.len()];
            crafted[place.start + random(place.len())] = random(256) as u8;
        }
        let Some(sections) = Sections::read(&Source::Memory(&crafted)) else { continue };
        for _ in 0..50 {
            let registers = Registers::of_frame(JIT + random(1 << 21) as u64, 0x1000, 0x1040);
            let frame = Frame { address: registers.ip(), is_return_address: false };
            step::by_information(&sections, JIT, frame, &registers, &stack);
        }
    }
}

fn own_libc() -> Vec<u8> {
    let maps = Process::myself().unwrap().maps().unwrap();
    let libc = maps.iter().find_map(|map| match &map.pathname {
        MMapPath::Path(path) if path.to_string_lossy().contains("libc.so") => Some(std::fs::read(path).unwrap()),
        _ => None,
    });
    libc.expect("glibc is a library of its own here")
}

#[test]
fn an_index_made_is_as_good_as_one_read() {
    let libc = own_libc();
    let read = Sections::read(&Source::Memory(&libc)).unwrap();
    let mut made = Sections::read(&Source::Memory(&libc)).unwrap();
    made.eh_frame_hdr = None;
    made.index = made.index();
    let stack = StackCopy::new(vec![(0x1000, words(&[JIT + 0x1234; 512]))]);
    let mut found = 0;
    for address in (0..libc.len() as u64).step_by(997) {
        let frame = Frame { address, is_return_address: true };
        let registers = Registers::new([0x1010; 17]).with(X86_64::RSP, 0x1000);
        let above = [&read, &made].map(|sections| step::by_information(sections, 0, frame, &registers, &stack));
        assert_eq!(above[0], above[1], "{address:#x}");
        found += usize::from(above[0].is_some());
    }
    assert!(found > 500);
}

#[test]
fn a_file_without_sections_is_unwound_by_its_segments() {
    let libc = own_libc();
    let mut bare = libc.clone();
    // e_shoff; e_shnum and e_shstrndx.
    bare[40..48].fill(0);
    bare[60..64].fill(0);
    let sections = [&libc, &bare].map(|content| Sections::read(&Source::Memory(content)).unwrap());
    assert!(sections[1].text.is_none(), "no section is found");
    let stack = StackCopy::new(vec![(0x1000, words(&[JIT + 0x1234; 512]))]);
    let mut found = 0;
    for address in (0..libc.len() as u64).step_by(997) {
        let frame = Frame { address, is_return_address: true };
        let registers = Registers::new([0x1010; 17]).with(X86_64::RSP, 0x1000);
        let above = sections.each_ref().map(|sections| step::by_information(sections, 0, frame, &registers, &stack));
        assert_eq!(above[0], above[1], "{address:#x}");
        found += usize::from(above[0].is_some());
    }
    assert!(found > 500);
}

#[test]
fn an_expression_without_an_end_ends() {
    // As the CFA, DW_OP_skip to itself; and DW_OP_lit0, DW_OP_skip to that one, so that it grows as well.
    for expression in [&[0x2f, 0xfd, 0xff][..], &[0x30, 0x2f, 0xfc, 0xff]] {
        assert_ends(expression);
    }
}

fn assert_ends(expression: &[u8]) {
    let mut sections = Sections::read(&Source::Memory(&own_libc())).unwrap();
    // DW_CFA_def_cfa_expression, DW_CFA_offset of the return address.
    let rules = [&[0x0f, expression.len() as u8], expression, &[0x90, 1]].concat();
    let mut cie = vec![0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0];
    cie.extend_from_slice(&rules);
    let mut fde = (cie.len() as u32 + 8).to_le_bytes().to_vec();
    fde.extend_from_slice(&words(&[JIT, 0x1000]));
    fde.push(0);
    let entry = |body: &[u8]| [&(body.len() as u32).to_le_bytes(), body].concat();
    sections.eh_frame.bytes = [entry(&cie), entry(&fde)].concat();
    sections.eh_frame_hdr = None;
    sections.index = sections.index();
    assert_eq!(sections.index.len(), 1);
    let frame = Frame { address: JIT, is_return_address: false };
    let registers = Registers::new([0x1000; 17]);
    assert_eq!(
        step::by_information(&sections, 0, frame, &registers, &StackCopy::default()),
        Some(step::Above::Unknown)
    );
}
