//! The bytes of a compressed file as a bounded stream, with progress counted on the compressed side.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::format::{Compression, HEAD, Shape, identify};

/// The most memory a decoder may use for its window, in bytes.
pub(crate) const MAX_WINDOW: u64 = 256 << 20;

/// Counts the bytes of input read so far, over all files of a job, and tells somebody now and then.
pub(crate) struct Meter {
    done: Cell<u64>,
    total: u64,
    told: Cell<Option<Instant>>,
    tell: Box<dyn Fn(u64, u64)>,
}

impl Meter {
    /// `tell` gets bytes read and `total`, at most ten times a second.
    pub fn new(total: u64, tell: impl Fn(u64, u64) + 'static) -> Meter {
        Meter { done: Cell::new(0), total, told: Cell::new(None), tell: Box::new(tell) }
    }

    /// Some more bytes were read.
    pub fn add(&self, bytes: u64) {
        self.done.set(self.done.get() + bytes);
        let now = Instant::now();
        if self.told.get().is_none_or(|last| now.duration_since(last) >= Duration::from_millis(100)) {
            self.told.set(Some(now));
            (self.tell)(self.done.get().min(self.total), self.total);
        }
    }
}

/// A file read from its start without moving its position, counting what is read.
struct Input<'a> {
    file: &'a File,
    offset: u64,
    meter: &'a Meter,
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read_at(buffer, self.offset)?;
        self.offset += got as u64;
        self.meter.add(got as u64);
        Ok(got)
    }
}

/// A stream, counting what is read.
struct Stream<'a> {
    file: File,
    meter: &'a Meter,
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read(buffer)?;
        self.meter.add(got as u64);
        Ok(got)
    }
}

/// Ends with an error once more than `left` bytes came out.
struct Bounded<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(got as u64)
            .ok_or_else(|| io::Error::other(Error::TooLarge { limit: self.limit }))?;
        Ok(got)
    }
}

/// What a decoder complains about is the image's fault.
struct Decoder<R>(R);

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|e| match e.kind() {
            // Real trouble with the disk carries the system's number.
            _ if e.raw_os_error().is_some() => e,
            io::ErrorKind::UnexpectedEof => e,
            _ => io::Error::other(Error::Archive { why: "its compressed data is wrong" }),
        })
    }
}

/// The decompressed bytes of `file`; more than `limit` of them are an error.
pub(crate) fn open<'a>(
    file: &'a File,
    compression: Compression,
    limit: u64,
    meter: &'a Meter,
) -> Result<Box<dyn Read + 'a>> {
    decode(Input { file, offset: 0, meter }, compression, limit)
}

/// The decompressed bytes of a stream that can be read once; its form is seen by its first bytes.
pub(crate) fn stream<'a>(mut file: File, limit: u64, meter: &'a Meter) -> Result<Box<dyn Read + 'a>> {
    let mut head = Vec::new();
    let most = u64::try_from(HEAD).unwrap_or(0);
    Read::by_ref(&mut file).take(most).read_to_end(&mut head).map_err(|source| Error::Read { source })?;
    if head.is_empty() {
        return Err(Error::Archive { why: Error::EARLY });
    }
    let Shape::Tarball(compression) = identify(&head)? else {
        return Err(Error::WrongFormat { found: "squashfs", wanted: "a backup" });
    };
    decode(io::Cursor::new(head).chain(Stream { file, meter }), compression, limit)
}

fn decode<'a>(input: impl Read + 'a, compression: Compression, limit: u64) -> Result<Box<dyn Read + 'a>> {
    let input = BufReader::with_capacity(256 * 1024, input);
    let read = |source| Error::Read { source };
    let decoder: Box<dyn Read + 'a> = match compression {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(Decoder(flate2::bufread::MultiGzDecoder::new(input))),
        Compression::Bzip2 => Box::new(Decoder(bzip2::bufread::MultiBzDecoder::new(input))),
        Compression::Xz => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(MAX_WINDOW, liblzma::stream::CONCATENATED)
                    .map_err(|e| read(e.into()))?;
            Box::new(Decoder(liblzma::bufread::XzDecoder::new_stream(input, stream)))
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(read)?;
            decoder.window_log_max(MAX_WINDOW.ilog2()).map_err(read)?;
            Box::new(Decoder(decoder))
        }
    };
    Ok(Box::new(BufReader::with_capacity(256 * 1024, Bounded { inner: decoder, left: limit, limit })))
}
