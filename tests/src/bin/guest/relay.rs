// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carries the conversations of a socket from the machine to its host: through its network inside, and on the host by this
//! same program, which the emulator starts for each of them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use superpose_tests::Invocation;

/// How much is carried at once, in bytes.
const BUFFER: usize = 64 << 10;

/// Makes a socket of this machine one of the host: whatever connects to it talks to whom the emulator has at `address`.
pub(crate) fn offer(socket: &Path, address: &str) -> Result<()> {
    let ip = |args: &[&str]| Invocation::new("ip").args(args).succeed();
    ip(&["address", "add", "10.0.2.15/24", "dev", "eth0"])?;
    ip(&["link", "set", "eth0", "up"])?;
    let listener = UnixListener::bind(socket).with_context(|| socket.display().to_string())?;
    let address = address.to_owned();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let address = address.clone();
            thread::spawn(move || {
                if let Err(error) = converse(&client, &address) {
                    println!("the conversation with {address} ended: {error}");
                }
                client.shutdown(Shutdown::Both).ok();
            });
        }
    });
    Ok(())
}

fn converse(client: &UnixStream, address: &str) -> io::Result<()> {
    let host = TcpStream::connect(address)?;
    let (mut from_client, mut to_host) = (client.try_clone()?, host.try_clone()?);
    thread::spawn(move || {
        carry(&mut from_client, &mut to_host).ok();
        to_host.shutdown(Shutdown::Write).ok();
    });
    carry(&mut &host, &mut &*client)
}

/// The host's side: what comes on standard input goes to the socket, and what that says to standard output.
pub(crate) fn serve(socket: &Path) -> Result<()> {
    // An address has room for short paths only.
    let parent = socket.parent().context("a socket in a directory")?;
    std::env::set_current_dir(parent).with_context(|| parent.display().to_string())?;
    let name = socket.file_name().context("a socket with a name")?;
    let server = UnixStream::connect(Path::new(name)).with_context(|| socket.display().to_string())?;
    let mut to_server = server.try_clone()?;
    thread::spawn(move || {
        carry(&mut io::stdin().lock(), &mut to_server).ok();
        to_server.shutdown(Shutdown::Write).ok();
    });
    carry(&mut &server, &mut io::stdout().lock())?;
    Ok(())
}

/// Carries what there is at once, and does not wait for more.
fn carry(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            read => {
                to.write_all(&buffer[..read])?;
                to.flush()?;
            }
        }
    }
}
