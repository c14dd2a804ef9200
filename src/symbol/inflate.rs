//! Uncompresses compressed parts of files. Anybody may have made the files: their sizes are checked, and no result exceeds a bound.

use std::io::Read;

use flate2::read::ZlibDecoder;
use lzma_rust2::XzReader;
use object::LittleEndian;
use object::elf::{CompressionHeader32, CompressionHeader64, ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD};
use object::pod::from_bytes;

use super::elf::{Compression, ENDIAN};

/// How much memory xz may take beside what it uncompresses, KiB: `xz -9` wants 65 MiB.
const XZ_MEMORY_MAX_KIB: u32 = 72 << 10;

/// What stands before the content of a section that its name says to be compressed, and before its length: 8 bytes, the highest first.
const ZLIB: &[u8] = b"ZLIB";

/// The content of a compressed section, if it claims at most `max` bytes.
pub(super) fn section(compressed: &[u8], compression: Compression, max: u64) -> Option<Vec<u8>> {
    let (kind, length, data) = match compression {
        Compression::Header => {
            let (header, data) = from_bytes::<CompressionHeader64<LittleEndian>>(compressed).ok()?;
            (header.ch_type.get(ENDIAN), header.ch_size.get(ENDIAN), data)
        }
        Compression::CompatHeader => {
            let (header, data) = from_bytes::<CompressionHeader32<LittleEndian>>(compressed).ok()?;
            (header.ch_type.get(ENDIAN), header.ch_size.get(ENDIAN).into(), data)
        }
        Compression::Name => {
            let (length, data) = compressed.strip_prefix(ZLIB)?.split_first_chunk()?;
            (ELFCOMPRESS_ZLIB, u64::from_be_bytes(*length), data)
        }
    };
    if length > max {
        return None;
    }
    let bytes = match kind {
        // One byte more would show that its claim is wrong.
        ELFCOMPRESS_ZLIB => read_to_end(ZlibDecoder::new(data), length.saturating_add(1))?,
        // At once into as much room as it claims: it keeps no window beside it.
        ELFCOMPRESS_ZSTD => zstd::bulk::decompress(data, usize::try_from(length).ok()?).ok()?,
        _ => return None,
    };
    (bytes.len() as u64 == length).then_some(bytes)
}

/// The content of an xz stream, if it is at most `max` bytes.
pub(super) fn xz(compressed: &[u8], max: u64) -> Option<Vec<u8>> {
    let reader = XzReader::new_mem_limit(compressed, false, XZ_MEMORY_MAX_KIB);
    read_to_end(reader, max.checked_add(1)?).filter(|bytes| bytes.len() as u64 <= max)
}

fn read_to_end(reader: impl Read, max: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(max).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::ZlibEncoder;

    use super::*;

    /// `head -c 4096 /dev/zero | xz -9`
    const XZ: [u8; 92] = [
        0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x02, 0x00, 0x21, 0x01, 0x1c, 0x00,
        0x00, 0x00, 0x10, 0xcf, 0x58, 0xcc, 0xe0, 0x0f, 0xff, 0x00, 0x19, 0x5d, 0x00, 0x00, 0x6f, 0xfd, 0xff, 0xff,
        0xa3, 0xb7, 0xff, 0x47, 0x3e, 0x48, 0x15, 0x72, 0x39, 0x61, 0x51, 0xb8, 0x92, 0x28, 0xe6, 0xa3, 0x84, 0x9e,
        0x29, 0x46, 0x00, 0x00, 0x00, 0x00, 0xa5, 0xf0, 0xea, 0x25, 0x94, 0xd3, 0xd3, 0x26, 0x00, 0x01, 0x35, 0x80,
        0x20, 0x00, 0x00, 0x00, 0x6f, 0x5d, 0x36, 0x86, 0xb1, 0xc4, 0x67, 0xfb, 0x02, 0x00, 0x00, 0x00, 0x00, 0x04,
        0x59, 0x5a,
    ];

    /// As gcc writes a section that is compressed by zstd.
    fn zstd_section(content: &[u8], claim: u64) -> Vec<u8> {
        let mut section = [ELFCOMPRESS_ZSTD.to_le_bytes(), [0; 4]].concat();
        section.extend_from_slice(&claim.to_le_bytes());
        section.extend_from_slice(&1_u64.to_le_bytes());
        section.extend_from_slice(&zstd::bulk::compress(content, 3).unwrap());
        section
    }

    #[test]
    fn zstd_is_as_long_as_it_says_or_not_read() {
        let content = b"content ".repeat(1000);
        let length = content.len() as u64;
        let section = |compressed: &[u8], max| section(compressed, Compression::Header, max);
        assert_eq!(section(&zstd_section(&content, length), length), Some(content.clone()));
        for (claim, max) in [(length - 1, length), (length + 1, length + 1), (length, length - 1), (1 << 60, length)] {
            assert_eq!(section(&zstd_section(&content, claim), max), None, "{claim} {max}");
        }
        assert_eq!(section(&zstd_section(&content, length)[..40], length), None, "it is cut");
    }

    #[test]
    fn what_its_name_says_to_be_compressed_is_as_long_as_it_says_or_not_read() {
        let content = b"content ".repeat(1000);
        let mut zlib = ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(&content).unwrap();
        let data = zlib.finish().unwrap();
        let with = |claim: u64| [ZLIB, &claim.to_be_bytes(), &data].concat();
        let (length, by_name) = (content.len() as u64, Compression::Name);
        assert_eq!(section(&with(length), by_name, length), Some(content));
        for (claim, max) in [(length - 1, length), (length + 1, length + 1), (length, length - 1), (u64::MAX, u64::MAX)]
        {
            assert_eq!(section(&with(claim), by_name, max), None, "{claim} {max}");
        }
        for cut in [0, 3, 11, 12, 20] {
            assert_eq!(section(&with(length)[..cut], by_name, length), None, "{cut}");
        }
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let mut sum = flate2::Crc::new();
        sum.update(bytes);
        sum.sum()
    }

    #[test]
    fn xz_is_bounded() {
        assert_eq!(xz(&XZ, 4096), Some(vec![0; 4096]));
        for max in [4095, 1, 0] {
            assert_eq!(xz(&XZ, max), None, "{max}");
        }
        assert_eq!(xz(&XZ[..XZ.len() - 20], 4096), None, "it is cut");
        // 0x28 stands for a window of 4 GiB less a byte; the header's sum is right again.
        let mut greedy = XZ;
        greedy[16] = 0x28;
        let sum = crc32(&greedy[12..20]).to_le_bytes();
        greedy[20..24].copy_from_slice(&sum);
        assert_eq!(xz(&greedy, 4096), None, "it wants too much memory");
        for at in 0..XZ.len() {
            let mut spoiled = XZ;
            spoiled[at] ^= 0x55;
            assert!(xz(&spoiled, 1 << 20).is_none_or(|bytes| bytes.len() <= 4096), "{at}");
        }
    }
}
