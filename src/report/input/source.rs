//! Opens what is to be read, and decompresses it: the first bytes of a file say what it is, not its name.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

use super::super::refuse_folder;

/// Read, and decompressed, at once.
const BUFFER: usize = 1 << 18;
/// A zstd file that needs a larger window (128 MiB) is refused. `zstd` itself refuses it without `--long=31`.
const LARGEST_WINDOW_LOG: u32 = 27;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// What the skippable frames of zstd begin with, as parallel compressors write them: 0x50 to 0x5f, then these.
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];
/// Compressed files that aren't read here: their first bytes, and what decompresses them.
const OTHERS: [(&[u8], &str); 4] =
    [(b"\xfd7zXZ\0", "xz -dc"), (b"BZh", "bzip2 -dc"), (b"\x04\x22\x4d\x18", "lz4 -dc"), (b"PK\x03\x04", "unzip -p")];
const LONGEST_MAGIC: u64 = 6;

/// A file or standard input, decompressed.
pub(in super::super) struct Source<'from> {
    /// Its name, for messages.
    pub name: String,
    /// Is it read through a decompressor, whose errors are the file's?
    pub is_compressed: bool,
    /// The bytes.
    pub from: Box<dyn BufRead + Send + 'from>,
}

impl Source<'static> {
    /// A file, or standard input if `path` is `None`.
    ///
    /// # Errors
    /// If it can't be opened, or is compressed in a way that isn't read here.
    pub(in super::super) fn open(path: Option<&Path>) -> Result<Self> {
        match path {
            None => Source::of("standard input", io::stdin()),
            Some(path) => {
                let name = path.display().to_string();
                let file = File::open(path).with_context(|| format!("failed to open `{name}`"))?;
                refuse_folder(path, &file.metadata().with_context(|| format!("failed to read `{name}`"))?)?;
                Source::of(&name, file)
            }
        }
    }
}

impl<'from> Source<'from> {
    /// These bytes, decompressed if need be.
    ///
    /// # Errors
    /// If they can't be read, or are compressed in a way that isn't read here.
    pub(in super::super) fn of(name: &str, mut from: impl Read + Send + 'from) -> Result<Self> {
        let mut first = Vec::new();
        from.by_ref()
            .take(LONGEST_MAGIC)
            .read_to_end(&mut first)
            .with_context(|| format!("failed to read `{name}`"))?;
        if let Some((_, with)) = OTHERS.iter().find(|(magic, _)| first.starts_with(magic)) {
            bail!("failed to read `{name}`: decompress it first: {with} {name} | faultline report -");
        }
        let is_gzip = first.starts_with(GZIP);
        let is_skippable =
            first.first().is_some_and(|byte| byte & 0xf0 == 0x50) && first[1..].starts_with(ZSTD_SKIPPABLE);
        let is_zstd = first.starts_with(ZSTD) || is_skippable;
        let whole = Cursor::new(first).chain(from);
        let from: Box<dyn BufRead + Send> = match (is_gzip, is_zstd) {
            (true, _) => buffered(MultiGzDecoder::new(BufReader::with_capacity(BUFFER, whole))),
            (_, true) => {
                let mut decoder = ZstdDecoder::new(whole).with_context(|| format!("failed to read `{name}`"))?;
                decoder.window_log_max(LARGEST_WINDOW_LOG).with_context(|| format!("failed to read `{name}`"))?;
                buffered(decoder)
            }
            _ => buffered(whole),
        };
        Ok(Self { name: name.to_owned(), is_compressed: is_gzip || is_zstd, from })
    }
}

/// Why a file that is read through a decompressor can't be read any further. `None`: the system's fault, and not the content's.
pub(in super::super) fn damage(error: &io::Error, is_compressed: bool) -> Option<String> {
    if !is_compressed || error.raw_os_error().is_some() {
        return None;
    }
    Some(match error.kind() {
        ErrorKind::UnexpectedEof => "the compressed file is cut off here: copy it again".to_owned(),
        _ => format!("the compressed file is damaged here: {error}"),
    })
}

fn buffered<'from>(from: impl Read + Send + 'from) -> Box<dyn BufRead + Send + 'from> {
    Box::new(BufReader::with_capacity(BUFFER, from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    /// Gives one byte at a time, as a pipe may.
    struct Drop<'bytes>(&'bytes [u8]);

    impl Read for Drop<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let short = into.len().min(1);
            self.0.read(&mut into[..short])
        }
    }

    fn content(bytes: &[u8]) -> (bool, String) {
        let mut source = Source::of("it", Drop(bytes)).unwrap();
        let mut text = String::new();
        source.from.read_to_string(&mut text).unwrap();
        (source.is_compressed, text)
    }

    #[test]
    fn what_is_compressed_is_known_by_its_first_bytes() {
        for plain in ["", "{", "{}\n", "a longer text\n"] {
            assert_eq!(content(plain.as_bytes()), (false, plain.to_owned()));
            assert_eq!(content(&gzip(plain.as_bytes())), (true, plain.to_owned()));
            assert_eq!(content(&zstd(plain.as_bytes())), (true, plain.to_owned()));
        }
    }

    #[test]
    fn files_that_were_joined_are_read_to_their_end() {
        let joined = |one: fn(&[u8]) -> Vec<u8>| [one(b"first\n"), one(b"second\n")].concat();
        assert_eq!(content(&joined(gzip)).1, "first\nsecond\n");
        assert_eq!(content(&joined(zstd)).1, "first\nsecond\n");
        let skippable = [&[0x51, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9][..], &zstd(b"after it\n")].concat();
        assert_eq!(content(&skippable).1, "after it\n");
    }

    #[test]
    fn what_is_cut_off_is_the_files_fault() {
        for whole in [gzip(&[b'x'; 9999]), zstd(&[b'x'; 9999])] {
            let mut source = Source::of("it", &whole[..whole.len() - 9]).unwrap();
            let error = io::copy(&mut source.from, &mut io::sink()).unwrap_err();
            let wanted = Some("the compressed file is cut off here: copy it again".to_owned());
            assert_eq!(damage(&error, source.is_compressed), wanted);
            assert_eq!(damage(&error, false), None, "then it was the system's");
            assert_eq!(damage(&io::Error::from_raw_os_error(5), true), None);
        }
    }

    #[test]
    fn a_window_that_is_too_large_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(28).unwrap();
        encoder.write_all(b"x").unwrap();
        let whole = encoder.finish().unwrap();
        let mut source = Source::of("it", &whole[..]).unwrap();
        let error = io::copy(&mut source.from, &mut io::sink()).unwrap_err();
        assert!(damage(&error, true).is_some_and(|why| why.contains("too much memory")), "{error}");
    }

    #[test]
    fn other_compressed_files_are_refused_with_the_cure() {
        let said = |bytes: &[u8]| format!("{:#}", Source::of("a.jsonl.xz", bytes).err().unwrap());
        let wanted = "failed to read `a.jsonl.xz`: decompress it first: xz -dc a.jsonl.xz | faultline report -";
        assert_eq!(said(b"\xfd7zXZ\0\0\x04"), wanted);
        assert!(said(b"BZh91AY").contains("bzip2 -dc"));
    }
}
