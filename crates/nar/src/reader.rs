// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pull parser.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::error::{Error, Malformed, Result};
use crate::format::{
    CLOSE, MAGIC, MAX_CONTENTS, MAX_DEPTH, MAX_NAME, MAX_TAG, MAX_TARGET, NODE, encoded_len, padding,
};

/// Size of the buffer in bytes. It has to hold the longest string that is returned whole (a link target).
const BUFFER: usize = 64 * 1024;

/// Encoded length of the keywords of one character.
const PARENTHESIS: u64 = CLOSE.len() as u64;
/// Encoded length of the other keywords of at most eight characters.
const KEYWORD: u64 = NODE.len() as u64;
/// What ends a node below the root: its own end and that of its entry.
const NESTED_END: u64 = 2 * PARENTHESIS;
/// The shortest node, an empty directory; its keyword is the only one of more than eight characters here.
const SHORTEST_NODE: u64 = PARENTHESIS + KEYWORD + 24 + PARENTHESIS;
/// The shortest entry behind its keyword, with a name of up to eight bytes, up to the end of its node.
const SHORTEST_ENTRY: u64 = PARENTHESIS + KEYWORD + (8 + 8) + KEYWORD + SHORTEST_NODE;

/// What a [`Reader`] finds next in an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A directory begins; entries follow, each with its node, then [`Event::EndDirectory`].
    Directory,
    /// An entry of the current directory, by its name; its node follows.
    Entry(&'a [u8]),
    /// The innermost open directory ends.
    EndDirectory,
    /// A regular file. Its contents are read with [`Reader::next_chunk`]; what is not read is skipped.
    File {
        /// Whether it is executable.
        executable: bool,
        /// The size of its contents in bytes, as the archive claims it: do not reserve memory or space by it.
        size: u64,
    },
    /// A symbolic link with its target.
    Symlink(&'a [u8]),
    /// The archive is complete and well formed. From here on the same is returned again.
    End,
}

/// The same without borrowed parts, so that the state can be set before they are lent.
enum Step {
    Directory,
    Entry,
    EndDirectory,
    File { executable: bool, size: u64 },
    Symlink(Range<usize>),
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    /// An entry was reported, its node follows.
    Node,
    /// Within a directory, before an entry or its end.
    Directory,
    /// Within the contents of a file.
    Contents,
    /// Behind the target of a link or the contents of a file, before the end of the node.
    Leaf,
    /// Behind the end of a node, before the end of its entry.
    Closed,
    End,
    Failed,
}

/// A pull parser for archives: reports one piece at a time, and checks everything that stock Nix checks.
///
/// It enforces the grammar, zero padding, the order and spelling of names, and the limits of [`crate::format`]. Memory
/// is bounded (64 KiB and at most 64 names) whatever the archive claims. Contents are lent in chunks, never gathered.
///
/// It never reads beyond the end of the archive, so that the source may go on with something else; where the source
/// is a bare file or socket that does not, a [`std::io::BufReader`] around it spares system calls.
///
/// # Deviation
/// A file that claims more than 2^63 − 1 bytes is refused at once; Nix would report a truncated archive in the end.
pub struct Reader<R> {
    input: R,
    buffer: Box<[u8]>,
    /// The unread part of the buffer.
    unread: Range<usize>,
    /// How many bytes have been taken from the source.
    fetched: u64,
    /// The archive is known to reach at least up to here; reading that far ahead takes nothing of what follows it.
    reach: u64,
    state: State,
    /// For each open directory the name of its latest entry, empty before the first. Only the first `depth` are in
    /// use; the rest keep their memory.
    names: Vec<Vec<u8>>,
    depth: usize,
    /// How much of the contents of the current file has not been lent.
    contents: u64,
    /// The padding behind them, in bytes.
    padding: usize,
}

impl<R: Read> Reader<R> {
    /// Prepares to read an archive; nothing is read yet.
    pub fn new(input: R) -> Self {
        Self {
            input,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            unread: 0..0,
            fetched: 0,
            reach: 0,
            state: State::Start,
            names: Vec::new(),
            depth: 0,
            contents: 0,
            padding: 0,
        }
    }

    /// Gives back the source. After [`Event::End`] it stands right behind the archive.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// How many bytes of the archive have been parsed.
    pub fn offset(&self) -> u64 {
        self.fetched - self.unread.len() as u64
    }

    /// Reads up to the next event. Contents that were not read are skipped.
    ///
    /// The archive has been checked completely only when [`Event::End`] has been returned.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the archive is not well formed or ends too early, [`Error::Read`] if the source fails.
    /// After an error every further call fails too.
    pub fn next_event(&mut self) -> Result<Event<'_>> {
        match self.step() {
            Ok(step) => Ok(match step {
                Step::Directory => Event::Directory,
                Step::Entry => Event::Entry(self.names[..self.depth].last().map_or(&[], Vec::as_slice)),
                Step::EndDirectory => Event::EndDirectory,
                Step::File { executable, size } => Event::File { executable, size },
                Step::Symlink(target) => Event::Symlink(&self.buffer[target]),
                Step::End => Event::End,
            }),
            Err(error) => {
                self.state = State::Failed;
                Err(error)
            }
        }
    }

    /// Reads the next piece of the contents of the current file; empty at their end, and when no file is current.
    ///
    /// # Errors
    /// As [`Reader::next_event`].
    pub fn next_chunk(&mut self) -> Result<&[u8]> {
        if self.state != State::Contents || self.contents == 0 {
            return Ok(&[]);
        }
        if self.unread.is_empty()
            && let Err(error) = self.fetch(1)
        {
            self.state = State::Failed;
            return Err(error);
        }
        let length = usize::try_from(self.contents)
            .unwrap_or(usize::MAX)
            .min(self.unread.len());
        self.contents -= length as u64;
        let chunk = self.take(length);
        Ok(&self.buffer[chunk])
    }

    fn step(&mut self) -> Result<Step> {
        if self.state == State::Contents {
            while !self.next_chunk()?.is_empty() {}
            let padding = self.padding;
            self.zeros(padding)?;
            self.state = State::Leaf;
        }
        if self.state == State::Leaf {
            self.keyword(")")?;
            self.state = State::Closed;
        }
        if self.state == State::Closed {
            self.state = if self.depth > 0 {
                self.keyword(")")?;
                State::Directory
            } else {
                State::End
            };
        }
        match self.state {
            State::Start => {
                self.expect_more(MAGIC.len() as u64 + SHORTEST_NODE);
                self.keyword(MAGIC)?;
                self.node()
            }
            State::Node => self.node(),
            State::Directory => self.entry(),
            State::End => Ok(Step::End),
            State::Contents | State::Leaf | State::Closed | State::Failed => {
                Err(self.malformed(Malformed::AfterError))
            }
        }
    }

    fn node(&mut self) -> Result<Step> {
        if self.depth >= MAX_DEPTH {
            return Err(self.malformed(Malformed::TooDeep));
        }
        self.expect_more(SHORTEST_NODE);
        self.keyword("(")?;
        self.keyword("type")?;
        match self.one_of(
            "`regular`, `symlink` or `directory`",
            &["regular", "symlink", "directory"],
        )? {
            0 => self.file(),
            1 => self.symlink(),
            _ => {
                if self.names.len() == self.depth {
                    self.names.push(Vec::new());
                }
                self.names[self.depth].clear();
                self.depth += 1;
                self.state = State::Directory;
                Ok(Step::Directory)
            }
        }
    }

    fn file(&mut self) -> Result<Step> {
        self.expect_more(KEYWORD + 8 + PARENTHESIS);
        let executable = self.one_of("`executable` or `contents`", &["executable", "contents"])? == 0;
        if executable {
            self.expect_more(8 + KEYWORD + 8 + PARENTHESIS);
            let length = self.number()?;
            if length != 0 {
                return Err(self.malformed(Malformed::ExecutableValue { length }));
            }
            self.keyword("contents")?;
        }
        let size = self.number()?;
        if size > MAX_CONTENTS {
            return Err(self.malformed(Malformed::ContentsLength { length: size }));
        }
        self.contents = size;
        self.padding = padding(size);
        self.expect_more(size + self.padding as u64 + PARENTHESIS);
        self.state = State::Contents;
        Ok(Step::File { executable, size })
    }

    fn symlink(&mut self) -> Result<Step> {
        self.expect_more(KEYWORD + 8 + 8 + PARENTHESIS);
        self.keyword("target")?;
        let length = self.number()?;
        let target = match usize::try_from(length) {
            Ok(short @ 1..=MAX_TARGET) => self.string(short)?,
            _ => return Err(self.malformed(Malformed::TargetLength { length })),
        };
        if self.buffer[target.clone()].contains(&0) {
            return Err(self.malformed(Malformed::TargetNul));
        }
        self.state = State::Leaf;
        Ok(Step::Symlink(target))
    }

    fn entry(&mut self) -> Result<Step> {
        // No entry of this directory is open, so that of the ends around one only the directory's own is due.
        self.reach_to(self.ends() - PARENTHESIS);
        if self.one_of("`entry` or `)`", &["entry", ")"])? == 1 {
            self.depth -= 1;
            self.state = State::Closed;
            return Ok(Step::EndDirectory);
        }
        self.expect_more(SHORTEST_ENTRY);
        self.keyword("(")?;
        self.keyword("name")?;
        let length = self.number()?;
        let name = match usize::try_from(length) {
            Ok(short @ 1..=MAX_NAME) => self.string(short)?,
            _ => return Err(self.malformed(Malformed::NameLength { length })),
        };
        let name = &self.buffer[name];
        let previous = &mut self.names[self.depth - 1];
        let problem = if name == b"." || name == b".." || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
            Some(Malformed::Name { name: escape(name) })
        } else if !previous.is_empty() && name <= previous.as_slice() {
            Some(Malformed::Order {
                previous: escape(previous),
                name: escape(name),
            })
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(self.malformed(problem));
        }
        previous.clear();
        previous.extend_from_slice(name);
        self.keyword("node")?;
        self.state = State::Node;
        Ok(Step::Entry)
    }

    /// The ends of all open directories, and of their open entries.
    fn ends(&self) -> u64 {
        NESTED_END * self.depth as u64
    }

    /// Notes that the node at hand goes on for at least this many bytes, behind which all open nodes have to end.
    fn expect_more(&mut self, bytes: u64) {
        self.reach_to(bytes.saturating_add(self.ends()));
    }

    fn reach_to(&mut self, bytes: u64) {
        self.reach = self.reach.max(self.offset().saturating_add(bytes));
    }

    fn keyword(&mut self, word: &'static str) -> Result<()> {
        self.one_of(word, &[word]).map(drop)
    }

    /// Reads a keyword and gives its place in the list.
    fn one_of(&mut self, expected: &'static str, words: &[&str]) -> Result<usize> {
        let length = self.number()?;
        let found = match usize::try_from(length) {
            Ok(short @ ..=MAX_TAG) => self.string(short)?,
            _ => return Err(self.malformed(Malformed::KeywordLength { expected, length })),
        };
        let found = &self.buffer[found];
        match words.iter().position(|word| word.as_bytes() == found) {
            Some(place) => Ok(place),
            None => {
                let found = escape(found);
                Err(self.malformed(Malformed::Keyword { expected, found }))
            }
        }
    }

    fn number(&mut self) -> Result<u64> {
        self.fetch(8)?;
        let bytes = self.take(8);
        let mut number = [0; 8];
        number.copy_from_slice(&self.buffer[bytes]);
        Ok(u64::from_le_bytes(number))
    }

    /// Reads a short string and its padding; gives its place in the buffer.
    fn string(&mut self, length: usize) -> Result<Range<usize>> {
        let padding = padding(length as u64);
        self.fetch(length + padding)?;
        let string = self.take(length);
        self.zeros(padding)?;
        Ok(string)
    }

    fn zeros(&mut self, count: usize) -> Result<()> {
        self.fetch(count)?;
        let zeros = self.take(count);
        if self.buffer[zeros].iter().any(|byte| *byte != 0) {
            return Err(self.malformed(Malformed::Padding));
        }
        Ok(())
    }

    /// Marks bytes of the buffer as read; they have to be there.
    fn take(&mut self, length: usize) -> Range<usize> {
        let taken = self.unread.start..self.unread.start + length;
        self.unread.start = taken.end;
        taken
    }

    /// Makes at least `least` bytes available, and as many more as are known to belong to the archive.
    fn fetch(&mut self, least: usize) -> Result<()> {
        debug_assert!(
            least <= encoded_len(MAX_TARGET),
            "strings of this length do not fit the buffer"
        );
        if self.unread.len() >= least {
            return Ok(());
        }
        if self.unread.is_empty() {
            self.unread = 0..0;
        } else if self.buffer.len() - self.unread.start < least {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        self.reach = self.reach.max(self.offset().saturating_add(least as u64));
        while self.unread.len() < least {
            let ahead = usize::try_from(self.reach - self.fetched).unwrap_or(usize::MAX);
            let room = &mut self.buffer[self.unread.end..];
            let room_length = room.len().min(ahead);
            match self.input.read(&mut room[..room_length]) {
                Ok(0) => return Err(self.malformed(Malformed::UnexpectedEnd)),
                Ok(read) => {
                    // A reader that claims more than it was offered must not lead outside the buffer.
                    let read = read.min(room_length);
                    self.unread.end += read;
                    self.fetched += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Error::Read {
                        offset: self.fetched,
                        source,
                    });
                }
            }
        }
        Ok(())
    }

    fn malformed(&self, problem: Malformed) -> Error {
        // Between two entries the node at hand is the directory itself.
        let depth = match self.state {
            State::Directory => self.depth.saturating_sub(1),
            _ => self.depth,
        };
        let path = self.names[..depth]
            .iter()
            .map(|name| OsStr::from_bytes(name))
            .collect::<PathBuf>();
        Error::Malformed {
            offset: self.offset(),
            path,
            problem,
        }
    }
}

impl<R> fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("fetched", &self.fetched)
            .field("state", &self.state)
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
