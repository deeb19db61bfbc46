//! Ports of 127.0.0.1 that nobody uses now.

use std::net::{TcpListener, UdpSocket};

use anyhow::Result;

pub fn free_tcp<const N: usize>() -> Result<[u16; N]> {
    let bind = || {
        let socket = TcpListener::bind("127.0.0.1:0")?;
        let port = socket.local_addr()?.port();
        Ok((socket, port))
    };
    free(bind)
}

pub fn free_udp<const N: usize>() -> Result<[u16; N]> {
    let bind = || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let port = socket.local_addr()?.port();
        Ok((socket, port))
    };
    free(bind)
}

/// All are bound before any is released, so that no two are the same.
fn free<S, const N: usize>(bind: impl Fn() -> Result<(S, u16)>) -> Result<[u16; N]> {
    let mut sockets = Vec::new();
    let mut ports = [0; N];
    for place in &mut ports {
        let (socket, port) = bind()?;
        sockets.push(socket);
        *place = port;
    }
    Ok(ports)
}
